// Reduce on plateau, as torch.optim.lr_scheduler.ReduceLROnPlateau (torch 2.13) decides it.
#pragma once

#include "host_device.h"
#include "layout.h"
#include "moment.h"
#include "update.h"

namespace fastsched {

// When a metric counts as better than the best so far. Shared by everything that watches a metric.
struct Improvement {
  double maximize;  // 0: lower is better, 1: higher is better
  double absolute;  // 0: threshold relative to best, 1: absolute
  double threshold;

  // Every comparison with NaN is false, so a NaN metric never improves and never becomes the best. A
  // relative threshold multiplies best, as in torch: where best is negative, a slightly worse value passes.
  FASTSCHED_HD bool operator()(double metric, double best) const {
    if (maximize != 0.0) {
      return metric > (absolute != 0.0 ? best + threshold : best * (threshold + 1.0));
    }
    return metric < (absolute != 0.0 ? best - threshold : best * (1.0 - threshold));
  }
};

struct Plateau {
  Improvement improved;
  double factor;
  double patience;
  double cooldown;
  double eps;

  FASTSCHED_HD bool valid() const { return true; }
};

struct PlateauState {
  double last_epoch;
  double best;
  double num_bad_epochs;
  double cooldown_counter;

  FASTSCHED_HD bool valid() const { return counts_on(last_epoch) && counts_on(num_bad_epochs); }
  FASTSCHED_HD void reset() {}
  FASTSCHED_HD void undo() {}
};

// One step. The order is torch's: count the metric as better or bad; let a running cooldown forgive a bad
// epoch; only then compare with patience.
FASTSCHED_HD Update decide(const Plateau& plateau, PlateauState& state, const Moment& moment, const Table&) {
  if (!moment.measured) return Update::hold();
  const double metric = moment.value;
  state.last_epoch += 1.0;
  if (plateau.improved(metric, state.best)) {
    state.best = metric;
    state.num_bad_epochs = 0.0;
  } else {
    state.num_bad_epochs += 1.0;
  }
  if (state.cooldown_counter > 0.0) {
    state.cooldown_counter -= 1.0;
    state.num_bad_epochs = 0.0;
  }
  if (!(state.num_bad_epochs > plateau.patience)) return Update::hold();
  state.cooldown_counter = plateau.cooldown;
  state.num_bad_epochs = 0.0;
  return Update::make(Law::reduce, plateau.factor, plateau.eps);
}

}  // namespace fastsched
