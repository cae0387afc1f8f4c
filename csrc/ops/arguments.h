// What both backends of step_ check before they touch a byte.
#pragma once

#include "../schedule/step.h"
#include "stable.h"

namespace fastsched::ops {

// The metric where it lies: an address for the device to read, or a number the host already has.
struct Metric {
  const void* address;  // null: use value
  ScalarType type;
  double value;

  FASTSCHED_HD double read() const { return address != nullptr ? load_scalar(address, type) : value; }
};

inline ScalarType scalar_type(const Tensor& metric) {
  static const struct {
    std::int32_t code;
    ScalarType type;
  } known[] = {
      {aoti_torch_dtype_float32(), ScalarType::f32}, {aoti_torch_dtype_float64(), ScalarType::f64},
      {aoti_torch_dtype_float16(), ScalarType::f16}, {aoti_torch_dtype_bfloat16(), ScalarType::bf16},
      {aoti_torch_dtype_int64(), ScalarType::i64},   {aoti_torch_dtype_int32(), ScalarType::i32},
      {aoti_torch_dtype_int16(), ScalarType::i16},   {aoti_torch_dtype_int8(), ScalarType::i8},
      {aoti_torch_dtype_uint8(), ScalarType::u8},    {aoti_torch_dtype_bool(), ScalarType::boolean},
  };
  const std::int32_t code = dtype_code(metric);
  for (const auto& entry : known) {
    if (entry.code == code) return entry.type;
  }
  STD_TORCH_CHECK(false,
                  "fastsched::step_: metric has a dtype without a real value to compare; cast it with ",
                  "metric.double()");
  return ScalarType::f64;
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() == b.is_cpu() && a.get_device_index() == b.get_device_index();
}

inline void check_buffer(const Tensor& tensor, const Tensor& lrs, const char* name) {
  STD_TORCH_CHECK(is_float64(tensor), "fastsched::step_: ", name, " must be float64");
  STD_TORCH_CHECK(tensor.is_contiguous(), "fastsched::step_: ", name, " must be contiguous");
  STD_TORCH_CHECK(same_device(tensor, lrs), "fastsched::step_: ", name, " must be on the same device as lrs");
}

inline Buffers check_buffers(const Tensor& program, const Tensor& state, const Tensor& masters,
                             const Tensor& lrs) {
  check_buffer(program, lrs, "program");
  check_buffer(state, lrs, "state");
  check_buffer(masters, lrs, "masters");
  STD_TORCH_CHECK(lrs.is_contiguous(), "fastsched::step_: lrs must be contiguous");
  STD_TORCH_CHECK(is_float32(lrs) || is_float64(lrs), "fastsched::step_: lrs must be float32 or float64");
  STD_TORCH_CHECK(masters.numel() == lrs.numel(), "fastsched::step_: masters must have one value per LR");
  return {static_cast<const double*>(program.data_ptr()),
          static_cast<double*>(state.data_ptr()),
          static_cast<double*>(masters.data_ptr()),
          program.numel(),
          state.numel(),
          lrs.numel()};
}

inline Event check_event(std::int64_t event) {
  STD_TORCH_CHECK(event >= 0 && event < kEvents, "fastsched::step_: event must be in 0..", kEvents - 1,
                  ", got ", event);
  return static_cast<Event>(event);
}

// A metric on the host is read here, wherever the learning rates are; one on their device is left there.
inline Metric check_metric(const OptionalTensor& metric, double value, const Tensor& lrs) {
  if (!metric.has_value()) return {nullptr, ScalarType::f64, value};
  STD_TORCH_CHECK(metric->numel() == 1, "fastsched::step_: metric must hold exactly one element, got ",
                  metric->numel());
  const ScalarType type = scalar_type(*metric);
  if (metric->is_cpu()) return {nullptr, type, load_scalar(metric->data_ptr(), type)};
  STD_TORCH_CHECK(same_device(*metric, lrs),
                  "fastsched::step_: metric must be on the host or on the same device as lrs");
  return {metric->data_ptr(), type, 0.0};
}

}  // namespace fastsched::ops
