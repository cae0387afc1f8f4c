// What a step leaves in memory that the host can read while the device keeps working: a node's counters and
// the learning rates after the step. The memory's address is put into the node's state, so captured graphs
// use it too.
//
//   mirror  begun | counters | learning rates | done      begun and done count steps; when they are equal,
//                                                         nothing between them is half written
#pragma once

#include <cstdint>

#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/step.h"

namespace fastsched {

FASTSCHED_HD constexpr std::int64_t mirror_size(std::int64_t groups) { return kNodeCounters + groups + 2; }

// `first` and `stride` give the calling thread's share of the groups; `barrier` makes all threads' writes so
// far visible to each other and to the host.
template <typename Barrier>
FASTSCHED_HD void reflect(const NodeView& view, const Buffers& buffers, std::int64_t first,
                          std::int64_t stride, Barrier& barrier) {
  volatile double* mirror = pointer_in(view.mirror());
  if (mirror == nullptr) return;
  double& steps = view.mirror()[2];
  const double step = steps + 1.0;
  if (first == 0) mirror[0] = step;
  barrier.publish();
  volatile double* lrs = mirror + 1 + kNodeCounters;
  for (std::int64_t i = first; i < buffers.groups; i += stride) lrs[i] = buffers.masters[i];
  if (first == 0) {
    for (int i = 0; i < kNodeCounters; ++i) mirror[1 + i] = view.counters()[i];
  }
  barrier.publish();
  if (first == 0) {
    lrs[buffers.groups] = step;
    steps = step;
  }
}

}  // namespace fastsched
