// Whether what a scheduler's buffers were built from is still so, at the cost of a few loads per step: the
// host's part of the tensor engine.
#pragma once

#include <string>
#include <vector>

#include "group_versions.h"
#include "param_groups.h"
#include "python.h"
#include "schedule_attributes.h"
#include "settings.h"

namespace fastsched::host {

// Remembers what a scheduler's buffers were built from. All references it keeps are to leaves (floats, LR
// tensors) and to the guards of the schedulers below it, so it cannot close a reference cycle. Functions,
// which may refer to anything, are remembered by address: the scheduler keeps those alive that its table was
// made from.
class Guard : public Bound {
 public:
  explicit Guard(const std::string& scheduler) : settings_(attributes_of(kind_of(scheduler))) {
    const ScheduleAttributes& about = attributes_of(kind_of(scheduler));
    for (const auto& owns : {about.owns, about.momentum}) {
      for (const OwnParam& own : owns) {
        if (own.where == OwnParam::in_group) {
          in_group_.push_back(own.name);
        } else {
          lists_.push_back({own.name, own.where == OwnParam::in_list, false, {}});
        }
      }
    }
  }

  // The program holds the scheduler's attributes as they are now.
  void record_attributes(PyObject* scheduler) {
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) throw pybind11::error_already_set();
    for (List& list : lists_) {
      PyObject* const values = list_in(dict.get(), list.name);
      list.there = values != nullptr;
      if (list.there) list.contents.record(values, list.keep);
    }
    settings_.read(dict.get());
  }

  // The groups that a scheduler with this optimizer drives hold what the buffers were built from. A group
  // that is a mapping but no dict cannot be watched: it is taken for changed at every step.
  void record_groups(const pybind11::object& optimizer) {
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
    versions_.reset(count);
    names_.swap(names);
    entries_.swap(entries);
  }

  // The buffers have those of the schedulers below in them, in this order.
  void record_children(const pybind11::list& schedulers, const pybind11::list& guards) {
    if (schedulers.size() != guards.size()) throw pybind11::value_error("not one guard per scheduler");
    pybind11::tuple children(guards);
    std::vector<Guard*> child_guards;
    for (const pybind11::handle guard : children) child_guards.push_back(&unwrap<Guard>(guard.ptr()));
    child_guards_.swap(child_guards);
    child_list_.record(schedulers.ptr(), false);
    std::swap(children_, children);
  }

  // Whether these, still valid, are the guards of the children.
  bool holds_children(const pybind11::list& guards) const {
    if (guards.size() != child_guards_.size()) return false;
    for (std::size_t i = 0; i < guards.size(); ++i) {
      if (&unwrap<Guard>(guards[i].ptr()) != child_guards_[i] || !child_guards_[i]->valid_) return false;
    }
    return true;
  }

  // What this guard belongs to has moved out of the buffers it was in.
  void invalidate() { valid_ = false; }

  // A write to group i of what the buffers were not built from: if it was as it should be before, it is
  // after.
  template <typename Write>
  bool keep_up(PyObject* group, std::size_t i, Write write) {
    const bool known = versions_.knows(i, group);
    const bool written = write();
    if (known && written) remember(group, versions_[i]);
    return written;
  }

  // `groups_too`: the groups as well; a composite looks at them once for all its descendants. These must not
  // have a step() of their own either.
  bool holds(PyObject* scheduler, bool groups_too = true) {
    if (!valid_) return false;
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) {
      PyErr_Clear();
      return false;
    }
    if (!settings_.holds(dict.get(), !groups_too) || !same_lists(dict.get())) return false;
    if (!child_guards_.empty() && !same_children(dict.get())) return false;
    if (!groups_too && in_group_.empty()) return true;
    Ref groups = param_groups(optimizer_of(dict.get()));
    return groups && same_groups(groups.get());
  }

 private:
  static PyObject* list_in(PyObject* dict, PyObject* name) {
    PyObject* const values = PyDict_GetItemWithError(dict, name);
    return values != nullptr && PyList_CheckExact(values) ? values : nullptr;
  }
  bool same_lists(PyObject* dict) const {
    for (const List& list : lists_) {
      PyObject* const values = list_in(dict, list.name);
      if ((values != nullptr) != list.there || (list.there && !list.contents.same(values))) return false;
    }
    return true;
  }

  bool same_children(PyObject* dict) {
    const Ref schedulers = children_of(dict);
    if (!schedulers) return false;
    const Recursion recursion;
    if (!recursion.entered) {
      PyErr_Clear();  // one that is in itself; the step will find that
      return false;
    }
    // Looking at groups may run Python code, which may change any of these.
    const pybind11::tuple guards = children_;
    for (std::size_t i = 0; i < child_list_.size(); ++i) {
      if (!child_list_.same(schedulers.get()) || guards.ptr() != children_.ptr()) return false;
      const Ref child = Ref::borrow(PySequence_Fast_ITEMS(schedulers.get())[i]);
      if (!child_guards_[i]->holds(child.get(), false)) return false;
    }
    return child_list_.same(schedulers.get());
  }

  bool same_groups(PyObject* groups) {
    return versions_.catch_up(groups,
                              [this](PyObject* group, std::size_t i) { return same_entries(group, i); });
  }

  // A key of another type may run Python code when compared.
  bool same_entries(PyObject* group, std::size_t i) const {
    for (std::size_t k = 0; k < keys(); ++k) {
      const std::size_t place = i * keys() + k;
      const std::size_t named = names_.size() == keys() ? k : place;
      if (place >= entries_.size() || named >= names_.size()) return false;
      PyObject* const now = names_[named].in(group);
      if (place >= entries_.size() || now != entries_[place].get()) return false;
    }
    return true;
  }

  Settings settings_;
  struct List {
    PyObject* name;
    bool keep;
    bool there;
    ListContents contents;
  };
  std::vector<List> lists_;
  // How many entries of a group the buffers were built from: what is scheduled, and what belongs to that.
  std::size_t keys() const { return 1 + in_group_.size(); }

  std::vector<PyObject*> in_group_;
  std::vector<Entry> names_;
  std::vector<Ref> entries_;  // and what was there, group by group
  GroupVersions versions_;
  pybind11::tuple children_;
  std::vector<Guard*> child_guards_;  // kept alive by children_
  ListContents child_list_;
  bool valid_ = true;
};

}  // namespace fastsched::host
