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

 private:
  // The first from the place `i` on; all are looked at in a loop that does nothing else.
  std::size_t first_changed(PyObject* groups, std::size_t i) const {
    PyObject* const* const now = PySequence_Fast_ITEMS(groups);
    const std::size_t count = versions_.size();
    const DictVersion* const versions = versions_.data();
    for (; i < count; ++i) {
      prefetch_group(groups, i);
      if (!PyDict_CheckExact(now[i]) || !unchanged(now[i], versions[i])) break;
    }
    return i;
  }

  std::vector<DictVersion> versions_;
};

}  // namespace fastsched::host
