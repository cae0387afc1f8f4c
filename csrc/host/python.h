// Owning references to Python objects for code that is too hot for pybind11's wrappers.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <type_traits>
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

// What the module's classes derive from. Their objects may come from __new__ alone: then there is no C++
// object behind them, and pybind11 would make up one.
struct Bound {};

// The C++ object behind a Python one, past pybind11's dispatcher; null if the object is not exactly of that
// type (the classes are final), or was never initialized.
template <typename T>
T* exactly(PyObject* object) {
  static PyTypeObject* const type = reinterpret_cast<PyTypeObject*>(pybind11::type::of<T>().release().ptr());
  if (Py_TYPE(object) != type) return nullptr;
  const auto* const instance = reinterpret_cast<pybind11::detail::instance*>(object);
  const bool constructed = instance->simple_layout && instance->simple_holder_constructed;
  return constructed ? static_cast<T*>(instance->simple_value_holder[0]) : nullptr;
}

// The same of an object that must be one.
template <typename T>
T& unwrap(PyObject* object) {
  T* const self = exactly<T>(object);
  if (self == nullptr) {
    throw pybind11::type_error(std::string("not an initialized ") + pybind11::type_id<T>() + ": " +
                               std::string(pybind11::repr(pybind11::handle(object))));
  }
  return *self;
}

// The same of the object that a method of C was called on, whose type its descriptor has checked.
template <typename T>
T& unwrap_self(PyObject* object) {
  const auto* const instance = reinterpret_cast<pybind11::detail::instance*>(object);
  const bool constructed = instance->simple_layout && instance->simple_holder_constructed;
  return constructed ? *static_cast<T*>(instance->simple_value_holder[0]) : unwrap<T>(object);
}

// Counts a call into what may call itself without Python between. Without `entered`, RecursionError is set.
class Recursion {
 public:
  Recursion() : entered(Py_EnterRecursiveCall(" in a composition of schedulers") == 0) {}
  ~Recursion() {
    if (entered) Py_LeaveRecursiveCall();
  }
  Recursion(const Recursion&) = delete;
  Recursion& operator=(const Recursion&) = delete;

  const bool entered;
};

// What must not be entered again while it runs: comparing keys of a type of their own, a finalizer or another
// thread may try.
class Busy {
 public:
  explicit Busy(bool& busy) : entered(!busy), busy_(busy) { busy_ = true; }
  ~Busy() {
    if (entered) busy_ = false;
  }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

  const bool entered;

 private:
  bool& busy_;
};

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

template <typename T>
class pybind11::detail::type_caster<T, std::enable_if_t<std::is_base_of_v<fastsched::host::Bound, T>>>
    : public pybind11::detail::type_caster_base<T> {
 public:
  bool load(handle object, bool convert) {
    return fastsched::host::exactly<T>(object.ptr()) != nullptr && type_caster_base<T>::load(object, convert);
  }
};
