// Steps by functions of the user's: LambdaLR and MultiplicativeLR, alone and where their turn comes in a
// sequence. Included by engine.h.
#pragma once

#include "engine.h"

namespace fastsched::host {

// The place of the one scheduler in a tree of sequences that this step is for, if that calls functions: the
// counters of the sequences have gone on then, and the rest is its own step. 0 if it does not.
inline std::size_t HostEngine::turn_of_caller(const StepInput& input) {
  const Ref groups = param_groups(optimizer_);
  if (!groups || length(groups.get()) != count_ || !has_same_schedulers(nodes_.size())) return 0;
  std::size_t place = 0;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    HostEngine& engine = *nodes_[i].engine;
    if (is_composite(engine.kind_)) {
      if (engine.is_past_last_child()) return 0;
      engine.next_ = engine.counters_;
      route_event(engine.kind_, engine.next_.words, engine.settings_.table(), ChildrenInTree(nodes_, i),
                  {engine.event_, input.value, input.measured});
    } else if (engine.event_ != Event::idle) {
      if (!engine.about_.calls_functions() || engine.event_ != Event::step) return 0;
      place = i;
    }
  }
  for (const TreeNode& node : nodes_) {
    if (place != 0 && is_composite(node.engine->kind_)) node.engine->counters_ = node.engine->next_;
  }
  return place;
}

// Which Python may have to make.
inline Outcome HostEngine::step_caller(std::size_t place, const StepInput& input) {
  const Ref scheduler = Ref::borrow(nodes_[place].scheduler);
  const Ref alive = Ref::borrow(nodes_[place].alive.get());
  HostEngine& engine = *nodes_[place].engine;
  std::vector<StepsBelow> compositions;  // functions may change the tree, or step it
  for (const TreeNode& node : nodes_) {
    if (!is_composite(node.engine->kind_) || node.engine->event_ == Event::idle) continue;
    const Ref dict(PyObject_GenericGetDict(node.scheduler, nullptr));
    Ref children = dict ? children_of(dict.get()) : Ref();
    if (!children) return Outcome::failed;
    compositions.push_back({node.engine, Ref::borrow(node.alive.get()), Ref::borrow(node.scheduler),
                            std::move(children), node.engine->report(input)});
  }
  double none = 0.0;
  const Outcome outcome = engine.step(scheduler.get(), Py_None, none);
  if (outcome == Outcome::failed || PyErr_Occurred()) return Outcome::failed;
  Numbers left = engine.last_lr_;
  bool known = true;
  if (outcome == Outcome::declined) {
    const pybind11::object declined = pybind11::cast(engine.declined(Py_None, none));
    const Ref done(PyObject_CallMethodOneArg(scheduler.get(), protocol::step_off_path(), declined.ptr()));
    const Ref lrs(done ? PyObject_GetAttr(scheduler.get(), protocol::last_lr()) : nullptr);
    if (!lrs) return Outcome::failed;
    known = PyList_CheckExact(lrs.get()) && left.read(lrs.get());
    if (!known) left = as_floats(lrs.get());
  }
  for (auto composition = compositions.rbegin(); composition != compositions.rend(); ++composition) {
    HostEngine& around = *composition->engine;
    PyObject* const composed = composition->scheduler.get();
    const Ref dict(PyObject_GenericGetDict(composed, nullptr));
    if (!dict) return Outcome::failed;
    if (around.kind_ == Kind::chained && !around.has_same_children(dict.get())) {
      const Ref done(PyObject_CallMethodOneArg(composed, protocol::go_on(), composition->children.get()));
      if (!done) return Outcome::failed;
      around.last_lr_ = left;
      around.copied_version_ = 0;
    } else if (!around.keep_last_lr(composed, dict.get(), left, known)) {
      return Outcome::failed;
    }
    if (around.rows_ != nullptr) around.append_row(composition->report);
  }
  return Outcome::stepped;
}

// Learning rates that are not all plain numbers, for a history.
inline Numbers HostEngine::as_floats(PyObject* lrs) {
  Numbers numbers;
  const Ref list(PySequence_List(lrs));
  for (std::size_t i = 0; list && i < length(list.get()); ++i) {
    const Ref number(PyNumber_Float(item(list.get(), i)));
    numbers.values.push_back(number ? PyFloat_AS_DOUBLE(number.get()) : std::nan(""));
  }
  PyErr_Clear();
  return numbers;
}

// What its step came to; if not `known`, Python asks the child. False on a Python error.
inline bool HostEngine::keep_last_lr(PyObject* scheduler, PyObject* dict, const Numbers& lrs, bool known) {
  has_last_lr_ = known;
  last_lr_ = lrs;
  copied_version_ = 0;
  if (settings_.same(dict)) return true;
  if (!known || is_engine_of(scheduler)) {
    remove(dict, protocol::last_lr());  // a function looked at __dict__
    return true;
  }
  const Ref list = lrs.to_list();
  return list && PyDict_SetItem(dict, protocol::last_lr(), list.get()) == 0;
}

