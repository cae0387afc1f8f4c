#include "arguments.h"
#include "stable.h"

namespace fastsched::ops {
namespace {

void step_cpu(const Tensor program, const Tensor state, const Tensor masters, const Tensor lrs,
              const OptionalTensor metric, double value, std::int64_t event, const OptionalTensor found_inf) {
  const Buffers buffers = check_buffers(program, state, masters, lrs, metric, found_inf);
  STD_TORCH_CHECK(fit_to_run(buffers), "fastsched::step_: program and state do not describe a schedule of ",
                  buffers.groups, " param groups; build them with a fastsched scheduler");
  const Call call = check_call(metric, found_inf, value, event, lrs);
  if (call.skipped()) return;
  if (is_float32(lrs)) {
    step_on_host(buffers, static_cast<float*>(lrs.data_ptr()), call.input());
  } else {
    step_on_host(buffers, static_cast<double*>(lrs.data_ptr()), call.input());
  }
}

}  // namespace
}  // namespace fastsched::ops

STABLE_TORCH_LIBRARY_IMPL(fastsched, CPU, library) {
  library.impl("step_", TORCH_BOX(&fastsched::ops::step_cpu));
}
