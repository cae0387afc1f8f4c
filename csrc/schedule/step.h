// One step of a whole program over flat buffers: decide once, then update every group. The CPU operator does
// both in a row; in the CUDA kernel one thread decides and all of them update.
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

// A buffer that does not hold what it claims must be found before anything is written. Compared as doubles:
// a wild value must not be cast to an integer first.
FASTSCHED_HD bool well_formed(const Buffers& buffers) {
  const auto program_size = static_cast<double>(buffers.program_size);
  const auto groups = static_cast<double>(buffers.groups);
  if (program_size < kHeaderSize) return false;
  const Header header = load<Header>(buffers.program);
  const double group_params = kHeaderSize + header.nodes * kNodeSize;
  if (!(header.nodes >= 1.0 && header.groups == groups && group_params <= program_size)) return false;
  const auto nodes = static_cast<std::int64_t>(header.nodes);
  if (buffers.state_size != state_size(nodes, buffers.groups)) return false;
  for (std::int64_t i = 0; i < nodes; ++i) {
    const Node node = load<Node>(buffers.program + kHeaderSize + i * kNodeSize);
    const bool known = node.kind >= 0.0 && node.kind < kKinds;
    const bool nested = node.end > static_cast<double>(i) && node.end <= header.nodes;
    const bool reachable = node.group_param >= group_params && node.group_param + groups <= program_size;
    const bool tabled =
        node.table_size >= 0.0 && node.table >= group_params && node.table + node.table_size <= program_size;
    if (!(known && nested && reachable && tabled)) return false;
  }
  return true;
}

FASTSCHED_HD std::int64_t node_count(const Buffers& buffers) {
  return static_cast<std::int64_t>(load<Header>(buffers.program).nodes);
}

// Advances every node's counters and leaves its Update in the state's scratch.
FASTSCHED_HD void decide_all(const Buffers& buffers, const Moment& moment) {
  const std::int64_t nodes = node_count(buffers);
  double* updates = buffers.state + updates_offset(nodes);
  for (std::int64_t i = 0; i < nodes; ++i) {
    const Node node = load<Node>(buffers.program + kHeaderSize + i * kNodeSize);
    const Table table = {buffers.program + static_cast<std::int64_t>(node.table),
                         static_cast<std::int64_t>(node.table_size)};
    const Update update = decide(static_cast<Kind>(static_cast<int>(node.kind)), node.params,
                                 buffers.state + i * kNodeCounters, moment, table);
    memcpy(updates + i * kUpdateSize, &update, sizeof(update));
  }
}

FASTSCHED_HD Update update_at(const Buffers& buffers, std::int64_t node) {
  return load<Update>(buffers.state + updates_offset(node_count(buffers)) + node * kUpdateSize);
}

// The node's parameters of all groups.
FASTSCHED_HD const double* group_params(const Buffers& buffers, std::int64_t node) {
  const double* nodes = buffers.program + kHeaderSize;
  return buffers.program + static_cast<std::int64_t>(load<Node>(nodes + node * kNodeSize).group_param);
}

FASTSCHED_HD double* last_lrs(const Buffers& buffers) {
  return buffers.state + last_lr_offset(node_count(buffers));
}

// The learning rate to go on from. One that is not the rounded master was written by somebody else: then
// their value counts.
template <typename LR>
FASTSCHED_HD double follow(double master, LR lr) {
  return static_cast<LR>(master) == lr ? master : static_cast<double>(lr);
}

}  // namespace fastsched
