// Mutants: known bugs that a build can re-open, so that the simulator proves it would see them. A
// production build has none: kActiveMutant is a constant and every branch on it is compiled away.
// tools/sim builds one variant for each.
#pragma once

namespace longhaul {

enum class Mutant {
  kNone = 0,
  kReuseBeforeQuiesce =
      1,  // a cancelled transfer's blocks are given away while the wire may still write them
  kStaleAttemptAccepted = 2,  // messages of an earlier attempt count for the current one
  kLostCancel = 3,            // a cancel is not passed on to the prefill worker
  kDigestIgnored = 4,         // a chunk is whole when its bytes came, whatever they are
  kCreditLeaked = 5,          // a whole chunk does not open the window again
  kLateSender =
      6,  // the prefill worker goes on sending after a cancel, from blocks it has released
  kSilenceIgnored = 7,  // a prefill worker that says nothing any more is waited for without end
  kAbandonedKept = 8,   // a prompt whose decode worker says nothing any more keeps its memory
};

#ifndef LONGHAUL_MUTANT
#define LONGHAUL_MUTANT 0
#endif

inline constexpr Mutant kActiveMutant = static_cast<Mutant>(LONGHAUL_MUTANT);

consteval bool MutantIs(Mutant mutant) { return kActiveMutant == mutant; }

}  // namespace longhaul
