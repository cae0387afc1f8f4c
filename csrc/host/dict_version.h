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
inline constexpr bool kVersionsAreInDicts = false;

struct WatchedDict {
  PyObject* dict;  // null once it is dead
  std::uint64_t version;
  std::size_t holders;  // DictVersions that point here
  bool named;           // its keys are str and nothing else, so that looking one up runs no Python code
};

// For as long as the process lives: dicts and holders may die late.
class DictWatcher {
 public:
  // Null where it cannot be watched.
  static WatchedDict* watch(PyObject* dict) {
    static const bool works = start();
    if (!works || !PyDict_Check(dict)) return nullptr;
    const auto known = dicts().find(dict);
    if (known != dicts().end()) return known->second;
    if (PyDict_Watch(id_, dict) != 0) {
      PyErr_Clear();
      return nullptr;
    }
    return dicts().emplace(dict, new WatchedDict{dict, 1, 0, all_named(dict)}).first->second;
  }

  static void release(WatchedDict* watched) {
    if (--watched->holders != 0) return;
    if (watched->dict != nullptr) {
      if (PyDict_Unwatch(id_, watched->dict) != 0) PyErr_Clear();
      dicts().erase(watched->dict);
    }
    delete watched;
  }

  // PyDict_SetItem of a value whose predecessor dies without running Python code, in a dict of names. Being
  // called back would cost as much as the write itself, so the dict is not watched meanwhile.
  static int set_item(WatchedDict& watched, PyObject* key, PyObject* value) {
    ++watched.version;
    if (bit_ == 0) return set_item_unwatched(watched.dict, key, value);
    watchers_of(watched.dict) &= ~bit_;
    const int result = PyDict_SetItem(watched.dict, key, value);
    watchers_of(watched.dict) |= bit_;
    return result;
  }

 private:
  // False where there is none left.
  static bool start() {
    id_ = PyDict_AddWatcher(&DictWatcher::changes);
    const std::uint64_t bit = id_ < 0 ? 0 : std::uint64_t{1} << id_;
    if (id_ >= 0 && is_bit(bit)) bit_ = bit;
    PyErr_Clear();
    return id_ >= 0;
  }

  // Where the bit is not known.
  [[gnu::cold, gnu::noinline]] static int set_item_unwatched(PyObject* dict, PyObject* key, PyObject* value) {
    if (PyDict_Unwatch(id_, dict) != 0) return -1;
    const int result = PyDict_SetItem(dict, key, value);
    return PyDict_Watch(id_, dict) == 0 ? result : -1;
  }

  // Called before a watched dict changes.
  static int changes(PyDict_WatchEvent event, PyObject* dict, PyObject* key, PyObject*) {
    const auto known = dicts().find(dict);
    if (known == dicts().end()) return 0;
    ++known->second->version;
    if (event == PyDict_EVENT_CLONED || (event == PyDict_EVENT_ADDED && !PyUnicode_CheckExact(key))) {
      known->second->named = false;
    } else if (event == PyDict_EVENT_DEALLOCATED) {
      known->second->dict = nullptr;
      dicts().erase(known);
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

  // The word in which a dict has a bit for each watcher, among others.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  static std::uint64_t& watchers_of([[maybe_unused]] PyObject* dict) {
#if PY_VERSION_HEX >= 0x030F0000
    static std::uint64_t none = 0;  // nobody has looked where that Python has it: is_bit() is false
    return none;
#elif PY_VERSION_HEX >= 0x030E0000
    return reinterpret_cast<PyDictObject*>(dict)->_ma_watcher_tag;
#else
    return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#endif
  }
#pragma GCC diagnostic pop

  // Whether this is what PyDict_Watch sets there and PyDict_Unwatch clears, and nothing else.
  static bool is_bit(std::uint64_t bit) {
    const Ref dict(PyDict_New());
    if (!dict || PyDict_Watch(id_, dict.get()) != 0) return false;
    const std::uint64_t watched = watchers_of(dict.get());
    if (PyDict_Unwatch(id_, dict.get()) != 0) return false;
    const std::uint64_t unwatched = watchers_of(dict.get());
    return (watched & bit) != 0 && (watched ^ unwatched) == bit;
  }

  static std::unordered_map<PyObject*, WatchedDict*>& dicts() {
    static auto& dicts = *new std::unordered_map<PyObject*, WatchedDict*>;
    return dicts;
  }

  static inline int id_ = -1;
  static inline std::uint64_t bit_ = 0;  // 0: it has none that we know of
};

class DictVersion {
 public:
  DictVersion() = default;
  explicit DictVersion(PyObject* dict) : watched_(DictWatcher::watch(dict)) {
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
    if (watched_ != nullptr) DictWatcher::release(watched_);
  }

  bool known() const { return watched_ != nullptr; }
  bool is_of(PyObject* dict) const { return watched_ != nullptr && watched_->dict == dict; }
  bool holds(PyObject* dict) const { return is_of(dict) && watched_->version == seen_; }
  bool is_named() const { return watched_->named; }
  void renew() { seen_ = watched_->version; }
  void forget() { seen_ = 0; }
  // Writes to the dict, one of names, of which this one need not be told; the others have to look.
  int set_item(PyObject* key, PyObject* value) {
    seen_ = watched_->version + 1;
    return DictWatcher::set_item(*watched_, key, value);
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
// The same of anything, where a plain dict was seen.
inline bool is_unchanged_dict(PyObject* object, const DictVersion& seen) { return seen.holds(object); }
// And whether no Python code runs when it is written to.
inline bool is_written_quietly(PyObject* dict, const DictVersion& seen) {
  return seen.holds(dict) && seen.is_named();
}

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
inline int set_item_quietly(PyObject*, PyObject* key, PyObject* value, DictVersion& seen) {
  return seen.set_item(key, value);
}
inline int set_item(PyObject* dict, PyObject* key, PyObject* value, DictVersion& seen) {
  return is_written_quietly(dict, seen) ? seen.set_item(key, value) : PyDict_SetItem(dict, key, value);
}

#else

using DictVersion = std::uint64_t;
inline constexpr bool kVersionsAreInDicts = true;

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
inline bool is_unchanged_dict(PyObject* object, DictVersion seen) {
  return PyDict_CheckExact(object) && unchanged(object, seen);
}
inline bool is_written_quietly(PyObject*, DictVersion) { return false; }
inline int set_item_quietly(PyObject* dict, PyObject* key, PyObject* value, DictVersion&) {
  return PyDict_SetItem(dict, key, value);
}
inline void remember(PyObject* dict, DictVersion& seen) { seen = version(dict); }
inline void forget(DictVersion& seen) { seen = 0; }
inline int set_item(PyObject* dict, PyObject* key, PyObject* value, DictVersion& seen) {
  const int result = PyDict_SetItem(dict, key, value);
  remember(dict, seen);
  return result;
}

#endif

}  // namespace fastsched::host
