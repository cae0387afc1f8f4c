// Schedules that go up and down between bounds that each group has, as torch.optim.lr_scheduler (torch 2.13)
// computes them. Momentum cycles inversely by the same laws, with its lower bound in place of the learning
// rate's upper one.
#pragma once

#include <cmath>

#include "decay.h"
#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/step_input.h"
#include "schedule/plan/update.h"

namespace fastsched {

enum class Amplitude : int { triangular, triangular2, exp_range };

// Cyclical learning rates (Smith, arXiv:1506.01186). Own parameters: the lower bound, the upper bound.
struct Cyclic {
  double total_size;  // epochs of a cycle
  double step_ratio;  // the rising share of a cycle
  double mode;        // an Amplitude
  double per_cycle;   // 1: the amplitude shrinks with each cycle, 0: with each epoch
  double gamma;

  FASTSCHED_HD bool valid() const { return total_size > 0.0 && step_ratio > 0.0; }

  FASTSCHED_HD double amplitude(double x) const {
    if (mode == static_cast<double>(Amplitude::triangular2)) return 1.0 / pow(2.0, x - 1.0);
    return mode == static_cast<double>(Amplitude::exp_range) ? pow(gamma, x) : 1.0;
  }
};

FASTSCHED_HD Update decide(const Cyclic& p, EpochState& state, const StepInput& input, const Table&) {
  const double t = state.advance(input);
  const double cycle = floor(1.0 + t / p.total_size);
  const double x = 1.0 + t / p.total_size - cycle;
  const double height = x <= p.step_ratio ? x / p.step_ratio : (x - 1.0) / (p.step_ratio - 1.0);
  return Update::make(Law::cycle, height, p.amplitude(p.per_cycle != 0.0 ? cycle : t));
}

// The 1cycle policy (Smith and Topin, arXiv:1708.07120). Own parameters: the initial learning rate, the
// maximum, the final one. The table has the last epoch of each phase: up and down, or up, back and down.
struct OneCycle {
  double cosine;
  double total_steps;

  FASTSCHED_HD bool valid() const { return true; }
};

FASTSCHED_HD Update decide(const OneCycle& p, EpochState& state, const StepInput& input, const Table& table) {
  const double t = state.advance(input);
  if (t > p.total_steps) return Update::idle();  // where torch raises
  const std::int64_t last = table.size - 1;
  std::int64_t phase = 0;
  while (phase < last && t > table.values[phase]) ++phase;
  const double start = phase == 0 ? 0.0 : table.values[phase - 1];
  const double share = (t - start) / (table.values[phase] - start);
  const int from = phase == 0 ? 0 : phase == last && last == 2 ? 0 : 1;
  const int to = phase == 0 ? 1 : phase == last ? 2 : 0;
  if (p.cosine != 0.0) return Update::make(Law::anneal_cosine, cos(kPi * share) + 1.0, 0.0, from, to);
  return Update::make(Law::anneal_linear, share, 0.0, from, to);
}

}  // namespace fastsched
