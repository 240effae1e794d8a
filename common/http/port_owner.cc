#include "common/http/port_owner.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace longhaul {
namespace {

// Socket inodes that listen on `port`, from /proc/net/tcp{,6}: columns sl, local address, remote
// address, state (0A is listening), queues, timer, retransmits, uid, timeout, inode.
absl::flat_hash_set<std::string> ListeningInodes(int port) {
  absl::flat_hash_set<std::string> inodes;
  const std::string suffix = absl::StrFormat(":%04X", port);
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream lines(table);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream columns(line);
      std::string slot, local, remote, state, queues, timer, retransmits, uid, timeout, inode;
      columns >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> uid >>
          timeout >> inode;
      if (state == "0A" && absl::EndsWith(local, suffix)) inodes.insert(inode);
    }
  }
  return inodes;
}

}  // namespace

std::string PortOwner(int port) {
  namespace fs = std::filesystem;
  const absl::flat_hash_set<std::string> inodes = ListeningInodes(port);
  std::error_code error;
  for (fs::directory_iterator process("/proc", error), end; !error && process != end;
       process.increment(error)) {
    const std::string pid = process->path().filename().string();
    int number = 0;
    if (!absl::SimpleAtoi(pid, &number)) continue;
    std::error_code unreadable;  // another user's, or gone by now
    fs::directory_iterator fd(process->path() / "fd", unreadable);
    for (; !unreadable && fd != end; fd.increment(unreadable)) {
      std::error_code closed;
      const std::string target = fs::read_symlink(fd->path(), closed).string();
      if (closed || !absl::StartsWith(target, "socket:[")) continue;
      if (!inodes.contains(target.substr(8, target.size() - 9))) continue;
      std::string name;
      std::ifstream(process->path() / "comm") >> name;
      return absl::StrCat("process ", pid, " (", name, ")");
    }
  }
  return "another process";
}

}  // namespace longhaul
