// SIGTERM and SIGINT as something a main can wait for.
#pragma once

namespace longhaul {

// Blocks both signals in this thread and all that it starts from now on. Call it first in main.
void BlockStopSignals();

// Waits for one of them; from its return on a second one ends the process at once.
void WaitForStopSignal();

}  // namespace longhaul
