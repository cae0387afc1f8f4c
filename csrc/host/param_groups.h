// The names and the way from a scheduler to the entries of param groups that it drives.
#pragma once

#include <string>
#include <vector>

#include "python.h"
#include "scheduler_protocol.h"

namespace fastsched::host {

inline PyObject* lr_name() {
  static PyObject* const name = intern("lr");
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
  return PyDict_GetItemWithError(scheduler_dict, protocol::optimizer());
}

inline PyObject* item(PyObject* list, std::size_t i) {
  return PyList_GET_ITEM(list, static_cast<Py_ssize_t>(i));
}

inline std::size_t length(PyObject* list) { return static_cast<std::size_t>(PyList_GET_SIZE(list)); }

// What is scheduled in a group: the entry of that name, "lr" for one, or an item of a tuple: "betas[0]".
class Entry {
 public:
  Entry() : key_(lr_name()), name_("lr") {}
  explicit Entry(const std::string& name) : key_(intern(name.c_str())), name_(name) {
    const auto open = name.find('[');
    if (open == std::string::npos || open == 0 || name.back() != ']' || name.size() - open < 3) return;
    const std::string digits = name.substr(open + 1, name.size() - open - 2);
    if (digits.size() > 4 || digits.find_first_not_of("0123456789") != std::string::npos) return;
    key_ = intern(name.substr(0, open).c_str());
    item_ = std::stoi(digits);
  }

  static Entry of(PyObject* key) {
    Entry entry;
    entry.key_ = key;
    return entry;
  }

  bool operator==(const Entry& other) const { return key_ == other.key_ && item_ == other.item_; }
  PyObject* key() const { return key_; }
  const std::string& name() const { return name_; }
  bool is_item() const { return item_ >= 0; }
  Py_ssize_t item_index() const { return item_; }

  // What is there; borrowed, null where there is nothing.
  PyObject* in(PyObject* group) const {
    const Py_ssize_t index = item_;  // comparing keys may run Python code, after which this may not be there
    PyObject* const value = PyDict_GetItemWithError(group, key_);
    return value == nullptr || index < 0 ? value : item_of(value, index);
  }

  // The name under which a group has what belongs to this entry as `own`, "initial_lr" for one, belongs to
  // "lr".
  std::string named(const std::string& own) const {
    const bool of_lr = own == "lr" || (own.size() > 3 && own.compare(own.size() - 3, 3, "_lr") == 0);
    return of_lr ? own.substr(0, own.size() - 2) + name_ : own;
  }
  PyObject* named(PyObject* own) const {
    if (name_ == "lr") return own;
    const char* const text = PyUnicode_AsUTF8(own);
    if (text == nullptr) throw pybind11::error_already_set();
    return intern(named(std::string(text)).c_str());
  }

  // The same as an entry of the group.
  Entry belonging(PyObject* own) const { return of(named(own)); }

 private:
  static PyObject* item_of(PyObject* values, Py_ssize_t index) {
    const bool known = PyTuple_CheckExact(values) || PyList_CheckExact(values);
    return known && index < PySequence_Fast_GET_SIZE(values) ? PySequence_Fast_GET_ITEM(values, index)
                                                             : nullptr;
  }

  PyObject* key_;  // immortal
  Py_ssize_t item_ = -1;
  std::string name_;
};

inline Ref param_groups(PyObject* optimizer);

// The entries that a scheduler drives where they are not the learning rates of all groups of one optimizer:
// the compiled part of fastsched/engine/selection.py.
class Slots : public Bound {
 public:
  struct Slot {
    std::size_t optimizer;  // its place in Selection.optimizers
    std::size_t group;
    Entry entry;
  };

  explicit Slots(const std::vector<std::tuple<std::size_t, std::size_t, std::string>>& slots) {
    for (const auto& [optimizer, group, name] : slots) slots_.push_back({optimizer, group, Entry(name)});
  }

  // Null if this is an ordinary optimizer.
  static Slots* in(PyObject* optimizer) {
    if (reinterpret_cast<PyObject*>(Py_TYPE(optimizer)) != selection_type_) return nullptr;
    static PyObject* const slots_name = intern("slots");
    const Ref slots(PyObject_GetAttr(optimizer, slots_name));
    if (!slots) PyErr_Clear();
    return slots ? exactly<Slots>(slots.get()) : nullptr;  // which the optimizer keeps alive
  }
  // The Python class whose objects have these; immortal.
  static void use(const pybind11::type& selection) { selection_type_ = selection.inc_ref().ptr(); }

  const Entry& entry(std::size_t i) const { return slots_[i].entry; }

  // The group of each slot, as the optimizers have them now: the same list as before where nothing has
  // changed. An empty reference where one is not there any more. May run Python code.
  Ref groups(PyObject* selection) {
    static PyObject* const optimizers_name = intern("optimizers");
    const Ref optimizers(PyObject_GetAttr(selection, optimizers_name));
    if (!optimizers) PyErr_Clear();
    if (!optimizers || !PyTuple_CheckExact(optimizers.get())) return Ref();
    std::vector<Ref> lists;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(optimizers.get()); ++i) {
      lists.push_back(param_groups(PyTuple_GET_ITEM(optimizers.get(), i)));
    }
    // From here on no Python code runs but that of the garbage collector, in making a list; lists are held.
    bool same = groups_ && length(groups_.get()) == slots_.size();
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const Slot& slot = slots_[i];
      const bool there = slot.optimizer < lists.size() && lists[slot.optimizer] &&
                         slot.group < length(lists[slot.optimizer].get());
      if (!there) return Ref();
      same = same && item(groups_.get(), i) == item(lists[slot.optimizer].get(), slot.group);
    }
    if (same) return Ref::borrow(groups_.get());
    Ref now(PyList_New(0));
    for (std::size_t i = 0; now && i < slots_.size(); ++i) {
      PyObject* const list = lists[slots_[i].optimizer].get();
      if (slots_[i].group >= length(list) || PyList_Append(now.get(), item(list, slots_[i].group)) != 0)
        now = Ref();
    }
    if (!now) {
      PyErr_Clear();
      return Ref();
    }
    const Ref before = std::exchange(groups_, Ref::borrow(now.get()));
    return now;
  }

 private:
  static inline PyObject* selection_type_ = nullptr;

  std::vector<Slot> slots_;
  Ref groups_;  // as they were found last
};

// The groups that a scheduler with this optimizer drives. optimizer.param_groups: the list itself, or what
// else it is, a tuple for instance, as a list. An empty reference if there is none. May run Python code, a
// property's.
inline Ref param_groups(PyObject* optimizer) {
  if (optimizer == nullptr) return Ref();
  const Ref alive = Ref::borrow(optimizer);
  if (Slots* const slots = Slots::in(optimizer)) return slots->groups(optimizer);
  Ref groups(PyObject_GetAttr(optimizer, param_groups_name()));
  if (groups && !PyList_CheckExact(groups.get())) groups = Ref(PySequence_List(groups.get()));
  if (!groups) PyErr_Clear();
  return groups;
}

}  // namespace fastsched::host
