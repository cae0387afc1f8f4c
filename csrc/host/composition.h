// Steps the children of a SequentialLR or ChainedScheduler one by one where there is no one program for them:
// on Python-number learning rates, where each child has a host engine, and for children that only Python can
// step.
#pragma once

#include <vector>

#include "dict_version.h"
#include "engine.h"
#include "param_groups.h"
#include "python.h"
#include "schedule_attributes.h"
#include "table.h"

namespace fastsched::host {

class HostComposition : public Bound {
 public:
  // `native`: which children an engine may step without asking their Python. `reads_metric`: whether a
  // scheduler below reads one.
  HostComposition(const std::string& scheduler, std::vector<bool> native, bool reads_metric)
      : kind_(kind_of(scheduler)),
        about_(attributes_of(kind_)),
        native_(std::move(native)),
        reads_metric_(reads_metric) {}

  bool reads_metric() const { return reads_metric_; }

  // Copies the epoch from the scheduler's __dict__, where it stays until this is in charge. False, with
  // nothing changed, if it is not a plain number.
  bool attach(PyObject* scheduler) {
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) throw pybind11::error_already_set();
    Ref children = schedulers(dict.get());
    if (!children || !read_all(about_.counters, dict.get(), counters_.counters)) return false;
    if (length_of(children.get()) != native_.size()) return false;
    children_.assign(items(children.get()), items(children.get()) + native_.size());
    const Ref groups = param_groups(optimizer_of(dict.get()));
    groups_ = groups ? length(groups.get()) : 0;
    numbers_ = groups && has_numbers(groups.get(), optimizer_of(dict.get()));
    return table_.read(about_, dict.get());
  }

