// One step over buffers in host memory.
#pragma once

#include <type_traits>

#include "schedule/report/report.h"
#include "step.h"

namespace fastsched {

// What the CUDA kernel checks as it runs, the host can check beforehand.
inline bool fit_to_run(const Buffers& buffers) { return well_formed(buffers) && columns_fit(buffers); }

// Applies an update of this law to all groups: once `apply` is inlined, a loop that does not branch on the
// law. `lrs`, if there is one, gets the same, rounded.
template <Law kLaw, typename LR>
[[gnu::flatten]] void update_all_by(Update update, GroupParams own, double* masters,
                                    [[maybe_unused]] LR* lrs) {
  update.law = static_cast<double>(kLaw);
  for (own.index = 0; own.index < own.groups; ++own.index) {
    masters[own.index] = apply(update, masters[own.index], own).lr;
    if constexpr (!std::is_void_v<LR>) lrs[own.index] = static_cast<LR>(masters[own.index]);
  }
}

template <typename LR>
void update_all(const Update& update, const GroupParams& own, double* masters, LR* lrs) {
  switch (update.kind()) {
#define FASTSCHED_ALL_BY(law) \
  case Law::law: return update_all_by<Law::law>(update, own, masters, lrs);
    FASTSCHED_LAWS(FASTSCHED_ALL_BY)
#undef FASTSCHED_ALL_BY
  }
}

// One pass over all groups for each node that does something, so the law is the same throughout the pass.
template <typename LR>
void update_groups(const Buffers& buffers, LR* lrs) {
  const std::int64_t groups = buffers.groups;
  double* masters = buffers.masters;
  for (std::int64_t i = 0; i < groups; ++i) masters[i] = adopt_external_write(masters[i], lrs[i]);
  for (Walk walk(buffers); walk.more(); walk.next()) {
    const NodeView& view = walk.view();
    const auto update = read_words<Update>(view.update());
    if (update.kind() == Law::idle) continue;
    const Node node = view.node();
    if (update.kind() != Law::hold) {
      GroupParams own = walk.own(node);
      const double* const takes_part = view.takes_part(node, groups);
      if (takes_part != nullptr) {
        for (own.index = 0; own.index < groups; ++own.index) {
          const std::int64_t i = own.index;
          if (takes_part[i] == 0.0) continue;
          masters[i] = apply(update, masters[i], own).lr;
          lrs[i] = static_cast<LR>(masters[i]);
        }
      } else {
        update_all(update, own, masters, lrs);
      }
    }
    if (!is_composite(node.kind())) {
      memcpy(view.last_lrs(), masters, static_cast<std::size_t>(groups) * sizeof(double));
    }
  }
}

// For a single thread.
struct NoBarrier {
  void wait() {}
  void publish() {}
};

template <typename LR>
void step_on_host(const Buffers& buffers, LR* lrs, const StepInput& input) {
  decide_all(buffers, lrs, input);
  update_groups(buffers, lrs);
  NoBarrier alone;
  report(buffers, lrs, input, 0, 1, alone);
}

}  // namespace fastsched