// LambdaLR and MultiplicativeLR. As in torch the counters have gone on when the functions are called, and
// stay so if one raises; each group's operand is taken before its function is called, which may do
// anything.
inline Outcome HostEngine::step_by_functions(PyObject* scheduler, const Ref& groups) {
  const std::size_t count = groups_.groups();
  const Ref held(PyObject_GenericGetDict(scheduler, nullptr));
  if (!held) return Outcome::failed;
  PyObject* const dict = held.get();
  const Ref functions = Ref::borrow(PyDict_GetItemWithError(dict, about_.table));
  const Ref bases = Ref::borrow(PyDict_GetItemWithError(dict, about_.owns[0].name));
  const bool scales_bases = kind_ == Kind::lambda;
  if (!functions || !bases || !PyList_CheckExact(functions.get()) || !PyList_CheckExact(bases.get()) ||
      length(functions.get()) != count || (scales_bases && length(bases.get()) != count)) {
    decline("it has not one function and one base learning rate for each param group");
    return Outcome::declined;
  }
  counters_ = next_;
  Ref epoch;
  double epoch_of = std::nan("");
  // Taken from the engine, because a function may step the scheduler once more.
  std::vector<double> operands = std::exchange(operands_, {});
  std::vector<double> factors = std::exchange(factors_, {});
  operands.resize(count);
  factors.resize(count);
  Ref values;  // empty while operands and factors are plain numbers
  const Ref& operands_of = scales_bases ? bases : groups;
  for (std::size_t i = 0; i < count; ++i) {
    if (length(functions.get()) <= i || length(operands_of.get()) <= i) return changed_their_number();
    const Ref operand =
        scales_bases ? Ref::borrow(item(bases.get(), i)) : lr_of(Ref::borrow(item(groups.get(), i)));
    const Ref function = Ref::borrow(item(functions.get(), i));
    // The epoch is asked for anew each time, as in torch: a function may have set it.
    if (!settings_.is_unwritten(dict)) {
      epoch = epoch_now(scheduler, dict);
      epoch_of = std::nan("");
    } else if (epoch_of != counters_.words[0]) {
      epoch_of = counters_.words[0];
      epoch = to_python(about_.counters[0], epoch_of);
    }
    if (!operand && !PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, entry_.key());
    const Ref factor(operand && epoch ? PyObject_CallOneArg(function.get(), epoch.get()) : nullptr);
    if (!factor) return Outcome::failed;
    if (!values && PyFloat_CheckExact(operand.get()) && read_number(factor.get(), factors[i])) {
      operands[i] = PyFloat_AS_DOUBLE(operand.get());
      continue;
    }
    if (!values) values = products(operands, factors, i);
    const Ref product(values ? PyNumber_Multiply(operand.get(), factor.get()) : nullptr);
    if (!product || PyList_Append(values.get(), product.get()) != 0) return Outcome::failed;
  }
  if (length(functions.get()) > count || length(operands_of.get()) > count) return changed_their_number();
  const Ref now = param_groups(optimizer_of(dict));
  const bool still_engine = is_engine_of(scheduler);
  if (PyErr_Occurred()) return Outcome::failed;
  if (!values && still_engine && now && length(now.get()) == count && look_at(now.get())) {
    const Busy busy(busy_);
    Numbers lrs = {std::vector<double>(count), {}};
    for (std::size_t i = 0; i < count; ++i) {
      const double value = product(operands[i], factors[i]);
      const Ref group = GroupVersions::next(now.get(), i);
      Ref lr(group ? PyFloat_FromDouble(value) : nullptr);
      stale_ = true;
      if (!lr || !groups_.write(group.get(), 0, i, std::move(lr), value)) return Outcome::failed;
      lrs.values[i] = value;
    }
    last_lr_ = std::move(lrs);
    copied_version_ = 0;
    remove(dict, protocol::last_lr());  // somebody looked at __dict__ meanwhile
    if (rows_ != nullptr) append_row(PlateauReport::none());
    operands_ = std::move(operands);
    factors_ = std::move(factors);
    return Outcome::stepped;
  }
  if (!values) values = products(operands, factors, count);
  if (!values) return Outcome::failed;
  lrs_of_functions_ = std::move(values);
  decline("a function of its gave something else than a Python number, or changed the scheduler");
  return Outcome::declined;
}

// Of a scheduler to whose __dict__ somebody has written: another engine may have been chosen as well.
inline Ref HostEngine::epoch_now(PyObject* scheduler, PyObject* dict) const {
  const Attribute& epoch = about_.counters[0];
  PyObject* const written = PyDict_GetItemWithError(dict, epoch.name);
  if (written != nullptr) return Ref::borrow(written);
  return is_engine_of(scheduler) ? to_python(epoch, counters_.words[0])
                                 : Ref(PyObject_GetAttr(scheduler, epoch.name));
}

inline Outcome HostEngine::changed_their_number() {
  PyErr_SetString(PyExc_ValueError,
                  "lr_lambdas, or what they are for, changed their number while they were called");
  return Outcome::failed;
}

// Empty, with a Python error set or not, where the group has none.
inline Ref HostEngine::lr_of(const Ref& group) const {
  return PyDict_Check(group.get()) ? Ref::borrow(PyDict_GetItemWithError(group.get(), entry_.key()))
                                   : Ref(PyObject_GetItem(group.get(), entry_.key()));
}

inline double HostEngine::product(double operand, double factor) const {
  const Law law = kind_ == Kind::lambda ? Law::scale_base_each : Law::scale_each;
  static constexpr double kOnlyColumn = 0.0;
  const double own[] = {operand, kOnlyColumn};
  return apply(Update::make(law), operand, {own, 1, 0, {&factor, 1}}).lr;
}

inline Ref HostEngine::products(const std::vector<double>& operands, const std::vector<double>& factors,
                                std::size_t count) const {
  Ref list(PyList_New(0));
  for (std::size_t i = 0; list && i < count; ++i) {
    const Ref value(PyFloat_FromDouble(product(operands[i], factors[i])));
    if (!value || PyList_Append(list.get(), value.get()) != 0) return Ref();
  }
  return list;
}

}  // namespace fastsched::host
