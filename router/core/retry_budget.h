// RetryBudget: how many extra attempts the router may add to the load it was offered. Each request
// earns a fraction of an attempt and each repeated attempt spends a whole one, so that a failing
// cluster is not flooded by its own router. Pure; lives on its owner's Loop.
#pragma once

#include <algorithm>

namespace longhaul {

class RetryBudget {
 public:
  // `share`: attempts earned by a request. `reserve`: in the purse at the start and its bound, so
  // that one dead worker's requests can all be moved even on a quiet router.
  RetryBudget(double share, double reserve) : share_(share), reserve_(reserve), purse_(reserve) {}

  void Earn() { purse_ = std::min(purse_ + share_, reserve_); }
  bool Spend() {
    if (purse_ < 1.0) return false;
    purse_ -= 1.0;
    return true;
  }

 private:
  const double share_;
  const double reserve_;
  double purse_;
};

}  // namespace longhaul
