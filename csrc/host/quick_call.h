// Steps without a Python frame, which is a large part of what a step on one param group costs. The `step` of
// a class stays the Python function that it is, to torch.compile, to inspect and to whoever overrides it; but
// a plain call of it goes here first, to the engine, and runs the function's own code only where there is
// more to do.
//
// CPython 3.12 and later: PyFunction_SetVectorcall. Before, the interpreter does not ask for the vectorcall
// of a Python function that it calls.
#pragma once

#include "direct_step.h"
#include "engine.h"
#include "operator_step.h"
#include "python.h"
#include "scheduler_protocol.h"

namespace fastsched::host {

#if PY_VERSION_HEX >= 0x030C0000 && !defined(PYPY_VERSION) && !defined(Py_GIL_DISABLED)

class QuickCall {
 public:
  static constexpr bool available = true;

  // `scheduler`: the class that all have for a base, with the slots `_engine` and `_is_attended`. `engine`:
  // that of learning rates that are tensors, with the slots `_direct`, `_momentum`,
  // `_epoch_limit` and `reads_metric`.
  static void use(const pybind11::type& scheduler, const pybind11::type& engine) {
    scheduler_ = reinterpret_cast<PyTypeObject*>(scheduler.inc_ref().ptr());  // as long as the process
    tensor_engine_ = reinterpret_cast<PyTypeObject*>(engine.inc_ref().ptr());
    engine_at_ = offset(scheduler, "_engine");
    attended_at_ = offset(scheduler, "_is_attended");
    direct_at_ = offset(engine, "_direct");
    momentum_at_ = offset(engine, "_momentum");
    limit_at_ = offset(engine, "_epoch_limit");
    reads_metric_at_ = offset(engine, "reads_metric");
  }

  // Of a `step`, by how many arguments it is called with as a rule: the scheduler, and a metric perhaps.
  static void speed_up(const pybind11::function& step, int least, int most) {
    if (!PyFunction_Check(step.ptr())) throw pybind11::type_error("step must be a Python function");
    auto* const function = reinterpret_cast<PyFunctionObject*>(step.ptr());
    for (const auto& [from, to, quick] :
         {Quick{1, 1, &call<1, 1>}, Quick{2, 2, &call<2, 2>}, Quick{1, 2, &call<1, 2>}}) {
      if (from != least || to != most || function->vectorcall == quick) continue;
      ordinary_ = function->vectorcall;
      PyFunction_SetVectorcall(function, quick);
    }
  }

 private:
  // By torch.compile, which compiles frames as they begin; by a debugger or a measurement of coverage.
  static bool frames_are_watched() {
    PyThreadState* const thread = PyThreadState_Get();
    return thread->c_tracefunc != nullptr ||
           _PyInterpreterState_GetEvalFrameFunc(thread->interp) != _PyEval_EvalFrameDefault;
  }

  struct Quick {
    int least, most;
    vectorcallfunc call;
  };

  static Py_ssize_t offset(const pybind11::type& type, const char* slot) {
    const pybind11::object member = type.attr("__dict__")[slot];
    if (!Py_IS_TYPE(member.ptr(), &PyMemberDescr_Type)) throw pybind11::type_error("not a slot");
    return reinterpret_cast<PyMemberDescrObject*>(member.ptr())->d_member->offset;
  }
  static PyObject* slot(PyObject* object, Py_ssize_t at) {
    return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + at);
  }

  template <Py_ssize_t least, Py_ssize_t most>
  static PyObject* call(PyObject* function, PyObject* const* arguments, std::size_t count, PyObject* names) {
    const Py_ssize_t given = PyVectorcall_NARGS(count);
    const bool plain = names == nullptr && least <= given && given <= most && !frames_are_watched();
    if (plain && PyObject_TypeCheck(arguments[0], scheduler_) &&
        slot(arguments[0], attended_at_) == Py_False) {
      bool done = false;
      Ref metric = Ref::borrow(given == 2 ? arguments[1] : Py_None);
      PyObject* const result = step(arguments[0], metric, done);
      if (done) return result;
      // The engine declines once more; the warnings that follow count the frame of the function.
      PyObject* const again[] = {arguments[0], metric.get()};
      return ordinary_(function, again, static_cast<std::size_t>(given), nullptr);
    }
    return ordinary_(function, arguments, count, names);
  }

  // `done` says whether there is a result, or an error, and nothing left for Python; if not, `metric` is the
  // number that was read, which is read once.
  static PyObject* step(PyObject* scheduler, Ref& given, bool& done) {
    PyObject* const metric = given.get();
    const Ref engine = Ref::borrow(slot(scheduler, engine_at_));
    if (!engine) return nullptr;
    try {
      if (HostEngine* const host = exactly<HostEngine>(engine.get())) {
        // What a composition has to say of its metric, Python says.
        const bool plain = !host->is_of_composition() || PyFloat_CheckExact(metric) ||
                           (metric == Py_None && !host->reads_metric());
        if (!plain) return nullptr;
        done = true;
        double value = 0.0;
        const Outcome outcome = host->step(scheduler, metric, value);
        if (outcome == Outcome::declined && !PyErr_Occurred()) {
          Declined declined = host->declined(metric, value);
          if (!declined.lrs.is_none()) return off_path(scheduler, std::move(declined), metric);
          if (!declined.metric.is_none()) given = Ref::borrow(declined.metric.ptr());
          done = false;
          return nullptr;
        }
        return outcome == Outcome::stepped ? Py_NewRef(Py_None) : nullptr;
      }
      if (!Py_IS_TYPE(engine.get(), tensor_engine_)) return nullptr;
      if (metric == Py_None && slot(engine.get(), reads_metric_at_) != Py_False) return nullptr;
      if (slot(engine.get(), momentum_at_) != Py_None || slot(engine.get(), limit_at_) != Py_None)
        return nullptr;
      const Ref direct = Ref::borrow(slot(engine.get(), direct_at_));
      if (!direct) return nullptr;
      bool stepped = false;
      if (DirectStep* const on_host = exactly<DirectStep>(direct.get())) {
        stepped = on_host->step(scheduler, metric);
      } else if (OperatorStep* const by_operator = exactly<OperatorStep>(direct.get())) {
        stepped = by_operator->step(scheduler, metric);
      }
      done = stepped || PyErr_Occurred() != nullptr;
      return stepped ? Py_NewRef(Py_None) : nullptr;
    } catch (pybind11::error_already_set& error) {
      error.restore();
    } catch (const pybind11::builtin_exception& error) {
      error.set_error();
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    done = true;
    return nullptr;
  }

  static PyObject* off_path(PyObject* scheduler, Declined declined, PyObject* metric) {
    const pybind11::object reported = pybind11::cast(std::move(declined));
    return PyObject_CallMethodObjArgs(scheduler, protocol::step_off_path(), reported.ptr(), metric, nullptr);
  }

  static inline PyTypeObject* scheduler_ = nullptr;
  static inline PyTypeObject* tensor_engine_ = nullptr;
  static inline vectorcallfunc ordinary_ = nullptr;
  static inline Py_ssize_t engine_at_, attended_at_, direct_at_, momentum_at_, limit_at_, reads_metric_at_;
};

#else

class QuickCall {
 public:
  static constexpr bool available = false;
  static void use(const pybind11::type&, const pybind11::type&) {}
  static void speed_up(const pybind11::function&, int, int) {}
};

#endif

}  // namespace fastsched::host
