// Telling, at hardly any cost, whether a CUDA graph is being captured: what the host engines do now would not
// happen at a replay.
#pragma once

#include "dict_version.h"
#include "python.h"

namespace fastsched::host {

class CaptureProbe {
 public:
  // torch.cuda's own dict and a function that says whether the current stream is being captured. Without
  // them, in a torch without CUDA, nothing ever is.
  static void use(pybind11::dict cuda, pybind11::object capturing) {
    cuda_ = cuda.release().ptr();  // for as long as the process lives
    capturing_ = capturing.release().ptr();
  }

  // True inside capture, and, with a Python error set, where that cannot be found out.
  static bool capturing() {
    if (cuda_ == nullptr || unchanged(cuda_, uninitialized_) || !is_initialized()) return false;
    const Ref answer(PyObject_CallNoArgs(capturing_));
    return !answer || answer.get() == Py_True;
  }

  // True, with a Python error set, inside capture. `name`: of the entry that is to be written.
  static bool refuses(const std::string& name) {
    if (!capturing()) return false;
    if (PyErr_Occurred()) return true;
    if (name == "lr") {
      PyErr_SetString(
          PyExc_RuntimeError,
          "this scheduler step cannot be captured in a CUDA graph: the learning rates are Python numbers, "
          "which a replay would not change; call fastsched.use_tensor_lr(optimizer) before the capture");
    } else {
      PyErr_Format(PyExc_RuntimeError,
                   "this scheduler step cannot be captured in a CUDA graph: '%s' is a Python number in the "
                   "param groups, which a replay would not change; make it a tensor before the capture, if "
                   "the optimizer can take one there (torch's fused optimizers cannot), or step this "
                   "scheduler outside of the graph",
                   name.c_str());
    }
    return true;
  }

 private:
  // Where it is not, asking whether it captures would create a context.
  static bool is_initialized() {
    static PyObject* const name = intern("_initialized");
    if (PyDict_GetItemWithError(cuda_, name) == Py_True) return true;
    remember(cuda_, uninitialized_);
    return false;
  }

  static inline PyObject* cuda_ = nullptr;
  static inline PyObject* capturing_ = nullptr;
  // At which torch.cuda's dict said so. Never destroyed, because that would be after the interpreter's end.
  static inline DictVersion& uninitialized_ = *new DictVersion();
};

}  // namespace fastsched::host
