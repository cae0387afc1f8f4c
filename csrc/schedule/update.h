// What a step does to a learning rate. A schedule looks at its counters once per step and comes to an
// Update: the law and its scalars. Applying the law is all that is left to do per param group.
#pragma once

#include "host_device.h"

namespace fastsched {

enum class Law : int {
  hold = 0,    // leave the learning rate alone
  reduce = 1,  // max(lr * factor, bound), where that lowers lr by more than eps
};

struct Update {
  double law;  // a Law; a double because updates travel in float64 buffers
  double a;
  double b;

  FASTSCHED_HD static Update hold() { return {static_cast<double>(Law::hold), 0.0, 0.0}; }
  FASTSCHED_HD static Update reduce(double factor, double eps) {
    return {static_cast<double>(Law::reduce), factor, eps};
  }
  FASTSCHED_HD Law kind() const { return static_cast<Law>(static_cast<int>(law)); }
};

// Python's max(scaled, bound): the first argument unless the second is larger, which also decides NaN.
FASTSCHED_HD double bounded(double scaled, double bound) { return bound > scaled ? bound : scaled; }

struct Applied {
  double lr;
  bool written;  // false: the law leaves the group alone, whatever object holds its learning rate
};

// The group's learning rate after the update. `bound` is the group's own parameter (the plateau's min_lr).
FASTSCHED_HD Applied apply(const Update& update, double lr, double bound) {
  switch (update.kind()) {
    case Law::reduce: {
      const double reduced = bounded(lr * update.a, bound);
      if (lr - reduced > update.b) return {reduced, true};
      break;
    }
    case Law::hold: break;
  }
  return {lr, false};
}

}  // namespace fastsched
