// A step by the operator, for learning rates on a device: what Python would do before and around the call
// costs more than the call.
#pragma once

#include <array>
#include <vector>

#include "capture.h"
#include "python.h"
#include "schedule/plan/step_input.h"
#include "step_guard.h"

namespace fastsched::host {

class OperatorStep : public Bound {
 public:
  // `replicas` as for StepGuard; `copies` are the arguments for torch._foreach_copy_ before each step, for
  // each of them, or None. `composite`: whether a step may go without a metric. So many `steps` may be made.
  OperatorStep(pybind11::object guard, const pybind11::list& replicas, const pybind11::list& copies,
               bool reads_metric, bool composite, double steps)
      : guard_(std::move(guard)), reads_metric_(reads_metric), composite_(composite), steps_(steps) {
    if (operator_ == nullptr) throw pybind11::type_error("OperatorStep.use() comes first");
    if (replicas.empty()) throw pybind11::value_error("no replica to step");
    if (replicas.size() != copies.size()) throw pybind11::value_error("not one entry of copies per replica");
    for (std::size_t i = 0; i < replicas.size(); ++i) {
      const pybind11::object buffer = replicas[i].attr("buffer");
      guard_.add(replicas[i]);
      parts_.push_back({replicas[i].attr("program"), replicas[i].attr("state"), buffer.attr("masters"),
                        buffer.attr("lrs"), buffer.attr("device"), buffer.attr("on_host").cast<bool>(),
                        copies[i]});
    }
  }

  // The operator; torch._foreach_copy_; whether two tensors share memory; the dtypes that the operator reads;
  // torch.strided.
  static void use(pybind11::object step, pybind11::object copy, pybind11::object share_memory,
                  pybind11::object dtypes, pybind11::object strided) {
    operator_ = step.release().ptr();  // for as long as the process lives
    copy_ = copy.release().ptr();
    share_memory_ = share_memory.release().ptr();
    dtypes_ = dtypes.release().ptr();
    strided_ = strided.release().ptr();
  }

  // False, with nothing changed, where more is to be done than this.
  bool step(PyObject* scheduler, PyObject* metric) {
    Event event = Event::step;
    if (!reads_metric_) {
      metric = Py_None;
    } else if (metric == Py_None) {
      if (!composite_) return false;
      event = Event::unmeasured;
    } else if (!fits(metric)) {
      return false;
    }
    if (!ready(scheduler)) return false;
    call(metric, event);
    return true;
  }

  // The same in two parts, for what has to be done between them.
  bool ready(PyObject* scheduler) const { return steps_ > 0.0 && guard_.holds(scheduler); }
  void run() { call(Py_None, Event::step); }

 private:
  struct Part {
    pybind11::object program, state, masters, lrs, device;
    bool on_host;
    pybind11::object copies;
  };

  // A float, or a tensor that lies where the learning rates are and holds one number that the operator reads.
  bool fits(PyObject* metric) const {
    if (PyFloat_CheckExact(metric)) return parts_[0].on_host || !CaptureProbe::capturing();
    return PlainTensors::have(metric) && lies_here(metric);
  }

  bool lies_here(PyObject* metric) const {
    static PyObject* const names[] = {intern("numel"), intern("dtype"), intern("layout"), intern("device")};
    const Ref numel(PyObject_CallMethodNoArgs(metric, names[0]));
    const Ref dtype(numel ? PyObject_GetAttr(metric, names[1]) : nullptr);
    const Ref layout(dtype ? PyObject_GetAttr(metric, names[2]) : nullptr);
    const Ref device(layout ? PyObject_GetAttr(metric, names[3]) : nullptr);
    if (!device) throw pybind11::error_already_set();
    if (PyLong_AsLong(numel.get()) != 1 || layout.get() != strided_) return false;
    if (PySet_Contains(dtypes_, dtype.get()) != 1) return false;
    for (const Part& part : parts_) {
      if (PyObject_RichCompareBool(device.get(), part.device.ptr(), Py_EQ) != 1) return false;
      PyObject* const both[] = {metric, part.lrs.ptr()};
      const Ref shared(PyObject_Vectorcall(share_memory_, both, 2, nullptr));
      if (!shared) throw pybind11::error_already_set();
      if (shared.get() != Py_False) return false;
    }
    return true;
  }

  void call(PyObject* metric, Event event) {
    const bool is_number = PyFloat_CheckExact(metric);
    const Ref value = is_number ? Ref::borrow(metric) : Ref(PyFloat_FromDouble(0.0));
    const Ref kind(PyLong_FromLong(static_cast<long>(event)));
    if (!value || !kind) throw pybind11::error_already_set();
    steps_ -= 1.0;
    for (const Part& part : parts_) {
      if (!part.copies.is_none() && !Ref(PyObject_Call(copy_, part.copies.ptr(), nullptr))) {
        throw pybind11::error_already_set();
      }
      const std::array<PyObject*, 7> arguments = {
          part.program.ptr(),           part.state.ptr(), part.masters.ptr(), part.lrs.ptr(),
          is_number ? Py_None : metric, value.get(),      kind.get()};
      if (!Ref(PyObject_Vectorcall(operator_, arguments.data(), arguments.size(), nullptr))) {
        throw pybind11::error_already_set();
      }
    }
  }

  static inline PyObject* operator_ = nullptr;
  static inline PyObject* copy_ = nullptr;
  static inline PyObject* share_memory_ = nullptr;
  static inline PyObject* dtypes_ = nullptr;
  static inline PyObject* strided_ = nullptr;

  StepGuard guard_;
  bool reads_metric_;
  bool composite_;
  double steps_;
  std::vector<Part> parts_;
};

}  // namespace fastsched::host
