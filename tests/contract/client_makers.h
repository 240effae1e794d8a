// The makers of the client doors, as worlds of the contract suite.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/contract/client_world.h"

namespace longhaul {

struct ClientMaker {
  std::string name;
  std::unique_ptr<ClientWorld> (*make)();
};

// Each door over each of its makers.
std::vector<ClientMaker> AllClientMakers();
// Those whose worker is another process, which can be gone.
std::vector<ClientMaker> RemoteClientMakers();

}  // namespace longhaul
