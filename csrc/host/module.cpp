// fastsched._C, the host engine. It is a pybind11 module rather than a torch operator because param groups
// with Python-number learning rates are dicts, which no operator can take. It uses no torch headers.

#include <pybind11/eval.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <deque>

#include "direct_step.h"
#include "engine.h"
#include "engine_slot.h"
#include "guard.h"
#include "momentum.h"
#include "operator_step.h"
#include "program.h"
#include "quick_call.h"

namespace py = pybind11;

namespace fastsched::host {
namespace {

// Runs what gives Python its result, past pybind11's dispatcher. A C++ exception becomes Python's.
template <typename Function>
PyObject* guarded(Function function) {
  try {
    return function();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

void check_count(Py_ssize_t count) {
  if (count == 2) return;
  throw py::type_error("step() takes a scheduler and a metric, got " + std::to_string(count) + " arguments");
}

// Whether comparing the keys of a dict raised, which looks like an entry that is not there.
bool raised() { return PyErr_Occurred() != nullptr; }

bool unless_raised(bool value) {
  if (raised()) throw py::error_already_set();
  return value;
}

// None, or a Declined, which `declined` makes.
template <typename Make>
PyObject* for_python(Outcome outcome, Make declined) {
  switch (outcome) {
    case Outcome::stepped: return Py_NewRef(Py_None);
    case Outcome::declined: return raised() ? nullptr : py::cast(declined()).release().ptr();
    case Outcome::failed: break;
  }
  return nullptr;
}

PyObject* host_engine_step(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return guarded([&] {
    check_count(count);
    HostEngine& engine = unwrap_self<HostEngine>(self);
    double value = 0.0;
    return for_python(engine.step(args[0], args[1], value), [&] { return engine.declined(args[1], value); });
  });
}

PyObject* guard_holds(PyObject* self, PyObject* scheduler) {
  return guarded([&]() -> PyObject* {
    const bool holds = unwrap_self<Guard>(self).holds(scheduler);
    return !holds && raised() ? nullptr : PyBool_FromLong(holds);
  });
}

template <typename Step>
PyObject* step_if_it_fits(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> PyObject* {
    check_count(count);
    const bool stepped = unwrap_self<Step>(self).step(args[0], args[1]);
    return !stepped && raised() ? nullptr : PyBool_FromLong(stepped);
  });
}

// The methods called at every step bypass pybind11's dispatcher, which costs as much as the step itself.
PyMethodDef step_method = {"step", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(host_engine_step)),
                           METH_FASTCALL, "step(scheduler, metric): None, or a Declined"};
template <typename Step>
PyMethodDef step_if_it_fits_method = {
    "step", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(step_if_it_fits<Step>)), METH_FASTCALL,
    "step(scheduler, metric): False, with nothing changed, if there is more to do"};
PyMethodDef holds_method = {"holds", guard_holds, METH_O,
                            "holds(scheduler): whether the buffers still fit the scheduler"};

template <typename T>
void add_method(py::class_<T>& type, PyMethodDef& method) {
  PyObject* descriptor = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &method);
  if (descriptor == nullptr) throw py::error_already_set();
  type.attr(method.ml_name) = py::reinterpret_steal<py::object>(descriptor);
}

// A property that torch.compile does not look into. The descriptors of C are to it what they are for: a
// value, on which it guards by reading it again before each compiled step.
PyObject* read_untraced(PyObject* self, void* getter) {
  return PyObject_CallOneArg(static_cast<PyObject*>(getter), self);
}

