// Telling in one load whether a dict changed since it was last looked at. CPython up to 3.12 stamps every
// dict with a tag that is unique in the process and renewed by each change (PEP 509); 3.13 keeps it only in
// part and 3.14 not at all. Where there is no tag, version() is 0 and "unchanged" is never claimed: the
// caller looks things up again.
#pragma once

#include "python.h"

namespace fastsched::host {

using DictVersion = std::uint64_t;

inline constexpr DictVersion kUnknownVersion = 0;

#if PY_VERSION_HEX < 0x030E0000 && !defined(PYPY_VERSION) && !defined(Py_GIL_DISABLED)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
inline DictVersion raw_version(PyObject* dict) {
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
}
#pragma GCC diagnostic pop
inline bool dict_versions_trusted = true;
inline DictVersion version(PyObject* dict) {
  return dict_versions_trusted ? raw_version(dict) : kUnknownVersion;
}
#else
inline bool dict_versions_trusted = false;
inline DictVersion version(PyObject*) { return kUnknownVersion; }
#endif

inline bool unchanged(PyObject* dict, DictVersion seen) {
  return seen != kUnknownVersion && version(dict) == seen;
}

}  // namespace fastsched::host
