#include "common/http/connection.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"

namespace longhaul {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
// A server that is stopping does not wait for clients to close first.
constexpr int64_t kDrainLingerUs = 100'000;
constexpr int kGatherPieces = 16;

// Coroutines report errors by value; what is thrown is a bug or no memory.
void OnCoroutineEnd(std::exception_ptr thrown) {
  LH_CHECK(thrown == nullptr, "an exception left a connection's coroutine");
}

std::string PeerName(const asio::ip::tcp::socket& socket) {
  error_code error;
  const auto peer = socket.remote_endpoint(error);
  if (error) return "unknown";
  const std::string address = peer.address().to_string();
  return peer.address().is_v6() ? absl::StrCat("[", address, "]:", peer.port())
                                : absl::StrCat(address, ":", peer.port());
}

}  // namespace

Connection::Connection(ServerState* server, std::shared_ptr<Edge> edge,
                       asio::ip::tcp::socket socket, absl::AnyInvocable<void()> on_closed)
    : server_(server),
      edge_(std::move(edge)),
      socket_(std::move(socket)),
      on_closed_(std::move(on_closed)),
      peer_(PeerName(socket_)),
      parser_(server->options.limits),
      wake_(edge_->io(), Clock::time_point::max()),
      timer_(edge_->io()) {
  error_code ignored;  // a socket that its client has reset already refuses options
  socket_.non_blocking(true, ignored);
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.set_option(
      asio::socket_base::send_buffer_size(static_cast<int>(server->options.socket_send_bytes)),
      ignored);
  // A peer whose host died sends neither FIN nor RST; the kernel's probes find it.
  socket_.set_option(asio::socket_base::keep_alive(true), ignored);
  const int probe_s = 30;
  setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_KEEPIDLE, &probe_s, sizeof(probe_s));
  setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_KEEPINTVL, &probe_s, sizeof(probe_s));
  edge_->connections.insert(this);
}

Connection::~Connection() { Close(/*reset=*/false); }

void Connection::Serve() {
  SetDeadline(server_->options.idle_timeout_us);
  co_spawn(edge_->io(), ReadLoop(), OnCoroutineEnd);
}

void Connection::TurnAway() {
  server_->connections_refused_total += 1;
  Refuse({503, "too_many_connections",
          absl::StrCat("The server has its maximum of ", server_->options.connections_max,
                       " connections open. Retry in a moment, or raise the limit.")});
  co_spawn(edge_->io(), ReadLoop(), OnCoroutineEnd);
}

void Connection::Drain() {
  if (state_ == State::kReading && parser_.idle()) {
    Close(/*reset=*/false);
  } else if (state_ == State::kLingering) {
    SetDeadline(kDrainLingerUs);
  }
}

void Connection::CutOff() {
  if (state_ == State::kAnswering) {
    ClientGone(/*reset=*/true);
  } else {
    Close(/*reset=*/false);
  }
}

// ---- reading ----

int64_t Connection::InboxRoom() const {
  if (state_ != State::kAnswering) return static_cast<int64_t>(edge_->read_buffer.size());
  return server_->options.pipelined_bytes_max - static_cast<int64_t>(inbox_.size());
}

asio::awaitable<void> Connection::ReadLoop() {
  const auto self = shared_from_this();
  while (state_ != State::kClosed) {
    if (InboxRoom() <= 0) {
      co_await wake_.async_wait(kAwait);
      continue;
    }
    co_await socket_.async_wait(asio::ip::tcp::socket::wait_read, kAwait);
    if (state_ == State::kClosed) break;
    const int64_t room =
        std::min<int64_t>(InboxRoom(), static_cast<int64_t>(edge_->read_buffer.size()));
    if (room <= 0) continue;
    error_code error;
    const size_t read = socket_.read_some(asio::buffer(edge_->read_buffer.data(), room), error);
    if (error == asio::error::would_block || error == asio::error::interrupted) continue;
    if (error) {
      OnReadEnd(/*reset=*/error != asio::error::eof);
      break;
    }
    OnBytes(absl::string_view(edge_->read_buffer.data(), read));
  }
}

void Connection::OnBytes(absl::string_view bytes) {
  if (state_ == State::kReading) {
    const bool was_idle = parser_.idle();
    const bool was_head = parser_.state() == RequestParser::State::kHead;
    bytes.remove_prefix(parser_.Feed(bytes));
    const RequestParser::State state = parser_.state();
    if (!HoldBody(state == RequestParser::State::kBody ? parser_.body_bytes() : 0)) {
      Refuse(
          {503, "too_many_bodies",
           absl::StrCat("Requests that are still arriving exceed ",
                        server_->options.bodies_bytes_max, " bytes in all. Retry in a moment.")});
      return;
    }
    switch (state) {
      case RequestParser::State::kHead:
        if (was_idle && !parser_.idle()) SetDeadline(server_->options.header_timeout_us);
        break;
      case RequestParser::State::kBody:
        if (was_head) {
          SetDeadline(server_->options.body_timeout_us);
          if (parser_.expects_continue()) Enqueue("HTTP/1.1 100 Continue\r\n\r\n", false);
        }
        break;
      case RequestParser::State::kDone:
        BeginExchange();
        break;
      case RequestParser::State::kRefused:
        Refuse(parser_.refusal());
        break;
    }
  }
  if (state_ == State::kAnswering) inbox_.append(bytes.data(), bytes.size());
}

