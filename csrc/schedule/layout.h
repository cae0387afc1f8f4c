// How a schedule lies in float64 buffers, so that a composition is one argument of one operator.
//
//   program  Header | Node x nodes | tables and per-group parameters    what the user configured; read only
//   state    NodeState x nodes | Update x nodes | last_lr x groups      counters, scratch, the LRs last
//   written
//
// Nodes stand in pre-order: a composite before its children, `end` one past its subtree. Integers are
// stored as doubles, exact up to 2^53.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host_device.h"
#include "update.h"

namespace fastsched {

enum class Kind : int {
  plateau,
  step,
  multi_step,
  constant,
  linear,
  exponential,
  polynomial,
  cosine,
  warm_restarts,
};
inline constexpr int kKinds = 9;

struct Header {
  double nodes;
  double groups;
};

inline constexpr int kNodeParams = 11;
inline constexpr int kNodeCounters = 6;

struct Node {
  double kind;         // a Kind
  double end;          // index one past the last node of this subtree
  double group_param;  // offset in program of this node's per-group parameters; groups of them
  double table;        // offset in program of this node's table
  double table_size;
  double params[kNodeParams];
};

struct NodeState {
  double counters[kNodeCounters];
};

inline constexpr int kHeaderSize = sizeof(Header) / sizeof(double);
inline constexpr int kNodeSize = sizeof(Node) / sizeof(double);
inline constexpr int kUpdateSize = sizeof(Update) / sizeof(double);

FASTSCHED_HD constexpr std::int64_t updates_offset(std::int64_t nodes) { return nodes * kNodeCounters; }
FASTSCHED_HD constexpr std::int64_t last_lr_offset(std::int64_t nodes) {
  return nodes * (kNodeCounters + kUpdateSize);
}
FASTSCHED_HD constexpr std::int64_t state_size(std::int64_t nodes, std::int64_t groups) {
  return last_lr_offset(nodes) + groups;
}

}  // namespace fastsched
