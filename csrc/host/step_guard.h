// What has to be looked at before a step over buffers, whoever then makes it: that they are still where they
// were, and still hold what the scheduler's attributes and the optimizer's groups say.
#pragma once

#include <vector>

#include "guard.h"
#include "python.h"

namespace fastsched::host {

// The types of tensors that are nothing but tensors: what has a class of its own may compute something.
class PlainTensors {
 public:
  static void use(const pybind11::list& types) {
    for (const pybind11::handle type : types)
      types_.push_back(type.inc_ref().ptr());  // as long as the process
  }
  static bool have(PyObject* object) {
    for (PyObject* type : types_) {
      if (reinterpret_cast<PyObject*>(Py_TYPE(object)) == type) return true;
    }
    return false;
  }

 private:
  static inline std::vector<PyObject*> types_;
};

class StepGuard {
 public:
  // `guard` is that of a TensorEngine (fastsched/engine/tensor.py).
  explicit StepGuard(pybind11::object guard)
      : guard_(unwrap<Guard>(guard.ptr())), guard_alive_(std::move(guard)) {}

  // One of the engine's replicas.
  void add(const pybind11::handle& replica) {
    const pybind11::object buffer = replica.attr("buffer");
    const pybind11::object lrs = buffer.attr("lrs");
    storages_.push_back({address(lrs), lrs.attr("data_ptr")});
    for (const pybind11::handle copied : replica.attr("copied")) {
      storages_.push_back({address(copied.attr("values")), copied.attr("first").attr("data_ptr")});
    }
    layouts_.push_back({buffer, buffer.attr("layout")});
  }

  bool holds(PyObject* scheduler) const { return !moved() && guard_.holds(scheduler) && in_place(); }

  static void* address(const pybind11::object& tensor) {
    return reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<std::uintptr_t>());
  }

 private:
  // A tensor's memory: share_memory_() on a learning rate moves them all.
  struct Storage {
    void* address;
    pybind11::object data_ptr;  // the bound method
  };
  struct Layout {
    pybind11::object lr_buffer;
    pybind11::object layout;
  };

  // Whether the buffers are not laid out any more as they were, or not the optimizer's.
  bool moved() const {
    static PyObject* const layout_name = intern("layout");
    for (const Layout& known : layouts_) {
      const Ref now(PyObject_GetAttr(known.lr_buffer.ptr(), layout_name));
      if (!now) throw pybind11::error_already_set();
      if (now.get() != known.layout.ptr()) return true;
    }
    return false;
  }

  bool in_place() const {
    for (const Storage& storage : storages_) {
      const Ref now(PyObject_CallNoArgs(storage.data_ptr.ptr()));
      if (!now) throw pybind11::error_already_set();
      if (PyLong_AsVoidPtr(now.get()) != storage.address) return false;
    }
    return true;
  }

  Guard& guard_;
  pybind11::object guard_alive_;
  std::vector<Storage> storages_;  // of learning rates, and of settings that steps copy
  std::vector<Layout> layouts_;
};

}  // namespace fastsched::host
