// Unevaluated sums of two doubles, which carry the rounding errors along (Dekker 1971, Knuth's TAOCP
// volume 2). For formulas that need not match another library bit for bit: they are rounded once.
#pragma once

#include <cmath>

#include "schedule/plan/host_device.h"

namespace fastsched {

struct DoubleDouble {
  double high;
  double low;  // at most half a unit in the last place of high

  // For an infinity or a NaN the error term is meaningless.
  FASTSCHED_HD double rounded() const {
    const double sum = high + low;
    return sum == sum ? sum : high;
  }
};

FASTSCHED_HD DoubleDouble sum_of(double a, double b) {
  const double sum = a + b;
  const double of_b = sum - a;
  return {sum, (a - (sum - of_b)) + (b - of_b)};
}
// The same for |a| >= |b|.
FASTSCHED_HD DoubleDouble ordered_sum_of(double a, double b) {
  const double sum = a + b;
  return {sum, b - (sum - a)};
}
FASTSCHED_HD DoubleDouble product_of(double a, double b) {
  const double product = a * b;
  return {product, fma(a, b, -product)};
}

FASTSCHED_HD DoubleDouble operator+(const DoubleDouble& a, const DoubleDouble& b) {
  const DoubleDouble sum = sum_of(a.high, b.high);
  return ordered_sum_of(sum.high, sum.low + (a.low + b.low));
}
FASTSCHED_HD DoubleDouble operator*(const DoubleDouble& a, const DoubleDouble& b) {
  const DoubleDouble product = product_of(a.high, b.high);
  return ordered_sum_of(product.high, product.low + (a.high * b.low + a.low * b.high));
}
FASTSCHED_HD DoubleDouble operator/(const DoubleDouble& a, const DoubleDouble& b) {
  const double quotient = a.high / b.high;
  const double rest = fma(-quotient, b.high, a.high) + a.low - quotient * b.low;
  return {quotient, rest / b.high};
}
FASTSCHED_HD DoubleDouble operator-(const DoubleDouble& a) { return {-a.high, -a.low}; }

FASTSCHED_HD DoubleDouble scaled(const DoubleDouble& a, double by) { return {a.high * by, a.low * by}; }

// Functions, because device code cannot use constants of class type.
FASTSCHED_HD constexpr DoubleDouble exactly(double number) { return {number, 0.0}; }
FASTSCHED_HD constexpr DoubleDouble log_of_2() { return {0.6931471805599453, 2.319046813846299558e-17}; }
FASTSCHED_HD constexpr DoubleDouble half_pi() { return {1.5707963267948966, 6.123233995736766036e-17}; }

// constant + x (next + x (...))
FASTSCHED_HD double polynomial(double, double constant) { return constant; }
template <typename... Higher>
FASTSCHED_HD double polynomial(double x, double constant, Higher... coefficients) {
  return constant + x * polynomial(x, coefficients...);
}

// The errors of the functions below are a few hundredths of half a unit in the last place of `high`.

// 2^twos (1 + less_one), with less_one below sqrt(2) - 1 and accurate relative to its own size.
struct Exponential {
  DoubleDouble less_one;
  int twos;

  FASTSCHED_HD static Exponential of(const DoubleDouble& x) {
    constexpr double kHalvings = 16.0;
    const double twos = floor(x.high / log_of_2().high + 0.5);
    const DoubleDouble rest = scaled(x + exactly(-twos) * log_of_2(), 1.0 / kHalvings);
    const double t = rest.high;  // at most 0.022
    const double series =
        polynomial(t, 0.5, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320);
    DoubleDouble e = ordered_sum_of(t, series * t * t + rest.low * (1.0 + t));
    for (double i = 1.0; i < kHalvings; i *= 2.0) {  // (1 + e)^2 - 1
      const DoubleDouble square = product_of(e.high, e.high);
      const DoubleDouble sum = ordered_sum_of(2.0 * e.high, square.high);
      e = {sum.high, sum.low + (square.low + 2.0 * e.low * (1.0 + e.high))};
    }
    return {ordered_sum_of(e.high, e.low), static_cast<int>(twos)};
  }
  FASTSCHED_HD DoubleDouble value() const { return scaled(exactly(1.0) + less_one, ldexp(1.0, twos)); }
};

FASTSCHED_HD bool is_moderate(double exponent) { return exponent > -700.0 && exponent < 700.0; }

FASTSCHED_HD DoubleDouble exponential(const DoubleDouble& x) {
  return is_moderate(x.high) ? Exponential::of(x).value() : exactly(exp(x.high));
}
FASTSCHED_HD DoubleDouble exponential_less_one(const DoubleDouble& x) {
  if (!is_moderate(x.high)) return {expm1(x.high), 0.0};
  const Exponential e = Exponential::of(x);
  return e.twos == 0 ? e.less_one : e.value() + -exactly(1.0);
}

// For positive numbers: the library's logarithm and one Newton step; near 1, by way of x - 1.
FASTSCHED_HD DoubleDouble logarithm(const DoubleDouble& x) {
  const bool near_one = x.high > 0.5 && x.high < 2.0;
  const DoubleDouble less_one = x + -exactly(1.0);
  const DoubleDouble found = {near_one ? log1p(less_one.high) : log(x.high), 0.0};
  if (!near_one) return is_moderate(found.high) ? found + (x * exponential(-found) + -exactly(1.0)) : found;
  const DoubleDouble there = exponential_less_one(found);
  return found + (less_one + -there) / (exactly(1.0) + there);
}
FASTSCHED_HD DoubleDouble power(const DoubleDouble& base, double exponent) {
  if (!(base.high > 0.0)) return {pow(base.high, exponent), 0.0};
  return exponential(exactly(exponent) * logarithm(base));
}

// For angles up to 0.8.
FASTSCHED_HD DoubleDouble sine(const DoubleDouble& x) {
  const DoubleDouble third = x / exactly(3.0);
  const double t = third.high;
  const double square = t * t;
  const double series =
      polynomial(square, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800);
  const DoubleDouble s = ordered_sum_of(t, series * square * t + third.low * (1.0 - square / 2.0));
  return s * (exactly(3.0) + scaled(-(s * s), 4.0));
}

}  // namespace fastsched
