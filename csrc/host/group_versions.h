// Which param groups have changed since they were looked at.
#pragma once

#include <vector>

#include "dict_version.h"
#include "param_groups.h"
#include "python.h"
#include "reason.h"

namespace fastsched::host {

// Has a group's dict brought into the cache: hundreds of them do not fit there, and each pass waits for every
// one.
inline void prefetch_group(PyObject* groups, std::size_t i) {
#ifdef __GNUC__
  constexpr std::size_t kAhead = 8;
  if (i + kAhead < length(groups)) __builtin_prefetch(item(groups, i + kAhead));
#endif
}

class GroupVersions {
 public:
  std::size_t size() const { return versions_.size(); }
  DictVersion& operator[](std::size_t i) { return versions_[i]; }
  void reset(std::size_t count) { versions_.assign(count, DictVersion()); }
  bool knows(std::size_t i, PyObject* group) const {
    return i < versions_.size() && unchanged(group, versions_[i]);
  }

  // Has `look(group, i)` take note of each group that is not what it was. False where that is false, or where
  // there is not such a dict for each: comparing keys of a type of their own runs Python code, which may do
  // anything.
  template <typename Look>
  bool catch_up(PyObject* groups, Look look) {
    const std::size_t count = versions_.size();
    if (length(groups) != count) return false;
    for (std::size_t i = first_changed(groups, 0); i < count; i = first_changed(groups, i + 1)) {
      const Ref group = Ref::borrow(item(groups, i));
      if (!PyDict_CheckExact(group.get())) return decline("a param group is no plain dict");
      // As it is before the look: what that brings about itself shows next time.
      remember(group.get(), versions_[i]);
      const bool noted = look(group.get(), i) && length(groups) == count;
      if (versions_.size() != count) return false;
      if (!noted) {
        forget(versions_[i]);
        return false;
      }
    }
    return true;
  }

  // The group to write next. No Python code runs while groups are written, except to compare keys of a type
  // of its own: that could change the list. Empty, with a Python error set, if it did.
  static Ref next(PyObject* groups, std::size_t i) {
    prefetch_group(groups, i);
    if (i < length(groups) && PyDict_CheckExact(item(groups, i))) return Ref::borrow(item(groups, i));
    PyErr_SetString(PyExc_RuntimeError, "param_groups changed while a scheduler wrote to them");
    return Ref();
  }

  // Puts `value` into group i, which goes on being known, in place of a number. False on a Python error.
  bool write(PyObject* groups, std::size_t i, PyObject* key, PyObject* value) {
    if (i < length(groups) && is_written_quietly(item(groups, i), versions_[i])) {
      prefetch_group(groups, i);
      return set_item_quietly(item(groups, i), key, value, versions_[i]) == 0;
    }
    const Ref group = next(groups, i);  // held, because Python code may run
    return group && set_item(group.get(), key, value, versions_[i]) == 0;
  }

 private:
  // The first from the place `i` on; all are looked at in a loop that does nothing else.
  std::size_t first_changed(PyObject* groups, std::size_t i) const {
    PyObject* const* const now = PySequence_Fast_ITEMS(groups);
    const std::size_t count = versions_.size();
    const DictVersion* const versions = versions_.data();
    for (; i < count; ++i) {
      if (kVersionsAreInDicts) prefetch_group(groups, i);
      if (!is_unchanged_dict(now[i], versions[i])) break;
    }
    return i;
  }

  std::vector<DictVersion> versions_;
};

}  // namespace fastsched::host
