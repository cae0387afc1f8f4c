// Which Python attributes make up each schedule: the one table that ties attribute names to the node's
// parameters and counters. Reading a scheduler, packing a program and exposing state all follow it.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "python.h"
#include "schedule/plan/kinds.h"

namespace fastsched::host {

enum class Type {
  number,   // an exact Python float or int; read back as a float
  limit,    // the same of any size: an int may be rounded where numbers are only compared with it
  real,     // an exact Python float: Python computes powers of an int exactly
  count,    // the same, read back as an int where it is whole
  integer,  // an exact Python int that a double holds exactly
  choice,   // one of some strings, stored as its place among them
};

struct Attribute {
  PyObject* name;
  Type type;
  std::vector<PyObject*> choices = {};
  // What torch does not have: an attribute that is not there says this much, and while it says no more it
  // need not be there.
  bool optional = false;
  double fallback = 0.0;

  bool left_out(double value) const { return optional && value == fallback; }
};

// A number that each group has of its own: an item of a list of the scheduler's, or an entry of the group.
// For the functions of a LambdaLR, which have neither, the caller says what stands for it.
struct OwnParam {
  PyObject* name;
  enum Where { in_list, in_group, functions } where;
};

enum class TableType {
  none,
  milestone_counts,  // a dict
  milestones,        // a list
  phases,            // OneCycleLR's list of dicts
  factors,           // what functions give: on the host they are called at every step, on a device tabulated
};

struct Description {
  const char* scheduler;
  std::vector<Attribute> params;    // in the order of the schedule's parameter struct
  std::vector<Attribute> counters;  // in the order of its state struct
  std::vector<OwnParam> owns;
  TableType table_type;
  PyObject* table;  // attribute that holds it
  bool reads_metric;
  int step_count;      // which counter says whether torch would check the order of the first calls, or -1
  bool steps_use_own;  // or only the closed form does
  std::vector<OwnParam> momentum;  // the own parameters of the momentum that cycles along, if it does

