// Which Python attributes make up each schedule: what csrc/schedule/plan/schedules.h lists, with the names as
// Python objects. Reading a scheduler, packing a program and exposing state all follow it.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "python.h"
#include "reason.h"
#include "schedule/plan/kinds.h"
#include "scheduler_protocol.h"

namespace fastsched::host {

enum class AttributeType {
  number,   // an exact Python float or int; read back as a float
  limit,    // the same of any size: an int may be rounded where numbers are only compared with it
  real,     // an exact Python float: Python computes powers of an int exactly
  count,    // the same, read back as an int where it is whole
  integer,  // an exact Python int that a double holds exactly
  choice,   // one of some strings, stored as its place among them
};

struct Attribute {
  PyObject* name;
  AttributeType type;
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
  numbers,           // a tuple
  factors,           // what functions give: on the host they are called at every step, on a device tabulated
};

// The last metrics that a schedule keeps where one attribute is true, as many as another says: in a list.
struct WindowAttributes {
  PyObject* wanted = nullptr;  // null: it has none
  PyObject* size = nullptr;
  PyObject* values = nullptr;
};

struct ScheduleAttributes {
  Kind kind = {};
  const char* scheduler = nullptr;
  std::vector<Attribute> params;    // in the order of the schedule's parameter struct
  std::vector<Attribute> counters;  // in the order of its state struct
  std::vector<OwnParam> owns;
  TableType table_type = TableType::none;
  PyObject* table = nullptr;  // attribute that holds it
  bool reads_metric = false;
  int step_count = -1;         // which counter says whether torch would check the order of the first calls
  bool steps_use_own = true;   // or only the closed form does
  bool by_all_groups = false;  // what it decides depends on the learning rates of all groups
  WindowAttributes window;
  std::vector<OwnParam> momentum;  // the own parameters of the momentum that cycles along, if it does

  // The functions that give each group's factor in Python.
  bool calls_functions() const { return table_type == TableType::factors; }
};

// What the rows of FASTSCHED_SCHEDULES are written in. Each list knows its length at compile time, to be
// checked against the struct that it is for.
namespace row {

template <std::size_t N>
struct Attributes {
  std::vector<Attribute> list;
};
template <std::size_t N>
struct Owns {
  std::vector<OwnParam> list;
};

inline Attribute number(const char* name) { return {intern(name), AttributeType::number}; }
inline Attribute limit(const char* name) { return {intern(name), AttributeType::limit}; }
inline Attribute real(const char* name) { return {intern(name), AttributeType::real}; }
inline Attribute count(const char* name) { return {intern(name), AttributeType::count}; }
inline Attribute integer(const char* name) { return {intern(name), AttributeType::integer}; }
inline Attribute choice(const char* name, std::initializer_list<const char*> values) {
  Attribute attribute = {intern(name), AttributeType::choice};
  for (const char* value : values) attribute.choices.push_back(intern(value));
  return attribute;
}

inline Attribute optional(Attribute attribute, double fallback = 0.0) {
  attribute.optional = true;
  attribute.fallback = fallback;
  return attribute;
}

template <typename... A>
Attributes<sizeof...(A)> params(A... list) {
  return {{list...}};
}
template <typename... A>
Attributes<sizeof...(A)> counters(A... list) {
  return {{list...}};
}
template <std::size_t N, std::size_t M>
Attributes<N + M> operator+(Attributes<N> first, const Attributes<M>& then) {
  first.list.insert(first.list.end(), then.list.begin(), then.list.end());
  return {std::move(first.list)};
}
// Of the structs that plateau.h and judged_metric.h share.
inline Attributes<3> improvement() {
  return params(choice("mode", {"min", "max"}), choice("threshold_mode", {"rel", "abs", "rel_abs"}),
                number("threshold"));
}
inline Attribute patience_counts() { return optional(choice("patience_counts", {"torch", "keras"})); }
inline Attributes<2> judged_metric() {
  return params(optional(integer("accumulate"), 1.0), optional(number("smoothing")));
}
inline Attributes<4> running_means() {
  return counters(optional(number("accumulated_metric")), optional(integer("accumulated_count")),
                  optional(number("smoothed_metric")), optional(number("smoothed_weight")));
}
inline Attributes<10> plateau() {
  return improvement() +
         params(number("factor"), number("patience"), patience_counts(), integer("cooldown"), number("eps")) +
         judged_metric();
}
inline Attributes<8> plateau_counters() {
  return counters(integer("last_epoch"), number("best"), integer("num_bad_epochs"),
                  integer("cooldown_counter")) +
         running_means();
}
// Of most schedules of the epoch.
inline Attributes<2> epochs() { return counters(integer("last_epoch"), integer("_step_count")); }
// Parameters that are no attributes, but follow from the table of factors.
template <std::size_t N>
Attributes<N> come_with_table() {
  return {};
}

inline OwnParam in_list(const char* name) { return {intern(name), OwnParam::in_list}; }
inline OwnParam in_group(const char* name) { return {intern(name), OwnParam::in_group}; }
inline OwnParam functions(const char* name) { return {intern(name), OwnParam::functions}; }

template <typename... O>
Owns<sizeof...(O)> own(O... list) {
  return {{list...}};
}

inline auto reads_metric() {
  return [](ScheduleAttributes& about) { about.reads_metric = true; };
}
inline auto decides_by_all_groups() {
  return [](ScheduleAttributes& about) { about.by_all_groups = true; };
}
inline auto window(const char* wanted, const char* size, const char* values) {
  return [=](ScheduleAttributes& about) { about.window = {intern(wanted), intern(size), intern(values)}; };
}
inline auto own_in_closed_form() {
  return [](ScheduleAttributes& about) { about.steps_use_own = false; };
}
inline auto table(TableType type, const char* attribute) {
  return [=](ScheduleAttributes& about) {
    about.table_type = type;
    about.table = intern(attribute);
  };
}
template <typename... O>
auto momentum(O... list) {
  return [=](ScheduleAttributes& about) { about.momentum = {list...}; };
}

template <typename Struct>
constexpr std::size_t words() {
  return std::is_empty_v<Struct> ? 0 : sizeof(Struct) / sizeof(double);
}

template <typename Params, typename Counters, std::size_t kOwnParams, std::size_t P, std::size_t C,
          std::size_t O, typename... Special>
ScheduleAttributes describe(Kind kind, const char* scheduler, Attributes<P> params, Attributes<C> counters,
                            Owns<O> own, Special... special) {
  static_assert(P == words<Params>(), "one attribute for each member of the struct of the parameters");
  static_assert(C == words<Counters>(), "one attribute for each member of the struct of the counters");
  static_assert(O == kOwnParams, "the list says another number of own parameters");
  ScheduleAttributes about;
  about.kind = kind;
  about.scheduler = scheduler;
  about.params = std::move(params.list);
  about.counters = std::move(counters.list);
  about.owns = std::move(own.list);
  for (std::size_t i = 0; i < about.counters.size(); ++i) {
    if (about.counters[i].name == protocol::step_count()) about.step_count = static_cast<int>(i);
  }
  (special(about), ...);
  return about;
}

}  // namespace row

inline const ScheduleAttributes& attributes_of(Kind kind) {
  // Immortal on purpose: the names are used until the interpreter ends. In the order of Kind.
  static const std::vector<ScheduleAttributes>& all = *[] {
    using namespace row;
#define FASTSCHED_DESCRIBE(kind, params, counters, own, ...) \
  describe<params, counters, own>(Kind::kind, __VA_ARGS__),
    return new std::vector<ScheduleAttributes>{FASTSCHED_SCHEDULES(FASTSCHED_DESCRIBE)};
#undef FASTSCHED_DESCRIBE
  }();
  return all[static_cast<std::size_t>(kind)];
}

inline Kind kind_of(const std::string& scheduler) {
  for (int kind = 0; kind < kKinds; ++kind) {
    if (scheduler == attributes_of(static_cast<Kind>(kind)).scheduler) return static_cast<Kind>(kind);
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
    case AttributeType::number:
    case AttributeType::count: return read_number(value, out);
    case AttributeType::limit: return read_limit(value, out);
    case AttributeType::real: return PyFloat_CheckExact(value) && read_number(value, out);
    case AttributeType::integer: return read_integer(value, out);
    case AttributeType::choice:
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
  const bool whole =
      attribute.type == AttributeType::integer ||
      (attribute.type == AttributeType::count && std::isfinite(value) && value == std::floor(value));
  return Ref(whole ? PyLong_FromDouble(value) : PyFloat_FromDouble(value));
}

inline const char* expected(const Attribute& attribute) {
  switch (attribute.type) {
    case AttributeType::real: return "a Python float";
    case AttributeType::integer: return "a Python int";
    case AttributeType::choice: return "one of the values that torch documents";
    case AttributeType::number:
    case AttributeType::count:
    case AttributeType::limit: break;
  }
  return "a Python float or int";
}

// Reads every attribute in `list` from a scheduler's __dict__. False where one is missing or not expressible.
inline bool read_all(const std::vector<Attribute>& list, PyObject* dict, double* out) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    PyObject* value = PyDict_GetItemWithError(dict, list[i].name);
    if (value == nullptr && list[i].optional) {
      out[i] = list[i].fallback;
    } else if (value == nullptr || !read(list[i], value, out[i])) {
      return decline(list[i].name, value, expected(list[i]));
    }
  }
  return true;
}

