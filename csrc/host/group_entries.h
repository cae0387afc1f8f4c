// Numbers in the param-group dicts, looked up again only in dicts that changed.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "dict_version.h"
#include "number_list.h"
#include "param_groups.h"
#include "python.h"
#include "schedule_attributes.h"

namespace fastsched::host {

// One number for each group, and which of them are Python ints, so that what was there can be given back.
struct Numbers {
  std::vector<double> values;
  std::vector<char> integers;  // empty: none

  // False, with nothing changed, if the list holds something else than plain numbers.
  bool read(PyObject* list) {
    Numbers now;
    now.values.resize(length(list));
    for (std::size_t i = 0; i < now.values.size(); ++i) {
      PyObject* const number = item(list, i);
      if (!read_plain(number, now.values[i])) return false;
      if (PyLong_CheckExact(number)) now.set_integer(i);
    }
    *this = std::move(now);
    return true;
  }
  Ref to_list() const {
    const Numbers copy = *this;  // making a list may run a finalizer, which steps
    Ref list(PyList_New(static_cast<Py_ssize_t>(copy.values.size())));
    for (std::size_t i = 0; list && i < copy.values.size(); ++i) {
      const double value = copy.values[i];
      PyObject* const number = copy.is_integer(i) ? PyLong_FromDouble(value) : PyFloat_FromDouble(value);
      if (number == nullptr) return Ref();
      PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), number);
    }
    return list;
  }

  bool is_integer(std::size_t i) const { return !integers.empty() && integers[i] != 0; }
  void set_integer(std::size_t i) {
    integers.resize(values.size());
    integers[i] = 1;
  }

  // An exact float, or an int that a double holds.
  static bool read_plain(PyObject* object, double& out) {
    if (!PyFloat_CheckExact(object)) return read_integer(object, out);
    out = PyFloat_AS_DOUBLE(object);
    return true;
  }
};

// How many numbers there are in a tuple or list; 0 for anything else.
inline Py_ssize_t size_of(PyObject* numbers) {
  const bool known = numbers != nullptr && (PyTuple_CheckExact(numbers) || PyList_CheckExact(numbers));
  return known ? PySequence_Fast_GET_SIZE(numbers) : 0;
}

// To be filled by replace_item(). Made before anybody looks at the groups: allocating may start the garbage
// collector, and with it Python code.
inline Ref empty_tuple(Py_ssize_t size) {
  Ref tuple(size == 2 ? PyTuple_Pack(2, Py_None, Py_None) : PyTuple_New(size));
  if (!tuple) throw pybind11::error_already_set();
  for (Py_ssize_t k = 0; k < size && size != 2; ++k) {
    PyTuple_SET_ITEM(tuple.get(), k, Ref::borrow(Py_None).release());
  }
  return tuple;
}

// Puts `tuple` into the group, filled with what is there under `key`, but for the item `at`. False on a
// Python error. Runs no Python code: what else is in the old tuple is in the new one, and the old item is a
// number.
inline bool replace_item(PyObject* group, PyObject* key, Py_ssize_t at, Ref value, const Ref& tuple,
                         DictVersion& version) {
  PyObject* const before = PyDict_GetItemWithError(group, key);
  const Py_ssize_t size = PyTuple_GET_SIZE(tuple.get());
  if (before == nullptr || size_of(before) != size || at >= size) {
    if (!PyErr_Occurred())
      PyErr_SetString(PyExc_RuntimeError, "a tuple changed while a scheduler wrote to it");
    return false;
  }
  for (Py_ssize_t k = 0; k < size; ++k) {
    Ref entry = k == at ? std::move(value) : Ref::borrow(PySequence_Fast_GET_ITEM(before, k));
    const Ref none(std::exchange(PySequence_Fast_ITEMS(tuple.get())[k], entry.release()));
  }
  return set_item(group, key, tuple.get(), version) == 0;
}

class GroupEntries {
 public:
  // Which entries of each group to read: what is scheduled, and others by keys, which are immortal.
  void use(const Entry& first, std::vector<PyObject*> keys) {
    keys.insert(keys.begin(), first.key());
    use(keys);
    first_ = first;
  }
  void use(const std::vector<PyObject*>& keys) {
    if (keys == keys_) return;
    keys_ = keys;
    versions_.clear();
    integer_counts_.assign(keys_.size(), 0);
  }

