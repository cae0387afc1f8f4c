#include "arguments.h"
#include "stable.h"

namespace fastsched::ops {
namespace {

// One pass per node that does something, over all groups: the law is then the same for the whole pass.
// While every node holds, no learning rate changes and the first pass is all there is.
template <typename LR>
void update_groups(const Buffers& buffers, LR* lrs) {
  const std::int64_t groups = buffers.groups;
  double* masters = buffers.masters;
  double* last = last_lrs(buffers);
  for (std::int64_t i = 0; i < groups; ++i) last[i] = masters[i] = follow(masters[i], lrs[i]);
  for (std::int64_t node = 0; node < node_count(buffers); ++node) {
    const Update update = update_at(buffers, node);
    if (update.kind() == Law::hold) continue;
    const double* params = group_params(buffers, node);
    for (std::int64_t i = 0; i < groups; ++i) {
      last[i] = masters[i] = apply(update, masters[i], params[i]).lr;
      lrs[i] = static_cast<LR>(masters[i]);
    }
  }
}

void step_cpu(const Tensor program, const Tensor state, const Tensor masters, const Tensor lrs,
              const OptionalTensor metric, double value, std::int64_t event) {
  const Buffers buffers = check_buffers(program, state, masters, lrs);
  STD_TORCH_CHECK(well_formed(buffers), "fastsched::step_: program and state do not describe a schedule of ",
                  buffers.groups, " param groups; build them with a fastsched scheduler");
  const Metric operand = check_metric(metric, value, lrs);
  decide_all(buffers, {check_event(event), operand.read()});
  if (is_float32(lrs)) {
    update_groups(buffers, static_cast<float*>(lrs.data_ptr()));
  } else {
    update_groups(buffers, static_cast<double*>(lrs.data_ptr()));
  }
}

}  // namespace
}  // namespace fastsched::ops

STABLE_TORCH_LIBRARY_IMPL(fastsched, CPU, library) {
  library.impl("step_", TORCH_BOX(&fastsched::ops::step_cpu));
}
