// The host engine: steps a scheduler whose learning rates are Python numbers, writing straight into the
// param-group dicts. While an engine is attached it holds the scheduler's counters and last LRs, and the
// scheduler's __dict__ does not; hyperparameters stay in __dict__ and are read again whenever it changes.
#pragma once

#include <vector>

#include "capture.h"
#include "dict_version.h"
#include "group_entries.h"
#include "momentum.h"
#include "outcome.h"
#include "param_groups.h"
#include "python.h"
#include "schedule_attributes.h"
#include "scheduler_protocol.h"
#include "table.h"

namespace fastsched::host {

// Whether the scheduler has not been given to another engine, or to none, meanwhile.
template <typename Engine>
bool is_engine_of(PyObject* scheduler, const Engine* engine) {
  const Ref now(PyObject_GetAttr(scheduler, protocol::engine()));
  if (!now) throw pybind11::error_already_set();
  return exactly<Engine>(now.get()) == engine;
}

class HostEngine : public Bound {
 public:
  // `read_tensor` turns a metric of type `tensor` into a float where that takes more than `float()`.
  // `name`: of the entry that is scheduled.
  HostEngine(const std::string& scheduler, pybind11::type tensor, pybind11::object read_tensor,
             const std::string& name)
      : kind_(kind_of(scheduler)),
        about_(attributes_of(kind_)),
        entry_(name),
        owns_(about_.owns),
        tensor_(std::move(tensor)),
        read_tensor_(std::move(read_tensor)) {
    for (OwnParam& own : owns_) {
      if (own.where == OwnParam::in_group) own.name = entry_.named(own.name);
    }
  }

  // Copies the counters and last LRs from the scheduler's __dict__, where they stay until this engine is in
  // charge. False, with nothing changed, if a hyperparameter, a counter or a learning rate is not a plain
  // number.
  bool attach(PyObject* scheduler) {
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) throw pybind11::error_already_set();
    if (!read_all(about_.counters, dict.get(), counters_.counters)) return false;
    if (PyDict_GetItemWithError(dict.get(), protocol::last_lr()) == nullptr) {
      return decline(protocol::last_lr(), nullptr);
    }
    if (entry_.is_item() && about_.calls_functions()) {
      return decline("an item of a tuple, by a function of yours: Python writes that");
    }
    if (!momentum_.read(about_, dict.get())) return false;
    Ref groups = param_groups(optimizer_of(dict.get()));
    if (!groups || busy_) return false;
    use_entries();
    return look_at(groups.get()) && read_scheduler(dict.get());
  }

