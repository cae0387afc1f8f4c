// What happens to a schedule in one step.
#pragma once

#include "host_device.h"
#include "scalar.h"

namespace fastsched {

enum class Event : int {
  step = 0,        // on to the next epoch, or take note of a metric
  initial = 1,     // the step that constructing a scheduler makes
  at_epoch = 2,    // to the epoch StepInput::value by the closed form, without counting a step
  unmeasured = 3,  // a step without a metric
  construct = 4,   // as new, and the initial step: where a schedule begins
  restart = 5,     // to epoch 0 in the middle of a run
  // What a composite makes of these for its children, besides:
  begin = 6,    // construct, within a composite that begins
  idle = 7,     // not its turn
  prepare = 8,  // as new, the initial step taken back: for a turn to come
};

inline constexpr int kEvents = 6;  // those that an operator may be called with

struct StepInput {
  Event event;
  double value;   // the metric, or the epoch to go to
  bool measured;  // whether there is a metric

  FASTSCHED_HD static StepInput make(Event event, double value) {
    const bool measured = event == Event::step;
    return {event == Event::unmeasured ? Event::step : event, value, measured};
  }
  FASTSCHED_HD bool closed_form() const { return event == Event::at_epoch || event == Event::restart; }
  FASTSCHED_HD double epoch() const { return event == Event::at_epoch ? value : 0.0; }
};

// What one step is called with besides its buffers.
struct Call {
  Event event;
  Operand metric;
  Operand found_inf;  // not 0: there is no step

  FASTSCHED_HD bool skipped() const { return found_inf.read() != 0.0; }
  FASTSCHED_HD StepInput input() const { return StepInput::make(event, metric.read()); }
};

}  // namespace fastsched
