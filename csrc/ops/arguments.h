// What both backends of step_ check before they write anything.
#pragma once

#include "schedule/plan/step_on_host.h"
#include "stable.h"

namespace fastsched::ops {

inline ScalarType scalar_type(const Tensor& number, const char* name) {
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
  const std::int32_t code = dtype_code(number);
  for (const auto& entry : known) {
    if (entry.code == code) return entry.type;
  }
  STD_TORCH_CHECK(false, "fastsched::step_: ", name,
                  " has a dtype without a real value to compare; cast it with ", name, ".double()");
  return ScalarType::f64;
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() == b.is_cpu() && a.get_device_index() == b.get_device_index();
}

// The bytes of an argument. Its storage may have been resized or freed meanwhile.
struct Memory {
  const char* name;
  bool written;
  const char* begin;
  std::int64_t size;

  static Memory of(const Tensor& tensor, const char* name, bool written) {
    std::int64_t stored = 0;
    std::int64_t offset = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &stored));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(tensor.get(), &offset));
    const std::int64_t count = tensor.numel();
    const auto item = static_cast<std::int64_t>(tensor.element_size());
    const auto* const begin = static_cast<const char*>(tensor.data_ptr());
    STD_TORCH_CHECK(count == 0 || (begin != nullptr && (offset + count) * item <= stored),
                    "fastsched::step_: the storage of ", name, " is smaller than the tensor");
    return {name, written, begin, count * item};
  }
  bool overlaps(const Memory& other) const {
    return size > 0 && other.size > 0 && begin < other.begin + other.size && other.begin < begin + size;
  }
};

// What a step writes must not overlap another argument, or the step would read what it has just written.
inline void check_memory(const Tensor& program, const Tensor& state, const Tensor& masters, const Tensor& lrs,
                         const OptionalTensor& metric, const OptionalTensor& found_inf) {
  Memory all[6] = {Memory::of(program, "program", false), Memory::of(state, "state", true),
                   Memory::of(masters, "masters", true), Memory::of(lrs, "lrs", true)};
  int count = 4;
  if (metric.has_value()) all[count++] = Memory::of(*metric, "metric", false);
  if (found_inf.has_value()) all[count++] = Memory::of(*found_inf, "found_inf", false);
  for (int i = 0; i < count; ++i) {
    for (int k = i + 1; k < count; ++k) {
      STD_TORCH_CHECK(!((all[i].written || all[k].written) && all[i].overlaps(all[k])),
                      "fastsched::step_: ", all[i].name, " and ", all[k].name,
                      " must not share memory; clone one of them");
    }
  }
}

inline void check_buffer(const Tensor& tensor, const Tensor& lrs, const char* name) {
  STD_TORCH_CHECK(is_float64(tensor), "fastsched::step_: ", name, " must be float64");
  STD_TORCH_CHECK(tensor.is_contiguous(), "fastsched::step_: ", name, " must be contiguous");
  STD_TORCH_CHECK(same_device(tensor, lrs), "fastsched::step_: ", name, " must be on the same device as lrs");
}

inline Buffers check_buffers(const Tensor& program, const Tensor& state, const Tensor& masters,
                             const Tensor& lrs, const OptionalTensor& metric,
                             const OptionalTensor& found_inf) {
  check_buffer(program, lrs, "program");
  check_buffer(state, lrs, "state");
  check_buffer(masters, lrs, "masters");
  STD_TORCH_CHECK(lrs.is_contiguous(), "fastsched::step_: lrs must be contiguous");
  STD_TORCH_CHECK(is_float32(lrs) || is_float64(lrs), "fastsched::step_: lrs must be float32 or float64");
  STD_TORCH_CHECK(masters.numel() == lrs.numel(), "fastsched::step_: masters must have one value per LR");
  check_memory(program, state, masters, lrs, metric, found_inf);
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

// A number on the host is read here, wherever the learning rates are; one on their device is read by the
// step.
inline Operand check_number(const OptionalTensor& number, double value, const Tensor& lrs, const char* name) {
  if (!number.has_value()) return {nullptr, ScalarType::f64, value};
  STD_TORCH_CHECK(number->numel() == 1, "fastsched::step_: ", name, " must hold exactly one element, got ",
                  number->numel());
  const ScalarType type = scalar_type(*number, name);
  if (number->is_cpu()) return {nullptr, type, load_scalar(number->data_ptr(), type)};
  STD_TORCH_CHECK(same_device(*number, lrs), "fastsched::step_: ", name,
                  " must be on the host or on the same device as lrs");
  return {number->data_ptr(), type, 0.0};
}

inline Call check_call(const OptionalTensor& metric, const OptionalTensor& found_inf, double value,
                       std::int64_t event, const Tensor& lrs) {
  return {check_event(event), check_number(metric, value, lrs, "metric"),
          check_number(found_inf, 0.0, lrs, "found_inf")};
}

}  // namespace fastsched::ops
