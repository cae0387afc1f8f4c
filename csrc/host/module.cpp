// fastsched._C, the host engine. It is a pybind11 module rather than a torch operator because param groups
// with Python-number learning rates are dicts, which no operator can take. It uses no torch headers.

#include <pybind11/eval.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "engine.h"
#include "tensor_binding.h"

namespace py = pybind11;

namespace fastsched::host {
namespace {

// The C++ object behind a Python one. The method descriptors below have already checked the type.
template <typename T>
T& unwrap(PyObject* self) {
  return *static_cast<T*>(reinterpret_cast<py::detail::instance*>(self)->get_value_and_holder().value_ptr());
}

PyObject* host_engine_step(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) {
    PyErr_Format(PyExc_TypeError, "step() takes a scheduler and a metric, got %zd arguments", count);
    return nullptr;
  }
  try {
    double value = 0.0;
    switch (unwrap<HostEngine>(self).step(args[0], args[1], value)) {
      case Outcome::stepped: Py_RETURN_NONE;
      case Outcome::declined: return PyFloat_FromDouble(value);
      case Outcome::failed: break;
    }
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  return nullptr;
}

PyObject* watch_changed(PyObject* self, PyObject* scheduler) {
  return PyBool_FromLong(unwrap<Watch>(self).changed(scheduler));
}

// The methods called at every step bypass pybind11's dispatcher, which costs as much as the step itself.
PyMethodDef step_method = {"step", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(host_engine_step)),
                           METH_FASTCALL,
                           "step(scheduler, metric): None, or the metric as a float if the engine declines"};
PyMethodDef changed_method = {"changed", watch_changed, METH_O,
                              "changed(scheduler): whether the buffers no longer fit the scheduler"};

template <typename T>
void add_method(py::class_<T>& type, PyMethodDef& method) {
  PyObject* descriptor = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &method);
  if (descriptor == nullptr) throw py::error_already_set();
  type.attr(method.ml_name) = py::reinterpret_steal<py::object>(descriptor);
}

// Dict versions are trusted only where they are seen to follow the stores Python code makes, which the
// interpreter specializes once they are hot.
bool probe_dict_versions() {
  if (!dict_versions_trusted) return false;
  py::dict scope;
  py::exec(
      "class Probe: pass\n"
      "probe = Probe()\n"
      "probe.x = 0\n"
      "def store(value):\n"
      "    probe.x = value\n"
      "group = {'lr': 0}\n"
      "def write(value):\n"
      "    group['lr'] = value\n",
      scope);
  py::object attributes = scope["probe"].attr("__dict__");
  py::object group = scope["group"];
  for (int i = 1; i < 100; ++i) {
    const DictVersion before[2] = {version(attributes.ptr()), version(group.ptr())};
    scope["store"](i);
    scope["write"](i);
    if (version(attributes.ptr()) == before[0] || version(group.ptr()) == before[1]) return false;
  }
  return true;
}

py::object get_attribute(const HostEngine& engine, py::str name) {
  Ref value = engine.get(name.ptr());
  if (PyErr_Occurred()) throw py::error_already_set();
  if (!value) throw py::attribute_error(std::string(name));
  return py::reinterpret_steal<py::object>(value.release());
}

py::dict engine_state(const HostEngine& engine) {
  py::dict state;
  engine.for_each([&state](PyObject* name, Ref value) {
    if (!value) throw py::error_already_set();
    state[py::handle(name)] = py::reinterpret_steal<py::object>(value.release());
  });
  return state;
}

// Empty where a counter is missing, is no plain number, or is one that the schedule cannot go on from.
std::vector<double> pack_counters(const std::string& scheduler, const py::dict& dict) {
  const Kind kind = kind_of(scheduler);
  std::vector<double> counters(kNodeCounters, 0.0);
  if (!read_all(description(kind).counters, dict.ptr(), counters.data()) ||
      !valid_counters(kind, counters.data())) {
    return {};
  }
  return counters;
}

