// The host's part of the tensor engine: noticing, at the cost of a few loads per step, that something the
// buffers were built from is no longer what it was.
#pragma once

#include <string>
#include <vector>

#include "description.h"
#include "dict_version.h"
#include "param_groups.h"
#include "python.h"
#include "table.h"

namespace fastsched::host {

// Remembers what a scheduler's buffers were built from. All references it keeps are to leaves (floats, LR
// tensors) and to the watches of the schedulers below it, so it cannot close a reference cycle. Functions,
// which may refer to anything, are remembered by address: the scheduler keeps those alive that its table was
// made from.
class Watch : public Bound {
 public:
  explicit Watch(const std::string& scheduler) : about_(description(kind_of(scheduler))) {
    for (const auto& owns : {about_.owns, about_.momentum}) {
      for (const OwnParam& own : owns) {
        if (own.where == OwnParam::in_group) {
          in_group_.push_back(own.name);
        } else {
          lists_.push_back({own.name, own.where == OwnParam::in_list, {}, {}});
        }
      }
    }
  }

  // The program holds the scheduler's attributes as they are now.
  void mark_attributes(PyObject* scheduler) {
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) throw pybind11::error_already_set();
    for (List& list : lists_) {
      PyObject* values = PyDict_GetItemWithError(dict.get(), list.name);
      std::vector<PyObject*> items;
      std::vector<Ref> kept;
      for (std::size_t i = 0; values != nullptr && PyList_CheckExact(values) && i < length(values); ++i) {
        items.push_back(item(values, i));
        if (list.keep) kept.push_back(Ref::borrow(item(values, i)));
      }
      list.items.swap(items);
      list.kept.swap(kept);  // what was kept goes last: that may run Python code, which finds all in order
    }
    read_all(about_.params, dict.get(), params_);
    table_.read(about_, dict.get());
    cycles_momentum_ = PyDict_GetItemWithError(dict.get(), cycle_momentum_name());
    forget(dict_version_);  // counters may have been written there, too
  }

  // The groups that a scheduler with this optimizer drives hold what the buffers were built from. A group
  // that is a mapping but no dict cannot be watched: it is taken for changed at every step.
  void mark_groups(const pybind11::object& optimizer) {
    const Ref list = param_groups(optimizer.ptr());
    const std::size_t count = list ? length(list.get()) : 0;
    const Slots* const slots = Slots::in(optimizer.ptr());
    std::vector<Entry> names;  // of a group, or, where they are not the same for all, of one after the other
    for (std::size_t i = 0; i < (slots != nullptr ? count : 1); ++i) {
      const Entry entry = slots != nullptr ? slots->entry(i) : Entry();
      names.push_back(entry);
      for (PyObject* own : in_group_) names.push_back(entry.belonging(own));
    }
    std::vector<Ref> entries;
    for (std::size_t i = 0; i < count; ++i) {
      const Ref group = Ref::borrow(item(list.get(), i));
      for (std::size_t k = 0; k < keys(); ++k) {
        const Entry& name = names[slots != nullptr ? i * keys() + k : k];
        entries.push_back(Ref::borrow(PyDict_Check(group.get()) ? name.in(group.get()) : nullptr));
      }
    }
    versions_.assign(count, DictVersion());
    names_.swap(names);
    entries_.swap(entries);
  }

  // The buffers have those of the schedulers below in them, in this order.
  void mark_children(const pybind11::list& schedulers, const pybind11::list& watches) {
    if (schedulers.size() != watches.size()) throw pybind11::value_error("not one watch per scheduler");
    pybind11::tuple children(watches);
    std::vector<Watch*> child_watches;
    for (const pybind11::handle watch : children) child_watches.push_back(&unwrap<Watch>(watch.ptr()));
    child_watches_.swap(child_watches);
    child_schedulers_.assign(PySequence_Fast_ITEMS(schedulers.ptr()),
                             PySequence_Fast_ITEMS(schedulers.ptr()) + child_watches_.size());
    std::swap(children_, children);
  }

  // Whether these, still what they were, are the watches of the schedulers below.
  bool holds(const pybind11::list& watches) const {
    if (watches.size() != child_watches_.size()) return false;
    for (std::size_t i = 0; i < watches.size(); ++i) {
      if (&unwrap<Watch>(watches[i].ptr()) != child_watches_[i] || child_watches_[i]->left_) return false;
    }
    return true;
  }

  // What this watch belongs to has moved out of the buffers it was in.
  void leave() { left_ = true; }