py::object untraced_property(const py::function& getter) {
  static std::deque<PyGetSetDef> definitions;  // which descriptors refer to, as they do to name and getter
  PyObject* function = getter.inc_ref().ptr();
  const char* name = PyUnicode_AsUTF8(py::str(getter.attr("__name__")).release().ptr());
  if (name == nullptr) throw py::error_already_set();
  definitions.push_back({name, read_untraced, nullptr, nullptr, function});
  PyObject* descriptor = PyDescr_NewGetSet(&PyBaseObject_Type, &definitions.back());
  if (descriptor == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(descriptor);
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

// What fastsched/engine/host.py calls an Engine.
void add_engine(py::module_& module) {
  py::class_<HostEngine> type(module, "HostEngine", py::is_final());
  type.attr("kind") = "host";
  type.attr("steps_tensors") = false;
  type.attr("holds_state") = true;
  type.attr("device") = "cpu";
  type.def(py::init<const std::string&, py::type, py::object, const std::string&>(), py::arg("scheduler"),
           py::arg("tensor"), py::arg("read_tensor"), py::arg("name"))
      .def("attach",
           [](HostEngine& self, py::object scheduler) { return unless_raised(self.attach(scheduler.ptr())); })
      .def("check_order", &HostEngine::check_order)
      .def_property_readonly("order_checked", &HostEngine::order_checked)
      .def_property_readonly("steps", &HostEngine::steps)
      .def_property_readonly("reduced", &HostEngine::reduced)
      .def_property_readonly("reads_metric", &HostEngine::reads_metric)
      // What a History asks of whatever steps are recorded by.
      .def_property_readonly("positions",
                             [](const HostEngine& self) {
                               py::list positions;
                               for (std::size_t i = 0; i < self.groups(); ++i) positions.append(i);
                               return positions;
                             })
      .def_property_readonly("history", &HostEngine::history)
      .def("record", &HostEngine::record, py::arg("history"))
      .def("recorders",
           [](py::object self) {
             unwrap<HostEngine>(self.ptr());
             return py::make_tuple(self);
           })
      .def("get", &get_attribute)
      .def("set",
           [](HostEngine& self, py::str name, py::object value) { return self.set(name.ptr(), value.ptr()); })
      .def("state", &engine_state)
      // Puts the state into a scheduler's __dict__, where the next step finds it like anything that is there.
      .def("expose_state",
           [](const HostEngine& self, py::dict attributes) {
             self.for_each([&attributes](PyObject* name, Ref value) {
               if (!value || PyDict_SetDefault(attributes.ptr(), name, value.get()) == nullptr) {
                 throw py::error_already_set();
               }
             });
           })
      .def("withdraw_state", [](HostEngine&, py::object) {})
      // Hyperparameters are read again at the next step, and the LRs are exact as they are.
      .def("refresh", [](HostEngine& self, py::object) { self.look_again(); })
      .def("resume", [](HostEngine&) {})
      // What only learning rates that are tensors need: the host has nothing compiled, and Python moves
      // numbers.
      .def("rebuild_between_steps", [](HostEngine&, py::object) { return false; })
      .def(
          "move", [](HostEngine&, py::object, py::object, py::object) { return false; }, py::arg("scheduler"),
          py::arg("event"), py::arg("epoch") = 0.0)
      .def("leave", [](HostEngine&) {});
  add_method(type, step_method);
}

// Dict versions are trusted only where they are seen to follow the stores Python code makes, which the
// interpreter specializes once they are hot, also after one of our own.
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
    DictVersion before[2] = {version(attributes.ptr()), version(group.ptr())};
    DictVersion own = before[1];
    if (set_item(group.ptr(), lr_name(), Py_None, own) != 0 || unchanged(group.ptr(), before[1]))
      return false;
    before[1] = own;
    if (!unchanged(attributes.ptr(), before[0]) || !unchanged(group.ptr(), before[1])) return false;
    scope["store"](i);
    scope["write"](i);
    if (unchanged(attributes.ptr(), before[0]) || unchanged(group.ptr(), before[1])) return false;
  }
  return true;
}

// Empty where a counter is missing, is not a plain number, or is one that the schedule cannot go on from.
std::vector<double> pack_counters(const std::string& scheduler, const py::dict& dict) {
  const Kind kind = kind_of(scheduler);
  std::vector<double> counters(kNodeCounters, 0.0);
  if (!read_all(attributes_of(kind).counters, dict.ptr(), counters.data()) ||
      !valid_counters(kind, counters.data())) {
    return {};
  }
  return counters;
}

// One counter as its place among the counters and its value; None where pack_counters would refuse it.
py::object pack_counter(const std::string& scheduler, py::str name, py::object value) {
  const Kind kind = kind_of(scheduler);
  const std::vector<Attribute>& list = attributes_of(kind).counters;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (PyUnicode_Compare(list[i].name, name.ptr()) != 0) continue;
    std::vector<double> counters(kNodeCounters, 1.0);  // the others: a value that every counter may have
    if (!read(list[i], value.ptr(), counters[i]) || !valid_counters(kind, counters.data())) break;
    return py::make_tuple(i, counters[i]);
  }
  return py::none();
}

