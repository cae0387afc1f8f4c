// Which Python attributes make up each schedule: the one table that ties attribute names to the node's
// parameters and counters. Reading a scheduler, packing a program and exposing state all follow it.
#pragma once

#include <vector>

#include "../schedule/layout.h"
#include "python.h"

namespace fastsched::host {

enum class Type {
  number,   // an exact Python float or int
  integer,  // an exact Python int that a double holds exactly; read back as an int
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
};

inline const Description& description(Kind kind) {
  // Immortal on purpose: the names are used until the interpreter ends.
  static const std::vector<Description>& all = *new std::vector<Description>{
      {"ReduceLROnPlateau",
       {{intern("mode"), Type::choice, {intern("min"), intern("max")}},
        {intern("threshold_mode"), Type::choice, {intern("rel"), intern("abs")}},
        {intern("threshold"), Type::number},
        {intern("factor"), Type::number},
        {intern("patience"), Type::number},
        {intern("cooldown"), Type::integer},
        {intern("eps"), Type::number}},
       {{intern("last_epoch"), Type::integer},
        {intern("best"), Type::number},
        {intern("num_bad_epochs"), Type::integer},
        {intern("cooldown_counter"), Type::integer}},
       intern("min_lrs")},
  };
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
    case Type::number: return read_number(value, out);
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
  return Ref(attribute.type == Type::integer ? PyLong_FromDouble(value) : PyFloat_FromDouble(value));
}

// Reads every attribute in `list` from a scheduler's __dict__. False where one is missing or not expressible.
inline bool read_all(const std::vector<Attribute>& list, PyObject* dict, double* out) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    PyObject* value = PyDict_GetItemWithError(dict, list[i].name);
    if (value == nullptr || !read(list[i], value, out[i])) return false;
  }
  return true;
}

}  // namespace fastsched::host
