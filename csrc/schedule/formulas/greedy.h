// Up while a metric improves, down while it does not: the rule of transformers.GreedyLR (transformers 5.23;
// arXiv:2512.14527).
#pragma once

#include "plateau.h"
#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/step_input.h"
#include "schedule/plan/update.h"

namespace fastsched {

// Own parameters: kMinLR and these.
inline constexpr int kMaxLR = 1;
inline constexpr int kFirstLR = 2;  // where the group restarts

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

// Starts with the same fields as PlateauState.
struct GreedyState {
  double last_epoch;
  double best;
  double num_bad_epochs;
  double num_good_epochs;
  double cooldown_counter;
  double warmup_counter;
  double reset_start;  // reductions at the lower bound left before it restarts
  MovingSum sum;

  FASTSCHED_HD bool valid() const { return counts_on(last_epoch); }
  FASTSCHED_HD void reset() {}
  FASTSCHED_HD void undo() {}
};

// As far as the metric alone decides; settle() does the rest.
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
  state.cooldown_counter = rule.cooldown;  // even if it restarts, as in transformers
  return Update::make(Law::reduce, rule.factor, rule.eps, kMinLR);
}

// The rest of the decision to reduce, which depends on the resulting learning rates: `at_bound` says whether
// all of them are at their lower bounds.
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