  // `groups_too`: the groups as well; a composite looks at them once for all below it.
  bool changed(PyObject* scheduler, bool groups_too = true) {
    if (left_) return true;
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) {
      PyErr_Clear();
      return true;
    }
    if (!unchanged(dict.get(), dict_version_)) {
      if (!same_params(dict.get()) || (!groups_too && stepped_by_python(dict.get()))) return true;
      remember(dict.get(), dict_version_);
    }
    if (!table_.same(about_, dict.get()) || !same_lists(dict.get())) return true;
    if (!child_watches_.empty() && !same_children(dict.get())) return true;
    if (!groups_too && in_group_.empty()) return false;
    Ref groups = param_groups(optimizer_of(dict.get()));
    return !groups || !same_groups(groups.get());
  }

 private:
  // Neither a hyperparameter has another value nor has a counter been written into __dict__ directly.
  bool same_params(PyObject* dict) const {
    double now[kNodeParams] = {};
    if (!read_all(about_.params, dict, now) || memcmp(now, params_, sizeof(now)) != 0) return false;
    for (const Attribute& counter : about_.counters) {
      if (PyDict_GetItemWithError(dict, counter.name) != nullptr) return false;
    }
    return PyDict_GetItemWithError(dict, last_lr_name()) == nullptr &&
           PyDict_GetItemWithError(dict, cycle_momentum_name()) == cycles_momentum_;
  }

  // Somebody has put a step() of their own on a scheduler that is part of a composition.
  static bool stepped_by_python(PyObject* dict) {
    static PyObject* const step_name = intern("step");
    return PyDict_GetItemWithError(dict, step_name) != nullptr;
  }

  static PyObject* cycle_momentum_name() {
    static PyObject* const name = intern("cycle_momentum");
    return name;
  }

  // Lists change without their owner's dict noticing. The same objects in the same order are the same list.
  bool same_lists(PyObject* dict) const {
    for (const List& list : lists_) {
      PyObject* values = PyDict_GetItemWithError(dict, list.name);
      const bool is_list = values != nullptr && PyList_CheckExact(values);
      if ((is_list ? length(values) : 0) != list.items.size()) return false;
      if (is_list && memcmp(PySequence_Fast_ITEMS(values), list.items.data(),
                            list.items.size() * sizeof(PyObject*)) != 0) {
        return false;
      }
    }
    return true;
  }

  bool same_children(PyObject* dict) {
    static PyObject* const schedulers_name = intern("_schedulers");
    const Ref schedulers = Ref::borrow(PyDict_GetItemWithError(dict, schedulers_name));
    if (!schedulers || !(PyList_CheckExact(schedulers.get()) || PyTuple_CheckExact(schedulers.get())))
      return false;
    const Recursion recursion;
    if (!recursion.entered) {
      PyErr_Clear();  // one that is in itself; the step will find that
      return false;
    }
    // Looking at groups may run Python code, which may change any of these.
    const pybind11::tuple watches = children_;
    const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(schedulers.get()));
    for (std::size_t i = 0; i < count; ++i) {
      const auto now = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(schedulers.get()));
      if (now != child_schedulers_.size() || watches.ptr() != children_.ptr()) return false;
      const Ref child = Ref::borrow(PySequence_Fast_ITEMS(schedulers.get())[i]);
      // Compared by address, and alive because it is in the list.
      if (child.get() != child_schedulers_[i] || child_watches_[i]->changed(child.get(), false)) return false;
    }
    return count == child_schedulers_.size();
  }

  bool same_groups(PyObject* groups) {
    if (length(groups) != versions_.size()) return false;
    for (std::size_t i = 0; i < length(groups); ++i) {
      PyObject* const group = item(groups, i);
      if (!PyDict_CheckExact(group)) return false;
      if (unchanged(group, versions_[i])) continue;
      const Ref held = Ref::borrow(group);
      if (!same_entries(group, i) || length(groups) != versions_.size()) return false;
      remember(group, versions_[i]);
    }
    return true;
  }

  // A key of another type may run Python code when compared.
  bool same_entries(PyObject* group, std::size_t i) const {
    for (std::size_t k = 0; k < keys(); ++k) {
      const std::size_t place = i * keys() + k;
      const std::size_t named = names_.size() == keys() ? k : place;
      if (place >= entries_.size() || named >= names_.size()) return false;
      if (names_[named].in(group) != entries_[place].get()) return false;
    }
    return true;
  }

  const Description& about_;
  double params_[kNodeParams] = {};
  DictVersion dict_version_ = {};
  TableReader table_;
  struct List {
    PyObject* name;
    bool keep;
    std::vector<PyObject*> items;
    std::vector<Ref> kept;
  };
  std::vector<List> lists_;
  PyObject* cycles_momentum_ = nullptr;  // True, False or nothing, none of which dies
  // How many entries of a group the buffers were built from: what is scheduled, and what belongs to that.
  std::size_t keys() const { return 1 + in_group_.size(); }

  std::vector<PyObject*> in_group_;
  std::vector<Entry> names_;
  std::vector<Ref> entries_;  // and what was there, group by group
  std::vector<DictVersion> versions_;
  pybind11::tuple children_;
  std::vector<Watch*> child_watches_;        // kept alive by children_
  std::vector<PyObject*> child_schedulers_;  // borrowed, and not looked into
  bool left_ = false;
};

}  // namespace fastsched::host
