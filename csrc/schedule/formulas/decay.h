// Schedules that are functions of the epoch, as torch.optim.lr_scheduler (torch 2.13) computes them: a factor
// on the previous learning rate where torch has a recursion, on the base learning rate in closed form. The
// order of operations is torch's, so on the host doubles agree to the last bit.
#pragma once

#include <cmath>
#include <cstdint>

#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/step_input.h"
#include "schedule/plan/update.h"

namespace fastsched {

inline constexpr double kPi = 3.141592653589793;

struct EpochState {
  double last_epoch;
  double step_count;

  FASTSCHED_HD bool valid() const { return counts_on(last_epoch); }
  FASTSCHED_HD void reset() { *this = {-1.0, 0.0}; }
  FASTSCHED_HD void undo() { last_epoch -= 1.0; }

  // Counts the step and returns the new epoch.
  FASTSCHED_HD double advance(const StepInput& input) {
    if (!input.closed_form()) step_count += 1.0;
    last_epoch = input.closed_form() ? input.epoch() : last_epoch + 1.0;
    return last_epoch;
  }
};

// Python's a // b: the quotient is rounded down before it is rounded to a double, so that 0.3 // 0.1 is 2.
FASTSCHED_HD double floor_divide(double a, double b) {
  const double rest = fmod(a, b);
  const double below = rest != 0.0 && (rest < 0.0) != (b < 0.0) ? 1.0 : 0.0;
  const double quotient = (a - rest) / b - below;  // an integer, except for its own rounding
  const double floored = floor(quotient);
  return quotient - floored > 0.5 ? floored + 1.0 : floored;
}

FASTSCHED_HD double smaller(double a, double b) { return b < a ? b : a; }

// lr * gamma every step_size epochs; base * gamma^floor(t / step_size).
struct StepDecay {
  double step_size;
  double gamma;

  FASTSCHED_HD bool valid() const { return step_size != 0.0; }
};

FASTSCHED_HD Update decide(const StepDecay& p, EpochState& state, const StepInput& input, const Table&) {
  const double t = state.advance(input);
  if (input.closed_form()) return Update::scale_base(pow(p.gamma, floor_divide(t, p.step_size)));
  if (t == 0.0 || fmod(t, p.step_size) != 0.0) return Update::hold();
  return Update::scale(p.gamma);
}

// lr * gamma^n at a milestone that is listed n times; base * gamma^(milestones up to t). The table has sorted
// (milestone, n) pairs.
struct MultiStepDecay {
  double gamma;

  FASTSCHED_HD bool valid() const { return true; }
};

FASTSCHED_HD Update decide(const MultiStepDecay& p, EpochState& state, const StepInput& input,
                           const Table& table) {
  const double t = state.advance(input);
  double passed = 0.0;
  for (std::int64_t i = 0; i + 1 < table.size; i += 2) {
    if (table.values[i] > t) break;
    if (input.closed_form()) {
      passed += table.values[i + 1];
    } else if (table.values[i] == t) {
      return Update::scale(pow(p.gamma, table.values[i + 1]));
    }
  }
  return input.closed_form() ? Update::scale_base(pow(p.gamma, passed)) : Update::hold();
}

// base * factor until total_iters, base from then on.
struct ConstantFactor {
  double factor;
  double total_iters;

  FASTSCHED_HD bool valid() const { return factor != 0.0; }
};

FASTSCHED_HD Update decide(const ConstantFactor& p, EpochState& state, const StepInput& input, const Table&) {
  const double t = state.advance(input);
  if (input.closed_form()) {
    return Update::scale_base(p.factor + (t >= p.total_iters ? 1.0 : 0.0) * (1.0 - p.factor));
  }
  if (t == 0.0) return Update::scale(p.factor);
  return t != p.total_iters ? Update::hold() : Update::scale(1.0 / p.factor);
}

// base * (start_factor + (end_factor - start_factor) * min(t, total_iters) / total_iters).
struct LinearFactor {
  double start_factor;
  double end_factor;
  double total_iters;

