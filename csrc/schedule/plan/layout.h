// How a schedule is laid out in float64 buffers, so that a composition of any depth is a single argument.
//
//   program  Node | own parameters x groups | takes part x groups, if selective | table | the children's
//            programs                                                              read only
//   state    NodeState | last_lr x groups, of a leaf | window | the children's states     counters, LRs
//                                                                                         last written
//
// A subtree is contiguous in both: a child's slices are themselves a program and a state, and the child may
// be stepped alone. Integers are stored as doubles, exact up to 2^53.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"
#include "scalar.h"
#include "schedules.h"
#include "update.h"

namespace fastsched {

inline constexpr int kNodeParams = 12;
inline constexpr int kNodeCounters = 9;

struct Node {
  double kind_number;  // a Kind
  double size;         // of the subtree in program
  double state_size;   // of the subtree in state
  double children;
  double table_size;
  // 1: one more column after the groups' own parameters says which groups take part. 0: all do.
  double selective;
  double window_size;  // how many recent metrics the state keeps
  double params[kNodeParams];

  FASTSCHED_HD Kind kind() const { return static_cast<Kind>(static_cast<int>(kind_number)); }
  // How many numbers each group has here.
  FASTSCHED_HD int columns() const { return own_params(kind()) + (selective != 0.0 ? 1 : 0); }
};

struct NodeState {
  double counters[kNodeCounters];
  // What this step means to the node and does to the learning rates: a step writes both before it reads them.
  double event;
  Update update;
  // The address that mirror.h writes to, its complement, and the number of writes so far.
  double mirror[3];
  // The address that history.h writes to, and its complement.
  double history[2];
};

inline constexpr int kNodeSize = sizeof(Node) / sizeof(double);
inline constexpr int kNodeStateSize = sizeof(NodeState) / sizeof(double);
inline constexpr int kEventOffset = offsetof(NodeState, event) / sizeof(double);
inline constexpr int kUpdateOffset = offsetof(NodeState, update) / sizeof(double);
inline constexpr int kMirrorOffset = offsetof(NodeState, mirror) / sizeof(double);
inline constexpr int kHistoryOffset = offsetof(NodeState, history) / sizeof(double);

// Sizes as doubles, as they are stored and checked: an arbitrary value must not be cast to an integer first.
FASTSCHED_HD double own_program_size(const Node& node, double groups) {
  return kNodeSize + node.columns() * groups + node.table_size;
}
FASTSCHED_HD double own_state_size(const Node& node, double groups) {
  return kNodeStateSize + (is_composite(node.kind()) ? 0.0 : groups) + node.window_size;
}

// What a node has besides parameters and counters.
struct NodeData : Table {
  Window window;
};

// A node in its buffers.
struct NodeView {
  const double* program;
  double* state;

  FASTSCHED_HD Node node() const { return read_words<Node>(program); }
  FASTSCHED_HD Kind kind() const { return static_cast<Kind>(static_cast<int>(program[0])); }
  FASTSCHED_HD double* counters() const { return state; }
  FASTSCHED_HD double& event() const { return state[kEventOffset]; }
  FASTSCHED_HD double* update() const { return state + kUpdateOffset; }
  FASTSCHED_HD double* mirror() const { return state + kMirrorOffset; }
  FASTSCHED_HD double* history() const { return state + kHistoryOffset; }
  FASTSCHED_HD double* last_lrs() const { return state + kNodeStateSize; }
  FASTSCHED_HD const double* own() const { return program + kNodeSize; }
  // 0 for each group that the node leaves alone; null if all groups take part.
  FASTSCHED_HD const double* takes_part(const Node& node, std::int64_t groups) const {
    return node.selective == 0.0 ? nullptr : own() + own_params(node.kind()) * groups;
  }
  FASTSCHED_HD Table table(const Node& node, std::int64_t groups) const {
    return {own() + node.columns() * groups, static_cast<std::int64_t>(node.table_size)};
  }
  FASTSCHED_HD NodeData data(const Node& node, std::int64_t groups) const {
    const std::int64_t before = is_composite(node.kind()) ? 0 : groups;
    return {table(node, groups), {last_lrs() + before, static_cast<std::int64_t>(node.window_size)}};
  }
  // The next node in pre-order: for a composite, its first child.
  FASTSCHED_HD NodeView next(const Node& node, std::int64_t groups) const {
    const auto count = static_cast<double>(groups);
    return {program + static_cast<std::int64_t>(own_program_size(node, count)),
            state + static_cast<std::int64_t>(own_state_size(node, count))};
  }
  // The node after the whole subtree.
  FASTSCHED_HD NodeView after(const Node& node) const {
    return {program + static_cast<std::int64_t>(node.size),
            state + static_cast<std::int64_t>(node.state_size)};
  }
};

}  // namespace fastsched
