// Telling, without looking anything up, whether a dict changed since it was last looked at.
//
// CPython up to 3.12 stamps every dict with a tag that is unique in the process and renewed by each change
// (PEP 509): a version is that tag. From 3.13 on, a dict that somebody asked the version of is watched
// (PyDict_Watch): each change of it counts up a number of ours. Where neither can be had (a free-threaded
// Python, no watcher left, an interpreter that fails the probe), no version is known and "unchanged" is never
// claimed: the caller looks things up again.
#pragma once

#include <unordered_map>

#include "python.h"

namespace fastsched::host {

#if PY_VERSION_HEX >= 0x030D0000 && !defined(PYPY_VERSION) && !defined(Py_GIL_DISABLED)

inline bool dict_versions_trusted = true;
inline constexpr const char* kDictVersions = "watchers";

struct WatchedDict {
  PyObject* dict;  // null once it is dead
  std::uint64_t version;
  std::size_t holders;  // DictVersions that point here
  bool named;           // its keys are str and nothing else, so that looking one up runs no Python code
};

class DictWatcher {
 public:
  // For as long as the process lives: dicts and holders may die late.
  static DictWatcher& instance() {
    static DictWatcher& watcher = *new DictWatcher;
    return watcher;
  }

  bool works() const { return id_ >= 0; }

  // Null where it cannot be watched.
  WatchedDict* watch(PyObject* dict) {
    if (!works() || !PyDict_Check(dict)) return nullptr;
    const auto known = dicts_.find(dict);
    if (known != dicts_.end()) return known->second;
    auto* const watched = new WatchedDict{dict, ++clock_, 0, all_named(dict)};
    dicts_.emplace(dict, watched);
    if (PyDict_Watch(id_, dict) == 0) return watched;
    PyErr_Clear();
    dicts_.erase(dict);
    delete watched;
    return nullptr;
  }

  void release(WatchedDict* watched) {
    if (--watched->holders != 0) return;
    if (watched->dict != nullptr) {
      if (PyDict_Unwatch(id_, watched->dict) != 0) PyErr_Clear();
      dicts_.erase(watched->dict);
    }
    delete watched;
  }

  void touch(WatchedDict& watched) { watched.version = ++clock_; }

  // PyDict_SetItem of a value whose predecessor dies without running Python code. Being called back would
  // cost as much as the write itself, so the dict is not watched meanwhile.
  int set_item(WatchedDict& watched, PyObject* key, PyObject* value) {
    if (!watched.named) return PyDict_SetItem(watched.dict, key, value);
    if (PyDict_Unwatch(id_, watched.dict) != 0) return -1;
    const int result = PyDict_SetItem(watched.dict, key, value);
    touch(watched);
    return PyDict_Watch(id_, watched.dict) == 0 ? result : -1;
  }

 private:
  DictWatcher() : id_(PyDict_AddWatcher(&DictWatcher::changes)) {
    if (id_ < 0) PyErr_Clear();
  }

  // Called before a watched dict changes.
  static int changes(PyDict_WatchEvent event, PyObject* dict, PyObject* key, PyObject*) {
    DictWatcher& self = instance();
    const auto known = self.dicts_.find(dict);
    if (known == self.dicts_.end()) return 0;
    self.touch(*known->second);
    if (event == PyDict_EVENT_CLONED || (event == PyDict_EVENT_ADDED && !PyUnicode_CheckExact(key))) {
      known->second->named = false;
    } else if (event == PyDict_EVENT_DEALLOCATED) {
      known->second->dict = nullptr;
      self.dicts_.erase(known);
    }
    return 0;
  }

  static bool all_named(PyObject* dict) {
    Py_ssize_t place = 0;
    for (PyObject* key = nullptr; PyDict_Next(dict, &place, &key, nullptr) != 0;) {
      if (!PyUnicode_CheckExact(key)) return false;
    }
    return true;
  }