  FASTSCHED_HD bool valid() const { return total_iters != 0.0 && start_factor != 0.0; }
};

FASTSCHED_HD Update decide(const LinearFactor& p, EpochState& state, const StepInput& input, const Table&) {
  const double t = state.advance(input);
  const double slope = p.end_factor - p.start_factor;
  if (input.closed_form()) {
    return Update::scale_base(p.start_factor + slope * smaller(p.total_iters, t) / p.total_iters);
  }
  if (t == 0.0) return Update::scale(p.start_factor);
  if (input.event == Event::initial || t > p.total_iters) return Update::hold();
  return Update::scale(1.0 + slope / (p.total_iters * p.start_factor + (t - 1.0) * slope));
}

// base * gamma^t.
struct ExponentialDecay {
  double gamma;

  FASTSCHED_HD bool valid() const { return true; }
};

FASTSCHED_HD Update decide(const ExponentialDecay& p, EpochState& state, const StepInput& input,
                           const Table&) {
  const double t = state.advance(input);
  if (input.closed_form()) return Update::scale_base(pow(p.gamma, t));
  return input.event == Event::initial ? Update::hold() : Update::scale(p.gamma);
}

// base * (1 - min(t, total_iters) / total_iters)^power.
struct PolynomialDecay {
  double total_iters;
  double power;

  FASTSCHED_HD bool valid() const { return total_iters != 0.0 && power >= 0.0; }
};

FASTSCHED_HD Update decide(const PolynomialDecay& p, EpochState& state, const StepInput& input,
                           const Table&) {
  const double t = state.advance(input);
  if (input.closed_form()) {
    return Update::scale_base(pow(1.0 - smaller(p.total_iters, t) / p.total_iters, p.power));
  }
  if (input.event == Event::initial || t > p.total_iters) return Update::hold();
  return Update::scale(pow((1.0 - t / p.total_iters) / (1.0 - (t - 1.0) / p.total_iters), p.power));
}

// eta_min + (base - eta_min) * (1 + cos(pi t / T_max)) / 2 (Loshchilov and Hutter, SGDR, arXiv:1608.03983,
// without restarts), in torch's recursive form.
struct CosineAnnealing {
  double t_max;
  double eta_min;

  // If T_max is not an integer, the recursion may hit a zero of 1 + cos(pi (t - 1) / T_max).
  FASTSCHED_HD bool valid() const { return t_max >= 1.0 && t_max == floor(t_max); }
};

FASTSCHED_HD Update decide(const CosineAnnealing& p, EpochState& state, const StepInput& input,
                           const Table&) {
  const double t = state.advance(input);
  if (input.closed_form()) return Update::make(Law::anneal_base, p.eta_min, 1.0 + cos(kPi * t / p.t_max));
  if (input.event == Event::initial) return Update::hold();
  if (state.step_count == 1.0 && t > 0.0)
    return Update::make(Law::anneal_base, p.eta_min, 1.0 + cos(t * kPi / p.t_max));
  if (fmod(t - 1.0 - p.t_max, 2.0 * p.t_max) == 0.0) {
    return Update::make(Law::raise_by_base, p.eta_min, 1.0 - cos(kPi / p.t_max));
  }
  return Update::make(Law::scale_above, p.eta_min,
                      (1.0 + cos(kPi * t / p.t_max)) / (1.0 + cos(kPi * (t - 1.0) / p.t_max)));
}

// The same with restarts: t counts from the last restart, and each multiplies the period by T_mult.
struct WarmRestarts {
  double t_0;
  double t_mult;
  double eta_min;

  FASTSCHED_HD bool valid() const { return t_0 > 0.0 && t_mult >= 1.0; }
};

struct WarmRestartsState {
  double last_epoch;
  double t_cur;
  double t_i;

