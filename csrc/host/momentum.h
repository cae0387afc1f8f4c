// Momentum that cycles along with the learning rate, as Python numbers in the param-group dicts: "momentum",
// or the first of "betas".
#pragma once

#include <utility>
#include <vector>

#include "group_entries.h"
#include "table.h"

namespace fastsched::host {

class Momentum {
 public:
  // Whether the scheduler cycles momentum, and which. False if it does not say so plainly.
  bool read(const ScheduleAttributes& about, PyObject* scheduler_dict) {
    static PyObject* const cycle_momentum = intern("cycle_momentum");
    static PyObject* const use_beta1 = intern("use_beta1");
    owns_ = &about.momentum;
    cycles_ = false;
    if (about.momentum.empty()) return true;
    PyObject* cycles = PyDict_GetItemWithError(scheduler_dict, cycle_momentum);
    if (cycles == Py_False) return true;
    PyObject* beta1 = PyDict_GetItemWithError(scheduler_dict, use_beta1);
    if (cycles != Py_True || (beta1 != Py_True && beta1 != Py_False)) {
      return decline(cycles != Py_True ? cycle_momentum : use_beta1, cycles != Py_True ? cycles : beta1,
                     "True or False");
    }
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

  // What has to be made before anybody looks at the groups: a tuple for each group's new betas.
  void allocate(PyObject* groups) {
    due_ = false;
    if (!cycles_ || !use_beta1_) return;
    tuples_.clear();
    for (std::size_t i = 0; i < length(groups); ++i) {
      PyObject* const group = item(groups, i);
      Py_ssize_t size = 0;
      if (i < checked_.size() && unchanged(group, checked_[i].version)) {
        size = checked_[i].betas;
      } else if (PyDict_CheckExact(group)) {
        const Ref held = Ref::borrow(group);
        size = size_of(PyDict_GetItemWithError(group, betas_name()));
      }
      tuples_.push_back(empty_tuple(size));
    }
  }

  // Computes the new values, which are then due to be written. False, with nothing changed, where some
  // group's momentum is no Python number, or its betas are not as many as were allocated.
  bool compute(const Update& update, PyObject* scheduler_dict, PyObject* groups,
               const GroupEntries& entries) {
    if (!cycles_) return true;
    if (!own_.read_for(update, *owns_, scheduler_dict, entries)) return false;
    const std::size_t count = entries.groups();
    if (use_beta1_ && tuples_.size() != count) return false;
    new_.resize(count);
    checked_.resize(count);
    GroupParams own = own_.of(count);
    for (std::size_t i = 0; i < count && i < length(groups); ++i) {
      PyObject* group = item(groups, i);
      if (!unchanged(group, checked_[i].version)) {
        const Ref held = Ref::borrow(group);
        PyObject* entry = PyDict_GetItemWithError(group, use_beta1_ ? betas_name() : momentum_name());
        PyObject* now = use_beta1_ ? first_of(entry) : entry;
        if (now == nullptr ? use_beta1_ || PyErr_Occurred() : !is_number(now)) {
          return decline(use_beta1_ ? betas_name() : momentum_name(), now);
        }
        remember(group, checked_[i].version);
        checked_[i].betas = size_of(entry);
      }
      if (use_beta1_ && PyTuple_GET_SIZE(tuples_[i].get()) != checked_[i].betas) return false;
      own.index = static_cast<std::int64_t>(i);
      new_[i] = apply(update, 0.0, own).lr;
    }
    due_ = true;
    return true;
  }

  bool is_due() const { return due_; }

  // Writes group i's, which is due. False on a Python error. Runs no Python code: the old momentum is a
  // number.
  [[gnu::noinline]] bool write(PyObject* group, std::size_t i, DictVersion& version) {
    Ref value(PyFloat_FromDouble(new_[i]));
    if (!value) return false;
    if (!use_beta1_) return set_item(group, momentum_name(), value.get(), version) == 0;
    const Ref tuple = std::move(tuples_[i]);
    return replace_item(group, betas_name(), 0, std::move(value), tuple, version);
  }

  // Nothing but this step has written to the group since compute() looked at it.
  void note(PyObject* group, std::size_t i) { remember(group, checked_[i].version); }

  void done() { due_ = false; }

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

  // Borrowed; null where there is none.
  static PyObject* first_of(PyObject* betas) {
    return size_of(betas) > 0 ? PySequence_Fast_GET_ITEM(betas, 0) : nullptr;
  }

  const std::vector<OwnParam>* owns_ = nullptr;
  bool cycles_ = false;
  bool use_beta1_ = false;
  OwnValues own_;
  std::vector<double> new_;
  struct Checked {
    DictVersion version;  // at which the group held a number as momentum
    Py_ssize_t betas;     // and so many betas
  };
  std::vector<Checked> checked_;
  std::vector<Ref> tuples_;  // of the step that is being made
  bool due_ = false;
};

// Cycles the momentum of an optimizer whose learning rates are tensors: its counters run along on the host.
class HostMomentum : public Bound {
 public:
  explicit HostMomentum(const std::string& scheduler)
      : kind_(kind_of(scheduler)), about_(attributes_of(kind_)) {}

  // A counter by its place among the description's.
  void set(std::size_t index, double counter) {
    if (index < static_cast<std::size_t>(kNodeCounters)) counters_.counters[index] = counter;
  }

  // Makes one step and writes the momentum of every group. False, with nothing changed, where it cannot.
  bool step(const pybind11::object& scheduler, int event, double epoch) {
    Ref dict(PyObject_GenericGetDict(scheduler.ptr(), nullptr));
    if (!dict) throw pybind11::error_already_set();
    if (busy_ || event < 0 || event >= kEvents) return false;
    if (!(unchanged(dict.get(), dict_version_) && table_.same(about_, dict.get())) && !refresh(dict.get())) {
      return false;
    }
    Ref groups = param_groups(optimizer_of(dict.get()));
    if (!groups) return false;
    momentum_.allocate(groups.get());
    const Busy busy(busy_);
    if (!busy.entered || !entries_.refresh(groups.get())) return false;
    NodeState next = counters_;
    const Update update = decide(kind_, params_, next.counters,
                                 StepInput::make(static_cast<Event>(event), epoch), {table_.table(), {}});
    if (update.kind() == Law::idle || !momentum_.compute(update, dict.get(), groups.get(), entries_)) {
      return false;
    }
    counters_ = next;
    for (std::size_t i = 0; momentum_.is_due() && i < entries_.groups(); ++i) {
      const Ref group = GroupEntries::next(groups.get(), i);
      if (!group || !momentum_.write(group.get(), i, entries_.version_of(i))) {
        throw pybind11::error_already_set();
      }
      momentum_.note(group.get(), i);
    }
    momentum_.done();
    return true;
  }

 private:
  bool refresh(PyObject* dict) {
    forget(dict_version_);
    if (!read_all(about_.params, dict, params_) || !valid_params(kind_, params_) ||
        !table_.read(about_, dict) || !momentum_.read(about_, dict)) {
      return false;
    }
    std::vector<PyObject*> keys;
    momentum_.add_keys(keys);
    entries_.use(keys);
    remember(dict, dict_version_);
    return true;
  }

  const Kind kind_;
  const ScheduleAttributes& about_;
  NodeState counters_ = {};
  double params_[kNodeParams] = {};
  DictVersion dict_version_ = {};
  TableReader table_;
  Momentum momentum_;
  GroupEntries entries_;
  bool busy_ = false;
};

}  // namespace fastsched::host