  const int id_;
  std::uint64_t clock_ = 0;
  std::unordered_map<PyObject*, WatchedDict*> dicts_;
};

class DictVersion {
 public:
  DictVersion() = default;
  explicit DictVersion(PyObject* dict) : watched_(DictWatcher::instance().watch(dict)) {
    if (watched_ == nullptr) return;
    ++watched_->holders;
    seen_ = watched_->version;
  }
  DictVersion(const DictVersion& other) : watched_(other.watched_), seen_(other.seen_) {
    if (watched_ != nullptr) ++watched_->holders;
  }
  DictVersion(DictVersion&& other) noexcept
      : watched_(std::exchange(other.watched_, nullptr)), seen_(other.seen_) {}
  DictVersion& operator=(DictVersion other) noexcept {
    std::swap(watched_, other.watched_);
    std::swap(seen_, other.seen_);
    return *this;
  }
  ~DictVersion() {
    if (watched_ != nullptr) DictWatcher::instance().release(watched_);
  }

  bool known() const { return watched_ != nullptr; }
  bool is_of(PyObject* dict) const { return watched_ != nullptr && watched_->dict == dict; }
  bool holds(PyObject* dict) const { return is_of(dict) && watched_->version == seen_; }
  void renew() { seen_ = watched_->version; }
  void forget() { seen_ = 0; }
  // Writes to the dict, of which this one need not be told; the others have to look.
  int set_item(PyObject* key, PyObject* value) {
    const bool named = watched_->named;
    const int result = DictWatcher::instance().set_item(*watched_, key, value);
    if (named) renew();
    return result;
  }

 private:
  WatchedDict* watched_ = nullptr;
  std::uint64_t seen_ = 0;
};

inline DictVersion version(PyObject* dict) {
  return dict_versions_trusted ? DictVersion(dict) : DictVersion();
}
inline bool is_known(const DictVersion& seen) { return seen.known(); }
inline bool unchanged(PyObject* dict, const DictVersion& seen) { return seen.holds(dict); }

// The dict is as it should be now.
inline void remember(PyObject* dict, DictVersion& seen) {
  if (seen.is_of(dict)) {
    seen.renew();
  } else {
    seen = version(dict);
  }
}
// It has to be looked at again.
inline void forget(DictVersion& seen) { seen.forget(); }

// PyDict_SetItem by somebody who knows the dict at this version, and goes on knowing it. Of the entry that is
// replaced no more dies than numbers and tuples of what lives on.
inline int set_item(PyObject* dict, PyObject* key, PyObject* value, DictVersion& seen) {
  return seen.holds(dict) ? seen.set_item(key, value) : PyDict_SetItem(dict, key, value);
}

#else

using DictVersion = std::uint64_t;

#if PY_VERSION_HEX < 0x030D0000 && !defined(PYPY_VERSION)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
inline DictVersion raw_version(PyObject* dict) {
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
}
#pragma GCC diagnostic pop
inline bool dict_versions_trusted = true;
inline constexpr const char* kDictVersions = "version tags";
#else
inline DictVersion raw_version(PyObject*) { return 0; }
inline bool dict_versions_trusted = false;
inline constexpr const char* kDictVersions = "look-ups";
#endif

// 0: not known.
inline DictVersion version(PyObject* dict) { return dict_versions_trusted ? raw_version(dict) : 0; }
inline bool is_known(DictVersion seen) { return seen != 0; }
inline bool unchanged(PyObject* dict, DictVersion seen) { return is_known(seen) && version(dict) == seen; }
inline void remember(PyObject* dict, DictVersion& seen) { seen = version(dict); }
inline void forget(DictVersion& seen) { seen = 0; }
inline int set_item(PyObject* dict, PyObject* key, PyObject* value, DictVersion& seen) {
  const int result = PyDict_SetItem(dict, key, value);
  remember(dict, seen);
  return result;
}

#endif

}  // namespace fastsched::host
