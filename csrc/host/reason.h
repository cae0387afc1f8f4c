// Why an engine declined: noted where that is decided, in words for the user, and taken right after by
// whoever wants to know (fastsched.explain, the log). The newest note of a thread counts.
#pragma once

#include <string>
#include <utility>

#include "python.h"

namespace fastsched::host {

inline std::string& reason() {
  thread_local std::string text;
  return text;
}

// False, which is what is returned then.
[[gnu::cold]] inline bool decline(std::string text) {
  reason() = std::move(text);
  return false;
}

constexpr const char* kInvalid =
    "a setting has a value with which torch's Python raises, or computes in another way";

// An attribute or an entry of a group that holds something else than engines compute with.
[[gnu::cold, gnu::noinline]] inline bool decline(PyObject* name, PyObject* value,
                                                 const char* expected = "a Python float or int") {
  const char* utf8 = PyUnicode_AsUTF8(name);
  if (utf8 == nullptr) {
    PyErr_Clear();
    return false;
  }
  const std::string quoted = std::string("`") + utf8 + "`";
  if (value == nullptr) return decline("there is no " + quoted);
  if (PyList_CheckExact(value)) return decline(quoted + " is not " + expected);
  const bool large = PyLong_CheckExact(value);
  const std::string found = large ? "another int" : std::string("of type ") + Py_TYPE(value)->tp_name;
  return decline(quoted + " is " + found + ", not " + expected + (large ? " below 2**53" : ""));
}

}  // namespace fastsched::host