void Connection::OnReadEnd(bool reset) {
  read_ended_ = true;
  switch (state_) {
    case State::kAnswering:
      if (answer_end_ == AnswerEnd::kNone) {
        ClientGone(/*reset=*/false);
      } else if (reset) {
        Close(/*reset=*/false);
      } else {
        keep_alive_ = false;  // a half-closed client still gets the rest of its answer
      }
      break;
    case State::kRefusing:
      if (reset) Close(/*reset=*/false);
      break;
    case State::kReading:
    case State::kLingering:
    case State::kClosed:
      Close(/*reset=*/false);
      break;
  }
}

bool Connection::HoldBody(int64_t bytes) {
  const int64_t more = bytes - body_held_;
  body_held_ = bytes;
  const int64_t all = server_->body_bytes += more;
  return more <= 0 || all <= server_->options.bodies_bytes_max;
}

// ---- exchanges ----

void Connection::BeginExchange() {
  state_ = State::kAnswering;
  ClearDeadline();
  answer_end_ = AnswerEnd::kNone;
  keep_alive_ = parser_.keep_alive();
  flow_ = std::make_shared<Flow>();
  Exchange::Facts facts;
  facts.version_minor = parser_.version_minor();
  facts.keep_alive = keep_alive_;
  HttpRequest request = parser_.TakeRequest();
  request.peer = peer_;
  request.request_id = ChooseRequestId(request.headers);
  facts.method = request.method;
  facts.request_id = request.request_id;
  server_->requests_total += 1;
  auto exchange =
      std::make_shared<Exchange>(edge_, weak_from_this(), ++exchange_number_, flow_,
                                 std::move(facts), server_->options.stream_queue_bytes_max);
  server_->handler->Handle(std::move(request), std::move(exchange));
}

void Connection::Send(uint64_t number, std::string bytes, AnswerEnd end) {
  if (number != exchange_number_ || state_ != State::kAnswering) return;
  if (end != AnswerEnd::kNone) {
    answer_end_ = end;
    gone_ = nullptr;
  }
  Enqueue(std::move(bytes), /*counted=*/true);
}

bool Connection::WatchClient(uint64_t number, absl::AnyInvocable<void()>& gone) {
  if (number != exchange_number_ || state_ != State::kAnswering) return false;
  if (answer_end_ == AnswerEnd::kNone) gone_ = std::move(gone);
  return true;
}

void Connection::DropSlowReader(uint64_t number, int64_t queued_bytes) {
  if (number != exchange_number_ || state_ != State::kAnswering) return;
  LogWarning("http slow reader dropped",
             {{"peer", peer_},
              {"queued_bytes", queued_bytes},
              {"queued_bytes_max", server_->options.stream_queue_bytes_max}});
  server_->slow_readers_total += 1;
  ClientGone(/*reset=*/true);
}

void Connection::ClientGone(bool reset) {
  if (answer_end_ == AnswerEnd::kNone) {
    server_->clients_gone_total += 1;
    flow_->gone = true;
  }
  absl::AnyInvocable<void()> gone = std::move(gone_);
  gone_ = nullptr;
  Close(reset);
  if (gone) gone();
}

void Connection::NextRequest() {
  state_ = State::kReading;
  flow_ = nullptr;
  SetDeadline(server_->options.idle_timeout_us);
  const std::string pipelined = std::exchange(inbox_, {});
  if (!pipelined.empty()) OnBytes(pipelined);
  wake_.cancel();
}

void Connection::Refuse(const HttpRefusal& refusal) {
  state_ = State::kRefusing;
  server_->requests_refused_total += 1;
  // Not the message: it quotes the request, which may hold a prompt or a key.
  LogInfo("http request refused",
          {{"peer", peer_}, {"status", refusal.status}, {"code", refusal.code}});
  const std::string body = HttpErrorBody(refusal.status, refusal.code, refusal.message);
  ResponseFacts facts;
  facts.status = refusal.status;
  facts.content_length = static_cast<int64_t>(body.size());
  facts.close = true;
  HttpHeaders headers = {{"content-type", "application/json"}};
  if (refusal.status == 503) headers.Add("retry-after", "1");
  std::string answer = ResponseHead(facts, headers);
  if (HasBody(parser_.method(), refusal.status)) answer += body;
  Enqueue(std::move(answer), /*counted=*/false);
}

// ---- writing ----

