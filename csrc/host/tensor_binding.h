// The host's part of the tensor engine: packing a scheduler's attributes into a program, and noticing, at
// the cost of a few loads per step, that something the buffers were built from is no longer what it was.
#pragma once

#include <string>
#include <vector>

#include "description.h"
#include "dict_version.h"
#include "param_groups.h"
#include "python.h"

namespace fastsched::host {

// The program of a scheduler over the groups at `indices`, as the bytes of a float64 array that ends in the
// per-group parameters. None where an attribute is not a plain number, torch's Python would raise at some
// step, or the per-group list `own` is not one number per group.
inline pybind11::object pack_program(const std::string& scheduler, const pybind11::dict& dict,
                                     const pybind11::list& own, const std::vector<std::size_t>& indices,
                                     std::size_t all_groups) {
  const Kind kind = kind_of(scheduler);
  const Description& about = description(kind);
  std::vector<double> table;
  Node node = {static_cast<double>(kind), 1.0, 0.0, 0.0, 0.0, {}};
  if (!read_all(about.params, dict.ptr(), node.params) || !valid_params(kind, node.params) ||
      !read_table(about, dict.ptr(), table) || own.size() != all_groups) {
    return pybind11::none();
  }
  const std::size_t table_offset = kHeaderSize + kNodeSize;
  const std::size_t group_param = table_offset + table.size();
  node.table = static_cast<double>(table_offset);
  node.table_size = static_cast<double>(table.size());
  node.group_param = static_cast<double>(group_param);
  std::vector<double> program(group_param + indices.size());
  const Header header = {1.0, static_cast<double>(indices.size())};
  memcpy(program.data(), &header, sizeof(header));
  memcpy(program.data() + kHeaderSize, &node, sizeof(node));
  std::copy(table.begin(), table.end(), program.begin() + static_cast<std::ptrdiff_t>(table_offset));
  for (std::size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] >= all_groups || !read_number(item(own.ptr(), indices[i]), program[group_param + i])) {
      return pybind11::none();
    }
  }
  return pybind11::bytes(reinterpret_cast<const char*>(program.data()), program.size() * sizeof(double));
}

// Remembers what a scheduler's buffers were built from. All references it keeps are to leaves (floats, LR
// tensors), so it cannot close a reference cycle.
class Watch {
 public:
  explicit Watch(const std::string& scheduler) : about_(description(kind_of(scheduler))) {}

  // The program holds the scheduler's attributes as they are now.
  void mark_attributes(PyObject* scheduler) {
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) throw pybind11::error_already_set();
    PyObject* values = PyDict_GetItemWithError(dict.get(), about_.group_param);
    group_param_ = pybind11::tuple(pybind11::reinterpret_borrow<pybind11::object>(values));
    read_all(about_.params, dict.get(), params_);
    read_table(about_, dict.get(), table_);
    table_version_ = kUnknownVersion;
    dict_version_ = kUnknownVersion;  // counters may have been written there, too
  }

  // `lrs`: the LR tensor object of every group, in order.
  void mark_groups(const pybind11::list& lrs) {
    lrs_ = pybind11::tuple(lrs);
    versions_.assign(lrs.size(), kUnknownVersion);
  }

  bool changed(PyObject* scheduler) {
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) {
      PyErr_Clear();
      return true;
    }
    if (!unchanged(dict.get(), dict_version_)) {
      if (!same_params(dict.get())) return true;
      dict_version_ = version(dict.get());
    }
    if (!same_table(dict.get()) || !same_group_param(dict.get())) return true;
    Ref groups = param_groups(optimizer_of(dict.get()));
    return !groups || !same_lrs(groups.get());
  }

 private:
  static PyObject* item_of(const pybind11::tuple& tuple, std::size_t i) {
    return PyTuple_GET_ITEM(tuple.ptr(), static_cast<Py_ssize_t>(i));
  }

  // Neither a hyperparameter has another value nor has a counter been written into __dict__ directly.
  bool same_params(PyObject* dict) const {
    double now[kNodeParams] = {};
    if (!read_all(about_.params, dict, now) || memcmp(now, params_, sizeof(now)) != 0) return false;
    for (const Attribute& counter : about_.counters) {
      if (PyDict_GetItemWithError(dict, counter.name) != nullptr) return false;
    }
    return PyDict_GetItemWithError(dict, last_lr_name()) == nullptr;
  }

  bool same_table(PyObject* dict) {
    if (about_.table == nullptr) return true;
    PyObject* table = PyDict_GetItemWithError(dict, about_.table);
    if (table != nullptr && PyDict_Check(table) && unchanged(table, table_version_)) return true;
    std::vector<double> now;
    if (!read_table(about_, dict, now) || now != table_) return false;
    table_version_ = version(table);
    return true;
  }

  // Lists change without their owner's dict noticing. The same objects in the same order are the same list.
  bool same_group_param(PyObject* dict) const {
    PyObject* values = PyDict_GetItemWithError(dict, about_.group_param);
    if (values == nullptr || !PyList_CheckExact(values) || length(values) != group_param_.size())
      return false;
    return memcmp(PySequence_Fast_ITEMS(values), PySequence_Fast_ITEMS(group_param_.ptr()),
                  group_param_.size() * sizeof(PyObject*)) == 0;
  }

  bool same_lrs(PyObject* groups) {
    const std::size_t count = versions_.size();
    if (length(groups) != count) return false;
    PyObject* const* group = PySequence_Fast_ITEMS(groups);
    DictVersion* seen = versions_.data();
    for (std::size_t i = 0; i < count; ++i) {
      if (!PyDict_CheckExact(group[i])) return false;
      if (unchanged(group[i], seen[i])) continue;
      if (PyDict_GetItemWithError(group[i], lr_name()) != item_of(lrs_, i)) return false;
      seen[i] = version(group[i]);
    }
    return true;
  }

  const Description& about_;
  double params_[kNodeParams] = {};
  DictVersion dict_version_ = kUnknownVersion;
  std::vector<double> table_;
  DictVersion table_version_ = kUnknownVersion;
  pybind11::tuple group_param_;
  pybind11::tuple lrs_;
  std::vector<DictVersion> versions_;
};

}  // namespace fastsched::host
