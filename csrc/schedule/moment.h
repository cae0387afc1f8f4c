// What happens to a schedule in one step.
#pragma once

#include "host_device.h"

namespace fastsched {

enum class Event : int {
  step = 0,      // on to the next epoch, or take note of a metric
  initial = 1,   // the step that constructing a scheduler makes
  at_epoch = 2,  // to the epoch Moment::value by the closed form, without counting a step
};

inline constexpr int kEvents = 3;

struct Moment {
  Event event;
  double value;  // the metric, or the epoch to go to

  FASTSCHED_HD bool closed_form() const { return event == Event::at_epoch; }
};

}  // namespace fastsched
