// Up while a metric improves, down while it does not, as transformers.GreedyLR (transformers 5.23) decides it
// (arXiv:2512.14527).
#pragma once

#include "plateau.h"
#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/step_input.h"
#include "schedule/plan/update.h"

namespace fastsched {

// Own parameters: kMinLR, and these.
inline constexpr int kMaxLR = 1;
inline constexpr int kFirstLR = 2;  // where the group begins anew

struct Greedy {
  Improvement improved;
  double factor;
  double patience;
  double cooldown;
  double warmup;
  double eps;
  double reset_start;

  FASTSCHED_HD bool valid() const { return factor > 0.0 && factor < 1.0; }
};

// Begins as PlateauState does.
struct GreedyState {
  double last_epoch;
  double best;
  double num_bad_epochs;
  double num_good_epochs;
  double cooldown_counter;
  double warmup_counter;
  double reset_start;  // so many more reductions at the bottom, and it begins anew
  MovingSum sum;

  FASTSCHED_HD bool valid() const { return counts_on(last_epoch); }
  FASTSCHED_HD void reset() {}
  FASTSCHED_HD void undo() {}
};

// As far as the metric decides it; then settle().
FASTSCHED_HD Update decide(const Greedy& rule, GreedyState& state, const StepInput& input,
                           const NodeData& data) {
  if (!input.measured) return Update::hold();
  double metric = input.value;
  if (data.window.size > 0) metric = state.sum.mean_with(metric, data.window);
  state.last_epoch += 1.0;
  if (state.cooldown_counter > 0.0 || state.warmup_counter > 0.0) {
    double& counter = state.cooldown_counter > 0.0 ? state.cooldown_counter : state.warmup_counter;
    counter -= 1.0;
    state.num_bad_epochs = 0.0;
    state.num_good_epochs = 0.0;
    return Update::hold();
  }
  if (rule.improved(metric, state.best)) {
    state.best = metric;
    state.num_bad_epochs = 0.0;
    state.num_good_epochs += 1.0;
  } else {
    state.num_bad_epochs += 1.0;
    state.num_good_epochs = 0.0;
  }
  if (state.num_good_epochs > rule.patience) {
    state.reset_start = rule.reset_start;
    state.warmup_counter = rule.warmup;
    state.num_good_epochs = 0.0;
    return Update::make(Law::raise, rule.factor, rule.eps, kMaxLR);
  }
  if (!(state.num_bad_epochs > rule.patience)) return Update::hold();
  state.num_bad_epochs = 0.0;
  state.cooldown_counter = rule.cooldown;  // also where it begins anew, as in transformers
  return Update::make(Law::reduce, rule.factor, rule.eps, kMinLR);
}

// The rest of the decision to reduce, which depends on the learning rates that this leaves: `at_bound` says
// whether no group's is above its lower bound.
FASTSCHED_HD Update settle(const Greedy& rule, GreedyState& state, const Update& reduction, bool at_bound) {
  if (!at_bound) return reduction;
  state.reset_start -= 1.0;
  if (state.reset_start > 0.0) return reduction;
  state.best = rule.improved.maximize != 0.0 ? -INFINITY : INFINITY;
  state.num_good_epochs = 0.0;
  state.warmup_counter = 0.0;
  state.reset_start = rule.reset_start;
  state.sum = {0.0, 0.0};
  return Update::make(Law::restore, 0.0, 0.0, kFirstLR);
}

}  // namespace fastsched
