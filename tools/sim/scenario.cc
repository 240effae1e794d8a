#include "tools/sim/scenario.h"

#include "absl/strings/str_cat.h"
#include "tools/sim/dice.h"

namespace longhaul {

bool Scenario::Harmless() const {
  return crashes == 0 && partitions == 0 && stops == 0 && hangs == 0 && network.loss == 0 &&
         network.corruption == 0;
}

Scenario DrawScenario(uint64_t seed) {
  Dice dice(seed);
  Scenario scenario;
  scenario.seed = seed;
  scenario.prefill_workers = static_cast<int>(dice.Between(1, 3));
  scenario.decode_workers = static_cast<int>(dice.Between(1, 3));
  scenario.prompt_tokens_max = dice.Chance(0.3) ? 400 : 120;
  scenario.output_tokens_max = 24;
  const int64_t longest_blocks = (scenario.prompt_tokens_max + scenario.output_tokens_max) / 4 + 2;
  scenario.prefill_blocks = longest_blocks + longest_blocks * dice.Between(0, 3) / 4;
  scenario.decode_blocks = longest_blocks + longest_blocks * dice.Between(0, 8) / 4;
  scenario.chunk_tokens = 4 * dice.Between(1, 8);
  scenario.window_chunks = static_cast<int>(dice.Between(1, 4));
  const char* const policies[] = {"context-length", "round-robin", "least-loaded",
                                  "prefix-affinity"};
  scenario.policy = policies[dice.Between(0, 3)];
  scenario.requests = static_cast<int>(dice.Between(5, 80));
  scenario.shared_prefix = dice.Chance(0.5) ? 0.5 : 0;
  scenario.load_us = dice.Between(20'000, 800'000);
  scenario.rpc_delay_us = dice.Between(5, 300);
  scenario.rpc_jitter_us = dice.Chance(0.5) ? dice.Between(1, 2'000) : 0;

  SimulatedNetworkOptions& network = scenario.network;
  network.delay_us = dice.Between(1, 100);
  network.jitter_us = dice.Chance(0.5) ? dice.Between(1, 3'000) : 0;
  network.bytes_per_us = dice.Chance(0.5) ? dice.Between(1, 20) : 2'000;
  network.step_bytes = dice.Between(64, 512);
  network.segment_bytes = dice.Between(256, 2'048);
  network.close_us = dice.Chance(0.5) ? dice.Between(1, 5'000) : 0;
  network.notice_us = dice.Chance(0.5) ? dice.Between(100, 10'000) : -1;
  network.sender_close_tears = dice.Chance(0.5);

  if (dice.Chance(0.5)) scenario.client_aborts = 0.4;
  if (dice.Chance(0.4)) scenario.crashes = static_cast<int>(dice.Between(1, 6));
  if (dice.Chance(0.35)) scenario.partitions = static_cast<int>(dice.Between(1, 6));
  if (dice.Chance(0.25)) scenario.stops = static_cast<int>(dice.Between(1, 3));
  if (dice.Chance(0.3)) scenario.rpc_duplicates = 0.2;
  if (dice.Chance(0.4)) scenario.rpc_strays = 0.2;
  if (dice.Chance(0.25)) {
    network.loss = 0.02;
    network.loss_is_told = dice.Chance(0.5);
  }
  if (dice.Chance(0.25)) network.corruption = 0.01;
  scenario.rpc_detect_us = dice.Between(100, 20'000);
  if (dice.Chance(0.25)) scenario.hangs = static_cast<int>(dice.Between(1, 2));
  if (dice.Chance(0.4)) scenario.prefill_width = 1 << dice.Between(0, 2);
  if (dice.Chance(0.4)) scenario.decode_width = 1 << dice.Between(0, 2);
  return scenario;
}

std::string Describe(const Scenario& scenario) {
  std::string words = absl::StrCat("seed ", scenario.seed, ": ", scenario.prefill_workers, "P+",
                                   scenario.decode_workers, "D, ", scenario.requests, " requests, ",
                                   scenario.policy);
  const auto add = [&](bool on, absl::string_view what) {
    if (on) absl::StrAppend(&words, ", ", what);
  };
  add(scenario.prefill_width + scenario.decode_width > 2,
      absl::StrCat("ranks ", scenario.prefill_width, " to ", scenario.decode_width));
  add(scenario.client_aborts > 0, "aborts");
  add(scenario.crashes > 0, absl::StrCat(scenario.crashes, " crashes"));
  add(scenario.partitions > 0, "partitions");
  add(scenario.stops > 0, "stops");
  add(scenario.hangs > 0, "hangs");
  add(scenario.rpc_duplicates > 0, "duplicates");
  add(scenario.rpc_strays > 0, "strays");
  add(scenario.network.loss > 0, scenario.network.loss_is_told ? "told loss" : "silent loss");
  add(scenario.network.corruption > 0, "corruption");
  return words;
}

}  // namespace longhaul
