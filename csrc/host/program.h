// Packing a scheduler's attributes into the program that csrc/schedule/plan/step.h runs.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "python.h"
#include "schedule/plan/step_on_host.h"
#include "schedule_attributes.h"
#include "table.h"

namespace fastsched::host {

// What a composite's node has to say of the programs of its children, which follow it.
struct Children {
  std::size_t count = 0;
  std::size_t program_size = 0;
  std::size_t state_size = 0;
};

// A node with its own parameters and table, over slots, as the bytes of a float64 array. `positions` says
// which of the scheduler's groups each slot is, -1 for none of them. `owns` has a list of one number per
// group for each own parameter; `factors` are the rows of a LambdaLR's or MultiplicativeLR's table, empty for
// others, and `of_step` says that it has one row, of the step to be made. None where an attribute is not a
// plain number, or torch's Python would raise at some step.
inline pybind11::object pack_node(const std::string& scheduler, const pybind11::dict& dict,
                                  const std::vector<pybind11::list>& owns,
                                  const std::vector<std::int64_t>& positions,
                                  const std::vector<double>& factors, std::size_t columns, bool of_step,
                                  const Children& children) {
  const Kind kind = kind_of(scheduler);
  const ScheduleAttributes& about = attributes_of(kind);
  TableReader table;
  Node node = {};
  node.kind_number = static_cast<double>(kind);
  if (!read_all(about.params, dict.ptr(), node.params) || !table.read(about, dict.ptr())) {
    return pybind11::none();
  }
  if (about.calls_functions()) {
    node.params[0] = static_cast<double>(columns);
    node.params[1] = of_step ? 1.0 : 0.0;
  }
  if (!valid_params(kind, node.params)) {
    decline(kInvalid);
    return pybind11::none();
  }
  if (kind == Kind::sequential && table.values().size() + 1 > children.count) return pybind11::none();
  if (owns.size() != static_cast<std::size_t>(own_params(kind))) {
    throw pybind11::value_error("not the schedule's number of own parameters");
  }
  if (!read_window_size(about, dict.ptr(), node.window_size)) return pybind11::none();
  const std::vector<double>& values = about.calls_functions() ? factors : table.values();
  const std::size_t groups = positions.size();
  const bool selective = std::find(positions.begin(), positions.end(), -1) != positions.end();
  node.children = static_cast<double>(children.count);
  node.table_size = static_cast<double>(values.size());
  node.selective = selective ? 1.0 : 0.0;
  const double count = static_cast<double>(groups);
  node.size = own_program_size(node, count) + static_cast<double>(children.program_size);
  node.state_size = own_state_size(node, count) + static_cast<double>(children.state_size);
  const std::size_t columns_of_groups = owns.size() + (selective ? 1 : 0);
  std::vector<double> program(kNodeSize + columns_of_groups * groups + values.size());
  memcpy(program.data(), &node, sizeof(node));
  for (std::size_t k = 0; k < owns.size(); ++k) {
    for (std::size_t i = 0; i < groups; ++i) {
      if (positions[i] < 0) continue;
      const auto position = static_cast<std::size_t>(positions[i]);
      if (position >= owns[k].size() ||
          !read_number(item(owns[k].ptr(), position), program[kNodeSize + k * groups + i])) {
        decline(about.owns[k].name, owns[k].ptr(), "a list of one number per param group");
        return pybind11::none();
      }
    }
  }
  for (std::size_t i = 0; selective && i < groups; ++i) {
    program[kNodeSize + owns.size() * groups + i] = positions[i] < 0 ? 0.0 : 1.0;
  }
  std::copy(values.begin(), values.end(), program.end() - static_cast<std::ptrdiff_t>(values.size()));
  return pybind11::bytes(reinterpret_cast<const char*>(program.data()), program.size() * sizeof(double));
}

// How many float64 numbers the state of a packed program has.
inline std::size_t state_size(const std::string& bytes) {
  const double size = bytes.size() < sizeof(Node) ? -1.0 : load<Node>(bytes.data()).state_size;
  if (!is_count(size)) throw pybind11::value_error("not a program");
  return static_cast<std::size_t>(size);
}

// How many metrics the first node of a packed program keeps.
inline std::size_t window_size(const std::string& bytes) {
  const double size = bytes.size() < sizeof(Node) ? -1.0 : load<Node>(bytes.data()).window_size;
  if (!is_count(size)) throw pybind11::value_error("not a program");
  return static_cast<std::size_t>(size);
}

// A whole program from bytes, with a state and masters of its own.
struct HostProgram {
  HostProgram(const std::string& bytes, const std::vector<double>& lrs)
      : program(bytes.size() / sizeof(double)), masters(lrs) {
    memcpy(program.data(), bytes.data(), program.size() * sizeof(double));
    buffers = {program.data(),
               nullptr,
               masters.data(),
               static_cast<std::int64_t>(program.size()),
               static_cast<std::int64_t>(state_size(bytes)),
               static_cast<std::int64_t>(lrs.size())};
    if (!well_formed(buffers)) throw pybind11::value_error("not a program of so many groups");
    state.resize(static_cast<std::size_t>(buffers.state_size));
    buffers.state = state.data();
    if (!columns_fit(buffers)) throw pybind11::value_error("a column is not in the table of factors");
  }
  HostProgram(const HostProgram&) = delete;