  // A tuple for each group where an item of one is scheduled; to be handed to write().
  std::vector<Ref> allocate(PyObject* groups) const {
    std::vector<Ref> tuples;
    for (std::size_t i = 0; first_.is_item() && i < length(groups); ++i) {
      const Ref group = Ref::borrow(item(groups, i));
      PyObject* const now =
          PyDict_CheckExact(group.get()) ? PyDict_GetItemWithError(group.get(), first_.key()) : nullptr;
      const Py_ssize_t size = now != nullptr && PyTuple_CheckExact(now) ? PyTuple_GET_SIZE(now) : 0;
      tuples.push_back(empty_tuple(size));
    }
    return tuples;
  }

  // Not to be entered again before it is done: see Busy. False if some group lacks an entry or has no plain
  // number there; nothing is written either way.
  bool refresh(PyObject* groups) {
    const std::size_t count = length(groups);
    if (versions_.size() != count) {
      versions_.assign(count, DictVersion());
      values_.resize(count * keys_.size());
      integers_.assign(values_.size(), 0);
      integer_counts_.assign(keys_.size(), 0);
      changed_ = true;
    }
    for (std::size_t i = 0; i < count; ++i) {
      prefetch(groups, i + kAhead);
      PyObject* group = item(groups, i);
      if (!PyDict_CheckExact(group)) return decline("a param group is no plain dict");
      if (unchanged(group, versions_[i])) continue;
      if (!read(Ref::borrow(group), i) || length(groups) != count) return false;
    }
    return true;
  }

  // Has a group's dict brought into the cache: hundreds of them do not fit there, and each pass waits for
  // every one.
  static void prefetch(PyObject* groups, std::size_t i) {
#ifdef __GNUC__
    if (i < length(groups)) __builtin_prefetch(item(groups, i));
#endif
  }

  // Writes the first entry of group i, which refresh() has read; `number` is what `value` holds.
  bool write(PyObject* group, std::size_t i, Ref value, double number, bool integer,
             const std::vector<Ref>& tuples) {
    if (first_.is_item()) {
      if (i >= tuples.size()) return static_cast<bool>(changed_meanwhile());
      if (!replace_item(group, keys_[0], first_.item_index(), std::move(value), tuples[i], versions_[i]))
        return false;
    } else if (set_item(group, keys_[0], value.get(), versions_[i]) != 0) {
      return false;
    }
    values_[i] = number;
    note_integer(0, i, integer);
    return true;
  }

  // Whether the first entry of group i is this very number.
  bool has(std::size_t i, double number) const {
    return memcmp(values_.data() + i, &number, sizeof(double)) == 0;
  }

  // Writes the first entry, a float, of all groups that have another. False on a Python error.
  bool write_changed(PyObject* groups, const double* numbers) {
    for (std::size_t i = 0; i < versions_.size(); ++i) {
      if (has(i, numbers[i])) continue;
      const Ref group = next(groups, i);
      const Ref value(group ? PyFloat_FromDouble(numbers[i]) : nullptr);
      if (!value || set_item(group.get(), keys_[0], value.get(), versions_[i]) != 0) return false;
      values_[i] = numbers[i];
    }
    return true;
  }

  // At which refresh() has read group i.
  DictVersion& version_of(std::size_t i) { return versions_[i]; }

  // The values of one key in all groups, and whether an int is among them.
  struct Column {
    const double* values;
    bool has_integers;
  };
  Column column(PyObject* key) const {
    for (std::size_t k = 0; k < keys_.size(); ++k) {
      if (keys_[k] != key) continue;
      return {values_.data() + k * versions_.size(), integer_counts_[k] != 0};
    }
    return {nullptr, false};
  }
  const double* first() const { return values_.data(); }
  std::size_t groups() const { return versions_.size(); }

  // Of the first key's values.
  bool has_integers() const { return integer_counts_[0] != 0; }
  bool is_integer(std::size_t i) const { return integers_[i] != 0; }

  // Whether the first key's values are others than when this was asked before, by somebody else's hand.
  bool take_changed() { return std::exchange(changed_, false); }

  // The group to write next. No Python code runs while groups are written, except to compare keys of a type
  // of its own: that could change the list. Empty, with a Python error set, if it did.
  static Ref next(PyObject* groups, std::size_t i) {
    prefetch(groups, i + kAhead);
    if (i < length(groups) && PyDict_CheckExact(item(groups, i))) return Ref::borrow(item(groups, i));
    return changed_meanwhile();
  }

