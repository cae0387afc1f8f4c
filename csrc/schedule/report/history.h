// What each step appends to a history: the metric, what plateaus made of it, and the learning rates after the
// step. As with a mirror, its address is put into a node's state, so captured graphs use it too.
//
//   history  capacity | columns | steps | rows     the oldest rows are overwritten
//   row      metric | best | reductions | learning rates
#pragma once

#include <cmath>
#include <cstdint>

#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/step.h"
#include "schedule/plan/step_input.h"

namespace fastsched {

struct History {
  double capacity;
  double columns;
  double steps;
};

inline constexpr int kHistoryHeader = sizeof(History) / sizeof(double);
inline constexpr int kHistoryOwn = 3;  // columns before the learning rates

// Whether this step is one of the node's own.
FASTSCHED_HD bool steps(const NodeView& view, const StepInput& input) {
  return is_step(view.kind(), static_cast<Event>(static_cast<int>(view.event())), input.measured);
}

// What the plateaus that stepped in a subtree did.
struct PlateauReport {
  double metric;      // NaN without a plateau, or without a metric
  double best;        // of the last of them; NaN if there was none
  double reductions;  // how many of them decided to reduce
};

FASTSCHED_HD PlateauReport report_of(const NodeView& root, const Node& node, std::int64_t groups,
                                     const StepInput& input) {
  PlateauReport report = {NAN, NAN, 0.0};
  const NodeView end = root.after(node);
  for (NodeView view = root; view.program < end.program; view = view.next(view.node(), groups)) {
    if (!is_plateau(view.kind())) continue;
    if (input.measured) report.metric = input.value;
    if (!steps(view, input)) continue;
    report.best = read_words<PlateauState>(view.counters()).best;
    if (reduces(read_words<Update>(view.update()).kind())) report.reductions += 1.0;
  }
  return report;
}

// The learning rates as the subtree's last active schedule left them, before any that follow the subtree;
// null if none stepped.
FASTSCHED_HD const double* left_by(const NodeView& root, std::int64_t groups) {
  const double* left = nullptr;
  const NodeView end = root.after(root.node());
  for (NodeView view = root; view.program < end.program; view = view.next(view.node(), groups)) {
    const bool idle = read_words<Update>(view.update()).kind() == Law::idle;
    if (!is_composite(view.kind()) && !idle) left = view.last_lrs();
  }
  return left;
}

// `first` and `stride` give the calling thread's share of the groups, whose learning rates it wrote itself;
// `barrier` makes all threads wait for each other.
template <typename LR, typename Barrier>
FASTSCHED_HD void record(const NodeView& view, const Buffers& buffers, const LR* lrs, const StepInput& input,
                         std::int64_t first, std::int64_t stride, Barrier& barrier) {
  double* const words = pointer_in(view.history());
  if (words == nullptr || !steps(view, input)) return;
  const auto history = read_words<History>(words);
  if (history.columns != static_cast<double>(kHistoryOwn + buffers.groups)) return;
  if (!(is_count(history.capacity) && history.capacity >= 1.0 && is_count(history.steps))) return;
  const auto done = static_cast<std::int64_t>(history.steps);
  double* const row =
      words + kHistoryHeader +
      done % static_cast<std::int64_t>(history.capacity) * static_cast<std::int64_t>(history.columns);
  barrier.wait();  // until all threads have read how many steps there were
  const double* const left = left_by(view, buffers.groups);
  for (std::int64_t i = first; i < buffers.groups; i += stride) {
    row[kHistoryOwn + i] = static_cast<double>(left != nullptr ? static_cast<LR>(left[i]) : lrs[i]);
  }
  if (first != 0) return;
  const PlateauReport report = report_of(view, view.node(), buffers.groups, input);
  row[0] = report.metric;
  row[1] = report.best;
  row[2] = report.reductions;
  write_words(words, History{history.capacity, history.columns, history.steps + 1.0});
}

}  // namespace fastsched
