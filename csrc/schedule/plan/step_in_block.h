// One step by the threads of a block: the body of the CUDA kernel. The first decides, each updates groups of
// its own. tests/test_block.py runs it with threads of the host.
#pragma once

#include "schedule/report/report.h"
#include "step.h"

namespace fastsched {

// `barrier.wait()` has the threads of the block wait for each other; `barrier.publish()` also makes all they
// wrote so far visible to the host. `masters`, `lrs` and `state` are disjoint.
template <typename LR, typename Barrier>
FASTSCHED_HD void step_in_block(const Buffers& buffers, LR* lrs, const Moment& moment, std::int64_t thread,
                                std::int64_t threads, Barrier& barrier) {
  if (thread == 0) decide_all(buffers, moment);
  barrier.wait();
  for (std::int64_t group = thread; group < buffers.groups; group += threads) {
    double lr = follow(buffers.masters[group], lrs[group]);
    for (Walk walk(buffers); walk.more(); walk.next()) {
      const Place& place = walk.place();
      const auto update = read_words<Update>(place.update());
      if (update.kind() == Law::idle) continue;
      const Node node = place.node();
      Own own = walk.own(node);
      own.index = group;
      if (!leaves_alone(node, own)) lr = apply(update, lr, own).lr;
      if (!is_composite(node.kind())) place.last_lrs()[group] = lr;
    }
    buffers.masters[group] = lr;
    lrs[group] = static_cast<LR>(lr);
  }
  report(buffers, lrs, moment, thread, threads, barrier);
}

}  // namespace fastsched
