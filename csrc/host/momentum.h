// Momentum that cycles along with the learning rate, as Python numbers in the param-group dicts: "momentum",
// or the first of "betas".
#pragma once

#include <vector>

#include "group_entries.h"
#include "table.h"

namespace fastsched::host {

class Momentum {
 public:
  // Whether the scheduler cycles momentum, and which. False if it does not say so plainly.
  bool read(const Description& about, PyObject* scheduler_dict) {
    static PyObject* const cycle_momentum = intern("cycle_momentum");
    static PyObject* const use_beta1 = intern("use_beta1");
    owns_ = &about.momentum;
    cycles_ = false;
    if (about.momentum.empty()) return true;
    PyObject* cycles = PyDict_GetItemWithError(scheduler_dict, cycle_momentum);
    if (cycles == Py_False) return true;
    PyObject* beta1 = PyDict_GetItemWithError(scheduler_dict, use_beta1);
    if (cycles != Py_True || (beta1 != Py_True && beta1 != Py_False)) return false;
    cycles_ = true;
    use_beta1_ = beta1 == Py_True;
    checked_.clear();
    return true;
  }

  bool cycles() const { return cycles_; }

  void add_keys(std::vector<PyObject*>& keys) const {
    if (!cycles_) return;
    for (const OwnParam& own : *owns_) {
      if (own.where == OwnParam::in_group) keys.push_back(own.name);
    }
  }

  // Computes the new values. False, with nothing changed, where some group's momentum is no Python number.
  bool compute(const Update& update, PyObject* scheduler_dict, PyObject* groups,
               const GroupEntries& entries) {
    if (!cycles_) return true;
    if (!own_.read_for(update, *owns_, scheduler_dict, entries)) return false;
    const std::size_t count = entries.groups();
    new_.resize(count);
    checked_.resize(count, kUnknownVersion);
    Own own = own_.of(count, nullptr);
    for (std::size_t i = 0; i < count; ++i) {
      PyObject* group = item(groups, i);
      if (!unchanged(group, checked_[i])) {
        PyObject* now = current(group);
        if (now == nullptr ? use_beta1_ : !is_number(now)) return false;
      }
      own.index = static_cast<std::int64_t>(i);
      new_[i] = apply(update, 0.0, own).lr;
    }
    return true;
  }

  // Writes one group's. False on a Python error.
  bool write(PyObject* groups, std::size_t i) const {
    if (!cycles_) return true;
    PyObject* group = item(groups, i);
    Ref value(PyFloat_FromDouble(new_[i]));
    if (!value) return false;
    if (use_beta1_) {
      PyObject* betas = PyDict_GetItemWithError(group, betas_name());
      if (PyTuple_CheckExact(betas) && PyTuple_GET_SIZE(betas) == 2) {
        value = Ref(PyTuple_Pack(2, value.get(), PyTuple_GET_ITEM(betas, 1)));
        return value && PyDict_SetItem(group, betas_name(), value.get()) == 0;
      }
      Ref rest(PySequence_GetSlice(betas, 1, PySequence_Size(betas)));
      Ref first(rest ? PyTuple_Pack(1, value.get()) : nullptr);
      Ref rest_tuple(first ? PySequence_Tuple(rest.get()) : nullptr);
      value = Ref(rest_tuple ? PySequence_Concat(first.get(), rest_tuple.get()) : nullptr);
      if (!value) return false;
    }
    return PyDict_SetItem(group, use_beta1_ ? betas_name() : momentum_name(), value.get()) == 0;
  }

  // Nothing but this step has written to the group since compute() looked at it.
  void note(PyObject* groups, std::size_t i) {
    if (cycles_) checked_[i] = version(item(groups, i));
  }

 private:
  static PyObject* betas_name() {
    static PyObject* const name = intern("betas");
    return name;
  }
  static PyObject* momentum_name() {
    static PyObject* const name = intern("momentum");
    return name;
  }
  static bool is_number(PyObject* object) { return PyFloat_CheckExact(object) || PyLong_CheckExact(object); }

  // Borrowed; null where the group has none.
  PyObject* current(PyObject* group) const {
    PyObject* entry = PyDict_GetItemWithError(group, use_beta1_ ? betas_name() : momentum_name());
    if (!use_beta1_ || entry == nullptr) return entry;
    if (PyTuple_CheckExact(entry) && PyTuple_GET_SIZE(entry) > 0) return PyTuple_GET_ITEM(entry, 0);
    if (PyList_CheckExact(entry) && length(entry) > 0) return item(entry, 0);
    return nullptr;
  }

  const std::vector<OwnParam>* owns_ = nullptr;
  bool cycles_ = false;
  bool use_beta1_ = false;
  OwnValues own_;
  std::vector<double> new_;
  std::vector<DictVersion> checked_;  // the groups that hold a number as momentum, by their version
};

// Cycles the momentum of an optimizer whose learning rates are tensors: its counters run along on the host.
class HostMomentum {
 public:
  explicit HostMomentum(const std::string& scheduler)
      : kind_(kind_of(scheduler)), about_(description(kind_)) {}

  // A counter by its place among the description's.
  void set(std::size_t index, double counter) {
    if (index < static_cast<std::size_t>(kNodeCounters)) counters_.counters[index] = counter;
  }

  // Makes one step and writes the momentum of every group. False, with nothing changed, where it cannot.
  bool step(const pybind11::object& scheduler, int event, double epoch) {
    Ref dict(PyObject_GenericGetDict(scheduler.ptr(), nullptr));
    if (!dict) throw pybind11::error_already_set();
    if (!(unchanged(dict.get(), dict_version_) && table_.same(about_, dict.get())) && !refresh(dict.get())) {
      return false;
    }
    Ref groups = param_groups(optimizer_of(dict.get()));
    if (!groups || !entries_.refresh(groups.get())) return false;
    NodeState next = counters_;
    const Update update =
        decide(kind_, params_, next.counters, Moment::make(static_cast<Event>(event), epoch), table_.table());
    if (update.kind() == Law::idle || !momentum_.compute(update, dict.get(), groups.get(), entries_))
      return false;
    counters_ = next;
    for (std::size_t i = 0; i < entries_.groups(); ++i) {
      if (!momentum_.write(groups.get(), i)) throw pybind11::error_already_set();
      momentum_.note(groups.get(), i);
    }
    return true;
  }

 private:
  bool refresh(PyObject* dict) {
    dict_version_ = kUnknownVersion;
    if (!read_all(about_.params, dict, params_) || !valid_params(kind_, params_) ||
        !table_.read(about_, dict) || !momentum_.read(about_, dict)) {
      return false;
    }
    std::vector<PyObject*> keys;
    momentum_.add_keys(keys);
    entries_.use(keys);
    dict_version_ = version(dict);
    return true;
  }

  const Kind kind_;
  const Description& about_;
  NodeState counters_ = {};
  double params_[kNodeParams] = {};
  DictVersion dict_version_ = kUnknownVersion;
  TableReader table_;
  Momentum momentum_;
  GroupEntries entries_;
};

}  // namespace fastsched::host
