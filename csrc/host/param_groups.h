// The names and the way from a scheduler to its optimizer's param groups.
#pragma once

#include "python.h"

namespace fastsched::host {

inline PyObject* lr_name() {
  static PyObject* const name = intern("lr");
  return name;
}
inline PyObject* last_lr_name() {
  static PyObject* const name = intern("_last_lr");
  return name;
}
inline PyObject* optimizer_name() {
  static PyObject* const name = intern("optimizer");
  return name;
}
inline PyObject* is_cuda_name() {
  static PyObject* const name = intern("is_cuda");
  return name;
}
inline PyObject* param_groups_name() {
  static PyObject* const name = intern("param_groups");
  return name;
}

// A borrowed reference, null where there is none.
inline PyObject* optimizer_of(PyObject* scheduler_dict) {
  return PyDict_GetItemWithError(scheduler_dict, optimizer_name());
}

// optimizer.param_groups: the list itself, or what else it is, a tuple for instance, as a list. An empty
// reference if there is none. May run Python code, a property's.
inline Ref param_groups(PyObject* optimizer) {
  if (optimizer == nullptr) return Ref();
  const Ref alive = Ref::borrow(optimizer);
  Ref groups(PyObject_GetAttr(optimizer, param_groups_name()));
  if (groups && !PyList_CheckExact(groups.get())) groups = Ref(PySequence_List(groups.get()));
  if (!groups) PyErr_Clear();
  return groups;
}

inline PyObject* item(PyObject* list, std::size_t i) {
  return PyList_GET_ITEM(list, static_cast<Py_ssize_t>(i));
}

inline std::size_t length(PyObject* list) { return static_cast<std::size_t>(PyList_GET_SIZE(list)); }

}  // namespace fastsched::host
