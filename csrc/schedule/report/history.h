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

FASTSCHED_HD Event event_of(const NodeView& view) {
  return static_cast<Event>(static_cast<int>(view.event()));
}

// What the plateaus that stepped in a subtree did.
struct PlateauReport {
  double metric;      // NaN without a plateau, or without a metric
  double best;        // of the last of them; NaN if there was none
  double reductions;  // how many of them decided to reduce

  FASTSCHED_HD static PlateauReport none() { return {NAN, NAN, 0.0}; }
  // What this step was to a plateau; `best`: its best metric after it.
  FASTSCHED_HD void add(Kind kind, Event event, Law law, double best_metric, const StepInput& input) {
    if (input.measured) metric = input.value;
    if (!is_step(kind, event, input.measured)) return;
    best = best_metric;
    if (reduces(law)) reductions += 1.0;
  }
};

// Where the next row goes; null in a history that is damaged, or for another number of groups.
FASTSCHED_HD double* next_row(double* words, const History& history, std::int64_t groups) {
  if (history.columns != static_cast<double>(kHistoryOwn + groups)) return nullptr;
  if (!(is_count(history.capacity) && history.capacity >= 1.0 && is_count(history.steps))) return nullptr;
  const auto row = static_cast<std::int64_t>(history.steps) % static_cast<std::int64_t>(history.capacity);
  return words + kHistoryHeader + row * (kHistoryOwn + groups);
}

// Completes that row, in which the learning rates are.
FASTSCHED_HD void finish_row(double* words, const History& history, double* row,
                             const PlateauReport& report) {
  row[0] = report.metric;
  row[1] = report.best;
  row[2] = report.reductions;
  write_words(words, History{history.capacity, history.columns, history.steps + 1.0});
}

FASTSCHED_HD PlateauReport report_of(const NodeView& root, const Node& node, std::int64_t groups,
                                     const StepInput& input) {
  PlateauReport report = PlateauReport::none();
  const NodeView end = root.after(node);
  for (NodeView view = root; view.program < end.program; view = view.next(view.node(), groups)) {
    if (!is_plateau(view.kind())) continue;
    report.add(view.kind(), event_of(view), read_words<Update>(view.update()).kind(),
               read_words<PlateauState>(view.counters()).best, input);
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
  if (words == nullptr || !is_step(view.kind(), event_of(view), input.measured)) return;
  const auto history = read_words<History>(words);
  double* const row = next_row(words, history, buffers.groups);
  if (row == nullptr) return;
  barrier.wait();  // until all threads have read how many steps there were
  const double* const left = left_by(view, buffers.groups);
  for (std::int64_t i = first; i < buffers.groups; i += stride) {
    row[kHistoryOwn + i] = static_cast<double>(left != nullptr ? static_cast<LR>(left[i]) : lrs[i]);
  }
  if (first == 0) finish_row(words, history, row, report_of(view, view.node(), buffers.groups, input));
}

}  // namespace fastsched