py::dict unpack_counters(const std::string& scheduler, const std::vector<double>& counters) {
  const ScheduleAttributes& about = attributes_of(kind_of(scheduler));
  py::dict values;
  for (std::size_t i = 0; i < about.counters.size(); ++i) {
    if (about.counters[i].left_out(counters.at(i))) continue;
    Ref value = to_python(about.counters[i], counters.at(i));
    if (!value) throw py::error_already_set();
    values[py::handle(about.counters[i].name)] = py::reinterpret_steal<py::object>(value.release());
  }
  return values;
}

py::list counter_names(const std::string& scheduler) {
  py::list names;
  for (const Attribute& counter : attributes_of(kind_of(scheduler)).counters)
    names.append(py::handle(counter.name));
  return names;
}

// The attributes that need not be there, and what they are then.
py::dict optional_attributes(const std::string& scheduler) {
  const ScheduleAttributes& about = attributes_of(kind_of(scheduler));
  py::dict values;
  for (const std::vector<Attribute>* list : {&about.params, &about.counters}) {
    for (const Attribute& attribute : *list) {
      if (!attribute.optional) continue;
      Ref value = attribute.choices.empty()
                      ? to_python(attribute, attribute.fallback)
                      : Ref::borrow(attribute.choices[static_cast<std::size_t>(attribute.fallback)]);
      if (!value) throw py::error_already_set();
      values[py::handle(attribute.name)] = py::reinterpret_steal<py::object>(value.release());
    }
  }
  return values;
}

// The Python attributes of a schedule by name, counters first, and what each must be: "whole" or "finite"
// where it counts, "number", a tuple of choices, "per group" and "list" for lists of numbers, "numbers" for
// a tuple, "counts" for a dict of them, "phases", "functions", "flag".
py::dict attributes(const ScheduleAttributes& about) {
  py::dict what;
  for (const Attribute& counter : about.counters) {
    what[py::handle(counter.name)] = counter.type == AttributeType::integer ? "whole"
                                     : counter.type == AttributeType::count ? "finite"
                                                                            : "number";
  }
  for (const Attribute& param : about.params) {
    if (param.type != AttributeType::choice) {
      what[py::handle(param.name)] = "number";
      continue;
    }
    py::list choices;
    for (PyObject* choice : param.choices) choices.append(py::handle(choice));
    what[py::handle(param.name)] = py::tuple(choices);
  }
  for (const std::vector<OwnParam>* owns : {&about.owns, &about.momentum}) {
    for (const OwnParam& own : *owns) {
      if (own.where == OwnParam::in_list) what[py::handle(own.name)] = "per group";
    }
  }
  if (!about.momentum.empty()) what["cycle_momentum"] = "flag";
  if (about.window.wanted != nullptr) {
    what[py::handle(about.window.wanted)] = "flag";
    what[py::handle(about.window.size)] = "whole";
    what[py::handle(about.window.values)] = "list";
  }
  switch (about.table_type) {
    case TableType::milestone_counts: what[py::handle(about.table)] = "counts"; break;
    case TableType::milestones: what[py::handle(about.table)] = "list"; break;
    case TableType::phases: what[py::handle(about.table)] = "phases"; break;
    case TableType::numbers: what[py::handle(about.table)] = "numbers"; break;
    case TableType::factors: what[py::handle(about.table)] = "functions"; break;
    case TableType::none: break;
  }
  return what;
}

// The types among the items of a list or a tuple, which may be a thousand of one.
py::set types_of(const py::sequence& items) {
  const Ref fast(PySequence_Fast(items.ptr(), "not a list"));
  if (!fast) throw py::error_already_set();
  py::set types;
  const PyTypeObject* last = nullptr;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast.get()); ++i) {
    PyTypeObject* const type = Py_TYPE(PySequence_Fast_GET_ITEM(fast.get(), i));
    if (type == last) continue;
    types.add(py::handle(reinterpret_cast<PyObject*>(type)));
    last = type;
  }
  return types;
}

// The curves of a phase by name, and their numbers.
py::dict curves() {
  py::dict numbers;
#define FASTSCHED_NUMBER(curve) numbers[#curve] = static_cast<int>(fastsched::Curve::curve);
  FASTSCHED_CURVES(FASTSCHED_NUMBER)
#undef FASTSCHED_NUMBER
  return numbers;
}

// (name, "list" | "group" | "functions") of each own parameter, in order.
py::list described(const std::vector<OwnParam>& owns) {
  static const char* const where[] = {"list", "group", "functions"};
  py::list names;
  for (const OwnParam& own : owns) names.append(py::make_tuple(py::handle(own.name), where[own.where]));
  return names;
}

}  // namespace
}  // namespace fastsched::host

