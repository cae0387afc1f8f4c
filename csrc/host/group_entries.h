// Numbers in the param-group dicts, looked up again only in dicts that changed.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "group_versions.h"
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

// How many numbers there are in a tuple; 0 for anything else.
inline Py_ssize_t size_of(PyObject* numbers) {
  return numbers != nullptr && PyTuple_CheckExact(numbers) ? PyTuple_GET_SIZE(numbers) : 0;
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

// Puts `tuple` into the group, filled with what is there, but for the item that the entry is. False on a
// Python error. Runs no Python code: what else is in the old tuple is in the new one, and the old item is a
// number.
inline bool replace_item(PyObject* group, const Entry& entry, Ref value, const Ref& tuple,
                         DictVersion& version) {
  PyObject* const before = PyDict_GetItemWithError(group, entry.key());
  const Py_ssize_t size = tuple ? PyTuple_GET_SIZE(tuple.get()) : 0;
  if (before == nullptr || size_of(before) != size || entry.item_index() >= size) {
    if (!PyErr_Occurred())
      PyErr_SetString(PyExc_RuntimeError, "a tuple changed while a scheduler wrote to it");
    return false;
  }
  for (Py_ssize_t k = 0; k < size; ++k) {
    Ref number = k == entry.item_index() ? std::move(value) : Ref::borrow(PyTuple_GET_ITEM(before, k));
    const Ref none(std::exchange(PySequence_Fast_ITEMS(tuple.get())[k], number.release()));
  }
  return set_item(group, entry.key(), tuple.get(), version) == 0;
}

// A column of numbers for each entry. What is written here is known here, other changes show by the dict's
// version.
class GroupEntries {
 public:
  // Which entries of each group to read: the first is the one that is scheduled.
  void use(std::vector<Entry> entries) {
    if (entries == entries_) return;
    entries_ = std::move(entries);
    items_.clear();
    for (std::size_t k = 0; k < entries_.size(); ++k) {
      if (entries_[k].is_item()) items_.push_back({k, {}, {}});
    }
    versions_.reset(0);
    integer_counts_.assign(entries_.size(), 0);
  }

  // A new tuple for each group where items of tuples are written, before anybody looks at the groups.
  void allocate(PyObject* groups) {
    if (!items_.empty()) allocate_tuples(groups);
  }

  // Not to be entered again before it is done: see Busy. False if some group lacks an entry or has no plain
  // number there; nothing is written either way.
  bool refresh(PyObject* groups) {
    const std::size_t count = length(groups);
    if (versions_.size() != count) {
      versions_.reset(count);
      values_.resize(count * entries_.size());
      integers_.assign(values_.size(), 0);
      integer_counts_.assign(entries_.size(), 0);
      for (ItemColumn& items : items_) items.sizes.assign(count, 0);
      as_of_ = ++clock_;
    }
    if (!versions_.catch_up(groups, [this](PyObject* group, std::size_t i) { return read(group, i); })) {
      return false;
    }
    return items_.empty() || tuples_fit();
  }

  // Writes an entry of group i, which refresh() has read; `number` is what `value` holds. False on a Python
  // error. Runs no Python code: what it replaces is a number.
  bool write(PyObject* group, std::size_t column, std::size_t i, Ref value, double number,
             bool integer = false) {
    const Entry& entry = entries_[column];
    const bool written =
        entry.is_item() ? replace_item(group, entry, std::move(value), tuple_for(column, i), versions_[i])
                        : set_item(group, entry.key(), value.get(), versions_[i]) == 0;
    if (!written) return false;
    const std::size_t at = column * versions_.size() + i;
    values_[at] = number;
    note_integer(column, at, integer);
    return true;
  }

  // Whether the first entry of group i is this very number, as an int or as a float.
  bool has(std::size_t i, double number) const { return same_bits(values_[i], number); }
  bool has_float(std::size_t column, std::size_t i, double number) const {
    const std::size_t at = column * versions_.size() + i;
    return integers_[at] == 0 && same_bits(values_[at], number);
  }

  // Writes the first entry, a float, of all groups that have another; groups beside each other that get the
  // same number share one float. False on a Python error.
  bool write_changed(PyObject* groups, const double* numbers) {
    PyObject* const key = entries_[0].key();
    double* const values = values_.data();
    const std::size_t count = versions_.size();
    Ref shared;
    double number = 0.0;
    for (std::size_t i = 0; i < count; ++i) {
      if (same_bits(values[i], numbers[i])) continue;
      if (!shared || !same_bits(number, numbers[i])) {
        number = numbers[i];
        shared = Ref(PyFloat_FromDouble(number));
        if (!shared) return false;
      }
      if (!versions_.write(groups, i, key, shared.get())) return false;
      values[i] = number;
    }
    return true;
  }

  // The values of one entry in all groups, and whether an int is among them.
  struct Column {
    const double* values;
    bool has_integers;
  };
  Column column(std::size_t k) const {
    return {values_.data() + k * versions_.size(), integer_counts_[k] != 0};
  }
  // kNowhere if it is not read.
  static constexpr std::size_t kNowhere = SIZE_MAX;
  std::size_t column_of(PyObject* key) const {
    for (std::size_t k = 0; k < entries_.size(); ++k) {
      if (entries_[k].key() == key && !entries_[k].is_item()) return k;
    }
    return kNowhere;
  }
  const double* first() const { return values_.data(); }
  std::size_t groups() const { return versions_.size(); }

  // Of the first column.
  bool has_integers() const { return integer_counts_[0] != 0; }
  bool is_integer(std::size_t i) const { return integers_[i] != 0; }

  // Another number, unique in the process, once some value is another by somebody else's hand.
  std::uint64_t as_of() const { return as_of_; }

 private:
  // Where an item of a tuple is read and written.
  struct ItemColumn {
    std::size_t column;
    std::vector<Py_ssize_t> sizes;  // of the tuples that there are
    std::vector<Ref> tuples;        // of the step that is being made
  };

  [[gnu::noinline]] void allocate_tuples(PyObject* groups) {
    for (ItemColumn& items : items_) {
      items.tuples.clear();
      for (std::size_t i = 0; i < length(groups); ++i) {
        const Ref group = Ref::borrow(item(groups, i));
        const bool known = versions_.knows(i, group.get());
        Py_ssize_t size = known ? items.sizes[i] : 0;
        if (!known && PyDict_CheckExact(group.get())) {
          PyObject* const numbers = PyDict_GetItemWithError(group.get(), entries_[items.column].key());
          if (numbers == nullptr && PyErr_Occurred()) throw pybind11::error_already_set();
          size = size_of(numbers);
        }
        items.tuples.push_back(empty_tuple(size));
      }
    }
  }

  [[gnu::noinline]] bool read(PyObject* group, std::size_t i) {
    for (std::size_t k = 0; k < entries_.size(); ++k) {
      const std::size_t at = k * versions_.size() + i;
      PyObject* const number = entries_[k].in(group);
      if (number == nullptr || !Numbers::read_plain(number, values_[at]))
        return decline(entries_[k].key(), number);
      note_integer(k, at, PyLong_CheckExact(number));
    }
    for (ItemColumn& items : items_) {
      PyObject* const numbers = PyDict_GetItemWithError(group, entries_[items.column].key());
      // A list changes without the dict's noticing, and might be somebody else's as well, who looks for
      // changes in it.
      if (numbers == nullptr || !PyTuple_CheckExact(numbers)) {
        return decline(entries_[items.column].key(), numbers, "a tuple");
      }
      items.sizes[i] = size_of(numbers);
    }
    as_of_ = ++clock_;
    return true;
  }

  // Whether tuples, if some were allocated, are as large as those in the groups.
  bool tuples_fit() const {
    for (const ItemColumn& items : items_) {
      for (std::size_t i = 0; i < items.tuples.size(); ++i) {
        if (i >= items.sizes.size() || PyTuple_GET_SIZE(items.tuples[i].get()) != items.sizes[i])
          return false;
      }
    }
    return true;
  }
  Ref tuple_for(std::size_t column, std::size_t i) {
    for (ItemColumn& items : items_) {
      if (items.column == column && i < items.tuples.size()) return std::move(items.tuples[i]);
    }
    return Ref();
  }

  void note_integer(std::size_t k, std::size_t at, bool integer) {
    integer_counts_[k] += static_cast<int>(integer) - integers_[at];
    integers_[at] = static_cast<char>(integer);
  }
  static bool same_bits(double a, double b) { return memcmp(&a, &b, sizeof(double)) == 0; }

  std::vector<Entry> entries_;
  std::vector<ItemColumn> items_;
  GroupVersions versions_;  // at which each group was read
  std::vector<double> values_;
  std::vector<char> integers_;       // which of the values are ints
  std::vector<int> integer_counts_;  // and how many in each column
  std::uint64_t as_of_ = ++clock_;

  static inline std::uint64_t clock_ = 0;
};

// The own parameters of all groups as numbers, gathered from the scheduler's lists and the groups' entries.
// What has not changed since is not gathered again.
class OwnValues {
 public:
  // Reads parameter k. False where it is not one plain number per group.
  bool read(const std::vector<OwnParam>& owns, std::size_t k, PyObject* scheduler_dict,
            const GroupEntries& entries) {
    const std::size_t count = entries.groups();
    if (params_.size() != owns.size() || numbers_.size() != owns.size() * count) {
      numbers_.assign(owns.size() * count, 0.0);
      params_ = std::vector<Param>(owns.size());
    }
    Param& param = params_[k];
    double* const out = numbers_.data() + k * count;
    switch (owns[k].where) {
      case OwnParam::in_list: {
        PyObject* list = PyDict_GetItemWithError(scheduler_dict, owns[k].name);
        if (list == nullptr || !PyList_CheckExact(list) || length(list) != count) return unfit(owns[k], list);
        list_ = &param.list;
        if (!param.list.holds(list)) {
          if (!param.list.read(list)) return unfit(owns[k], list);
          std::copy(param.list.numbers().begin(), param.list.numbers().end(), out);
        }
        has_integers_ |= param.list.has_integers();
        break;
      }
      case OwnParam::in_group: {
        if (param.as_of != entries.as_of()) {
          const std::size_t at = entries.column_of(owns[k].name);
          if (at == GroupEntries::kNowhere) return false;
          const GroupEntries::Column column = entries.column(at);
          std::copy(column.values, column.values + count, out);
          param.has_integers = column.has_integers;
          param.as_of = at == 0 ? 0 : entries.as_of();  // what is scheduled changes by our own hand
        }
        has_integers_ |= param.has_integers;
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
  struct Param {
    NumberList list;
    std::uint64_t as_of = 0;
    bool has_integers = false;
  };
  std::vector<double> numbers_;
  std::vector<Param> params_;
  const NumberList* list_ = nullptr;  // the one that was read last
  bool has_integers_ = false;
};

}  // namespace fastsched::host
