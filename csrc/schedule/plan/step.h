// One step of a whole program over flat buffers: decide once, then update every group. The CPU does one after
// the other; in the CUDA kernel one thread decides and all of them update.
#pragma once

#include "kinds.h"
#include "layout.h"

namespace fastsched {

struct Buffers {
  const double* program;
  double* state;
  double* masters;  // float64 learning rates; the LR tensor is the master rounded to its dtype
  std::int64_t program_size;
  std::int64_t state_size;
  std::int64_t groups;
};

// The nodes of a program in pre-order: `for (Walk walk(buffers); walk.more(); walk.next())`.
class Walk {
 public:
  FASTSCHED_HD explicit Walk(const Buffers& buffers)
      : view_{buffers.program, buffers.state},
        end_(buffers.program + buffers.program_size),
        groups_(buffers.groups) {}

  FASTSCHED_HD bool more() const { return view_.program < end_; }
  FASTSCHED_HD void next() { view_ = view_.next(view_.node(), groups_); }
  FASTSCHED_HD const NodeView& view() const { return view_; }
  // The own parameters of the first group.
  FASTSCHED_HD GroupParams own(const Node& node) const {
    return {view_.own(), groups_, 0, view_.table(node, groups_)};
  }

 private:
  NodeView view_;
  const double* end_;
  std::int64_t groups_;
};

// A damaged program must be found before anything is written: every node must lie within the buffers, and its
// children must fill it exactly. Looks only at the program, never at the state.
//
// One thread of the kernel checks this at every launch, so the checks are few: what equals a sum of integers
// needs no integer check of its own.
FASTSCHED_HD bool well_formed(const Buffers& buffers) {
  const auto groups = static_cast<double>(buffers.groups);
  const double* program = buffers.program;
  double left = static_cast<double>(buffers.program_size);
  double state_left = static_cast<double>(buffers.state_size);
  for (bool root = true; root || left > 0.0; root = false) {
    if (left < kNodeSize) return false;
    const Node node = read_words<Node>(program);
    if (!(node.kind_number >= 0.0 && node.kind_number < kKinds && is_whole(node.kind_number))) return false;
    if (!(node.selective == 0.0 || node.selective == 1.0)) return false;
    const double own = own_program_size(node, groups);
    const double own_state = own_state_size(node, groups);
    if (!(node.table_size >= 0.0 && own <= left && is_whole(node.table_size))) return false;
    if (!(node.window_size >= 0.0 && own_state <= state_left && is_whole(node.window_size))) return false;
    if (node.kind() == Kind::one_cycle && node.table_size < 1.0) return false;
    if (!(node.size <= left && node.state_size <= state_left)) return false;
    if (root && !(node.size == left && node.state_size == state_left)) return false;
    double filled = own;
    double state_filled = own_state;
    double children = 0.0;
    if (is_composite(node.kind())) {
      if (!(node.children >= 1.0) || node.table_size > node.children - 1.0) return false;
      for (; children < node.children; children += 1.0) {
        if (filled + kNodeSize > node.size) return false;
        const Node child = read_words<Node>(program + static_cast<std::int64_t>(filled));
        if (!(child.size >= kNodeSize && child.state_size >= kNodeStateSize)) return false;
        filled += child.size;
        state_filled += child.state_size;
      }
    }
    if (children != node.children || filled != node.size || state_filled != node.state_size) return false;
    program += static_cast<std::int64_t>(own);
    left -= own;
    state_left -= own_state;
  }
  return state_left == 0.0;
}

// For a well-formed program: whether every group's column lies in its table of factors. Not checked on a
// device, where one thread would have to go through all groups; there, a column outside gives NaN.
inline bool columns_fit(const Buffers& buffers) {
  for (Walk walk(buffers); walk.more(); walk.next()) {
    const Node node = walk.view().node();
    if (node.kind() != Kind::lambda && node.kind() != Kind::multiplicative) continue;
    GroupParams own = walk.own(node);
    const double* const takes_part = walk.view().takes_part(node, buffers.groups);
    for (; own.index < buffers.groups; ++own.index) {
      if (takes_part != nullptr && takes_part[own.index] == 0.0) continue;
      const double column = own.at(kColumn);
      if (!(is_count(column) && column < node.params[0])) return false;
    }
  }
  return true;
}

// The learning rate to continue from. If it is not the rounded master, other code has written it, and the
// written value counts.
template <typename LR>
FASTSCHED_HD double adopt_external_write(double master, LR lr) {
  return static_cast<LR>(master) == lr ? master : static_cast<double>(lr);
}

// One group's learning rate after what a node does to it in this step.
FASTSCHED_HD double after_node(const Walk& walk, const Update& update, std::int64_t group, double lr) {
  const NodeView& view = walk.view();
  const Node node = view.node();
  GroupParams own = walk.own(node);
  own.index = group;
  const double* const takes_part = view.takes_part(node, own.groups);
  return takes_part == nullptr || takes_part[group] != 0.0 ? apply(update, lr, own).lr : lr;
}

// Whether this update, of the last node decided so far, leaves none of its groups above their own parameter,
// after what the nodes before it do in this step.
template <typename LR>
FASTSCHED_HD bool leaves_all_at_bound(const Buffers& buffers, const LR* lrs, const Walk& last,
                                      const Update& update) {
  const Node node = last.view().node();
  const double* const takes_part = last.view().takes_part(node, buffers.groups);
  GroupParams own = last.own(node);
  for (; own.index < buffers.groups; ++own.index) {
    if (takes_part != nullptr && takes_part[own.index] == 0.0) continue;
    double lr = adopt_external_write(buffers.masters[own.index], lrs[own.index]);
    for (Walk walk(buffers); walk.view().program < last.view().program; walk.next()) {
      const auto before = read_words<Update>(walk.view().update());
      if (before.kind() != Law::idle) lr = after_node(walk, before, own.index, lr);
    }
    if (apply(update, lr, own).lr > own.at(update.own)) return false;
  }
  return true;
}

// Advances the counters of every node whose turn it is and leaves its Update in the state.
template <typename LR>
FASTSCHED_HD void decide_all(const Buffers& buffers, const LR* lrs, const StepInput& input) {
  Walk walk(buffers);
  set_event(walk.view(), input.event);
  for (; walk.more(); walk.next()) {
    const NodeView& view = walk.view();
    const Node node = view.node();
    const StepInput now = {static_cast<Event>(static_cast<int>(view.event())), input.value, input.measured};
    const NodeData data = view.data(node, buffers.groups);
    Update update = is_composite(node.kind())
                        ? route_event(node.kind(), view.counters(), data,
                                      ChildrenInProgram(view, node, buffers.groups), now)
                        : decide(node.kind(), node.params, view.counters(), now, data);
    if (is_unsettled(node.kind(), update)) {
      update = settle(node.params, view.counters(), update, leaves_all_at_bound(buffers, lrs, walk, update));
    }
    write_words(view.update(), update);
  }
}

}  // namespace fastsched