  std::vector<double> program;
  std::vector<double> masters;
  std::vector<double> state;
  Buffers buffers;
};

// The learning rates after `steps` steps of a whole program from its beginning, without metrics, in buffers
// of its own. `lrs` are the initial ones; `first`, if not empty, those that the beginning has left. Where
// there is much to do, other threads run meanwhile, and signals (Ctrl-C) are handled, which may throw.
inline std::vector<double> run_program(const std::string& bytes, std::vector<double> lrs,
                                       const std::vector<double>& first, std::size_t steps) {
  const HostProgram host(bytes, lrs);
  const Buffers& buffers = host.buffers;
  step_on_host(buffers, lrs.data(), StepInput::make(Event::construct, 0.0));
  if (first.size() == lrs.size()) lrs = first;
  constexpr std::size_t kNumbersBetweenSignals = std::size_t{1} << 24;  // some hundredths of a second
  const std::size_t stretch = kNumbersBetweenSignals / (host.program.size() + lrs.size()) + 1;
  for (std::size_t left = steps; left > 0;) {
    const std::size_t now = std::min(left, stretch);
    std::optional<pybind11::gil_scoped_release> released;
    if (steps > stretch) released.emplace();
    for (std::size_t i = 0; i < now; ++i) {
      step_on_host(buffers, lrs.data(), StepInput::make(Event::unmeasured, 0.0));
    }
    released.reset();
    left -= now;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
  }
  return lrs;
}

// One step with a metric. Gives the state after it and the learning rates.
inline std::pair<std::vector<double>, std::vector<double>> step_once(const std::string& bytes,
                                                                     const std::vector<double>& state,
                                                                     std::vector<double> lrs, double metric) {
  HostProgram host(bytes, lrs);
  if (state.size() != host.state.size()) throw pybind11::value_error("not a state of this program");
  std::copy(state.begin(), state.end(), host.state.begin());
  step_on_host(host.buffers, lrs.data(), StepInput::make(Event::step, metric));
  return {host.state, lrs};
}

// The learning rates of an epoch by the closed form of a whole program, in buffers of its own.
inline std::vector<double> lrs_at(const std::string& bytes, std::vector<double> lrs, double epoch) {
  HostProgram host(bytes, lrs);
  step_on_host(host.buffers, lrs.data(), StepInput::make(Event::at_epoch, epoch));
  return lrs;
}

}  // namespace fastsched::host
