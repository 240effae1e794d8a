#include "common/http/edge.h"

#include <pthread.h>

#include <boost/asio/post.hpp>
#include <utility>

namespace longhaul {

Edge::Edge(std::string name)
    : io_(std::make_unique<boost::asio::io_context>(1)), work_(io_->get_executor()) {
  thread_ = std::thread([io = io_.get(), name = std::move(name)] {
    pthread_setname_np(pthread_self(), name.c_str());
    io->run();
  });
}

Edge::~Edge() { Stop(); }

void Edge::Post(absl::AnyInvocable<void()> task) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (io_ != nullptr) boost::asio::post(*io_, std::move(task));
}

void Edge::Stop() {
  if (!thread_.joinable()) return;
  work_.reset();
  io_->stop();
  thread_.join();
  std::unique_ptr<boost::asio::io_context> io;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    io = std::move(io_);
  }
  // Destroyed outside the lock: tasks may hold exchanges, whose destructors post.
}

}  // namespace longhaul
