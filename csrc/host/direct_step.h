// A step over tensors in host memory without the operator around it: calling an operator costs more than the
// step. The caller keeps the tensors alive and calls the operator where somebody watches operators.
#pragma once

#include "../schedule/step_on_host.h"
#include "python.h"

namespace fastsched::host {

class DirectStep {
 public:
  // Addresses and lengths in elements; float64 but for `lrs`, which may be float32.
  DirectStep(std::uintptr_t program, std::int64_t program_size, std::uintptr_t state, std::int64_t state_size,
             std::uintptr_t masters, std::uintptr_t lrs, std::int64_t groups, bool float32)
      : buffers_{reinterpret_cast<const double*>(program),
                 reinterpret_cast<double*>(state),
                 reinterpret_cast<double*>(masters),
                 program_size,
                 state_size,
                 groups},
        lrs_(reinterpret_cast<void*>(lrs)),
        float32_(float32) {
    if (!well_formed(buffers_)) throw pybind11::value_error("program and state do not describe a schedule");
  }

  void step(Event event, double value) const {
    const Moment moment = Moment::make(event, value);
    if (float32_) {
      step_on_host(buffers_, static_cast<float*>(lrs_), moment);
    } else {
      step_on_host(buffers_, static_cast<double*>(lrs_), moment);
    }
  }

 private:
  Buffers buffers_;
  void* lrs_;
  bool float32_;
};

}  // namespace fastsched::host
