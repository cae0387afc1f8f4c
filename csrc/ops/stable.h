// The only header that names torch::stable. The operators use nothing but libtorch's stable ABI, so one build
// serves every torch from 2.11 on.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>

namespace fastsched::ops {

using Tensor = torch::stable::Tensor;
using DeviceGuard = torch::stable::accelerator::DeviceGuard;
using OptionalTensor = std::optional<torch::stable::Tensor>;

// Dtypes as libtorch's own codes: Tensor::scalar_type() translates them with a series of calls, which costs
// more than the step.
inline std::int32_t dtype_code(const Tensor& tensor) {
  std::int32_t code = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &code));
  return code;
}

inline bool is_float64(const Tensor& tensor) {
  static const std::int32_t float64 = aoti_torch_dtype_float64();
  return dtype_code(tensor) == float64;
}

inline bool is_float32(const Tensor& tensor) {
  static const std::int32_t float32 = aoti_torch_dtype_float32();
  return dtype_code(tensor) == float32;
}

}  // namespace fastsched::ops