  FASTSCHED_HD bool valid() const {
    const bool finite = t_i - t_i == 0.0 && t_cur - t_cur == 0.0;
    return counts_on(last_epoch) && finite && t_i > 0.0;
  }
  FASTSCHED_HD void reset() { last_epoch = -1.0; }
  FASTSCHED_HD void undo() { last_epoch -= 1.0; }
};

FASTSCHED_HD void jump(const WarmRestarts& p, WarmRestartsState& state, double epoch) {
  state.last_epoch = floor(epoch);
  if (epoch < p.t_0) {
    state.t_i = p.t_0;
    state.t_cur = epoch;
  } else if (p.t_mult == 1.0) {
    state.t_cur = fmod(epoch, p.t_0);
  } else {
    const double restarts = floor(log(epoch / p.t_0 * (p.t_mult - 1.0) + 1.0) / log(p.t_mult));
    state.t_cur = epoch - p.t_0 * (pow(p.t_mult, restarts) - 1.0) / (p.t_mult - 1.0);
    state.t_i = p.t_0 * pow(p.t_mult, restarts);
  }
}

FASTSCHED_HD Update decide(const WarmRestarts& p, WarmRestartsState& state, const StepInput& input,
                           const Table&) {
  if (input.event == Event::restart) {
    state.last_epoch = 0.0;  // torch has no closed form here and leaves the cycle where it is
  } else if (input.closed_form()) {
    jump(p, state, input.epoch());
  } else if (state.last_epoch < 0.0) {
    jump(p, state, 0.0);
  } else {
    state.last_epoch += 1.0;
    state.t_cur += 1.0;
    if (state.t_cur >= state.t_i) {
      state.t_cur = fmod(state.t_cur, state.t_i);
      state.t_i *= p.t_mult;
    }
  }
  return Update::make(Law::anneal_base, p.eta_min, 1.0 + cos(kPi * state.t_cur / state.t_i));
}

// From the current learning rate to the group's own parameter, along a line or a cosine
// (torch.optim.swa_utils.SWALR, Izmailov et al., arXiv:1803.05407). Each step first undoes the part of the
// way covered so far.
struct Averaging {
  double cosine;
  double anneal_epochs;

  FASTSCHED_HD bool valid() const { return true; }

  // The share of the way covered after this many steps.
  FASTSCHED_HD double share(double steps) const {
    const double t = steps / (anneal_epochs > 1.0 ? anneal_epochs : 1.0);
    const double clamped = t < 0.0 ? 0.0 : smaller(t, 1.0);
    return cosine != 0.0 ? (1.0 - cos(kPi * clamped)) / 2.0 : clamped;
  }
};

FASTSCHED_HD Update decide(const Averaging& p, EpochState& state, const StepInput& input, const Table&) {
  state.advance(input);
  const double steps = state.step_count - 1.0;
  const double taken = p.anneal_epochs == 0.0 && steps < 1.0 ? 1.0 : steps;
  return Update::make(Law::approach, p.share(taken), p.share(taken - 1.0));
}

// Factors returned by Python functions: either a row for each epoch, after the last of which the learning
// rate stays, or a single row for the current step.
struct Factors {
  double columns;
  double of_step;  // 1: the table is a single row, rewritten before each step

  FASTSCHED_HD bool valid() const { return true; }

  FASTSCHED_HD Update at(double t, const Table& table, Law law) const {
    const double row = of_step != 0.0 ? 0.0 : t * columns;
    if (!(row >= 0.0 && row + columns <= static_cast<double>(table.size))) return Update::hold();
    return Update::make(law, row);
  }
};

// base * factor(t). Own parameters: the base, the column.
struct LambdaFactor : Factors {};

FASTSCHED_HD Update decide(const LambdaFactor& p, EpochState& state, const StepInput& input,
                           const Table& table) {
  return p.at(state.advance(input), table, Law::scale_base_each);
}

// lr * factor(t). The same own parameters.
struct MultiplicativeFactor : Factors {};

FASTSCHED_HD Update decide(const MultiplicativeFactor& p, EpochState& state, const StepInput& input,
                           const Table& table) {
  const double t = state.advance(input);
  return input.event == Event::initial ? Update::hold() : p.at(t, table, Law::scale_each);
}

}  // namespace fastsched
