// Owning references to Python objects for code that is too hot for pybind11's wrappers.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>

namespace fastsched::host {

class Ref {
 public:
  Ref() = default;
  explicit Ref(PyObject* owned) : object_(owned) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  Ref(const Ref&) = delete;
  Ref& operator=(const Ref&) = delete;
  ~Ref() { Py_XDECREF(object_); }

  static Ref borrow(PyObject* object) { return Ref(Py_XNewRef(object)); }

  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

// The C++ object behind a Python one of the right type, past pybind11's dispatcher.
template <typename T>
T& unwrap(PyObject* self) {
  return *static_cast<T*>(
      reinterpret_cast<pybind11::detail::instance*>(self)->get_value_and_holder().value_ptr());
}

// The same, or null if the object is not exactly of that type.
template <typename T>
T* exactly(PyObject* object) {
  static PyTypeObject* const type = reinterpret_cast<PyTypeObject*>(pybind11::type::of<T>().release().ptr());
  return Py_TYPE(object) == type ? &unwrap<T>(object) : nullptr;
}

inline void remove(PyObject* dict, PyObject* name) {
  if (PyDict_GetItemWithError(dict, name) != nullptr && PyDict_DelItem(dict, name) != 0) {
    throw pybind11::error_already_set();
  }
}

// A name that is looked up at every step: interned once, so that dict look-ups compare pointers.
inline PyObject* intern(const char* name) {
  PyObject* object = PyUnicode_InternFromString(name);
  if (object == nullptr) throw pybind11::error_already_set();
  return object;
}

}  // namespace fastsched::host
