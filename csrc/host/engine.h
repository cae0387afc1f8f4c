// The host engine: steps a scheduler whose learning rates are Python numbers, writing straight into the
// param-group dicts. While an engine is attached it holds the scheduler's counters and last LRs, and the
// scheduler's __dict__ does not; hyperparameters stay in __dict__ and are read again whenever it changes.
#pragma once

#include <vector>

#include "description.h"
#include "dict_version.h"
#include "param_groups.h"
#include "python.h"

namespace fastsched::host {

enum class Outcome { failed = -1, declined = 0, stepped = 1 };

// A learning rate as a Python number; ints are remembered, so that _last_lr gives back what was there.
struct NumberLR {
  double value;
  bool integer;

  static bool read(PyObject* object, NumberLR& out) {
    if (PyFloat_CheckExact(object)) {
      out = {PyFloat_AS_DOUBLE(object), false};
      return true;
    }
    out.integer = true;
    return read_integer(object, out.value);
  }
  PyObject* to_python() const { return integer ? PyLong_FromDouble(value) : PyFloat_FromDouble(value); }
};

// The learning rates of all groups, looked up again only in dicts that changed.
class NumberGroups {
 public:
  // False if some group's LR is not a plain number; nothing is written to the groups either way.
  bool refresh(PyObject* groups) {
    const std::size_t count = length(groups);
    if (lrs_.size() != count) {
      versions_.assign(count, kUnknownVersion);
      lrs_.resize(count);
      changed_ = true;
    }
    for (std::size_t i = 0; i < count; ++i) {
      PyObject* group = item(groups, i);
      if (!PyDict_CheckExact(group)) return false;
      if (unchanged(group, versions_[i])) continue;
      PyObject* lr = PyDict_GetItemWithError(group, lr_name());
      if (lr == nullptr || !NumberLR::read(lr, lrs_[i])) {
        versions_[i] = kUnknownVersion;
        return false;
      }
      versions_[i] = version(group);
      changed_ = true;
    }
    return true;
  }

  bool write(PyObject* groups, std::size_t i, PyObject* lr) {
    PyObject* group = item(groups, i);
    if (PyDict_SetItem(group, lr_name(), lr) != 0) return false;
    versions_[i] = version(group);
    changed_ = true;
    return NumberLR::read(lr, lrs_[i]);
  }

  const std::vector<NumberLR>& lrs() const { return lrs_; }

  // Brings a copy up to date; `copy` must be the same vector every time.
  void copy_changed(std::vector<NumberLR>& copy) {
    if (changed_) copy = lrs_;
    changed_ = false;
  }
  // The copy was written to by somebody else.
  void forget_copy() { changed_ = true; }

 private:
  std::vector<DictVersion> versions_;
  std::vector<NumberLR> lrs_;
  bool changed_ = true;
};

class HostEngine {
 public:
  // `read_tensor` turns a metric of type `tensor` into a float where reading it would wait for a GPU.
  HostEngine(const std::string& scheduler, pybind11::type tensor, pybind11::object read_tensor)
      : kind_(kind_of(scheduler)),
        about_(description(kind_)),
        tensor_(std::move(tensor)),
        read_tensor_(std::move(read_tensor)) {}

  // Takes the counters and last LRs over from the scheduler's __dict__. False, with nothing changed, if a
  // hyperparameter, a counter or a learning rate is not a plain number.
  bool attach(PyObject* scheduler) {
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) throw pybind11::error_already_set();
    if (!read_all(about_.counters, dict.get(), counters_.counters) ||
        PyDict_GetItemWithError(dict.get(), last_lr_name()) == nullptr) {
      return false;
    }
    Ref groups = param_groups(optimizer_of(dict.get()));
    return groups && groups_.refresh(groups.get()) && refresh(dict.get());
  }

  // Puts the state into a scheduler's __dict__, where refresh() finds it again.
  void lend(PyObject* dict) const {
    for_each([dict](PyObject* name, Ref value) {
      if (!value || PyDict_SetDefault(dict, name, value.get()) == nullptr)
        throw pybind11::error_already_set();
    });
  }

