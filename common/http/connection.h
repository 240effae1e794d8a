// Connection: one client's TCP connection, from accept to close. It lives on one edge thread and is
// kept alive by its coroutines. Internal to common/http.
//
// One coroutine reads for the connection's whole life: into the parser while a request is awaited,
// into the inbox while an answer is computed (which is how a vanished client is noticed), into
// nothing while closing. Another flushes the queue of answer bytes whenever there are any. One
// timer serves all timeouts: it is re-armed only when it fires before the deadline that holds then,
// so that a token costs no timer operation.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/strings/string_view.h"
#include "common/http/edge.h"
#include "common/http/exchange.h"
#include "common/http/request_parser.h"

namespace longhaul {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // `on_closed` runs once, on the edge thread.
  Connection(ServerState* server, std::shared_ptr<Edge> edge, boost::asio::ip::tcp::socket socket,
             absl::AnyInvocable<void()> on_closed);
  ~Connection();

  void Serve();
  // Answers 503 to a connection beyond connections_max.
  void TurnAway();
  // Closes if idle; else the connection closes after the answer at hand.
  void Drain();
  // Closes at once; a running exchange's client counts as gone.
  void CutOff();

  // From exchange `number`; ignored unless it is the one at hand.
  void Send(uint64_t number, std::string bytes, AnswerEnd end);
  void DropSlowReader(uint64_t number, int64_t queued_bytes);
  // Takes `gone` when the exchange is still running; false leaves it with the caller.
  bool WatchClient(uint64_t number, absl::AnyInvocable<void()>& gone);

 private:
  using Clock = std::chrono::steady_clock;
  enum class State {
    kReading,    // waiting for a whole request
    kAnswering,  // an exchange is running or its answer is being flushed
    kRefusing,   // an error answer is being flushed
    kLingering,  // our side is shut; waiting for the client to close
    kClosed,
  };
  struct Piece {
    std::string bytes;
    bool counted = false;  // in the exchange's queued_bytes
  };

  boost::asio::awaitable<void> ReadLoop();
  boost::asio::awaitable<void> FlushLoop();
  void Enqueue(std::string bytes, bool counted);
  void Consume(int64_t bytes);
  void OnBytes(absl::string_view bytes);
  void OnReadEnd(bool reset);
  void OnFlushed();
  void OnDeadline();
  void BeginExchange();
  // Tells the server how much of an unfinished body is held here; false when that is too much.
  bool HoldBody(int64_t bytes);
  void NextRequest();
  void Refuse(const HttpRefusal& refusal);
  void Linger();
  void ClientGone(bool reset);
  void Close(bool reset);
  void SetDeadline(int64_t from_now_us);
  void ClearDeadline() { deadline_ = Clock::time_point::max(); }
  void ArmTimer();
  int64_t InboxRoom() const;

  ServerState* const server_;
  const std::shared_ptr<Edge> edge_;
  boost::asio::ip::tcp::socket socket_;
  absl::AnyInvocable<void()> on_closed_;
  std::string peer_;

  State state_ = State::kReading;
  RequestParser parser_;
  int64_t body_held_ = 0;           // of parser_, as counted in the server's body_bytes
  std::string inbox_;               // pipelined bytes; empty in kReading
  boost::asio::steady_timer wake_;  // never expires: cancelled when the inbox has room again
  bool read_ended_ = false;

  uint64_t exchange_number_ = 0;
  std::shared_ptr<Flow> flow_;
  absl::AnyInvocable<void()> gone_;
  bool keep_alive_ = true;
  AnswerEnd answer_end_ = AnswerEnd::kNone;

  std::deque<Piece> queue_;
  int64_t sent_of_front_ = 0;
  bool flushing_ = false;

  boost::asio::steady_timer timer_;
  bool timer_armed_ = false;
  Clock::time_point deadline_ = Clock::time_point::max();
};

}  // namespace longhaul
