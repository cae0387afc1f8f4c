// The one list of what each kind of node is: its parameters, its counters and the rule that decides. A new
// schedule is a struct and a decide() in a header like decay.h, a Kind in layout.h and a line here.
#pragma once

#include "composite.h"
#include "layout.h"
#include "schedule/formulas/cycle.h"
#include "schedule/formulas/decay.h"
#include "schedule/formulas/early_stopping.h"
#include "schedule/formulas/plateau.h"

namespace fastsched {

template <typename P, typename S>
struct Schedule {
  using Params = P;
  using State = S;
  static_assert(sizeof(P) <= kNodeParams * sizeof(double), "too many parameters for a node");
  static_assert(sizeof(S) <= kNodeCounters * sizeof(double), "too many counters for a node");
};

// Calls visit(Schedule<...>{}) with the types of `kind`.
template <typename Visit>
FASTSCHED_HD auto dispatch(Kind kind, Visit visit) {
  switch (kind) {
    case Kind::plateau: break;
    case Kind::step: return visit(Schedule<StepDecay, EpochState>{});
    case Kind::multi_step: return visit(Schedule<MultiStepDecay, EpochState>{});
    case Kind::constant: return visit(Schedule<ConstantFactor, EpochState>{});
    case Kind::linear: return visit(Schedule<LinearFactor, EpochState>{});
    case Kind::exponential: return visit(Schedule<ExponentialDecay, EpochState>{});
    case Kind::polynomial: return visit(Schedule<PolynomialDecay, EpochState>{});
    case Kind::cosine: return visit(Schedule<CosineAnnealing, EpochState>{});
    case Kind::warm_restarts: return visit(Schedule<WarmRestarts, WarmRestartsState>{});
    case Kind::lambda: return visit(Schedule<LambdaFactor, EpochState>{});
    case Kind::multiplicative: return visit(Schedule<MultiplicativeFactor, EpochState>{});
    case Kind::cyclic: return visit(Schedule<Cyclic, EpochState>{});
    case Kind::one_cycle: return visit(Schedule<OneCycle, EpochState>{});
    case Kind::swa: return visit(Schedule<Averaging, EpochState>{});
    case Kind::early_stopping: return visit(Schedule<EarlyStopping, EarlyStoppingState>{});
    case Kind::sequential:
    case Kind::chained: return visit(Schedule<Composite, SequenceState>{});
  }
  return visit(Schedule<Plateau, PlateauState>{});
}

// A composite alone decides nothing: conduct() does, which sees its children.
FASTSCHED_HD Update decide(const Composite&, SequenceState&, const Moment&, const Table&) {
  return Update::idle();
}

struct Decide {
  const double* params;
  double* counters;
  const Moment& moment;
  const Table& table;

  template <typename S>
  FASTSCHED_HD Update operator()(S) const {
    if (moment.event == Event::idle) return Update::idle();
    auto state = read_words<typename S::State>(counters);
    const bool prepares = moment.event == Event::prepare;
    Moment now = moment;
    if (prepares || moment.event == Event::construct || moment.event == Event::begin) {
      state.reset();
      now = {Event::initial, 0.0, false};
    }
    const Update update = decide(read_words<typename S::Params>(params), state, now, table);
    if (prepares) state.undo();
    write_words(counters, state);
    return prepares ? Update::idle() : update;
  }
};

// Advances the counters of one leaf and says what that does to the learning rates.
FASTSCHED_HD Update decide(Kind kind, const double* params, double* counters, const Moment& moment,
                           const Table& table) {
  return dispatch(kind, Decide{params, counters, moment, table});
}

struct ValidParams {
  const double* params;

  template <typename S>
  FASTSCHED_HD bool operator()(S) const {
    return read_words<typename S::Params>(params).valid();
  }
};

struct ValidCounters {
  const double* counters;

  template <typename S>
  FASTSCHED_HD bool operator()(S) const {
    return read_words<typename S::State>(counters).valid();
  }
};

// False where torch's Python raises at some step, dividing by zero for instance: its code must run, then.
FASTSCHED_HD bool valid_params(Kind kind, const double* params) {
  return dispatch(kind, ValidParams{params});
}
FASTSCHED_HD bool valid_counters(Kind kind, const double* counters) {
  return dispatch(kind, ValidCounters{counters});
}

}  // namespace fastsched
