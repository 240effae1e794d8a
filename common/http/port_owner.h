// Who listens on a TCP port of this host, for the error message that says so.
#pragma once

#include <string>

namespace longhaul {

// "process 1234 (python3)", or "another process" when /proc does not tell (another user's process).
std::string PortOwner(int port);

}  // namespace longhaul
