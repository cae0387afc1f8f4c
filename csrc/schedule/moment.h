// What happens to a schedule in one step.
#pragma once

#include "host_device.h"

namespace fastsched {

enum class Event : int {
  step = 0,      // on to the next epoch, or take note of a metric
  initial = 1,   // the step that constructing a scheduler makes
  at_epoch = 2,  // the deprecated step(epoch): the closed form at Moment::value
  restart = 3,   // the closed form at Moment::value without counting a step: a sequence begins a child
};

inline constexpr int kEvents = 4;

struct Moment {
  Event event;
  double value;  // the metric, or the epoch to go to

  FASTSCHED_HD bool closed_form() const { return event == Event::at_epoch || event == Event::restart; }
};

}  // namespace fastsched
