// What a step does to a learning rate. Once per step, a schedule derives an Update from its counters: a law
// and its scalars. All that is left to do per param group is to apply the law.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace fastsched {

// The name of each law and the learning rate that it gives.
#define FASTSCHED_LAWS(LAW)                                                        \
  LAW(idle)            /* the schedule takes no part in this step */               \
  LAW(hold)            /* leave the learning rate alone */                         \
  LAW(reduce)          /* max(lr * a, own), where that lowers lr by more than b */ \
  LAW(raise)           /* min(lr / a, own), where that raises lr by more than b */ \
  LAW(restore)         /* own */                                                   \
  LAW(scale)           /* lr * a */                                                \
  LAW(scale_base)      /* own * a */                                               \
  LAW(anneal_base)     /* a + (own - a) * b / 2 */                                 \
  LAW(raise_by_base)   /* lr + (own - a) * b / 2 */                                \
  LAW(scale_above)     /* b * (lr - a) + a */                                      \
  LAW(cycle)           /* own + (other - own) * a * b */                           \
  LAW(anneal_cosine)   /* other + (own - other) / 2 * a */                         \
  LAW(anneal_linear)   /* (other - own) * a + own */                               \
  LAW(approach)        /* own * a + (lr with the share b undone) * (1 - a) */      \
  LAW(scale_each)      /* lr * table[a + other] */                                 \
  LAW(scale_base_each) /* own * table[a + other] */

enum class Law : int {
#define FASTSCHED_LAW(law) law,
  FASTSCHED_LAWS(FASTSCHED_LAW)
#undef FASTSCHED_LAW
};

struct Update {
  double law;  // a Law; a double because updates travel in float64 buffers
  double a;
  double b;
  double own;    // which of the group's own parameters
  double other;  // and the second one, for laws between two

  FASTSCHED_HD static Update make(Law law, double a = 0.0, double b = 0.0, int own = 0, int other = 1) {
    return {static_cast<double>(law), a, b, static_cast<double>(own), static_cast<double>(other)};
  }
  FASTSCHED_HD static Update idle() { return make(Law::idle); }
  FASTSCHED_HD static Update hold() { return make(Law::hold); }
  FASTSCHED_HD static Update scale(double factor) { return make(Law::scale, factor); }
  FASTSCHED_HD static Update scale_base(double factor) { return make(Law::scale_base, factor); }
  FASTSCHED_HD Law kind() const { return static_cast<Law>(static_cast<int>(law)); }
};

// Whether the law is the result of a decision to reduce, which may turn into a restart.
FASTSCHED_HD bool reduces(Law law) { return law == Law::reduce || law == Law::restore; }

// Which parameters of its own a group needs for the law.
FASTSCHED_HD bool uses_own(Law law) {
  return law != Law::idle && law != Law::hold && law != Law::scale && law != Law::scale_above &&
         law != Law::scale_each;
}
FASTSCHED_HD bool uses_other(Law law) {
  return law == Law::cycle || law == Law::anneal_cosine || law == Law::anneal_linear ||
         law == Law::scale_each || law == Law::scale_base_each;
}

// A schedule's list of numbers: milestones, phases or factors.
struct Table {
  const double* values;
  std::int64_t size;
};

inline constexpr int kColumn = 1;  // the own parameter that is the column of a group's factor in the table

// The last metrics, in a ring.
struct Window {
  double* values;
  std::int64_t size;
};

// Where one group's own parameters are: parameter k of all groups in a row, then parameter k + 1.
struct GroupParams {
  const double* params;
  std::int64_t groups;
  std::int64_t index;
  Table table;

  FASTSCHED_HD double at(double k) const { return params[static_cast<std::int64_t>(k) * groups + index]; }
  FASTSCHED_HD double in_table(double row, double column) const {
    const double place = row + column;
    return place >= 0.0 && place < static_cast<double>(table.size)
               ? table.values[static_cast<std::int64_t>(place)]
               : NAN;
  }
};

// Python's max(scaled, bound): the first argument unless the second is larger, which also decides NaN.
FASTSCHED_HD double bounded(double scaled, double bound) { return bound > scaled ? bound : scaled; }

struct Applied {
  double lr;
  bool written;         // false: the law leaves the group alone, and the object that is its learning rate
  bool is_own = false;  // the learning rate is now the group's own parameter itself
};

// The group's learning rate after the update.
FASTSCHED_HD Applied apply(const Update& update, double lr, const GroupParams& group) {
  const double a = update.a;
  const double b = update.b;
  const double own = uses_own(update.kind()) ? group.at(update.own) : 0.0;
  const double other = uses_other(update.kind()) ? group.at(update.other) : 0.0;
  switch (update.kind()) {
    case Law::reduce: {
      const double reduced = bounded(lr * a, own);
      if (lr - reduced > b) return {reduced, true, own > lr * a};
      break;
    }
    case Law::raise: {
      const double scaled = lr / a;
      const double raised = own < scaled ? own : scaled;  // Python's min(scaled, own)
      if (raised - lr > b) return {raised, true, own < scaled};
      break;
    }
    case Law::restore: return {own, true, true};
    case Law::scale: return {lr * a, true};
    case Law::scale_base: return {own * a, true};
    case Law::anneal_base: return {a + (own - a) * b / 2.0, true};
    case Law::raise_by_base: return {lr + (own - a) * b / 2.0, true};
    case Law::scale_above: return {b * (lr - a) + a, true};
    case Law::cycle: return {own + (other - own) * a * b, true};
    case Law::anneal_cosine: return {other + (own - other) / 2.0 * a, true};
    case Law::anneal_linear: return {(other - own) * a + own, true};
    case Law::approach: {
      const double before = b == 1.0 ? own : (lr - b * own) / (1.0 - b);
      return {own * a + before * (1.0 - a), true};
    }
    case Law::scale_each: return {lr * group.in_table(a, other), true};
    case Law::scale_base_each: return {own * group.in_table(a, other), true};
    case Law::hold:
    case Law::idle: break;
  }
  return {lr, false};
}

}  // namespace fastsched
