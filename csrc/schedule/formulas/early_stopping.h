// When to stop training: a metric that has not improved for too long.
#pragma once

#include "plateau.h"
#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/step_input.h"
#include "schedule/plan/update.h"

namespace fastsched {

struct EarlyStopping {
  Improvement improved;
  Patience patience;
  double baseline;     // NaN: none
  double start_after;  // ignores this many epochs at the start
  double stop_on_nan;  // 0 or 1
  JudgedMetric judged;

  FASTSCHED_HD bool valid() const { return judged.valid(); }
  FASTSCHED_HD bool beats_baseline(double metric) const {
    return baseline != baseline || improved(metric, baseline);
  }
};

struct EarlyStoppingState {
  double last_epoch;
  double best;
  double num_bad_epochs;
  double stopped_epoch;  // 0: not stopped
  double improved;       // whether this epoch's metric is the best so far
  JudgedMetricState judged;

  FASTSCHED_HD bool valid() const { return true; }
  FASTSCHED_HD void reset() {}
  FASTSCHED_HD void undo() {}
};

// Counts as a plateau does: it stops when there have been more than `patience` bad epochs in a row. An
// improvement that does not beat the baseline becomes the best metric, but the epoch still counts as bad, as
// in Keras.
FASTSCHED_HD Update decide(const EarlyStopping& rule, EarlyStoppingState& state, const StepInput& input,
                           const Table&) {
  if (!input.measured) return Update::hold();
  double metric = input.value;
  state.last_epoch += 1.0;
  state.improved = 0.0;
  if (!(state.last_epoch > rule.start_after)) return Update::hold();
  bool stops = rule.stop_on_nan != 0.0 && metric != metric;  // even in the middle of an accumulation
  if (rule.judged(metric, state.judged)) {
    if (rule.improved(metric, state.best)) {
      state.best = metric;
      state.improved = 1.0;
    }
    if (state.improved != 0.0 && rule.beats_baseline(metric)) {
      state.num_bad_epochs = 0.0;
    } else {
      state.num_bad_epochs += 1.0;
    }
    stops = stops || rule.patience.exhausted(state.num_bad_epochs);
  }
  if (stops && state.stopped_epoch == 0.0) state.stopped_epoch = state.last_epoch;
  return Update::hold();
}

}  // namespace fastsched
