// Which Python attributes make up each schedule: the one table that ties attribute names to the node's
// parameters and counters. Reading a scheduler, packing a program and exposing state all follow it.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "../schedule/kinds.h"
#include "python.h"

namespace fastsched::host {

enum class Type {
  number,   // an exact Python float or int; read back as a float
  real,     // an exact Python float: Python computes powers of an int exactly
  count,    // the same, read back as an int where it is whole
  integer,  // an exact Python int that a double holds exactly
  choice,   // one of two strings, stored as 0 or 1
};

struct Attribute {
  PyObject* name;
  Type type;
  PyObject* choices[2] = {nullptr, nullptr};
};

struct Description {
  const char* scheduler;
  std::vector<Attribute> params;    // in the order of the schedule's parameter struct
  std::vector<Attribute> counters;  // in the order of its state struct
  PyObject* group_param;            // attribute with a list of one number per group
  PyObject* table;                  // attribute with a dict of numbers, or null
  bool reads_metric;
  int step_count;  // which counter says whether torch would check the order of the first calls, or -1
  bool steps_use_group_param = true;  // or only the closed form does
};

inline const Description& description(Kind kind) {
  // Immortal on purpose: the names are used until the interpreter ends. In the order of Kind.
  static const std::vector<Description>& all = *[] {
    const Attribute last_epoch = {intern("last_epoch"), Type::integer};
    const std::vector<Attribute> epochs = {last_epoch, {intern("_step_count"), Type::integer}};
    PyObject* const base_lrs = intern("base_lrs");
    const auto number = [](const char* name) { return Attribute{intern(name), Type::number}; };
    const auto of_epoch = [&](const char* scheduler, std::vector<Attribute> params,
                              PyObject* table = nullptr) {
      const bool recursion_uses_base = scheduler == std::string("CosineAnnealingLR");
      return Description{scheduler, std::move(params),  epochs, base_lrs, table, false,
                         1,         recursion_uses_base};
    };
    return new std::vector<Description>{
        {"ReduceLROnPlateau",
         {{intern("mode"), Type::choice, {intern("min"), intern("max")}},
          {intern("threshold_mode"), Type::choice, {intern("rel"), intern("abs")}},
          number("threshold"),
          number("factor"),
          number("patience"),
          {intern("cooldown"), Type::integer},
          number("eps")},
         {last_epoch,
          number("best"),
          {intern("num_bad_epochs"), Type::integer},
          {intern("cooldown_counter"), Type::integer}},
         intern("min_lrs"),
         nullptr,
         true,
         -1},
        of_epoch("StepLR", {number("step_size"), number("gamma")}),
        of_epoch("MultiStepLR", {{intern("gamma"), Type::real}}, intern("milestones")),
        of_epoch("ConstantLR", {number("factor"), number("total_iters")}),
        of_epoch("LinearLR", {number("start_factor"), number("end_factor"), number("total_iters")}),
        of_epoch("ExponentialLR", {number("gamma")}),
        of_epoch("PolynomialLR", {number("total_iters"), number("power")}),
        of_epoch("CosineAnnealingLR", {number("T_max"), number("eta_min")}),
        {"CosineAnnealingWarmRestarts",
         {number("T_0"), number("T_mult"), number("eta_min")},
         {last_epoch, {intern("T_cur"), Type::count}, {intern("T_i"), Type::count}},
         base_lrs,
         nullptr,
         false,
         -1},
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

inline constexpr double kExactIntegers = 9007199254740992.0;  // 2^53

// Exact types only: a subclass such as numpy.float64 may compute differently, so it is left to torch's code.
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
  return true;
}

inline bool read_integer(PyObject* value, double& out) {
  return PyLong_CheckExact(value) && read_number(value, out) && out >= -kExactIntegers &&
         out <= kExactIntegers;
}

inline bool read(const Attribute& attribute, PyObject* value, double& out) {
  switch (attribute.type) {
    case Type::number:
    case Type::count: return read_number(value, out);
    case Type::real: return PyFloat_CheckExact(value) && read_number(value, out);
    case Type::integer: return read_integer(value, out);
    case Type::choice:
      if (!PyUnicode_CheckExact(value)) return false;
      for (int i = 0; i < 2; ++i) {
        if (PyUnicode_Compare(value, attribute.choices[i]) == 0) {
          out = i;
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
    if (value == nullptr || !read(list[i], value, out[i])) return false;
  }
  return true;
}

// A dict of numbers as sorted (key, value) pairs; empty for a schedule without one. False if it is no such
// dict.
inline bool read_table(const Description& about, PyObject* dict, std::vector<double>& out) {
  out.clear();
  if (about.table == nullptr) return true;
  PyObject* table = PyDict_GetItemWithError(dict, about.table);
  if (table == nullptr || !PyDict_Check(table)) return false;
  std::vector<std::pair<double, double>> pairs;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  for (Py_ssize_t position = 0; PyDict_Next(table, &position, &key, &value);) {
    std::pair<double, double> pair;
    if (!read_number(key, pair.first) || !read_integer(value, pair.second) || pair.second < 0.0) {
      return false;
    }
    pairs.push_back(pair);
  }
  std::sort(pairs.begin(), pairs.end());
  for (const auto& [milestone, count] : pairs) out.insert(out.end(), {milestone, count});
  return true;
}

}  // namespace fastsched::host
