// What a step does to a learning rate. A schedule looks at its counters once per step and comes to an
// Update: the law and its scalars. Applying the law is all that is left to do per param group.
#pragma once

#include "host_device.h"

namespace fastsched {

enum class Law : int {
  hold,           // leave the learning rate alone
  reduce,         // max(lr * a, own), where that lowers lr by more than b
  scale,          // lr * a
  scale_base,     // own * a
  anneal_base,    // a + (own - a) * b / 2
  raise_by_base,  // lr + (own - a) * b / 2
  scale_above,    // b * (lr - a) + a
};

struct Update {
  double law;  // a Law; a double because updates travel in float64 buffers
  double a;
  double b;

  FASTSCHED_HD static Update make(Law law, double a, double b) { return {static_cast<double>(law), a, b}; }
  FASTSCHED_HD static Update hold() { return make(Law::hold, 0.0, 0.0); }
  FASTSCHED_HD static Update reduce(double factor, double eps) { return make(Law::reduce, factor, eps); }
  FASTSCHED_HD static Update scale(double factor) { return make(Law::scale, factor, 0.0); }
  FASTSCHED_HD static Update scale_base(double factor) { return make(Law::scale_base, factor, 0.0); }
  FASTSCHED_HD static Update anneal_base(double floor, double twice) {
    return make(Law::anneal_base, floor, twice);
  }
  FASTSCHED_HD static Update raise_by_base(double floor, double twice) {
    return make(Law::raise_by_base, floor, twice);
  }
  FASTSCHED_HD static Update scale_above(double floor, double factor) {
    return make(Law::scale_above, floor, factor);
  }
  FASTSCHED_HD Law kind() const { return static_cast<Law>(static_cast<int>(law)); }
};

// Whether applying the law needs the group's own parameter.
FASTSCHED_HD bool uses_own(Law law) {
  return law != Law::hold && law != Law::scale && law != Law::scale_above;
}

// Python's max(scaled, bound): the first argument unless the second is larger, which also decides NaN.
FASTSCHED_HD double bounded(double scaled, double bound) { return bound > scaled ? bound : scaled; }

struct Applied {
  double lr;
  bool written;  // false: the law leaves the group alone, whatever object holds its learning rate
};

// The group's learning rate after the update. `own` is the group's own parameter: the plateau's min_lr, a
// base learning rate.
FASTSCHED_HD Applied apply(const Update& update, double lr, double own) {
  const double a = update.a;
  const double b = update.b;
  switch (update.kind()) {
    case Law::reduce: {
      const double reduced = bounded(lr * a, own);
      if (lr - reduced > b) return {reduced, true};
      break;
    }
    case Law::scale: return {lr * a, true};
    case Law::scale_base: return {own * a, true};
    case Law::anneal_base: return {a + (own - a) * b / 2.0, true};
    case Law::raise_by_base: return {lr + (own - a) * b / 2.0, true};
    case Law::scale_above: return {b * (lr - a) + a, true};
    case Law::hold: break;
  }
  return {lr, false};
}

}  // namespace fastsched
