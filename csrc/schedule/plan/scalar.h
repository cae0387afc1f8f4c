// Reads one number of any dtype as a double: a metric comes in whatever type the model computes in.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace fastsched {

// Doubles represent every integer up to this number.
inline constexpr double kExactIntegers = 9007199254740992.0;  // 2^53

// For doubles between 0 and that number.
FASTSCHED_HD bool is_whole(double number) {
  return number == static_cast<double>(static_cast<std::int64_t>(number));
}

// Whether a double from a buffer is a valid count: only then may it be cast to an integer.
FASTSCHED_HD bool is_count(double number) {
  return number >= 0.0 && number <= kExactIntegers && is_whole(number);
}

// Whether adding 1 to a counter is exact.
FASTSCHED_HD bool counts_on(double counter) { return counter < kExactIntegers; }

enum class ScalarType : int { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

template <typename T>
FASTSCHED_HD T load(const void* address) {
  T value;
  memcpy(&value, address, sizeof(T));
  return value;
}

// The same for an address aligned for T, as a tensor's is: on a device memcpy would load byte by byte.
template <typename T>
FASTSCHED_HD T load_aligned(const void* address) {
#ifdef __CUDA_ARCH__
  return *static_cast<const T*>(address);
#else
  return load<T>(address);
#endif
}

// Read a struct of doubles from a buffer of doubles, and write it to one. Word by word, because on a device
// memcpy from memory of unknown alignment loads byte by byte.
template <typename T>
FASTSCHED_HD T read_words(const double* from) {
  constexpr int kWords = sizeof(T) / sizeof(double);
  double words[kWords > 0 ? kWords : 1] = {};
  for (int i = 0; i < kWords; ++i) words[i] = from[i];
  T value;
  memcpy(&value, words, kWords * sizeof(double));
  return value;
}
template <typename T>
FASTSCHED_HD void write_words(double* to, const T& value) {
  constexpr int kWords = sizeof(T) / sizeof(double);
  double words[kWords > 0 ? kWords : 1] = {};
  memcpy(words, &value, kWords * sizeof(double));
  for (int i = 0; i < kWords; ++i) to[i] = words[i];
}

// The address stored in two words, the second of which is its complement. Null if the two do not match, so a
// stray value is never taken for an address.
FASTSCHED_HD double* pointer_in(const double* words) {
  const double copies[] = {words[0], words[1]};
  const auto address = load<std::uint64_t>(&copies[0]);
  const auto complement = load<std::uint64_t>(&copies[1]);
  return complement == ~address ? reinterpret_cast<double*>(address) : nullptr;
}

FASTSCHED_HD float float_from_bits(std::uint32_t bits) { return load<float>(&bits); }

// IEEE binary16. Half and bfloat16 are decoded by hand because the device types need CUDA or torch headers.
FASTSCHED_HD double half_to_double(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24, exact
    const double magnitude = mantissa * (1.0 / 16777216.0);
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t wide = exponent == 0x1f ? 0xffu : exponent + (127 - 15);
  return float_from_bits(sign | (wide << 23) | (mantissa << 13));
}

FASTSCHED_HD double bfloat16_to_double(std::uint16_t bits) {
  return float_from_bits(static_cast<std::uint32_t>(bits) << 16);
}

FASTSCHED_HD double load_scalar(const void* address, ScalarType type) {
  switch (type) {
    case ScalarType::f64: return load<double>(address);
    case ScalarType::f32: return load<float>(address);
    case ScalarType::f16: return half_to_double(load<std::uint16_t>(address));
    case ScalarType::bf16: return bfloat16_to_double(load<std::uint16_t>(address));
    case ScalarType::i64: return static_cast<double>(load<std::int64_t>(address));
    case ScalarType::i32: return load<std::int32_t>(address);
    case ScalarType::i16: return load<std::int16_t>(address);
    case ScalarType::i8: return load<std::int8_t>(address);
    case ScalarType::u8:
    case ScalarType::boolean: return load<std::uint8_t>(address);
  }
  return 0.0;
}

// A number in place: an address for the device to read, or a value that the host already has.
struct Operand {
  const void* address;  // null: use value
  ScalarType type;
  double value;

  FASTSCHED_HD double read() const { return number_in(fetch()); }

  // In two parts, because a device waits for a load only when its result is used: the number's bits as they
  // are in memory, then the number.
  FASTSCHED_HD std::uint64_t fetch() const {
    if (address == nullptr) return 0;
    switch (type) {
      case ScalarType::f64:
      case ScalarType::i64: return load_aligned<std::uint64_t>(address);
      case ScalarType::f32:
      case ScalarType::i32: return load_aligned<std::uint32_t>(address);
      case ScalarType::f16:
      case ScalarType::bf16:
      case ScalarType::i16: return load_aligned<std::uint16_t>(address);
      case ScalarType::i8:
      case ScalarType::u8:
      case ScalarType::boolean: return load_aligned<std::uint8_t>(address);
    }
    return 0;
  }
  FASTSCHED_HD double number_in(std::uint64_t bits) const {
    return address != nullptr ? load_scalar(&bits, type) : value;
  }
};

}  // namespace fastsched
