// What comes of asking an engine to step.
#pragma once

#include <utility>

#include "python.h"

namespace fastsched::host {

enum class Outcome { failed = -1, declined = 0, stepped = 1 };

// What Python gets where an engine has declined, for somebody else to make the step; None where it was made.
struct Declined : Bound {
  Declined() = default;
  Declined(pybind11::object metric_now, pybind11::object lrs_now)
      : metric(std::move(metric_now)), lrs(std::move(lrs_now)) {}

  // Converted, if it was: a metric is read only once. None where it is as it was given.
  pybind11::object metric = pybind11::none();
  // The learning rates that a LambdaLR's functions gave, which may be called only once; then the counters
  // have gone on. None otherwise.
  pybind11::object lrs = pybind11::none();
};

}  // namespace fastsched::host