void Connection::Enqueue(std::string bytes, bool counted) {
  queue_.push_back({std::move(bytes), counted});
  if (flushing_) return;
  flushing_ = true;
  co_spawn(edge_->io(), FlushLoop(), OnCoroutineEnd);
}

asio::awaitable<void> Connection::FlushLoop() {
  const auto self = shared_from_this();
  // An empty piece carries only an answer's end and would make an empty write.
  Consume(0);
  while (!queue_.empty() && state_ != State::kClosed) {
    std::array<asio::const_buffer, kGatherPieces> pieces;
    const int count = static_cast<int>(std::min<size_t>(kGatherPieces, queue_.size()));
    for (int i = 0; i < count; ++i) pieces[i] = asio::buffer(queue_[i].bytes);
    pieces[0] += sent_of_front_;
    const bool reading = state_ == State::kReading;  // its own deadline holds on
    if (!reading) SetDeadline(server_->options.write_timeout_us);
    const auto [error, written] = co_await socket_.async_write_some(pieces, kAwait);
    if (state_ == State::kClosed) break;
    if (error) {
      ClientGone(/*reset=*/false);
      break;
    }
    if (!reading && state_ != State::kReading) ClearDeadline();
    Consume(static_cast<int64_t>(written));
  }
  flushing_ = false;
  if (state_ != State::kClosed) OnFlushed();
}

void Connection::Consume(int64_t bytes) {
  while (!queue_.empty()) {
    const Piece& front = queue_.front();
    const int64_t left = static_cast<int64_t>(front.bytes.size()) - sent_of_front_;
    const int64_t taken = std::min(left, bytes);
    if (front.counted) flow_->queued_bytes -= taken;
    bytes -= taken;
    if (taken < left) {
      sent_of_front_ += taken;
      return;
    }
    sent_of_front_ = 0;
    queue_.pop_front();
  }
}

void Connection::OnFlushed() {
  if (state_ == State::kRefusing) {
    Linger();
  } else if (state_ == State::kAnswering && answer_end_ != AnswerEnd::kNone) {
    if (answer_end_ == AnswerEnd::kWhole && keep_alive_ && !edge_->draining) {
      NextRequest();
    } else {
      Linger();
    }
  }
}

// ---- closing ----

// A close with unread bytes in the kernel makes it reset the connection, and the reset may overtake
// the answer; so our side is shut and the client's bytes are read away first (RFC 9112, 9.6).
void Connection::Linger() {
  flow_ = nullptr;
  if (read_ended_) {
    Close(/*reset=*/false);
    return;
  }
  state_ = State::kLingering;
  inbox_.clear();
  parser_ = RequestParser(server_->options.limits);
  HoldBody(0);
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  SetDeadline(edge_->draining ? std::min(kDrainLingerUs, server_->options.linger_us)
                              : server_->options.linger_us);
  wake_.cancel();
}

void Connection::Close(bool reset) {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  if (flow_ != nullptr) flow_->open = false;
  gone_ = nullptr;
  HoldBody(0);
  error_code ignored;
  // A reset frees the kernel's send buffer at once; a close would keep it for a dead reader.
  if (reset) socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  socket_.close(ignored);
  timer_.cancel();
  wake_.cancel();
  edge_->connections.erase(this);
  on_closed_();
}

// ---- time ----

void Connection::SetDeadline(int64_t from_now_us) {
  deadline_ = Clock::now() + std::chrono::microseconds(from_now_us);
  if (!timer_armed_ || timer_.expiry() > deadline_) ArmTimer();
}

void Connection::ArmTimer() {
  timer_armed_ = true;
  timer_.expires_at(deadline_);
  timer_.async_wait([weak = weak_from_this()](error_code error) {
    const auto self = weak.lock();
    if (self == nullptr || error || self->state_ == State::kClosed) return;
    self->timer_armed_ = false;
    if (self->deadline_ == Clock::time_point::max()) return;
    if (Clock::now() >= self->deadline_) {
      self->OnDeadline();
    } else {
      self->ArmTimer();
    }
  });
}

void Connection::OnDeadline() {
  switch (state_) {
    case State::kReading:
      if (parser_.idle()) {
        Close(/*reset=*/false);
      } else {
        Refuse({408, "request_timeout",
                absl::StrCat("The request did not arrive whole within ",
                             (parser_.state() == RequestParser::State::kHead
                                  ? server_->options.header_timeout_us
                                  : server_->options.body_timeout_us) /
                                 1000,
                             " ms.")});
      }
      break;
    case State::kAnswering:
      LogWarning("http stalled reader dropped",
                 {{"peer", peer_}, {"write_timeout_us", server_->options.write_timeout_us}});
      server_->slow_readers_total += 1;
      ClientGone(/*reset=*/true);
      break;
    case State::kRefusing:
    case State::kLingering:
      Close(/*reset=*/true);
      break;
    case State::kClosed:
      break;
  }
}

}  // namespace longhaul
