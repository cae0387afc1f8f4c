// A step over tensors in host memory without the operator around it: calling an operator costs more than the
// step. So does Python, so what has to be looked at before each step is looked at here.
#pragma once

#include <vector>

#include "python.h"
#include "schedule/plan/step_on_host.h"
#include "step_guard.h"

namespace fastsched::host {

class DirectStep : public Bound {
 public:
  // `replicas` are those of a TensorEngine (fastsched/engine/tensor.py), all on the host. `composite`:
  // whether a step may go without a metric. From the epoch `limit` on there are no steps.
  DirectStep(pybind11::object guard, const pybind11::list& replicas, bool reads_metric, bool composite,
             double limit)
      : guard_(std::move(guard)), reads_metric_(reads_metric), composite_(composite), limit_(limit) {
    if (modes_ == nullptr) throw pybind11::type_error("DirectStep.use() comes first");
    if (replicas.empty()) throw pybind11::value_error("no replica to step");
    for (const pybind11::handle replica : replicas) {
      const pybind11::object buffer = replica.attr("buffer");
      const pybind11::object lrs = buffer.attr("lrs");
      const pybind11::object program = replica.attr("program");
      const pybind11::object state = replica.attr("state");
      const pybind11::object masters = buffer.attr("masters");
      const bool float32 = item_size(lrs) == sizeof(float);
      for (const pybind11::object& words : {program, state, masters}) {
        if (item_size(words) != sizeof(double)) throw pybind11::type_error("buffers must be float64");
      }
      if (size(masters) != size(lrs)) throw pybind11::value_error("masters must have one value per LR");
      Part part = {{static_cast<const double*>(address(program)), static_cast<double*>(address(state)),
                    static_cast<double*>(address(masters)), size(program), size(state), size(lrs)},
                   address(lrs),
                   float32,
                   {},
                   {program, state, lrs, masters}};
      if (!fit_to_run(part.buffers)) {
        throw pybind11::value_error("program and state do not describe a schedule");
      }
      for (const pybind11::handle copied : replica.attr("copied")) {
        const pybind11::object values = copied.attr("values");
        const auto start = copied.attr("start").cast<std::int64_t>();
        Setting setting = {static_cast<double*>(address(program)) + start, address(values), size(values),
                           values.attr("stride")(0).cast<std::int64_t>(),
                           item_size(values, false) == sizeof(float)};
        if (start < kNodeSize || setting.count > part.buffers.program_size - start) {
          throw pybind11::value_error("a setting is not within the program");
        }
        part.settings.push_back(std::move(setting));
        part.kept_alive.push_back(values);
      }
      parts_.push_back(std::move(part));
      guard_.add(replica);
    }
  }

  // Functions of torch's: how many dispatch modes there are, whether a profiler runs, what number a tensor
  // holds.
  static void use(pybind11::object modes, pybind11::object profiling, pybind11::object item) {
    modes_ = modes.release().ptr();  // for as long as the process lives
    profiling_ = profiling.release().ptr();
    item_ = item.release().ptr();
  }

  // False, with nothing changed, where more is to be done than this.
  bool step(PyObject* scheduler, PyObject* metric) {
    if (watched()) return false;  // reading the metric is an operator, too
    double value = 0.0;
    Event event = Event::step;
    if (reads_metric_ && !(metric == Py_None ? without_metric(event) : read(metric, value))) return false;
    if (!fits(scheduler)) return false;
    advance(StepInput::make(event, value));
    return true;
  }

  // The same in two parts, for what has to be done between them.
  bool ready(PyObject* scheduler) { return !watched() && fits(scheduler); }
  void run() const { advance(StepInput::make(Event::step, 0.0)); }

 private:
  // Own parameters that are tensors, which may have been written to since the step before.
  struct Setting {
    double* to;
    const void* from;
    std::int64_t count;
    std::int64_t stride;
    bool float32;

    template <typename T>
    void copy() const {
      const T* const values = static_cast<const T*>(from);
      if (stride == 1) {  // in a loop of its own, which is vectorized
        for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<double>(values[i]);
      } else {
        for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<double>(values[i * stride]);
      }
    }
  };
  struct Part {
    Buffers buffers;
    void* lrs;
    bool float32;
    std::vector<Setting> settings;
    std::vector<pybind11::object> kept_alive;
  };

  // Whether everything is as it was, and there are steps left.
  bool fits(PyObject* scheduler) const {
    return guard_.holds(scheduler) && parts_[0].buffers.state[0] < limit_;
  }

  void advance(const StepInput& input) const {
    for (const Part& part : parts_) {
      for (const Setting& setting : part.settings) {
        setting.float32 ? setting.copy<float>() : setting.copy<double>();
      }
      if (part.float32) {
        step_on_host(part.buffers, static_cast<float*>(part.lrs), input);
      } else {
        step_on_host(part.buffers, static_cast<double*>(part.lrs), input);
      }
    }
  }
  // In bytes, of a plain tensor in host memory.
  static std::size_t item_size(const pybind11::object& tensor, bool dense = true) {
    const bool known = PlainTensors::have(tensor.ptr()) && tensor.attr("is_cpu").cast<bool>() &&
                       (!dense || tensor.attr("is_contiguous")().cast<bool>()) &&
                       tensor.attr("is_floating_point")().cast<bool>();
    const auto bytes = known ? tensor.attr("element_size")().cast<std::size_t>() : 0;
    if (bytes != sizeof(float) && bytes != sizeof(double)) {
      throw pybind11::type_error("buffers must be float32 or float64 tensors, contiguous and on the host");
    }
    return bytes;
  }
  static void* address(const pybind11::object& tensor) { return StepGuard::address(tensor); }
  static std::int64_t size(const pybind11::object& tensor) {
    return tensor.attr("numel")().cast<std::int64_t>();
  }

  bool without_metric(Event& event) const {
    event = Event::unmeasured;
    return composite_;
  }

  // A float, or a tensor of torch's own with one real number in it. All else takes longer.
  static bool read(PyObject* metric, double& value) {
    if (PyFloat_CheckExact(metric)) {
      value = PyFloat_AS_DOUBLE(metric);
      return true;
    }
    if (!PlainTensors::have(metric)) return false;
    const Ref number(PyObject_CallOneArg(item_, metric));
    value = number ? PyFloat_AsDouble(number.get()) : -1.0;
    if (!PyErr_Occurred()) return true;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) throw pybind11::error_already_set();
    PyErr_Clear();  // the longer way raises it again, or knows what to do
    return false;
  }

  // Whether somebody looks which operators run: a dispatch mode (tracing, fake tensors), a profiler.
  static bool watched() {
    const Ref modes(PyObject_CallNoArgs(modes_));
    const Ref profiling(modes ? PyObject_CallNoArgs(profiling_) : nullptr);
    if (!profiling) throw pybind11::error_already_set();
    return profiling.get() != Py_False || PyObject_IsTrue(modes.get()) != 0;
  }

  static inline PyObject* modes_ = nullptr;
  static inline PyObject* profiling_ = nullptr;
  static inline PyObject* item_ = nullptr;

  StepGuard guard_;
  bool reads_metric_;
  bool composite_;
  double limit_;
  std::vector<Part> parts_;
};

}  // namespace fastsched::host
