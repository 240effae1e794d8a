#include "kv_transfer/ucx/ucx_address.h"

#include <unistd.h>

#include <climits>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/hash.h"

namespace longhaul {
namespace {

// Little-endian on every platform that UCX's shared memory and RDMA paths connect with each other.
struct Header {
  char magic[8];
  uint64_t link_id;
  uint64_t host_id;
  uint64_t started_ticks;
  uint64_t segment_bytes_max;
  uint32_t pid;
  uint32_t worker_bytes;
};
constexpr char kMagic[8] = {'L', 'H', 'U', 'C', 'X', '0', '0', '2'};
constexpr size_t kChecksumBytes = sizeof(uint64_t);

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Target(const char* link) {
  char target[PATH_MAX];
  const ssize_t bytes = readlink(link, target, sizeof(target));
  return bytes < 0 ? std::string("unknown") : std::string(target, bytes);
}

// Field 22 of /proc/PID/stat; the second field is a name in brackets that may hold spaces. 0: no
// such process.
uint64_t StartedTicks(uint32_t pid) {
  const std::string stat = ReadText(absl::StrCat("/proc/", pid, "/stat"));
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return 0;
  const std::vector<std::string> fields = absl::StrSplit(stat.substr(name_end + 2), ' ');
  uint64_t ticks = 0;
  return fields.size() > 19 && absl::SimpleAtoi(fields[19], &ticks) ? ticks : 0;
}

}  // namespace

std::string EncodeUcxAddress(const UcxAddress& address) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.link_id = address.link_id;
  header.host_id = address.host_id;
  header.started_ticks = address.started_ticks;
  header.segment_bytes_max = address.segment_bytes_max;
  header.pid = address.pid;
  header.worker_bytes = static_cast<uint32_t>(address.worker.size());
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  bytes += address.worker;
  const uint64_t checksum = Hash64Of(bytes);
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  return bytes;
}

absl::StatusOr<UcxAddress> DecodeUcxAddress(const std::string& bytes) {
  Header header;
  if (bytes.size() < sizeof(header) + kChecksumBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("these ", bytes.size(), " bytes are too few for a UCX link address"));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  constexpr size_t kNameBytes = 5;  // the rest of the magic is the version
  if (std::memcmp(header.magic, kMagic, kNameBytes) != 0) {
    return absl::InvalidArgumentError("these bytes are no UCX link address");
  }
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
    return absl::InvalidArgumentError(
        "this UCX link address is of another version: run the same release on both workers");
  }
  const size_t body_bytes = bytes.size() - kChecksumBytes;
  uint64_t checksum = 0;
  std::memcpy(&checksum, bytes.data() + body_bytes, kChecksumBytes);
  if (body_bytes != sizeof(header) + header.worker_bytes ||
      checksum != Hash64Of(bytes.data(), body_bytes)) {
    return absl::InvalidArgumentError("this UCX link address is damaged");
  }
  UcxAddress address;
  address.link_id = header.link_id;
  address.host_id = header.host_id;
  address.started_ticks = header.started_ticks;
  address.segment_bytes_max = header.segment_bytes_max;
  address.pid = header.pid;
  address.worker = bytes.substr(sizeof(header), header.worker_bytes);
  return address;
}

UcxAddress ThisProcess() {
  UcxAddress address;
  address.host_id = Hash64Of(absl::StrCat(ReadText("/proc/sys/kernel/random/boot_id"),
                                          Target("/proc/self/ns/pid"), Target("/proc/self/ns/ipc"),
                                          Target("/proc/self/ns/user")));
  address.pid = static_cast<uint32_t>(getpid());
  address.started_ticks = StartedTicks(address.pid);
  return address;
}

bool StillRuns(const UcxAddress& address) {
  return StartedTicks(address.pid) == address.started_ticks;
}

}  // namespace longhaul
