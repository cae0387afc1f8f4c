// What a scheduler's __dict__ says of its schedule, and whether it still says so: the one look that every
// step begins with, whoever makes it.
#pragma once

#include <cstring>
#include <vector>

#include "dict_version.h"
#include "param_groups.h"
#include "python.h"
#include "schedule_attributes.h"
#include "table.h"

namespace fastsched::host {

class Settings {
 public:
  explicit Settings(const ScheduleAttributes& about) : about_(about) {}

  const double* params() const { return params_; }
  Table table() const { return table_.table(); }
  // How many of the last metrics it keeps.
  double window_size() const { return window_size_; }

  // Reads everything. False where something is not plain, or no schedule can have it.
  bool read(PyObject* dict) {
    forget(version_);
    if (!read_all(about_.params, dict, params_) || !table_.read(about_, dict) ||
        !read_window_size(about_, dict, window_size_)) {
      return false;
    }
    read_flags(dict);
    return valid_params(about_.kind, params_) || decline(kInvalid);
  }

  // Whether it is known that nothing was written to the dict since settle().
  bool is_unwritten(PyObject* dict) const { return unchanged(dict, version_); }
  // The same, and that nothing was written into the table.
  bool same(PyObject* dict) {
    return is_unwritten(dict) && (TableReader::is_fixed(about_) || table_.same(about_, dict));
  }
  // Whether the dict says what was read, whatever was written to it, and has no state, which engines hold.
  // That of a scheduler in a composition must have no step() either.
  bool holds(PyObject* dict, bool in_composition) {
    if (!unchanged(dict, version_)) {
      if (!says_the_same(dict) || has_state(dict) || (in_composition && has_step(dict))) return false;
      settle(dict);
    }
    return table_.same(about_, dict);
  }
  // For what must not have been written to since: false only where versions are known.
  bool is_settled(PyObject* dict) const { return !is_known(version_) || unchanged(dict, version_); }

  // The dict, as it is now, is what was read.
  void settle(PyObject* dict) { remember(dict, version_); }
  void look_again() { forget(version_); }

  // Whether counters, last learning rates or metrics were put there, by somebody who wrote there directly.
  bool has_state(PyObject* dict) const {
    for (const Attribute& counter : about_.counters) {
      if (PyDict_GetItemWithError(dict, counter.name) != nullptr) return true;
    }
    PyObject* const window = about_.window.values;
    return PyDict_GetItemWithError(dict, protocol::last_lr()) != nullptr ||
           (window != nullptr && PyDict_GetItemWithError(dict, window) != nullptr);
  }

  // Somebody has put a step() of their own on the scheduler.
  static bool has_step(PyObject* dict) { return PyDict_GetItemWithError(dict, protocol::step()) != nullptr; }

  // Momentum that cycles along with the learning rate.
  bool cycles_momentum() const { return cycles_ == Py_True; }
  const Entry& momentum() const {
    static const Entry momentum("momentum");
    static const Entry beta1("betas[0]");
    return uses_beta1_ == Py_True ? beta1 : momentum;
  }
  // False where it does not say plainly whether that cycles, and which.
  bool says_which_momentum() const {
    const auto is_flag = [](PyObject* value) { return value == Py_True || value == Py_False; };
    if (about_.momentum.empty() || cycles_ == Py_False) return true;
    if (!is_flag(cycles_)) return decline(cycle_momentum_name(), cycles_, "True or False");
    return is_flag(uses_beta1_) || decline(use_beta1_name(), uses_beta1_, "True or False");
  }

 private:
  bool says_the_same(PyObject* dict) const {
    Settings now(about_);
    double window_size = 0.0;
    if (!read_all(about_.params, dict, now.params_) || !read_window_size(about_, dict, window_size))
      return false;
    now.read_flags(dict);
    return memcmp(now.params_, params_, sizeof(params_)) == 0 && window_size == window_size_ &&
           now.cycles_ == cycles_;
  }

  void read_flags(PyObject* dict) {
    if (about_.momentum.empty()) return;
    cycles_ = PyDict_GetItemWithError(dict, cycle_momentum_name());
    uses_beta1_ = PyDict_GetItemWithError(dict, use_beta1_name());
  }

  static PyObject* cycle_momentum_name() {
    static PyObject* const name = intern("cycle_momentum");
    return name;
  }
  static PyObject* use_beta1_name() {
    static PyObject* const name = intern("use_beta1");
    return name;
  }

  const ScheduleAttributes& about_;
  double params_[kNodeParams] = {};
  TableReader table_;
  double window_size_ = 0.0;
  PyObject* cycles_ = nullptr;  // compared only; True and False do not die
  PyObject* uses_beta1_ = nullptr;
  DictVersion version_ = {};
};

// The list or tuple of the schedulers in a composition; an empty reference if there is none.
inline Ref children_of(PyObject* scheduler_dict) {
  PyObject* const list = PyDict_GetItemWithError(scheduler_dict, protocol::schedulers());
  const bool known = list != nullptr && (PyList_CheckExact(list) || PyTuple_CheckExact(list));
  return known ? Ref::borrow(list) : Ref();
}

}  // namespace fastsched::host