  // Declines, with nothing changed, where the scheduler is not what it was when this was attached.
  Outcome step(PyObject* scheduler, PyObject* metric) {
    if (look_again_) return Outcome::declined;
    const Recursion recursion;
    if (!recursion.entered) return Outcome::failed;
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) return Outcome::failed;
    if (!unchanged(dict.get(), dict_version_) && !refresh(scheduler, dict.get())) return Outcome::declined;
    if (!same_groups(dict.get())) return Outcome::declined;
    Ref children = schedulers(dict.get());
    if (!children || !same_children(children.get()) || !table_.same(about_, dict.get()))
      return Outcome::declined;
    if (kind_ == Kind::chained) {
      // Over the list as it is: a child's step may run code that changes it.
      bool by_python = false;
      for (std::size_t i = 0; i < length_of(children.get()); ++i) {
        if (!step_child(Ref::borrow(items(children.get())[i]), i, metric, by_python)) return Outcome::failed;
      }
      return !by_python || call(scheduler, protocol::begun()) ? Outcome::stepped : Outcome::failed;
    }
    const Turn turn = whose_turn(table_.table(), counters_.counters[0] + 1.0);
    const auto index = static_cast<std::size_t>(turn.index);
    if (index >= length_of(children.get())) return Outcome::declined;  // where torch raises
    counters_.counters[0] += 1.0;
    const Ref child = Ref::borrow(items(children.get())[index]);
    bool by_python = false;
    if (!turn.begins) return step_child(child, index, metric, by_python) ? Outcome::stepped : Outcome::failed;
    const Ref done(
        PyObject_CallMethodObjArgs(scheduler, protocol::begin_child(), child.get(), metric, nullptr));
    return done ? Outcome::stepped : Outcome::failed;
  }

  // An empty reference for anything but a counter.
  Ref get(PyObject* name) const {
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      if (PyUnicode_Compare(about_.counters[i].name, name) == 0) {
        return to_python(about_.counters[i], counters_.counters[i]);
      }
    }
    return Ref();
  }

  bool set(PyObject* name, PyObject* value) {
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      if (PyUnicode_Compare(about_.counters[i].name, name) == 0) {
        return read(about_.counters[i], value, counters_.counters[i]);
      }
    }
    return false;
  }

  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      visit(about_.counters[i].name, to_python(about_.counters[i], counters_.counters[i]));
    }
  }

 private:
  static PyObject** items(PyObject* sequence) { return PySequence_Fast_ITEMS(sequence); }
  static std::size_t length_of(PyObject* sequence) {
    return static_cast<std::size_t>(PySequence_Fast_GET_SIZE(sequence));
  }

  static Ref schedulers(PyObject* dict) {
    PyObject* list = PyDict_GetItemWithError(dict, protocol::schedulers());
    if (list == nullptr || !(PyList_CheckExact(list) || PyTuple_CheckExact(list))) return Ref();
    return Ref::borrow(list);
  }

  // Compared by address, and alive because they are in the list.
  bool same_children(PyObject* list) const {
    return length_of(list) == children_.size() &&
           memcmp(items(list), children_.data(), children_.size() * sizeof(PyObject*)) == 0;
  }

  // Groups that came or went, or learning rates that became tensors: another engine may fit, and the
  // scheduler takes note of the groups' learning rates before a child changes them.
  bool same_groups(PyObject* dict) const {
    const Ref groups = param_groups(optimizer_of(dict));
    if (!groups) return groups_ == 0;
    return length(groups.get()) == groups_ && has_numbers(groups.get(), optimizer_of(dict)) == numbers_;
  }

  // The first group speaks for all.
  static bool has_numbers(PyObject* groups, PyObject* optimizer) {
    if (length(groups) == 0 || !PyDict_CheckExact(item(groups, 0))) return false;
    const Ref first = Ref::borrow(item(groups, 0));
    const Slots* const slots = Slots::in(optimizer);
    PyObject* lr =
        slots != nullptr ? slots->entry(0).in(first.get()) : PyDict_GetItemWithError(first.get(), lr_name());
    return lr != nullptr && (PyFloat_CheckExact(lr) || PyLong_CheckExact(lr));
  }

  // As HostEngine::refresh. A `_last_lr` in __dict__ is older than the next step.
  bool refresh(PyObject* scheduler, PyObject* dict) {
    if (!is_engine_of(scheduler, this) || !read_counters(dict) || PyErr_Occurred()) return false;
    for (const Attribute& counter : about_.counters) remove(dict, counter.name);
    remove(dict, protocol::last_lr());
    remember(dict, dict_version_);
    return true;
  }

  bool read_counters(PyObject* dict) {
    NodeState taken = counters_;
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      PyObject* value = PyDict_GetItemWithError(dict, about_.counters[i].name);
      if (value != nullptr && !read(about_.counters[i], value, taken.counters[i])) return false;
    }
    counters_ = taken;
    return true;
  }

  // False on a Python error. A child is asked by its own step() where its engine declines, or where it is
  // another than the one that stood there.
  bool step_child(const Ref& child, std::size_t place, PyObject* metric, bool& by_python) {
    if (place < children_.size() && children_[place] == child.get() && native_[place]) {
      Ref dict(PyObject_GenericGetDict(child.get(), nullptr));
      Ref engine(PyObject_GetAttr(child.get(), protocol::engine()));
      if (!dict || !engine) return false;
      Ref history(PyObject_GetAttr(child.get(), protocol::history()));
      if (!history) return false;
      const bool patched =
          history.get() != Py_None || PyDict_GetItemWithError(dict.get(), protocol::step()) != nullptr;
      if (HostEngine* host = patched ? nullptr : exactly<HostEngine>(engine.get())) {
        double value = 0.0;
        if (last_) host->share_cache(*exactly<HostEngine>(last_.get()));
        switch (host->step(child.get(), metric, value)) {
          case Outcome::stepped: last_ = std::move(engine); return true;
          case Outcome::failed: return false;
          case Outcome::declined: break;
        }
        if (PyErr_Occurred()) return false;
        look_again_ = true;
        Declined declined = host->declined(value);
        if (!declined.lrs.is_none()) {
          return call(child.get(), protocol::step_off_path(), pybind11::cast(std::move(declined)).ptr());
        }
        if (!host->reads_metric()) return call(child.get(), protocol::step());
        const Ref number(PyFloat_FromDouble(value));
        return number && call(child.get(), protocol::step(), number.get());
      }
      if (HostComposition* composition = patched ? nullptr : exactly<HostComposition>(engine.get())) {
        const Outcome outcome = composition->step(child.get(), metric);
        if (outcome != Outcome::declined) return outcome == Outcome::stepped;
        if (PyErr_Occurred()) return false;
        look_again_ = true;
      }
    }
    by_python = true;
    return step_in_python(child.get(), metric);
  }

  static bool call(PyObject* object, PyObject* method, PyObject* argument = nullptr) {
    return static_cast<bool>(Ref(PyObject_CallMethodObjArgs(object, method, argument, nullptr)));
  }

  // By the module that knows which schedulers take a metric.
  bool step_in_python(PyObject* child, PyObject* metric) {
    const Ref module(PyImport_ImportModule(protocol::kCompositions));
    PyObject* const name = kind_ == Kind::sequential ? protocol::step_turn() : protocol::step_child();
    const Ref function(module ? PyObject_GetAttr(module.get(), name) : nullptr);
    return function &&
           static_cast<bool>(Ref(PyObject_CallFunctionObjArgs(function.get(), child, metric, nullptr)));
  }

  const Kind kind_;
  const ScheduleAttributes& about_;
  std::vector<bool> native_;
  const bool reads_metric_;
  NodeState counters_ = {};
  DictVersion dict_version_ = {};
  std::size_t groups_ = 0;
  bool numbers_ = false;  // whether the learning rates are Python numbers
  TableReader table_;
  std::vector<PyObject*> children_;  // borrowed
  Ref last_;                         // the engine that stepped last, one of the host's
  bool look_again_ = false;          // an engine below declined: another may fit the whole
};

}  // namespace fastsched::host
