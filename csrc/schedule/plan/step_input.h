// What happens to a schedule in one step.
#pragma once

#include "host_device.h"
#include "scalar.h"

namespace fastsched {

enum class Event : int {
  step = 0,        // go on to the next epoch, or judge a metric
  initial = 1,     // the step made by a scheduler's constructor
  at_epoch = 2,    // go to the epoch StepInput::value by the closed form, without counting a step
  unmeasured = 3,  // a step without a metric
  construct = 4,   // reset and make the initial step: where a schedule begins
  restart = 5,     // go to epoch 0 in the middle of a run
  // Sent only by a composite to its children:
  begin = 6,    // construct, within a composite that begins
  idle = 7,     // not its turn
  prepare = 8,  // reset, with the initial step undone: for a later turn
};

inline constexpr int kEvents = 6;  // how many of them an operator accepts

struct StepInput {
  Event event;
  double value;   // the metric, or the epoch to go to
  bool measured;  // value is a metric

  FASTSCHED_HD static StepInput make(Event event, double value) {
    const bool measured = event == Event::step;
    return {event == Event::unmeasured ? Event::step : event, value, measured};
  }
  FASTSCHED_HD bool closed_form() const { return event == Event::at_epoch || event == Event::restart; }
  FASTSCHED_HD double epoch() const { return event == Event::at_epoch ? value : 0.0; }
};

// The arguments of a step besides its buffers.
struct Call {
  Event event;
  Operand metric;
  Operand found_inf;  // not 0: the step is skipped

  FASTSCHED_HD bool skipped() const { return found_inf.read() != 0.0; }
  FASTSCHED_HD StepInput input() const { return StepInput::make(event, metric.read()); }
};

}  // namespace fastsched
