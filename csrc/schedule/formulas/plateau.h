// The rule of torch.optim.lr_scheduler.ReduceLROnPlateau (torch 2.13).
#pragma once

#include "judged_metric.h"
#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/step_input.h"
#include "schedule/plan/update.h"

namespace fastsched {

// When a metric counts as better than the best so far. Shared by everything that watches a metric.
struct Improvement {
  double maximize;        // 0: lower is better, 1: higher is better
  double threshold_mode;  // kRelative, ...
  double threshold;

  static constexpr double kRelative = 0.0;     // to best, as in torch
  static constexpr double kAbsolute = 1.0;     // in the metric's own unit
  static constexpr double kRelativeAbs = 2.0;  // to abs(best)

  // Every comparison with NaN is false, so a NaN metric never improves and never becomes the best. torch's
  // relative threshold multiplies best, so if that is negative, a slightly worse value passes. kRelativeAbs
  // agrees with torch above zero and reverses the sign below it; and anything is better than no best at all.
  FASTSCHED_HD bool operator()(double metric, double best) const {
    const bool up = maximize != 0.0;
    double margin = threshold;
    if (threshold_mode == kRelativeAbs) {
      if (best - best != 0.0) return up ? metric > best : metric < best;  // infinite; NaN compares false
      if (best < 0.0) margin = -threshold;
    }
    const bool absolute = threshold_mode == kAbsolute;
    if (up) return metric > (absolute ? best + margin : best * (margin + 1.0));
    return metric < (absolute ? best - margin : best * (1.0 - margin));
  }
};

// Each group's own parameters.
inline constexpr int kMinLR = 0;
inline constexpr int kBaseLR = 1;  // with a warm-up only

// How many bad epochs in a row are too many.
struct Patience {
  double epochs;
  double counts;  // kBeyond: more than `epochs`; kUpTo: `epochs`, but at least one

  static constexpr double kBeyond = 0.0;  // torch
  static constexpr double kUpTo = 1.0;    // Keras

  FASTSCHED_HD bool exhausted(double bad) const {
    return counts == kUpTo ? bad >= epochs && bad > 0.0 : bad > epochs;
  }
};

struct Plateau {
  Improvement improved;
  double factor;
  Patience patience;
  double cooldown;
  double eps;
  JudgedMetric judged;

  FASTSCHED_HD bool valid() const { return judged.valid(); }
};

struct PlateauState {
  double last_epoch;
  double best;
  double num_bad_epochs;
  double cooldown_counter;
  JudgedMetricState judged;

  FASTSCHED_HD bool valid() const { return counts_on(last_epoch) && counts_on(num_bad_epochs); }
  FASTSCHED_HD void reset() {}
  FASTSCHED_HD void undo() {}
};

// Judges a metric. The order is torch's: count the epoch as good or bad; let a running cooldown forgive a bad
// one; only then compare with patience.
FASTSCHED_HD Update take_note(const Plateau& plateau, PlateauState& state, double metric) {
  if (!plateau.judged(metric, state.judged)) return Update::hold();
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
  if (!plateau.patience.exhausted(state.num_bad_epochs)) return Update::hold();
  state.cooldown_counter = plateau.cooldown;
  state.num_bad_epochs = 0.0;
  return Update::make(Law::reduce, plateau.factor, plateau.eps, kMinLR);
}

FASTSCHED_HD Update decide(const Plateau& plateau, PlateauState& state, const StepInput& input,
                           const Table&) {
  if (!input.measured) return Update::hold();
  state.last_epoch += 1.0;
  return take_note(plateau, state, input.value);
}

// A plateau after a linear warm-up, during which metrics are ignored.
struct WarmupPlateau {
  Plateau plateau;
  double warmup_steps;
  double start_factor;

  FASTSCHED_HD bool valid() const { return plateau.valid(); }
  FASTSCHED_HD Update warm_up(double epoch) const {
    const double factor =
        epoch < warmup_steps ? start_factor + (1.0 - start_factor) * epoch / warmup_steps : 1.0;
    return Update::make(Law::scale_base, factor, 0.0, kBaseLR);
  }
};

FASTSCHED_HD Update decide(const WarmupPlateau& rule, PlateauState& state, const StepInput& input,
                           const Table&) {
  const bool begins = input.event == Event::initial || input.closed_form();
  if (begins) state.last_epoch = 0.0;
  if (begins) return rule.warmup_steps > 0.0 ? rule.warm_up(0.0) : Update::hold();
  if (!input.measured) return Update::hold();
  state.last_epoch += 1.0;
  if (state.last_epoch <= rule.warmup_steps) return rule.warm_up(state.last_epoch);
  return take_note(rule.plateau, state, input.value);
}

}  // namespace fastsched
