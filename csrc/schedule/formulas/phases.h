// Schedules that are a list of phases. Each phase has a length, a curve, and the two factors of the base
// learning rate between which it runs. The phases may repeat, each cycle longer and lower than the last.
//
// Where a function of transformers 5 (optimization.py) has a curve, the order of operations is that
// function's, so on the host doubles agree with it to the last bit. The others (`is_own`) are computed with
// double_double.h and rounded once, at the end.
#pragma once

#include <cmath>
#include <cstdint>

#include "decay.h"
#include "double_double.h"
#include "schedule/plan/host_device.h"
#include "schedule/plan/layout.h"
#include "schedule/plan/step_input.h"
#include "schedule/plan/update.h"

// How far a falling phase still has to go, from 1 down to 0, where u is the share of the phase that is over
// and v the share that is left. A rising phase is a falling one in reverse.
#define FASTSCHED_CURVES(ROW)                                                                   \
  ROW(constant)                                                                                 \
  ROW(linear)           /* v */                                                                 \
  ROW(remaining)        /* v, computed as (length - step) / length; falling only */             \
  ROW(product)          /* v, computed as low + (high - low) * step / length; rising only */    \
  ROW(cosine)           /* (1 + cos(2 pi p u)) / 2, with p the number of waves */               \
  ROW(restarts)         /* (1 + cos(pi (p u mod 1))) / 2, a cosine of p cycles; falling only */ \
  ROW(k_decay)          /* (1 + cos(pi u^p)) / 2 (Zhang and Li, arXiv:2004.05909) */            \
  ROW(one_minus_sqrt)   /* 1 - sqrt(u) */                                                       \
  ROW(one_minus_square) /* 1 - u^2 */                                                           \
  ROW(polynomial)       /* v^p */                                                               \
  ROW(exponential)      /* the factor itself: high (low / high)^u */                            \
  ROW(exp2)             /* 2^(1 - u) - 1 */                                                     \
  ROW(logarithmic)      /* log(1 + steps left) / log(1 + length) */                             \
  ROW(inverse_sqrt)     /* 1 / sqrt(u) */                                                       \
  ROW(rex)              /* v / (1 - u / 2) (Chen, Wolfe and Kyrillidis, arXiv:2107.04197) */    \
  ROW(tanh)             /* (1 - tanh(p v + q u)) / 2 (Hsueh, Li and Wu, arXiv:1806.01593) */

namespace fastsched {

#define FASTSCHED_CURVE(curve) curve,
enum class Curve : int { FASTSCHED_CURVES(FASTSCHED_CURVE) };
#undef FASTSCHED_CURVE

struct Phase {
  double end;        // the first epoch after the phase
  double start;      // the epoch from which its steps are counted
  double length;     // how many steps its curve takes
  double last_step;  // after this many steps it stays where it is
  double curve;      // a Curve
  double rises;      // 0: from high to low, 1: from low to high
  double high;
  double low;
  double parameter;  // of the curve: p
  double second;     // and q
  double unit;       // what high and low must be divided by to be factors; 1 if they are

  // Tables may hold anything; what is not a curve is taken to be constant.
  FASTSCHED_HD Curve shape() const {
    return curve >= 0.0 && curve < 256.0 ? static_cast<Curve>(static_cast<int>(curve)) : Curve::constant;
  }

  FASTSCHED_HD double share_left(double u, double v) const {
    switch (shape()) {
      case Curve::cosine:
        return 0.5 *
               (rises != 0.0 ? 1.0 - cos(kPi * parameter * 2.0 * v) : 1.0 + cos(kPi * parameter * 2.0 * u));
      case Curve::restarts: return 0.5 * (1.0 + cos(kPi * fmod(parameter * u, 1.0)));
      case Curve::one_minus_sqrt: return 1.0 - sqrt(u);
      case Curve::polynomial: return pow(v, parameter);
      case Curve::inverse_sqrt: return 1.0 / sqrt(u);
      default: return v;
    }
  }

  // Whether no other library has to be matched bit for bit.
  FASTSCHED_HD bool is_own() const {
    switch (shape()) {
      case Curve::polynomial: return rises != 0.0;
      case Curve::one_minus_square:
      case Curve::k_decay:
      case Curve::exponential:
      case Curve::exp2:
      case Curve::logarithmic:
      case Curve::rex:
      case Curve::tanh: return true;
      default: return false;
    }
  }

  // The factor with `steps` of the curve still to come if it falls, or already made if it rises.
  FASTSCHED_HD double own_factor(const DoubleDouble& steps) const {
    const DoubleDouble whole = exactly(length);
    const DoubleDouble over = (whole + -steps) / whole;
    const DoubleDouble height = sum_of(high, -low);
    if (shape() == Curve::exponential) {
      const DoubleDouble ratio = exactly(low) / exactly(high);
      return (exactly(high) * exponential(over * logarithm(ratio))).rounded();
    }
    return (exactly(low) + height * own_share(steps, over, steps / whole)).rounded();
  }