 private:
  [[gnu::noinline]] bool read(const Ref& group, std::size_t i) {
    forget(versions_[i]);
    for (std::size_t k = 0; k < keys_.size(); ++k) {
      const std::size_t at = k * versions_.size() + i;
      PyObject* entry =
          k == 0 && first_.is_item() ? item_in(group.get()) : PyDict_GetItemWithError(group.get(), keys_[k]);
      if (entry == nullptr || !Numbers::read_plain(entry, values_[at])) return decline(keys_[k], entry);
      note_integer(k, at, PyLong_CheckExact(entry));
    }
    remember(group.get(), versions_[i]);
    changed_ = true;
    return true;
  }
  void note_integer(std::size_t k, std::size_t at, bool integer) {
    integer_counts_[k] += static_cast<int>(integer) - integers_[at];
    integers_[at] = static_cast<char>(integer);
  }
  // Of a tuple: a list might be somebody else's as well, who looks for changes in it.
  PyObject* item_in(PyObject* group) const {
    PyObject* const numbers = PyDict_GetItemWithError(group, first_.key());
    return numbers != nullptr && PyTuple_CheckExact(numbers) ? first_.in(group) : nullptr;
  }
  [[gnu::cold, gnu::noinline]] static Ref changed_meanwhile() {
    PyErr_SetString(PyExc_RuntimeError, "param_groups changed while a scheduler wrote to them");
    return Ref();
  }

  static constexpr std::size_t kAhead = 8;

  Entry first_;
  std::vector<PyObject*> keys_;
  std::vector<DictVersion> versions_;
  std::vector<double> values_;
  std::vector<char> integers_;       // which of the values are ints
  std::vector<int> integer_counts_;  // and how many under each key
  bool changed_ = true;
};

// The own parameters of all groups as numbers, gathered from the scheduler's lists and the groups' entries.
class OwnValues {
 public:
  // Reads parameter k. False where it is not one plain number per group.
  bool read(const std::vector<OwnParam>& owns, std::size_t k, PyObject* scheduler_dict,
            const GroupEntries& entries) {
    const std::size_t count = entries.groups();
    numbers_.resize(owns.size() * count);
    double* out = numbers_.data() + k * count;
    switch (owns[k].where) {
      case OwnParam::in_list: {
        PyObject* list = PyDict_GetItemWithError(scheduler_dict, owns[k].name);
        if (list == nullptr || !PyList_CheckExact(list) || length(list) != count) return unfit(owns[k], list);
        lists_.resize(owns.size());
        if (!lists_[k].read(list)) return unfit(owns[k], list);
        std::copy(lists_[k].numbers().begin(), lists_[k].numbers().end(), out);
        has_integers_ |= lists_[k].has_integers();
        list_ = &lists_[k];
        break;
      }
      case OwnParam::in_group: {
        const GroupEntries::Column column = entries.column(owns[k].name);
        if (column.values == nullptr) return false;
        std::copy(column.values, column.values + count, out);
        has_integers_ |= column.has_integers;
        break;
      }
      case OwnParam::functions: return false;
    }
    return true;
  }

  static bool unfit(const OwnParam& own, PyObject* list) {
    return decline(own.name, list, "a list of one Python number per param group");
  }

  // Reads what the law needs.
  bool read_for(const Update& update, const std::vector<OwnParam>& owns, PyObject* scheduler_dict,
                const GroupEntries& entries) {
    list_ = nullptr;
    has_integers_ = false;
    const Law law = update.kind();
    return (!uses_own(law) || read(owns, static_cast<std::size_t>(update.own), scheduler_dict, entries)) &&
           (!uses_other(law) || read(owns, static_cast<std::size_t>(update.other), scheduler_dict, entries));
  }

  GroupParams of(std::size_t count) const {
    return {numbers_.data(), static_cast<std::int64_t>(count), 0, {nullptr, 0}};
  }
  bool has_integers() const { return has_integers_; }
  PyObject* object(std::size_t i) const { return list_->object(i); }  // of the list that was read last

 private:
  std::vector<double> numbers_;
  std::vector<NumberList> lists_;
  const NumberList* list_ = nullptr;  // the one that was read last
  bool has_integers_ = false;
};

}  // namespace fastsched::host
