// Handing a scheduler's state from its __dict__ to an engine and back. Each is one call without Python code
// in it, so that no exception of a signal handler and no other thread can find the state with neither of the
// two.
#pragma once

#include <vector>

#include "python.h"
#include "scheduler_protocol.h"

namespace fastsched::host {

// The scheduler's slot and dict, past what its class makes of assignments.
class EngineSlot {
 public:
  EngineSlot(PyObject* scheduler, PyObject* names)
      : scheduler_(scheduler), names_(names), dict_(PyObject_GenericGetDict(scheduler, nullptr)) {
    if (!dict_) throw pybind11::error_already_set();
  }

  bool has(PyObject* engine) const {
    const Ref now(PyObject_GenericGetAttr(scheduler_, protocol::engine()));
    if (!now) throw pybind11::error_already_set();
    return now.get() == engine;
  }

  void put(PyObject* engine) const {
    if (PyObject_GenericSetAttr(scheduler_, protocol::engine(), engine) != 0)
      throw pybind11::error_already_set();
  }

  bool dict_has_all() const {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names_); ++i) {
      if (PyDict_GetItemWithError(dict_.get(), PyTuple_GET_ITEM(names_, i)) == nullptr) return false;
    }
    return true;
  }

  // What is taken out lives on until this object dies: its end may run code.
  void clear_dict() {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names_); ++i) {
      PyObject* const name = PyTuple_GET_ITEM(names_, i);
      PyObject* const value = PyDict_GetItemWithError(dict_.get(), name);
      if (value == nullptr) continue;
      taken_.push_back(Ref::borrow(value));
      if (PyDict_DelItem(dict_.get(), name) != 0) throw pybind11::error_already_set();
    }
  }

 private:
  PyObject* scheduler_;
  PyObject* names_;
  Ref dict_;
  std::vector<Ref> taken_;
};

// Puts `engine`, which has a copy of what is in the scheduler's dict under `names`, in the place of `before`,
// and takes that out of the dict. False, with nothing changed, if another engine is in charge.
inline bool put_in_charge(const pybind11::object& scheduler, const pybind11::object& before,
                          const pybind11::object& engine, const pybind11::tuple& names) {
  EngineSlot slot(scheduler.ptr(), names.ptr());
  if (!slot.has(before.ptr())) return false;
  slot.put(engine.ptr());
  slot.clear_dict();
  return true;
}

// Puts `after` in the place of `engine`, whose state is in the dict. False, with nothing changed, if another
// engine is in charge, or the state under `names` is not there: another thread has stepped it on.
inline bool give_up(const pybind11::object& scheduler, const pybind11::object& engine,
                    const pybind11::object& after, const pybind11::tuple& names) {
  const EngineSlot slot(scheduler.ptr(), names.ptr());
  if (!slot.has(engine.ptr()) || !slot.dict_has_all()) return false;
  slot.put(after.ptr());
  return true;
}

}  // namespace fastsched::host