  // u and v as in FASTSCHED_CURVES.
  FASTSCHED_HD DoubleDouble own_share(const DoubleDouble& steps, const DoubleDouble& u,
                                      const DoubleDouble& v) const {
    const DoubleDouble whole = exactly(length);
    switch (shape()) {
      case Curve::one_minus_square: return v * (exactly(1.0) + u);
      case Curve::polynomial: return power(v, parameter);
      case Curve::exp2: return exponential_less_one(log_of_2() * v);
      case Curve::logarithmic: return logarithm(exactly(1.0) + steps) / logarithm(exactly(1.0) + whole);
      case Curve::rex: return scaled(steps, 2.0) / (whole + steps);
      case Curve::tanh: {  // 1 / (1 + exp(2 x))
        const DoubleDouble x = exactly(parameter) * v + exactly(second) * u;
        return exactly(1.0) / (exactly(1.0) + exponential(scaled(x, 2.0)));
      }
      case Curve::k_decay: {
        // cos(pi u^p / 2)^2: near the end, where that is nearly 0, by way of 1 - u^p.
        const DoubleDouble raised = power(u, parameter);
        if (raised.high < 0.5) {
          const DoubleDouble far = sine(half_pi() * raised);
          return exactly(1.0) + -(far * far);
        }
        const DoubleDouble near = sine(half_pi() * -exponential_less_one(exactly(parameter) * logarithm(u)));
        return near * near;
      }
      default: return v;
    }
  }

  FASTSCHED_HD double factor(double t) const {
    const double step = smaller(t - start, last_step);
    const Curve now = shape();
    double factor = high;
    if (now == Curve::product) {
      factor = low + (high - low) * step / length;
    } else if (is_own()) {
      factor = own_factor(rises != 0.0 ? exactly(step) : sum_of(length, -step));
    } else if (now != Curve::constant) {
      const double over = step / length;
      double u = over;
      double v = now == Curve::remaining ? (length - step) / length : 1.0 - over;
      if (rises != 0.0) {
        u = 1.0 - over;
        v = over;
      }
      factor = share_left(u, v) * (high - low) + low;
    }
    factor /= unit;
    return factor > 0.0 ? factor : 0.0;
  }
};

// The cycles in which the phases repeat.
struct Cycles {
  double start;   // the epoch at which the first one begins
  double length;  // how many epochs the first one has; 0: no cycles
  double growth;  // each cycle multiplies the epochs of the one before by this,
  double peak;    // and its factors by this,
  double least;   // but never to less than this
  double count;   // after this many, the factor stays where the last one ended

  struct Cycle {
    double number;
    double begun;   // how many epochs after the first one
    double epochs;  // relative to the first one's
  };

  FASTSCHED_HD Cycle cycle(double n) const {
    if (growth == 1.0) return {n, length * n, 1.0};
    const double epochs = pow(growth, n);
    return {n, length * (epochs - 1.0) / (growth - 1.0), epochs};
  }
  // The cycle in progress `since` epochs after the first one began.
  FASTSCHED_HD Cycle at(double since) const {
    if (growth == 1.0) return cycle(floor_divide(since, length));
    const double n = floor(log(since / length * (growth - 1.0) + 1.0) / log(growth));
    const Cycle found = cycle(n);
    if (found.begun > since) return cycle(n - 1.0);  // the logarithm was rounded up; below, down
    return found.begun + length * found.epochs <= since ? cycle(n + 1.0) : found;
  }
};

struct Phases {
  FASTSCHED_HD bool valid() const { return true; }
};

// base * factor(t). The table has the cycles and then, in order, the phases.
FASTSCHED_HD Update decide(const Phases&, EpochState& state, const StepInput& input, const Table& table) {
  constexpr auto kHeader = static_cast<std::int64_t>(sizeof(Cycles) / sizeof(double));
  constexpr auto kSize = static_cast<std::int64_t>(sizeof(Phase) / sizeof(double));
  double t = state.advance(input);
  const std::int64_t phases = (table.size - kHeader) / kSize;
  if (phases < 1) return Update::idle();
  const auto cycles = read_words<Cycles>(table.values);
  double peak = 1.0;
  const double since = t - cycles.start;
  if (cycles.length > 0.0 && since >= cycles.length) {
    const Cycles::Cycle now = cycles.at(since);
    const bool over = now.number >= cycles.count;
    peak = pow(cycles.peak, over ? cycles.count - 1.0 : now.number);
    t = cycles.start + (over ? cycles.length : (since - now.begun) / now.epochs);
  }
  const double* row = table.values + kHeader;
  for (std::int64_t i = 1; i < phases && !(t < row[0]); ++i) row += kSize;
  auto phase = read_words<Phase>(row);
  if (cycles.length > 0.0 && !(t < cycles.start)) {
    phase.high = bounded(phase.high * peak, cycles.least);
    phase.low = bounded(phase.low * peak, cycles.least);
  }
  return Update::scale_base(phase.factor(t));
}

}  // namespace fastsched
