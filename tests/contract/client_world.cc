#include "tests/contract/client_world.h"

#include <utility>

namespace longhaul {
namespace {

class FarCall final : public WorkerCall {
 public:
  explicit FarCall(std::shared_ptr<FarStream> stream) : stream_(std::move(stream)) {}
  ~FarCall() override { stream_->dropped = true; }

 private:
  const std::shared_ptr<FarStream> stream_;
};

class FarPrefillCall final : public PrefillCall {
 public:
  explicit FarPrefillCall(std::shared_ptr<FarStream> stream) : stream_(std::move(stream)) {}
  ~FarPrefillCall() override { stream_->dropped = true; }
  void Grant(int chunks) override { stream_->grants.push_back(chunks); }

 private:
  const std::shared_ptr<FarStream> stream_;
};

class NearCall final : public NearStream {
 public:
  explicit NearCall(std::unique_ptr<WorkerCall> call) : call_(std::move(call)) {}
  void Grant(int) override {}

 private:
  const std::unique_ptr<WorkerCall> call_;
};

class NearPrefillCall final : public NearStream {
 public:
  explicit NearPrefillCall(std::unique_ptr<PrefillCall> call) : call_(std::move(call)) {}
  void Grant(int chunks) override { call_->Grant(chunks); }

 private:
  const std::unique_ptr<PrefillCall> call_;
};

// `make(word)`: the event that carries a word.
template <typename OnEvent, typename OnDone, typename Make>
std::shared_ptr<FarStream> NewStream(int number, OnEvent on_event, OnDone done, Make make) {
  auto stream = std::make_shared<FarStream>();
  stream->number = number;
  stream->say = [event = std::make_shared<OnEvent>(std::move(on_event)), make](int word) {
    (*event)(make(word));
  };
  stream->end = [end = std::make_shared<OnDone>(std::move(done))](absl::Status status) {
    (*end)(std::move(status));
  };
  return stream;
}

}  // namespace

std::unique_ptr<WorkerCall> GenerateDoor::Worker::Generate(GenerateRequest request,
                                                           OnEvent on_event, OnDone done) {
  streams.push_back(
      NewStream(request.tokens(0), std::move(on_event), std::move(done), [](int word) {
        GenerateEvent event;
        event.add_tokens()->set_token(word);
        return event;
      }));
  return std::make_unique<FarCall>(streams.back());
}

std::unique_ptr<NearStream> GenerateDoor::Open(WorkerClient& client, int number, OnWord on_word,
                                               OnEnd on_end) {
  GenerateRequest request;
  request.add_tokens(number);
  return std::make_unique<NearCall>(client.Generate(
      std::move(request),
      [on_word = std::move(on_word)](GenerateEvent event) mutable {
        on_word(event.tokens(0).token());
      },
      std::move(on_end)));
}

std::unique_ptr<WorkerCall> StatusDoor::Worker::WatchStatus(int64_t period_us, OnStatus on_status,
                                                            OnDone done) {
  streams.push_back(
      NewStream(static_cast<int>(period_us), std::move(on_status), std::move(done), [](int word) {
        WorkerStatus status;
        status.set_blocks_live(word);
        return status;
      }));
  return std::make_unique<FarCall>(streams.back());
}

std::unique_ptr<NearStream> StatusDoor::Open(StatusClient& client, int number, OnWord on_word,
                                             OnEnd on_end) {
  return std::make_unique<NearCall>(client.WatchStatus(
      number,
      [on_word = std::move(on_word)](WorkerStatus status) mutable {
        on_word(static_cast<int>(status.blocks_live()));
      },
      std::move(on_end)));
}

std::unique_ptr<PrefillCall> PrefillDoor::Worker::Prefill(PrefillCommand::Open open,
                                                          OnPrefillEvent on_event,
                                                          OnPrefillDone done) {
  streams.push_back(NewStream(open.tokens(0), std::move(on_event), std::move(done), [](int word) {
    PrefillEvent event;
    event.mutable_chunk_sent()->set_chunk(word);
    return event;
  }));
  return std::make_unique<FarPrefillCall>(streams.back());
}

std::unique_ptr<NearStream> PrefillDoor::Open(PrefillClient& client, const std::string& address,
                                              int number, OnWord on_word, OnEnd on_end) {
  PrefillCommand::Open open;
  open.add_tokens(number);
  return std::make_unique<NearPrefillCall>(client.Prefill(
      address, std::move(open),
      [on_word = std::move(on_word)](PrefillEvent event) mutable {
        on_word(event.chunk_sent().chunk());
      },
      std::move(on_end)));
}

}  // namespace longhaul
