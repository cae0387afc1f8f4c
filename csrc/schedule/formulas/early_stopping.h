// When to stop training: a metric that has not improved for too long.
#pragma once

#include "plateau.h"
#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/moment.h"
#include "schedule/plan/update.h"

namespace fastsched {

struct EarlyStopping {
  Improvement improved;
  double patience;
  double baseline;     // NaN: none
  double start_after;  // so many first epochs are not looked at
  double stop_on_nan;  // 0 or 1

  FASTSCHED_HD bool valid() const { return true; }
  FASTSCHED_HD bool beats_baseline(double metric) const {
    return baseline != baseline || improved(metric, baseline);
  }
};

struct EarlyStoppingState {
  double last_epoch;
  double best;
  double num_bad_epochs;
  double stopped_epoch;  // 0: not yet
  double improved;       // whether this epoch's metric is the best so far

  FASTSCHED_HD bool valid() const { return true; }
  FASTSCHED_HD void reset() {}
  FASTSCHED_HD void undo() {}
};

// Counts as a plateau does: it stops in the epoch that makes more than `patience` bad ones in a row. An
// improvement that does not reach the baseline is remembered as the best, but is no good epoch (Keras has it
// so, too).
FASTSCHED_HD Update decide(const EarlyStopping& rule, EarlyStoppingState& state, const Moment& moment,
                           const Table&) {
  if (!moment.measured) return Update::hold();
  const double metric = moment.value;
  state.last_epoch += 1.0;
  state.improved = 0.0;
  if (!(state.last_epoch > rule.start_after)) return Update::hold();
  if (rule.improved(metric, state.best)) {
    state.best = metric;
    state.improved = 1.0;
  }
  if (state.improved != 0.0 && rule.beats_baseline(metric)) {
    state.num_bad_epochs = 0.0;
  } else {
    state.num_bad_epochs += 1.0;
  }
  const bool diverged = rule.stop_on_nan != 0.0 && metric != metric;
  if (state.stopped_epoch == 0.0 && (diverged || state.num_bad_epochs > rule.patience)) {
    state.stopped_epoch = state.last_epoch;
  }
  return Update::hold();
}

}  // namespace fastsched
