// Schedules made of schedules. A composite passes each step on to its children, as an event for each, before
// they are visited, so a composition of any depth is decided in one pass without recursion.
#pragma once

#include "host_device.h"
#include "layout.h"
#include "step_input.h"
#include "update.h"

namespace fastsched {

struct Sequence {
  FASTSCHED_HD bool valid() const { return true; }
};
struct Chain : Sequence {};

struct SequenceState {
  double last_epoch;

  FASTSCHED_HD bool valid() const { return true; }
  FASTSCHED_HD void reset() { last_epoch = 0.0; }
  FASTSCHED_HD void undo() {}
};

struct NoState {
  FASTSCHED_HD bool valid() const { return true; }
  FASTSCHED_HD void reset() {}
  FASTSCHED_HD void undo() {}
};

// How many milestones are at or before t: Python's bisect_right, even for unsorted milestones.
FASTSCHED_HD std::int64_t passed(const Table& milestones, double t) {
  std::int64_t low = 0;
  std::int64_t high = milestones.size;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (t < milestones.values[middle]) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

struct Turn {
  std::int64_t index;
  bool begins;  // t is its milestone
};

FASTSCHED_HD Turn whose_turn(const Table& milestones, double t) {
  const std::int64_t index = passed(milestones, t);
  return {index, index > 0 && milestones.values[index - 1] == t};
}

// Back to the initial learning rates, which are a composite's own parameter.
FASTSCHED_HD Update initial_lrs() { return Update::scale_base(1.0); }

FASTSCHED_HD void set_event(const NodeView& child, Event event) {
  child.event() = static_cast<double>(event);
}

// Iterates over the children of a node.
class ChildrenInProgram {
 public:
  FASTSCHED_HD ChildrenInProgram(const NodeView& view, const Node& node, std::int64_t groups)
      : child_(view.next(node, groups)), left_(static_cast<std::int64_t>(node.children)) {}

  FASTSCHED_HD bool more() const { return left_ > 0; }
  FASTSCHED_HD Kind kind() const { return child_.kind(); }
  FASTSCHED_HD void tell(Event event) const { set_event(child_, event); }
  FASTSCHED_HD void next() {
    child_ = child_.after(child_.node());
    --left_;
  }

 private:
  NodeView child_;
  std::int64_t left_;
};

// Passes `input` on to the children, and returns what the composite itself does to the learning rates: it
// resets them to the initial ones where something without a closed form restarts.
template <typename Children>
FASTSCHED_HD Update route_event(Kind kind, double* counters, const Table& milestones, Children children,
                                const StepInput& input) {
  const bool sequential = kind == Kind::sequential;
  auto state = read_words<SequenceState>(counters);
  std::int64_t active = -1;
  Event event = input.event;
  if (sequential && event != Event::idle) {
    if (event == Event::step) {
      state.last_epoch += 1.0;
      const Turn turn = whose_turn(milestones, state.last_epoch);
      active = turn.index;
      if (turn.begins) event = Event::restart;
    } else {
      state.reset();
      active = passed(milestones, 0.0);
    }
    write_words(counters, state);
  }
  // Constructing a sequence undoes what constructing its children did; so does restarting a chain.
  bool set_back = event == (sequential ? Event::construct : Event::restart);
  if (sequential && event == Event::construct) event = Event::begin;
  for (std::int64_t i = 0; children.more(); ++i, children.next()) {
    Event told = event;
    if (sequential && i != active) {
      told = event == Event::begin || event == Event::prepare ? Event::prepare : Event::idle;
    } else if (sequential) {
      set_back = set_back || (event == Event::restart && is_plateau(children.kind()));
    } else if (event == Event::restart && !is_composite(children.kind()) &&
               !begins_with_metric(children.kind())) {
      told = Event::begin;  // in a chain each continues from the one before, so closed forms do not apply
    }
    children.tell(told);
  }
  return set_back ? initial_lrs() : Update::idle();
}

}  // namespace fastsched