  // Calls visit(name, value) for every counter and for _last_lr; the value is empty on a Python error.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      const Attribute& counter = about_.counters[i];
      if (counter.left_out(counters_.counters[i])) continue;
      visit(counter.name, to_python(counter, counters_.counters[i]));
    }
    visit(protocol::last_lr(), last_lr());
    if (has_window()) visit(about_.window.values, list_of(std::vector<double>(window_)));
  }

  // Declines, with nothing changed, whatever it cannot do exactly as torch does. `value` is the metric as a
  // number, read just once: a stateful __float__ or a metric on a GPU must not be asked again.
  Outcome step(PyObject* scheduler, PyObject* metric, double& value) {
    if (CaptureProbe::refuses(entry_.name())) return Outcome::failed;
    if (about_.reads_metric && !read_metric(metric, value)) return Outcome::failed;
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) return Outcome::failed;
    if (busy_ || (!same(dict.get()) && !refresh(scheduler, dict.get()))) return Outcome::declined;
    if (about_.step_count >= 0 && counters_.counters[about_.step_count] == 1.0 && !order_checked_) {
      return Outcome::declined;
    }
    Ref groups = param_groups(optimizer_);
    if (!groups) return Outcome::declined;
    std::vector<Ref> tuples;
    if (momentum_.writes_betas()) tuples = momentum_.allocate(groups.get());
    if (entry_.is_item()) tuples = groups_.allocate(groups.get());
    // What has run Python code so far may have changed anything. From here to the last write nothing does.
    if (is_known(dict_version_) && !unchanged(dict.get(), dict_version_)) return Outcome::declined;
    if (!look_at(groups.get())) return Outcome::declined;

    NodeState next = counters_;
    if (!valid_counters(kind_, next.counters)) return Outcome::declined;
    next_window_ = window_;
    const NodeData data = {table_.table(), {next_window_.data(), static_cast<std::int64_t>(window_.size())}};
    Update update = decide(kind_, params_, next.counters, StepInput::make(Event::step, value), data);
    if (is_unsettled(kind_, update) && !settle_by_groups(update, next.counters, dict.get()))
      return Outcome::declined;
    if (update.kind() == Law::idle) return Outcome::declined;
    if (about_.calls_functions()) return step_by_functions(scheduler, dict.get(), groups, next);
    if (!about_.reads_metric && !(std::isfinite(update.a) && std::isfinite(update.b))) {
      decline("the learning rate comes out as no finite number, where Python raises");
      return Outcome::declined;  // an overflow, a division by zero
    }
    if (update.kind() != Law::hold) {
      const Outcome outcome = update_groups(update, dict.get(), groups.get(), tuples);
      if (outcome != Outcome::stepped) return outcome;
    }
    counters_ = next;
    window_.swap(next_window_);
    reduced_ = reduces(update.kind());
    ++steps_;
    groups_.copy_changed(last_lr_);
    return Outcome::stepped;
  }

  // What another engine has read and written since, it does not look up again.
  void share_cache(const HostEngine& other) {
    if (!busy_) groups_.share_cache(other.groups_);
  }

  // How many steps it has made, and whether in the last one it was time to reduce.
  std::int64_t steps() const { return steps_; }
  bool reduced() const { return reduced_; }

  // The learning rates of a step that was declined after the scheduler's functions were called, as a list.
  // The counters have gone on then. Empty otherwise.
  Ref take_lrs() { return std::exchange(lrs_, Ref()); }

  // Of such a step, or one that was declined with nothing changed; `value` as step() has read it.
  Declined declined(double value) {
    Declined declined;
    if (Ref lrs = take_lrs()) declined.lrs = pybind11::reinterpret_steal<pybind11::object>(lrs.release());
    if (about_.reads_metric) declined.metric = pybind11::float_(value);
    return declined;
  }

  bool reads_metric() const { return about_.reads_metric; }

  // The caller has looked whether optimizer.step() came first, which torch does at the first step.
  void check_order() { order_checked_ = true; }

  // The value of a counter or of _last_lr; an empty reference for any other name.
  Ref get(PyObject* name) const {
    if (PyUnicode_Compare(name, protocol::last_lr()) == 0) return last_lr();
    if (is_window(name)) return list_of(std::vector<double>(window_));
    const int i = counter_index(name);
    if (i < 0) return Ref();
    return to_python(about_.counters[static_cast<std::size_t>(i)], counters_.counters[i]);
  }

  // False if the value is not one the engine can hold.
  bool set(PyObject* name, PyObject* value) {
    if (PyUnicode_Compare(name, protocol::last_lr()) == 0) return set_last_lr(value);
    if (is_window(name)) return read_window(about_, value, static_cast<double>(window_.size()), window_);
    const int i = counter_index(name);
    order_checked_ = false;
    return i >= 0 && read(about_.counters[static_cast<std::size_t>(i)], value, counters_.counters[i]);
  }

 private:
  bool has_window() const { return about_.window.values != nullptr; }
  bool is_window(PyObject* name) const {
    return has_window() && PyUnicode_Compare(name, about_.window.values) == 0;
  }

  int counter_index(PyObject* name) const {
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      if (PyUnicode_Compare(about_.counters[i].name, name) == 0) return static_cast<int>(i);
    }
    return -1;
  }

  // float(metric), as torch reads it.
  bool read_metric(PyObject* metric, double& value) const {
    if (PyFloat_CheckExact(metric)) {
      value = PyFloat_AS_DOUBLE(metric);
      return true;
    }
    Ref number(is_read_by_python(metric) ? PyObject_CallOneArg(read_tensor_.ptr(), metric)
                                         : PyNumber_Float(metric));
    if (!number) return false;
    value = PyFloat_AsDouble(number.get());
    return !(value == -1.0 && PyErr_Occurred());
  }

  // A tensor on a GPU, where reading waits, or of another class, which may be one rank's part of the metric.
  bool is_read_by_python(PyObject* metric) const {
    PyTypeObject* const tensor = reinterpret_cast<PyTypeObject*>(tensor_.ptr());
    if (Py_IS_TYPE(metric, tensor)) return is_on_gpu(metric);
    return PyObject_TypeCheck(metric, tensor);
  }

  static bool is_on_gpu(PyObject* metric) {
    const Ref is_cuda(PyObject_GetAttr(metric, is_cuda_name()));
    if (!is_cuda) PyErr_Clear();
    return is_cuda.get() == Py_True;
  }

  // Whether __dict__, and the table in it, are as they were when they were read.
  bool same(PyObject* dict) {
    return unchanged(dict, dict_version_) && (TableReader::is_fixed(about_) || table_.same(about_, dict));
  }

  // Catches up with a __dict__ that changed. Only for the scheduler's own engine: one that was given up,
  // which a second thread may still be about to step, must not take the state away from its successor.
  bool refresh(PyObject* scheduler, PyObject* dict) {
    if (!is_engine_of(scheduler, this) || !read_scheduler(dict) || PyErr_Occurred()) return false;
    for (const Attribute& counter : about_.counters) remove(dict, counter.name);
    remove(dict, protocol::last_lr());
    if (has_window()) remove(dict, about_.window.values);
    remember(dict, dict_version_);
    return true;
  }

  // Reads the hyperparameters, and counters that are in __dict__: put there before this was attached, or by
  // somebody who wrote there directly.
  bool read_scheduler(PyObject* dict) {
    if (!read_all(about_.params, dict, params_) || !table_.read(about_, dict)) return false;
    if (!valid_params(kind_, params_)) return decline(kInvalid);
    if (!momentum_.read(about_, dict)) return false;
    use_entries();
    NodeState taken = counters_;
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      const Attribute& counter = about_.counters[i];
      PyObject* value = PyDict_GetItemWithError(dict, counter.name);
      if (value != nullptr && !read(counter, value, taken.counters[i])) return false;
    }
    std::vector<double> window = window_;
    double size = 0.0;
    if (!read_window_size(about_, dict, size)) return false;
    PyObject* values = has_window() ? PyDict_GetItemWithError(dict, about_.window.values) : nullptr;
    if (values != nullptr ? !read_window(about_, values, size, window)
                          : static_cast<double>(window.size()) != size) {
      return decline(about_.window.size, PyDict_GetItemWithError(dict, about_.window.size), "what it was");
    }
    PyObject* last = PyDict_GetItemWithError(dict, protocol::last_lr());
    if (last != nullptr && !set_last_lr(last))
      return decline(protocol::last_lr(), last, "a list of Python numbers");
    counters_ = taken;
    window_ = std::move(window);
    optimizer_ = optimizer_of(dict);
    return true;
  }

  void use_entries() {
    std::vector<PyObject*> keys;
    for (const OwnParam& own : owns_) {
      if (own.where == OwnParam::in_group) keys.push_back(own.name);
    }
    momentum_.add_keys(keys);
    groups_.use(entry_, keys);
  }

  // False, with nothing changed, where the groups' own parameters are not plain numbers.
  bool settle_by_groups(Update& update, double* counters, PyObject* dict) {
    const Busy busy(busy_);
    if (!busy.entered || !own_.read_for(update, owns_, dict, groups_)) return false;
    const Number* lrs = groups_.values(entry_.key());
    GroupParams own = own_.of(groups_.groups());
    bool at_bound = true;
    for (; own.index < own.groups; ++own.index) {
      const double lr = apply(update, lrs[own.index].value, own).lr;
      at_bound = at_bound && !(lr > own.at(update.own));
    }
    update = settle(params_, counters, update, at_bound);
    return true;
  }

  // Whatever could make it decline is looked at before the first write, so that then nothing is changed.
  Outcome update_groups(const Update& update, PyObject* dict, PyObject* groups, std::vector<Ref>& tuples) {
    const Busy busy(busy_);
    if (!busy.entered) return Outcome::declined;
    const std::size_t count = groups_.groups();
    const Number* lrs = groups_.values(entry_.key());
    if (!own_.read_for(update, owns_, dict, groups_) ||
        !momentum_.compute(update, dict, groups, groups_, tuples)) {
      return Outcome::declined;
    }
    const Law law = update.kind();
    const bool always_float = law == Law::cycle || law == Law::anneal_cosine || law == Law::anneal_linear;
    const bool may_take_own = law == Law::reduce || law == Law::raise || law == Law::restore;
    if (!may_take_own && !always_float && (own_.has_integers() || groups_.has_integers())) {
      decline(
          "a learning rate, or a bound of one, is an int, with which Python may compute in ints; write it as "
          "a float");
      return Outcome::declined;
    }
    GroupParams own = own_.of(count);
    const bool cycles = momentum_.cycles();
    for (std::size_t i = 0; i < count; ++i) {
      const Ref group = GroupEntries::next(groups, i);
      if (!group || (cycles && !momentum_.write(group.get(), i, tuples, groups_.version_of(i)))) {
        return Outcome::failed;
      }
      own.index = static_cast<std::int64_t>(i);
      const Applied applied = apply(update, lrs[i].value, own);
      if (!applied.written) continue;
      // As Python's max() does: where the bound wins, it is the user's own object that becomes the LR.
      const bool take_own = applied.is_own && PyLong_CheckExact(own_.object(i));
      Ref lr = take_own ? Ref::borrow(own_.object(i)) : Ref(PyFloat_FromDouble(applied.lr));
      if (!lr || !groups_.write(group.get(), i, std::move(lr), {applied.lr, take_own}, tuples))
        return Outcome::failed;
      if (cycles) momentum_.note(group.get(), i);
    }
    if (!entry_.is_item()) momentum_.recycle(tuples);
    return Outcome::stepped;
  }

  // LambdaLR and MultiplicativeLR. As in torch the counters have gone on when the functions are called, and
  // stay so if one raises; each group's operand is taken before its function is called, which may do
  // anything.
  Outcome step_by_functions(PyObject* scheduler, PyObject* dict, const Ref& groups, const NodeState& next) {
    const std::size_t count = groups_.groups();
    const Ref functions = Ref::borrow(PyDict_GetItemWithError(dict, about_.table));
    const Ref bases = Ref::borrow(PyDict_GetItemWithError(dict, about_.owns[0].name));
    const bool scales_bases = kind_ == Kind::lambda;
    if (!functions || !bases || !PyList_CheckExact(functions.get()) || !PyList_CheckExact(bases.get()) ||
        length(functions.get()) != count || (scales_bases && length(bases.get()) != count)) {
      decline("it has not one function and one base learning rate for each param group");
      return Outcome::declined;
    }
    counters_ = next;
    Ref epoch;
    double epoch_of = std::nan("");
    // Taken from the engine, because a function may step the scheduler once more.
    std::vector<double> operands = std::exchange(operands_, {});
    std::vector<double> factors = std::exchange(factors_, {});
    operands.resize(count);
    factors.resize(count);
    Ref values;  // empty while operands and factors are plain numbers
    for (std::size_t i = 0; i < count; ++i) {
      if (length(functions.get()) <= i || length(groups.get()) <= i ||
          (scales_bases && length(bases.get()) <= i)) {
        PyErr_SetString(PyExc_ValueError, "lr_lambdas changed their number while they were called");
        return Outcome::failed;
      }
      const Ref operand =
          scales_bases ? Ref::borrow(item(bases.get(), i)) : lr_of(Ref::borrow(item(groups.get(), i)));
      const Ref function = Ref::borrow(item(functions.get(), i));
      // The epoch is asked for anew each time, as in torch: a function may have set it.
      PyObject* written = PyDict_GetItemWithError(dict, about_.counters[0].name);
      if (written != nullptr) {
        epoch = Ref::borrow(written);
        epoch_of = std::nan("");
      } else if (epoch_of != counters_.counters[0]) {
        epoch_of = counters_.counters[0];
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
    const Ref now = param_groups(optimizer_of(dict));
    const bool still_engine = is_engine_of(scheduler, this);
    if (PyErr_Occurred()) return Outcome::failed;
    if (!values && still_engine && now && length(now.get()) == count && look_at(now.get())) {
      const Busy busy(busy_);
      for (std::size_t i = 0; i < count; ++i) {
        const double value = product(operands[i], factors[i]);
        const Ref group = GroupEntries::next(now.get(), i);
        Ref lr(group ? PyFloat_FromDouble(value) : nullptr);
        if (!lr || !groups_.write(group.get(), i, std::move(lr), {value, false}, {})) return Outcome::failed;
      }
      groups_.copy_changed(last_lr_);
      remove(dict, protocol::last_lr());  // somebody looked at __dict__ meanwhile
      operands_ = std::move(operands);
      factors_ = std::move(factors);
      return Outcome::stepped;
    }
    if (!values) values = products(operands, factors, count);
    if (!values) return Outcome::failed;
    lrs_ = std::move(values);
    decline("a function of its gave something else than a Python number, or changed the scheduler");
    return Outcome::declined;
  }

  // Reads the groups. False, with nothing changed, where that cannot be or is being done.
  bool look_at(PyObject* groups) {
    const Busy busy(busy_);
    return busy.entered && groups_.refresh(groups);
  }

  // Empty, with a Python error set or not, where the group has none.
  Ref lr_of(const Ref& group) const {
    return PyDict_Check(group.get()) ? Ref::borrow(PyDict_GetItemWithError(group.get(), entry_.key()))
                                     : Ref(PyObject_GetItem(group.get(), entry_.key()));
  }

  double product(double operand, double factor) const {
    const Law law = kind_ == Kind::lambda ? Law::scale_base_each : Law::scale_each;
    static constexpr double kOnlyColumn = 0.0;
    const double own[] = {operand, kOnlyColumn};
    return apply(Update::make(law), operand, {own, 1, 0, {&factor, 1}}).lr;
  }

  Ref products(const std::vector<double>& operands, const std::vector<double>& factors,
               std::size_t count) const {
    Ref list(PyList_New(0));
    for (std::size_t i = 0; list && i < count; ++i) {
      const Ref value(PyFloat_FromDouble(product(operands[i], factors[i])));
      if (!value || PyList_Append(list.get(), value.get()) != 0) return Ref();
    }
    return list;
  }

  bool set_last_lr(PyObject* object) {
    if (!PyList_CheckExact(object)) return false;
    std::vector<Number> values(length(object));
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!Number::read(item(object, i), values[i])) return false;
    }
    last_lr_ = std::move(values);
    groups_.forget_copy();
    return true;
  }

  Ref last_lr() const {
    const std::vector<Number> lrs = last_lr_;  // making a list may run a finalizer, which steps
    Ref list(PyList_New(static_cast<Py_ssize_t>(lrs.size())));
    for (std::size_t i = 0; list && i < lrs.size(); ++i) {
      PyObject* lr = lrs[i].to_python();
      if (lr == nullptr) return Ref();
      PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), lr);
    }
    return list;
  }

  const Kind kind_;
  const ScheduleAttributes& about_;
  const Entry entry_;
  std::vector<OwnParam> owns_;  // by the names that they have for this entry
  pybind11::type tensor_;
  pybind11::object read_tensor_;
  double params_[kNodeParams] = {};
  NodeState counters_ = {};
  std::vector<double> window_;  // the last metrics
  std::vector<double> next_window_;
  DictVersion dict_version_ = {};
  // Borrowed from the scheduler's __dict__ while that is unchanged.
  PyObject* optimizer_ = nullptr;
  TableReader table_;
  bool order_checked_ = false;
  std::int64_t steps_ = 0;
  bool reduced_ = false;
  GroupEntries groups_;
  OwnValues own_;
  Momentum momentum_;
  std::vector<double> operands_;
  std::vector<double> factors_;
  Ref lrs_;
  bool busy_ = false;
  std::vector<Number> last_lr_;
};

}  // namespace fastsched::host