// How many of the last metrics a scheduler keeps. False where its attributes do not say so plainly.
inline bool read_window_size(const ScheduleAttributes& about, PyObject* dict, double& out) {
  out = 0.0;
  if (about.window.wanted == nullptr) return true;
  PyObject* wanted = PyDict_GetItemWithError(dict, about.window.wanted);
  if (wanted == Py_False) return true;
  if (wanted != Py_True) return decline(about.window.wanted, wanted, "True or False");
  PyObject* size = PyDict_GetItemWithError(dict, about.window.size);
  const bool known = size != nullptr && read_integer(size, out) && out >= 1.0;
  return known || decline(about.window.size, size, "a Python int of 1 or more");
}

// So many numbers from the list that keeps them.
inline bool read_window(const ScheduleAttributes& about, PyObject* list, double size,
                        std::vector<double>& out) {
  std::vector<double> values;
  const bool is_list = list != nullptr && PyList_CheckExact(list);
  if (is_list) values.resize(static_cast<std::size_t>(PyList_GET_SIZE(list)));
  bool known = is_list && static_cast<double>(values.size()) == size;
  for (std::size_t i = 0; known && i < values.size(); ++i) {
    known = read_number(PyList_GET_ITEM(list, static_cast<Py_ssize_t>(i)), values[i]);
  }
  if (!known) return decline(about.window.values, list, "a list of as many Python numbers as the window has");
  out = std::move(values);
  return true;
}

inline Ref list_of(const std::vector<double>& numbers) {
  Ref list(PyList_New(static_cast<Py_ssize_t>(numbers.size())));
  for (std::size_t i = 0; list && i < numbers.size(); ++i) {
    PyObject* number = PyFloat_FromDouble(numbers[i]);
    if (number == nullptr) return Ref();
    PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), number);
  }
  return list;
}

}  // namespace fastsched::host