  // Calls visit(name, value) for every counter and for _last_lr; the value is empty on a Python error.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      const Attribute& counter = about_.counters[i];
      visit(counter.name, to_python(counter, counters_.counters[i]));
    }
    visit(last_lr_name(), last_lr());
  }

  // Declines, with nothing changed, whatever it cannot do exactly as torch does. `value` is the metric as a
  // number, read just once: a stateful __float__ or a metric on a GPU must not be asked again.
  Outcome step(PyObject* scheduler, PyObject* metric, double& value) {
    if (about_.reads_metric && !read_metric(metric, value)) return Outcome::failed;
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) return Outcome::failed;
    if (!same(dict.get()) && !refresh(dict.get())) return Outcome::declined;
    if (about_.step_count >= 0 && counters_.counters[about_.step_count] == 1.0 && !order_checked_) {
      return Outcome::declined;
    }
    Ref groups = param_groups(optimizer_);
    if (!groups || !groups_.refresh(groups.get())) return Outcome::declined;

    NodeState next = counters_;
    const Table table = {table_.data(), static_cast<std::int64_t>(table_.size())};
    if (!valid_counters(kind_, next.counters)) return Outcome::declined;
    const Update update = decide(kind_, params_, next.counters, {Event::step, value}, table);
    if (!about_.reads_metric && !(std::isfinite(update.a) && std::isfinite(update.b))) {
      return Outcome::declined;  // where Python raises: an overflow, a division by zero
    }
    if (update.kind() != Law::hold) {
      const Outcome outcome = update_groups(update, dict.get(), groups.get());
      if (outcome != Outcome::stepped) return outcome;
    }
    counters_ = next;
    groups_.copy_changed(last_lr_);
    return Outcome::stepped;
  }

  // The caller has looked whether optimizer.step() came first, which torch does at the first step.
  void check_order() { order_checked_ = true; }

  // The value of a counter or of _last_lr; an empty reference for any other name.
  Ref get(PyObject* name) const {
    if (PyUnicode_Compare(name, last_lr_name()) == 0) return last_lr();
    const int i = counter_index(name);
    if (i < 0) return Ref();
    return to_python(about_.counters[static_cast<std::size_t>(i)], counters_.counters[i]);
  }

  // False if the value is not one the engine can hold.
  bool set(PyObject* name, PyObject* value) {
    if (PyUnicode_Compare(name, last_lr_name()) == 0) return set_last_lr(value);
    const int i = counter_index(name);
    order_checked_ = false;
    return i >= 0 && read(about_.counters[static_cast<std::size_t>(i)], value, counters_.counters[i]);
  }

 private:
  int counter_index(PyObject* name) const {
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      if (PyUnicode_Compare(about_.counters[i].name, name) == 0) return static_cast<int>(i);
    }
    return -1;
  }

  // float(metric), as torch reads it.
  bool read_metric(PyObject* metric, double& value) const {
    if (PyFloat_CheckExact(metric)) {
      value = PyFloat_AS_DOUBLE(metric);
      return true;
    }
    Ref number(is_on_gpu(metric) ? PyObject_CallOneArg(read_tensor_.ptr(), metric) : PyNumber_Float(metric));
    if (!number) return false;
    value = PyFloat_AsDouble(number.get());
    return !(value == -1.0 && PyErr_Occurred());
  }

  bool is_on_gpu(PyObject* metric) const {
    if (!PyObject_TypeCheck(metric, reinterpret_cast<PyTypeObject*>(tensor_.ptr()))) return false;
    const Ref is_cuda(PyObject_GetAttr(metric, is_cuda_name()));
    if (!is_cuda) PyErr_Clear();
    return is_cuda.get() == Py_True;
  }

  // Whether __dict__, and the table in it, are as they were when they were read.
  bool same(PyObject* dict) const {
    return unchanged(dict, dict_version_) &&
           (table_dict_ == nullptr || unchanged(table_dict_, table_version_));
  }

  // Reads the hyperparameters again, and takes over counters that somebody wrote into __dict__ directly.
  bool refresh(PyObject* dict) {
    if (!read_all(about_.params, dict, params_) || !read_table(about_, dict, table_) ||
        !valid_params(kind_, params_)) {
      return false;
    }
    NodeState taken = counters_;
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      const Attribute& counter = about_.counters[i];
      PyObject* value = PyDict_GetItemWithError(dict, counter.name);
      if (value != nullptr && !read(counter, value, taken.counters[i])) return false;
    }
    PyObject* last = PyDict_GetItemWithError(dict, last_lr_name());
    if (last != nullptr && !set_last_lr(last)) return false;
    counters_ = taken;
    for (const Attribute& counter : about_.counters) remove(dict, counter.name);
    remove(dict, last_lr_name());
    optimizer_ = optimizer_of(dict);
    table_dict_ = about_.table == nullptr ? nullptr : PyDict_GetItemWithError(dict, about_.table);
    table_version_ = table_dict_ == nullptr ? kUnknownVersion : version(table_dict_);
    dict_version_ = version(dict);
    return true;
  }

  // All new LRs are computed before the first is written, so that an unreadable parameter changes nothing.
  Outcome update_groups(const Update& update, PyObject* dict, PyObject* groups) {
    const std::vector<NumberLR>& lrs = groups_.lrs();
    PyObject* own_list = nullptr;
    if (uses_own(update.kind())) {
      own_list = PyDict_GetItemWithError(dict, about_.group_param);
      if (own_list == nullptr || !PyList_CheckExact(own_list) || length(own_list) != lrs.size()) {
        return Outcome::declined;
      }
    }
    new_lrs_.resize(lrs.size());
    for (std::size_t i = 0; i < lrs.size(); ++i) {
      double own = 0.0;
      PyObject* own_object = own_list == nullptr ? nullptr : item(own_list, i);
      if (own_object != nullptr && !read_number(own_object, own)) return Outcome::declined;
      const Applied applied = apply(update, lrs[i].value, own);
      bool take_own = false;
      if (update.kind() == Law::reduce) {
        // As Python's max() does: where the bound wins, it is the user's own object that becomes the LR.
        take_own = PyLong_CheckExact(own_object) && own > lrs[i].value * update.a;
      } else if (lrs[i].integer || (own_object != nullptr && !PyFloat_CheckExact(own_object))) {
        return Outcome::declined;  // Python's int arithmetic may give an int
      }
      new_lrs_[i] = {applied.lr, applied.written, take_own};
    }
    for (std::size_t i = 0; i < new_lrs_.size(); ++i) {
      const NewLR& entry = new_lrs_[i];
      if (!entry.write) continue;
      Ref lr = entry.take_own ? Ref::borrow(item(own_list, i)) : Ref(PyFloat_FromDouble(entry.value));
      if (!lr || !groups_.write(groups, i, lr.get())) return Outcome::failed;
    }
    return Outcome::stepped;
  }

  bool set_last_lr(PyObject* object) {
    if (!PyList_CheckExact(object)) return false;
    std::vector<NumberLR> values(length(object));
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!NumberLR::read(item(object, i), values[i])) return false;
    }
    last_lr_ = std::move(values);
    groups_.forget_copy();
    return true;
  }

  Ref last_lr() const {
    Ref list(PyList_New(static_cast<Py_ssize_t>(last_lr_.size())));
    for (std::size_t i = 0; list && i < last_lr_.size(); ++i) {
      PyObject* lr = last_lr_[i].to_python();
      if (lr == nullptr) return Ref();
      PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), lr);
    }
    return list;
  }

  static void remove(PyObject* dict, PyObject* name) {
    if (PyDict_GetItemWithError(dict, name) != nullptr && PyDict_DelItem(dict, name) != 0) {
      throw pybind11::error_already_set();
    }
  }

  struct NewLR {
    double value;
    bool write;
    bool take_own;
  };

  const Kind kind_;
  const Description& about_;
  pybind11::type tensor_;
  pybind11::object read_tensor_;
  double params_[kNodeParams] = {};
  NodeState counters_ = {};
  DictVersion dict_version_ = kUnknownVersion;
  // Borrowed from the scheduler's __dict__ while that is unchanged.
  PyObject* optimizer_ = nullptr;
  PyObject* table_dict_ = nullptr;
  DictVersion table_version_ = kUnknownVersion;
  std::vector<double> table_;
  bool order_checked_ = false;
  NumberGroups groups_;
  std::vector<NumberLR> last_lr_;
  std::vector<NewLR> new_lrs_;
};

}  // namespace fastsched::host