  // The functions that give each group's factor in Python.
  bool calls_functions() const { return table_type == TableType::factors; }
};

inline const Description& description(Kind kind) {
  // Immortal on purpose: the names are used until the interpreter ends. In the order of Kind.
  static const std::vector<Description>& all = *[] {
    const Attribute last_epoch = {intern("last_epoch"), Type::integer};
    const std::vector<Attribute> epochs = {last_epoch, {intern("_step_count"), Type::integer}};
    const auto number = [](const char* name) { return Attribute{intern(name), Type::number}; };
    const auto choice = [](const char* name, const std::vector<const char*>& values) {
      Attribute attribute = {intern(name), Type::choice};
      for (const char* value : values) attribute.choices.push_back(intern(value));
      return attribute;
    };
    const auto optional = [](Attribute attribute, double fallback = 0.0) {
      attribute.optional = true;
      attribute.fallback = fallback;
      return attribute;
    };
    const Attribute patience_counts = optional(choice("patience_counts", {"torch", "keras"}));
    const Attribute accumulate = optional({intern("accumulate"), Type::integer}, 1.0);
    const Attribute smoothing = optional(number("smoothing"));
    const Attribute accumulated[] = {optional(number("accumulated_metric")),
                                     optional({intern("accumulated_count"), Type::integer})};
    const Attribute smoothed[] = {optional(number("smoothed_metric")), optional(number("smoothed_weight"))};
    const auto in_list = [](const char* name) { return OwnParam{intern(name), OwnParam::in_list}; };
    const auto in_group = [](const char* name) { return OwnParam{intern(name), OwnParam::in_group}; };
    const OwnParam base = in_list("base_lrs");
    const OwnParam function = {intern("lr_lambdas"), OwnParam::functions};
    const auto of_epoch = [&](const char* scheduler, std::vector<Attribute> params,
                              std::vector<OwnParam> owns, bool steps_use_own,
                              std::vector<OwnParam> momentum = {}) {
      return Description{
          scheduler,     std::move(params),  epochs, std::move(owns), TableType::none, nullptr, false, 1,
          steps_use_own, std::move(momentum)};
    };
    const auto with_table = [](Description about, TableType type, const char* attribute) {
      about.table_type = type;
      about.table = intern(attribute);
      return about;
    };
    const auto composite = [&](const char* scheduler, std::vector<Attribute> counters) {
      return Description{
          scheduler, {}, std::move(counters), {in_group("initial_lr")}, TableType::none, nullptr, false, -1,
          false,     {}};
    };
    return new std::vector<Description>{
        {"ReduceLROnPlateau",
         {choice("mode", {"min", "max"}),
          choice("threshold_mode", {"rel", "abs", "rel_abs"}),
          number("threshold"),
          number("factor"),
          number("patience"),
          patience_counts,
          {intern("cooldown"), Type::integer},
          number("eps"),
          accumulate,
          smoothing},
         {last_epoch,
          number("best"),
          {intern("num_bad_epochs"), Type::integer},
          {intern("cooldown_counter"), Type::integer},
          accumulated[0],
          accumulated[1],
          smoothed[0],
          smoothed[1]},
         {in_list("min_lrs")},
         TableType::none,
         nullptr,
         true,
         -1,
         true,
         {}},
        of_epoch("StepLR", {number("step_size"), number("gamma")}, {base}, false),
        with_table(of_epoch("MultiStepLR", {{intern("gamma"), Type::real}}, {base}, false),
                   TableType::milestone_counts, "milestones"),
        of_epoch("ConstantLR", {number("factor"), number("total_iters")}, {base}, false),
        of_epoch("LinearLR", {number("start_factor"), number("end_factor"), number("total_iters")}, {base},
                 false),
        of_epoch("ExponentialLR", {number("gamma")}, {base}, false),
        of_epoch("PolynomialLR", {number("total_iters"), number("power")}, {base}, false),
        of_epoch("CosineAnnealingLR", {number("T_max"), number("eta_min")}, {base}, true),
        {"CosineAnnealingWarmRestarts",
         {number("T_0"), number("T_mult"), number("eta_min")},
         {last_epoch, {intern("T_cur"), Type::count}, {intern("T_i"), Type::count}},
         {base},
         TableType::none,
         nullptr,
         false,
         -1,
         true,
         {}},
        with_table(of_epoch("LambdaLR", {}, {base, function}, true), TableType::factors, "lr_lambdas"),
        with_table(of_epoch("MultiplicativeLR", {}, {base, function}, true), TableType::factors,
                   "lr_lambdas"),
        of_epoch("CyclicLR",
                 {number("total_size"),
                  number("step_ratio"),
                  choice("mode", {"triangular", "triangular2", "exp_range"}),
                  choice("scale_mode", {"iterations", "cycle"}),
                  {intern("gamma"), Type::real}},
                 {base, in_list("max_lrs")}, true, {in_list("max_momentums"), in_list("base_momentums")}),
        with_table(
            of_epoch("OneCycleLR", {choice("_anneal_func_type", {"linear", "cos"}), number("total_steps")},
                     {in_group("initial_lr"), in_group("max_lr"), in_group("min_lr")}, true,
                     {in_group("max_momentum"), in_group("base_momentum"), in_group("max_momentum")}),
            TableType::phases, "_schedule_phases"),
        of_epoch("SWALR", {choice("_anneal_strategy", {"linear", "cos"}), number("anneal_epochs")},
                 {in_group("swa_lr")}, true),
        with_table(composite("SequentialLR", {last_epoch}), TableType::milestones, "_milestones"),
        composite("ChainedScheduler", {}),
        {"EarlyStopping",
         {choice("mode", {"min", "max"}),
          choice("threshold_mode", {"rel", "abs", "rel_abs"}),
          number("threshold"),
          {intern("patience"), Type::limit},
          patience_counts,
          {intern("baseline"), Type::limit},
          {intern("start_after"), Type::limit},
          number("stop_on_nan"),
          accumulate,
          smoothing},
         {last_epoch,
          number("best"),
          {intern("num_bad_epochs"), Type::integer},
          {intern("stopped_epoch"), Type::integer},
          {intern("improved"), Type::integer},
          accumulated[0],
          accumulated[1],
          smoothed[0],
          smoothed[1]},
         {},
         TableType::none,
         nullptr,
         true,
         -1,
         false,
         {}},
    };
  }();
  return all[static_cast<std::size_t>(kind)];
}

inline Kind kind_of(const std::string& scheduler) {
  for (int kind = 0; kind < kKinds; ++kind) {
    if (scheduler == description(static_cast<Kind>(kind)).scheduler) return static_cast<Kind>(kind);
  }
  throw pybind11::value_error("no compiled schedule named '" + scheduler + "'");
}

// Exact types only: a subclass such as numpy.float64 may compute differently, so it is left to torch's code;
// and so is an int beyond 2^53, which Python may compute with exactly.
inline bool read_number(PyObject* value, double& out) {
  if (PyFloat_CheckExact(value)) {
    out = PyFloat_AS_DOUBLE(value);
    return true;
  }
  if (!PyLong_CheckExact(value)) return false;
  out = PyLong_AsDouble(value);
  if (out == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    return false;
  }
  return out > -kExactIntegers && out < kExactIntegers;  // 2^53 itself may have been 2^53 + 1
}

// Any exact Python float or int.
inline bool read_limit(PyObject* value, double& out) {
  if (read_number(value, out)) return true;
  if (!PyLong_CheckExact(value)) return false;
  out = PyLong_AsDouble(value);
  const bool too_large = out == -1.0 && PyErr_Occurred() != nullptr;
  if (too_large) PyErr_Clear();
  return !too_large;
}

inline bool read_integer(PyObject* value, double& out) {
  return PyLong_CheckExact(value) && read_number(value, out);
}

inline bool read(const Attribute& attribute, PyObject* value, double& out) {
  switch (attribute.type) {
    case Type::number:
    case Type::count: return read_number(value, out);
    case Type::limit: return read_limit(value, out);
    case Type::real: return PyFloat_CheckExact(value) && read_number(value, out);
    case Type::integer: return read_integer(value, out);
    case Type::choice:
      if (!PyUnicode_CheckExact(value)) return false;
      for (std::size_t i = 0; i < attribute.choices.size(); ++i) {
        if (PyUnicode_Compare(value, attribute.choices[i]) == 0) {
          out = static_cast<double>(i);
          return true;
        }
      }
      return false;
  }
  return false;
}

inline Ref to_python(const Attribute& attribute, double value) {
  const bool whole = attribute.type == Type::integer ||
                     (attribute.type == Type::count && std::isfinite(value) && value == std::floor(value));
  return Ref(whole ? PyLong_FromDouble(value) : PyFloat_FromDouble(value));
}

// Reads every attribute in `list` from a scheduler's __dict__. False where one is missing or not expressible.
inline bool read_all(const std::vector<Attribute>& list, PyObject* dict, double* out) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    PyObject* value = PyDict_GetItemWithError(dict, list[i].name);
    if (value == nullptr && list[i].optional) {
      out[i] = list[i].fallback;
    } else if (value == nullptr || !read(list[i], value, out[i])) {
      return false;
    }
  }
  return true;
}

}  // namespace fastsched::host
