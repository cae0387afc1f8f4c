// Maps a kind to the structs of its parameters and counters and to the rule that decides, from the list in
// schedules.h. Overload resolution on the parameters' struct finds decide().
#pragma once

#include "composite.h"
#include "layout.h"
#include "schedule/formulas/cycle.h"
#include "schedule/formulas/decay.h"
#include "schedule/formulas/early_stopping.h"
#include "schedule/formulas/greedy.h"
#include "schedule/formulas/phases.h"
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
#define FASTSCHED_VISIT(kind, params, counters, ...) \
  case Kind::kind: return visit(Schedule<params, counters>{});
  switch (kind) { FASTSCHED_SCHEDULES(FASTSCHED_VISIT) }
#undef FASTSCHED_VISIT
  return visit(Schedule<Chain, NoState>{});  // not a valid kind: does nothing
}

// A composite decides nothing here: route_event(), which sees its children, does.
FASTSCHED_HD Update decide(const Sequence&, SequenceState&, const StepInput&, const Table&) {
  return Update::idle();
}
FASTSCHED_HD Update decide(const Chain&, NoState&, const StepInput&, const Table&) { return Update::idle(); }

struct Decide {
  const double* params;
  double* counters;
  const StepInput& input;
  const NodeData& data;

  template <typename S>
  FASTSCHED_HD Update operator()(S) const {
    if (input.event == Event::idle) return Update::idle();
    auto state = read_words<typename S::State>(counters);
    const bool prepares = input.event == Event::prepare;
    StepInput now = input;
    if (prepares || input.event == Event::construct || input.event == Event::begin) {
      state.reset();
      now = {Event::initial, 0.0, false};
    }
    const Update update = decide(read_words<typename S::Params>(params), state, now, data);
    if (prepares) state.undo();
    write_words(counters, state);
    return prepares ? Update::idle() : update;
  }
};

// Advances the counters of one leaf and returns what that does to the learning rates.
FASTSCHED_HD Update decide(Kind kind, const double* params, double* counters, const StepInput& input,
                           const NodeData& data) {
  return dispatch(kind, Decide{params, counters, input, data});
}

// Whether an event was a step of the schedule's own. A restart is not, except for a plateau that judges a
// metric in it.
FASTSCHED_HD bool is_step(Kind kind, Event event, bool measured) {
  if (is_plateau(kind)) {
    const bool takes_note = event == Event::restart && begins_with_metric(kind);
    return measured && (event == Event::step || takes_note);
  }
  return event == Event::step || event == Event::at_epoch;
}

// Whether settle() has yet to confirm or replace an update that decide() returned.
FASTSCHED_HD bool is_unsettled(Kind kind, const Update& update) {
  return kind == Kind::greedy && update.kind() == Law::reduce;
}

// The second half of a decision. `at_bound`: the update leaves no group above its own parameter.
FASTSCHED_HD Update settle(const double* params, double* counters, const Update& update, bool at_bound) {
  auto state = read_words<GreedyState>(counters);
  const Update settled = settle(read_words<Greedy>(params), state, update, at_bound);
  write_words(counters, state);
  return settled;
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

// False if torch's Python would raise at some step, for example by dividing by zero: its code must run then.
FASTSCHED_HD bool valid_params(Kind kind, const double* params) {
  return dispatch(kind, ValidParams{params});
}
FASTSCHED_HD bool valid_counters(Kind kind, const double* counters) {
  return dispatch(kind, ValidCounters{counters});
}

}  // namespace fastsched