// One counter as its place among the counters and its value; None where pack_counters would refuse it.
py::object pack_counter(const std::string& scheduler, py::str name, py::object value) {
  const Kind kind = kind_of(scheduler);
  const std::vector<Attribute>& list = description(kind).counters;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (PyUnicode_Compare(list[i].name, name.ptr()) != 0) continue;
    std::vector<double> counters(kNodeCounters, 1.0);  // the others: a value that every counter may have
    if (!read(list[i], value.ptr(), counters[i]) || !valid_counters(kind, counters.data())) break;
    return py::make_tuple(i, counters[i]);
  }
  return py::none();
}

py::dict unpack_counters(const std::string& scheduler, const std::vector<double>& counters) {
  const Description& about = description(kind_of(scheduler));
  py::dict values;
  for (std::size_t i = 0; i < about.counters.size(); ++i) {
    Ref value = to_python(about.counters[i], counters.at(i));
    if (!value) throw py::error_already_set();
    values[py::handle(about.counters[i].name)] = py::reinterpret_steal<py::object>(value.release());
  }
  return values;
}

py::list counter_names(const std::string& scheduler) {
  py::list names;
  for (const Attribute& counter : description(kind_of(scheduler)).counters)
    names.append(py::handle(counter.name));
  return names;
}

py::list param_names(const std::string& scheduler) {
  const Description& about = description(kind_of(scheduler));
  py::list names;
  for (const Attribute& param : about.params) names.append(py::handle(param.name));
  names.append(py::handle(about.group_param));
  if (about.table != nullptr) names.append(py::handle(about.table));
  return names;
}

}  // namespace
}  // namespace fastsched::host

PYBIND11_MODULE(_C, module) {
  using namespace fastsched::host;
  dict_versions_trusted = probe_dict_versions();
  module.attr("dict_versions_trusted") = dict_versions_trusted;
  module.attr("NODE_COUNTERS") = fastsched::kNodeCounters;
  module.attr("LAST_LR_OFFSET") = fastsched::last_lr_offset(1);

  py::class_<HostEngine> engine(module, "HostEngine");
  engine
      .def(py::init<const std::string&, py::type, py::object>(), py::arg("scheduler"), py::arg("tensor"),
           py::arg("read_tensor"))
      .def("attach", [](HostEngine& self, py::object scheduler) { return self.attach(scheduler.ptr()); })
      .def("get", get_attribute)
      .def("set",
           [](HostEngine& self, py::str name, py::object value) { return self.set(name.ptr(), value.ptr()); })
      .def("state", &engine_state)
      .def("lend", [](const HostEngine& self, py::dict attributes) { self.lend(attributes.ptr()); })
      // What was lent is read back at the next step like anything that is found there.
      .def("settle", [](HostEngine&, py::object) {})
      // Hyperparameters are read again at the next step, and the LRs are exact as they are.
      .def("refresh", [](HostEngine&, py::object) {})
      .def("resume", [](HostEngine&) {})
      .def("check_order", &HostEngine::check_order);
  add_method(engine, step_method);

  py::class_<Watch> watch(module, "Watch");
  watch.def(py::init<const std::string&>(), py::arg("scheduler"))
      .def("mark_attributes",
           [](Watch& self, py::object scheduler) { self.mark_attributes(scheduler.ptr()); })
      .def("mark_groups", &Watch::mark_groups);
  add_method(watch, changed_method);

  module.def("pack_program", &pack_program, py::arg("scheduler"), py::arg("attributes"), py::arg("own"),
             py::arg("indices"), py::arg("all_groups"));
  module.def("pack_counters", &pack_counters, py::arg("scheduler"), py::arg("attributes"));
  module.def("pack_counter", &pack_counter, py::arg("scheduler"), py::arg("name"), py::arg("value"));
  module.def("unpack_counters", &unpack_counters, py::arg("scheduler"), py::arg("counters"));
  module.def("param_names", &param_names, py::arg("scheduler"));
  module.def(
      "group_param",
      [](const std::string& scheduler) {
        return py::reinterpret_borrow<py::str>(description(kind_of(scheduler)).group_param);
      },
      py::arg("scheduler"));
  module.def(
      "reads_metric",
      [](const std::string& scheduler) { return description(kind_of(scheduler)).reads_metric; },
      py::arg("scheduler"));
  module.def(
      "steps_use_group_param",
      [](const std::string& scheduler) { return description(kind_of(scheduler)).steps_use_group_param; },
      py::arg("scheduler"));
  module.def("counter_names", &counter_names, py::arg("scheduler"));
}
