// One step by the threads of a block: the body of the CUDA kernel. The first thread decides, each updates its
// share of the groups. tests/test_block.py runs it with host threads.
//
// In training, what a step reads has left the cache since the last step, and waiting for one load after
// another takes longer than everything else. So all loads are issued at once, before any result is used: the
// metric, and all buffers, which the block copies into shared memory and works on there.
#pragma once

#include "schedule/report/report.h"
#include "step.h"

namespace fastsched {

// How many bytes the copies of all buffers take.
template <typename LR>
FASTSCHED_HD std::int64_t shared_size(const Buffers& buffers) {
  const std::int64_t words = buffers.program_size + buffers.state_size + buffers.groups;
  return words * static_cast<std::int64_t>(sizeof(double)) +
         buffers.groups * static_cast<std::int64_t>(sizeof(LR));
}

// Returns false, with nothing changed, if program and state do not describe a schedule for this many groups.
//
// `shared` is the block's shared memory, of shared_size() bytes, or null if the block cannot have that much.
// Then the buffers themselves are read, one load after another.
//
// `barrier.wait()` makes the threads of the block wait for each other, and `barrier.all(yes)` also tells each
// whether all said yes; `barrier.copied()` also waits for what `barrier.copy(to, from)` has started, and
// `barrier.publish()` makes everything written so far visible to the host. `masters`, `lrs` and `state` are
// disjoint.
template <typename LR, typename Barrier>
FASTSCHED_HD bool step_in_block(const Buffers& buffers, LR* lrs, const Call& call, double* shared,
                                std::int64_t thread, std::int64_t threads, Barrier& barrier) {
  Buffers near = buffers;
  LR* near_lrs = lrs;
  if (shared != nullptr) {
    near.program = shared;
    near.state = shared + buffers.program_size;
    near.masters = near.state + buffers.state_size;
    near_lrs = reinterpret_cast<LR*>(near.masters + buffers.groups);
    for (auto i = thread; i < buffers.program_size; i += threads) {
      barrier.copy(shared + i, buffers.program + i);
    }
    for (auto i = thread; i < buffers.state_size; i += threads) {
      barrier.copy(near.state + i, buffers.state + i);
    }
    for (auto i = thread; i < buffers.groups; i += threads) {
      barrier.copy(near.masters + i, buffers.masters + i);
      barrier.copy(near_lrs + i, lrs + i);
    }
  }
  const std::uint64_t found_inf = call.found_inf.fetch();
  const std::uint64_t metric = call.metric.fetch();
  barrier.copied();
  if (call.found_inf.number_in(found_inf) != 0.0) return true;  // the same for all threads
  const StepInput input = StepInput::make(call.event, call.metric.number_in(metric));

  const bool fits = thread != 0 || well_formed(near);
  if (thread == 0 && fits) decide_all(near, near_lrs, input);
  if (!barrier.all(fits)) return false;
  for (auto group = thread; group < near.groups; group += threads) {
    double lr = adopt_external_write(near.masters[group], near_lrs[group]);
    for (Walk walk(near); walk.more(); walk.next()) {
      const NodeView& view = walk.view();
      const auto update = read_words<Update>(view.update());
      if (update.kind() == Law::idle) continue;
      lr = after_node(walk, update, group, lr);
      if (!is_composite(view.kind())) view.last_lrs()[group] = lr;
    }
    near.masters[group] = lr;
    near_lrs[group] = static_cast<LR>(lr);
  }
  report(near, near_lrs, input, thread, threads, barrier);

  if (shared == nullptr) return true;
  for (auto i = thread; i < buffers.groups; i += threads) {
    buffers.masters[i] = near.masters[i];
    lrs[i] = near_lrs[i];
  }
  barrier.wait();
  for (auto i = thread; i < buffers.state_size; i += threads) buffers.state[i] = near.state[i];
  return true;
}

}  // namespace fastsched