PYBIND11_MODULE(_C, module) {
  using namespace fastsched::host;
  dict_versions_trusted = probe_dict_versions();
  module.attr("DICT_VERSIONS") = dict_versions_trusted ? kDictVersions : "look-ups";
  module.attr("NODE_COUNTERS") = fastsched::kNodeCounters;
  module.attr("NODE_SIZE") = fastsched::kNodeSize;
  module.attr("NODE_STATE_SIZE") = fastsched::kNodeStateSize;
  module.attr("MIRROR_OFFSET") = fastsched::kMirrorOffset;
  module.attr("HISTORY_OFFSET") = fastsched::kHistoryOffset;
  module.attr("HISTORY_HEADER") = fastsched::kHistoryHeader;
  module.attr("HISTORY_OWN") = fastsched::kHistoryOwn;

  module.def("note_reason", [](std::string text) { decline(std::move(text)); });
  module.def("take_reason", [] { return std::exchange(reason(), {}); });

  module.attr("QUICK_CALLS") = QuickCall::available;
  module.def("use_quick_calls", &QuickCall::use, py::arg("scheduler"), py::arg("engine"));
  module.def("quick_call", &QuickCall::speed_up, py::arg("step"), py::arg("least"), py::arg("most"));
  py::class_<Declined>(module, "Declined", py::is_final())
      .def(py::init<py::object, py::object>(), py::arg("metric") = py::none(), py::arg("lrs") = py::none())
      .def_property_readonly("metric", [](const Declined& self) { return self.metric; })
      .def_property_readonly("lrs", [](const Declined& self) { return self.lrs; });

  add_engine(module);

  py::class_<Slots>(module, "Slots", py::is_final())
      .def(py::init<const std::vector<std::tuple<std::size_t, std::size_t, std::string>>&>(),
           py::arg("slots"))
      .def("groups",
           [](Slots& self, py::object selection) {
             Ref groups = self.groups(selection.ptr());
             return groups ? py::reinterpret_steal<py::object>(groups.release()) : py::none();
           })
      .def_static("use", &Slots::use, py::arg("selection"));

  py::class_<Guard> guard(module, "Guard", py::is_final());
  guard.def(py::init<const std::string&>(), py::arg("scheduler"))
      .def("record_attributes",
           [](Guard& self, py::object scheduler) {
             self.record_attributes(scheduler.ptr());
             if (raised()) throw py::error_already_set();
           })
      .def("record_groups", &Guard::record_groups)
      .def("record_children", &Guard::record_children)
      .def("holds_children", &Guard::holds_children)
      .def("invalidate", &Guard::invalidate);
  add_method(guard, holds_method);

  py::class_<DirectStep> direct(module, "DirectStep", py::is_final());
  direct
      .def(py::init<py::object, const py::list&, bool, bool, double>(), py::arg("guard"), py::arg("replicas"),
           py::arg("reads_metric"), py::arg("composite"), py::arg("limit"))
      .def("ready",
           [](DirectStep& self, py::object scheduler) { return unless_raised(self.ready(scheduler.ptr())); })
      .def("run", &DirectStep::run)
      .def_static("use", &DirectStep::use, py::arg("modes"), py::arg("profiling"), py::arg("item"));
  add_method(direct, step_if_it_fits_method<DirectStep>);

  py::class_<OperatorStep> by_operator(module, "OperatorStep", py::is_final());
  by_operator
      .def(py::init<py::object, const py::list&, const py::list&, bool, bool, double>(), py::arg("guard"),
           py::arg("replicas"), py::arg("copies"), py::arg("reads_metric"), py::arg("composite"),
           py::arg("steps"))
      .def("ready", [](OperatorStep& self,
                       py::object scheduler) { return unless_raised(self.ready(scheduler.ptr())); })
      .def("run", &OperatorStep::run)
      .def_static("use", &OperatorStep::use, py::arg("step"), py::arg("copy"), py::arg("share_memory"),
                  py::arg("dtypes"), py::arg("strided"));
  add_method(by_operator, step_if_it_fits_method<OperatorStep>);

  py::class_<HostMomentum>(module, "HostMomentum", py::is_final())
      .def(py::init<const std::string&>(), py::arg("scheduler"))
      .def("set", &HostMomentum::set, py::arg("index"), py::arg("counter"))
      .def("step", [](HostMomentum& self, const py::object& scheduler, int event, double epoch, Guard* lrs) {
        return unless_raised(self.step(scheduler, event, epoch, lrs));
      });

  module.def(
      "pack_node",
      [](const std::string& scheduler, const py::dict& attributes, const std::vector<py::list>& owns,
         const std::vector<std::int64_t>& positions, const std::vector<double>& factors, std::size_t columns,
         std::size_t children, std::size_t children_size, std::size_t children_state_size, bool of_step) {
        return pack_node(scheduler, attributes, owns, positions, factors, columns, of_step,
                         {children, children_size, children_state_size});
      },
      py::arg("scheduler"), py::arg("attributes"), py::arg("owns"), py::arg("positions"),
      py::arg("factors") = std::vector<double>(), py::arg("columns") = 0, py::arg("children") = 0,
      py::arg("children_size") = 0, py::arg("children_state_size") = 0, py::arg("of_step") = false);
  module.def("types_of", &types_of, py::arg("items"));
  module.def("use_tensor_types", &PlainTensors::use, py::arg("types"));
  module.def(
      "entry_of",
      [](const std::string& name) {
        const Entry entry(name);
        const py::object key = py::reinterpret_borrow<py::object>(entry.key());
        return py::make_tuple(key, entry.is_item() ? py::object(py::int_(entry.item_index())) : py::none());
      },
      py::arg("name"));
  module.def(
      "named_for", [](const std::string& name, const std::string& own) { return Entry(name).named(own); },
      py::arg("name"), py::arg("own"));
  module.def("state_size", &state_size, py::arg("program"));
  module.def("window_size", &window_size, py::arg("program"));
  module.def("put_in_charge", &put_in_charge, py::arg("scheduler"), py::arg("before"), py::arg("engine"),
             py::arg("names"));
  module.def("give_up", &give_up, py::arg("scheduler"), py::arg("engine"), py::arg("after"),
             py::arg("names"));
  module.def("untraced_property", &untraced_property, py::arg("getter"));
  module.def("use_capture_probe", &CaptureProbe::use, py::arg("cuda"), py::arg("capturing"));
  module.def(
      "mirror_size", [](std::uint32_t groups) { return fastsched::mirror_size(groups); }, py::arg("groups"));
  module.def("run_program", &run_program, py::arg("program"), py::arg("lrs"), py::arg("first"),
             py::arg("steps"));
  module.def("lrs_at", &lrs_at, py::arg("program"), py::arg("lrs"), py::arg("epoch"));
  module.def("step_once", &step_once, py::arg("program"), py::arg("state"), py::arg("lrs"),
             py::arg("metric"));
  module.def(
      "window_name",
      [](const std::string& scheduler) {
        PyObject* const name = attributes_of(kind_of(scheduler)).window.values;
        return name != nullptr ? py::reinterpret_borrow<py::object>(name) : py::object(py::none());
      },
      py::arg("scheduler"));
  module.def(
      "decides_by_all_groups",
      [](const std::string& scheduler) { return attributes_of(kind_of(scheduler)).by_all_groups; },
      py::arg("scheduler"));
  module.def("pack_counters", &pack_counters, py::arg("scheduler"), py::arg("attributes"));
  module.def("pack_counter", &pack_counter, py::arg("scheduler"), py::arg("name"), py::arg("value"));
  module.def("unpack_counters", &unpack_counters, py::arg("scheduler"), py::arg("counters"));
  module.def(
      "own_params",
      [](const std::string& scheduler) { return described(attributes_of(kind_of(scheduler)).owns); },
      py::arg("scheduler"));
  module.def(
      "momentum_params",
      [](const std::string& scheduler) { return described(attributes_of(kind_of(scheduler)).momentum); },
      py::arg("scheduler"));
  module.def(
      "reads_metric",
      [](const std::string& scheduler) { return attributes_of(kind_of(scheduler)).reads_metric; },
      py::arg("scheduler"));
  module.def(
      "steps_use_own",
      [](const std::string& scheduler) { return attributes_of(kind_of(scheduler)).steps_use_own; },
      py::arg("scheduler"));
  py::dict of_schedules;
  for (int kind = 0; kind < fastsched::kKinds; ++kind) {
    const ScheduleAttributes& about = attributes_of(static_cast<fastsched::Kind>(kind));
    of_schedules[about.scheduler] = attributes(about);
  }
  module.attr("ATTRIBUTES") = of_schedules;
  module.attr("CURVES") = curves();
  module.def("counter_names", &counter_names, py::arg("scheduler"));
  module.def("optional_attributes", &optional_attributes, py::arg("scheduler"));
}
