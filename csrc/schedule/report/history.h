// What each step appends to a history: the metric, what plateaus made of it, and the learning rates after the
// step. As with a mirror, whoever wants one puts its address into a node's state, so captured graphs follow.
//
//   history  capacity | columns | steps | rows     the oldest rows are overwritten
//   row      metric | best | reductions | learning rates
#pragma once

#include <cmath>
#include <cstdint>

#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/moment.h"
#include "schedule/plan/step.h"

namespace fastsched {

struct History {
  double capacity;
  double columns;
  double steps;
};

inline constexpr int kHistoryHeader = sizeof(History) / sizeof(double);
inline constexpr int kHistoryOwn = 3;  // columns before the learning rates

// Whether this step is one of the node's own. Beginning anew is none, except for a plateau that then takes
// note of a metric.
FASTSCHED_HD bool steps(const Place& place, const Moment& moment) {
  const auto event = static_cast<Event>(static_cast<int>(place.event()));
  if (is_plateau(place.kind())) {
    const bool takes_note = event == Event::restart && place.kind() == Kind::plateau;
    return moment.measured && (event == Event::step || takes_note);
  }
  return event == Event::step || event == Event::at_epoch;
}

// What the plateaus in a subtree did whose turn it was.
struct PlateauReport {
  double metric;      // NaN without a plateau, or without a metric
  double best;        // of the last of them; NaN if there was none
  double reductions;  // how many of them found that it is time to reduce
};

FASTSCHED_HD PlateauReport report_of(const Place& root, const Node& node, std::int64_t groups,
                                     const Moment& moment) {
  PlateauReport report = {NAN, NAN, 0.0};
  const Place end = root.after(node);
  for (Place place = root; place.program < end.program; place = place.next(place.node(), groups)) {
    if (!is_plateau(place.kind())) continue;
    if (moment.measured) report.metric = moment.value;
    if (!steps(place, moment)) continue;
    report.best = read_words<PlateauState>(place.counters()).best;
    if (read_words<Update>(place.update()).kind() == Law::reduce) report.reductions += 1.0;
  }
  return report;
}

// The learning rates as the subtree's last schedule left them, whatever comes after it; null where none was
// stepped.
FASTSCHED_HD const double* left_by(const Place& root, std::int64_t groups) {
  const double* left = nullptr;
  const Place end = root.after(root.node());
  for (Place place = root; place.program < end.program; place = place.next(place.node(), groups)) {
    const bool idle = read_words<Update>(place.update()).kind() == Law::idle;
    if (!is_composite(place.kind()) && !idle) left = place.last_lrs();
  }
  return left;
}

// `first` and `stride` are the calling thread's share of the groups, whose learning rates it has written
// itself; `barrier` has all threads wait for each other.
template <typename LR, typename Barrier>
FASTSCHED_HD void record(const Place& place, const Buffers& buffers, const LR* lrs, const Moment& moment,
                         std::int64_t first, std::int64_t stride, Barrier& barrier) {
  double* const words = pointer_in(place.history());
  if (words == nullptr || !steps(place, moment)) return;
  const auto history = read_words<History>(words);
  if (history.columns != static_cast<double>(kHistoryOwn + buffers.groups)) return;
  if (!(is_count(history.capacity) && history.capacity >= 1.0 && is_count(history.steps))) return;
  const auto done = static_cast<std::int64_t>(history.steps);
  double* const row =
      words + kHistoryHeader +
      done % static_cast<std::int64_t>(history.capacity) * static_cast<std::int64_t>(history.columns);
  barrier.wait();  // everybody has read how many steps there were
  const double* const left = left_by(place, buffers.groups);
  for (std::int64_t i = first; i < buffers.groups; i += stride) {
    row[kHistoryOwn + i] = static_cast<double>(left != nullptr ? static_cast<LR>(left[i]) : lrs[i]);
  }
  if (first != 0) return;
  const PlateauReport report = report_of(place, place.node(), buffers.groups, moment);
  row[0] = report.metric;
  row[1] = report.best;
  row[2] = report.reductions;
  write_words(words, History{history.capacity, history.columns, history.steps + 1.0});
}

}  // namespace fastsched
