// What a step reports besides changing the learning rates, if asked to.
#pragma once

#include "history.h"
#include "mirror.h"

namespace fastsched {

template <typename LR, typename Barrier>
FASTSCHED_HD void report(const Buffers& buffers, const LR* lrs, const StepInput& input, std::int64_t first,
                         std::int64_t stride, Barrier& barrier) {
  for (Walk walk(buffers); walk.more(); walk.next()) {
    reflect(walk.view(), buffers, first, stride, barrier);
    record(walk.view(), buffers, lrs, input, first, stride, barrier);
  }
}

}  // namespace fastsched
