// All operator schemas. Their fake implementations are in fastsched/engine/ops.py.
#include "stable.h"

STABLE_TORCH_LIBRARY(fastsched, library) {
  // Advances the schedule in `program` by one step: counters in `state`, learning rates in `masters`
  // (float64) and `lrs` (rounded). `event` is an Event of csrc/schedule/plan/step_input.h. `metric` is read
  // in place; without one, `value` is the metric, or the epoch to go to. A nonzero `found_inf` skips the
  // step.
  library.def(
      "step_(Tensor program, Tensor(a!) state, Tensor(b!) masters, Tensor(c!) lrs, Tensor? metric, "
      "float value, int event=0, Tensor? found_inf=None) -> ()");
}
