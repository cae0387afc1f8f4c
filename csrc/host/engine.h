// The host engine: steps a scheduler whose learning rates are Python numbers. They are loaded from the groups
// that changed into float64, a decision and an update after another work on that, and the groups that this
// changed are written back. While an engine is attached it holds the scheduler's counters and last LRs, and
// the scheduler's __dict__ does not; hyperparameters stay in __dict__ and are read again whenever it changes.
//
// The engine of a composition steps all schedulers in it: the engines of its children go on holding their
// counters and settings, and stand in its list in the order of a program (csrc/schedule/plan/layout.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "capture.h"
#include "dict_version.h"
#include "group_entries.h"
#include "outcome.h"
#include "param_groups.h"
#include "python.h"
#include "schedule/plan/step_on_host.h"
#include "schedule/report/history.h"
#include "schedule_attributes.h"
#include "scheduler_protocol.h"
#include "settings.h"

namespace fastsched::host {

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
        read_tensor_(std::move(read_tensor)),
        reads_metric_(about_.reads_metric),
        calls_functions_(about_.calls_functions()),
        settings_(about_) {
    for (OwnParam& own : owns_) {
      if (own.where == OwnParam::in_group) own.name = entry_.named(own.name);
    }
    nodes_.push_back({this, {}, nullptr, {}, 1});
  }

  // Copies the counters and last LRs from the scheduler's __dict__, where they stay until this engine is in
  // charge. False, with nothing changed, if a hyperparameter, a counter or a learning rate is not a plain
  // number, or a child has no such engine.
  bool attach(PyObject* scheduler) {
    Ref dict(PyObject_GenericGetDict(scheduler, nullptr));
    if (!dict) throw pybind11::error_already_set();
    if (!read_all(about_.counters, dict.get(), counters_.words)) return false;
    if (!is_composite(kind_) && PyDict_GetItemWithError(dict.get(), protocol::last_lr()) == nullptr) {
      return decline(protocol::last_lr(), nullptr);
    }
    if (entry_.is_item() && about_.calls_functions()) {
      return decline("an item of a tuple, by a function of yours: Python writes that");
    }
    optimizer_ = optimizer_of(dict.get());
    if (is_composite(kind_) && !take_children(dict.get())) return false;
    Ref groups = param_groups(optimizer_);
    if (!groups || busy_) return false;
    count_ = length(groups.get());
    return read_settings(dict.get()) && look_at(groups.get()) && read_state(dict.get());
  }

  // Calls visit(name, value) for every counter and for _last_lr; the value is empty on a Python error.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      const Attribute& counter = about_.counters[i];
      if (counter.left_out(counters_.words[i])) continue;
      visit(counter.name, to_python(counter, counters_.words[i]));
    }
    if (has_last_lr_) visit(protocol::last_lr(), last_lr_.to_list());
    if (has_window()) visit(about_.window.values, list_of(std::vector<double>(window_)));
  }

  // Declines, with nothing changed, whatever it cannot do exactly as torch does. `value` is the metric as a
  // number, read just once: a stateful __float__ or a metric on a GPU must not be asked again.
  Outcome step(PyObject* scheduler, PyObject* metric, double& value) {
    if (CaptureProbe::refuses(entry_.name())) return Outcome::failed;
    Event event = Event::step;
    if (reads_metric_) {
      if (metric == Py_None && is_composite(kind_)) {
        event = Event::unmeasured;
      } else if (!read_metric(metric, value)) {
        return Outcome::failed;
      }
    }
    const StepInput input = StepInput::make(event, value);
    Ref groups;
    std::size_t caller = 0;
    nodes_[0].scheduler = scheduler;
    {
      const Busy busy(busy_);
      if (!busy.entered) return Outcome::declined;
      const HeldDicts held{nodes_};
      if (!look_at_schedulers()) return Outcome::declined;
      event_ = input.event;
      if (calls_functions_ && is_composite(kind_)) caller = turn_of_caller(input);
      if (caller == 0) {
        if (!load(groups)) return Outcome::declined;
        if (!about_.calls_functions()) return step_all(groups.get(), input);
        if (!decide_alone(input)) return Outcome::declined;
      }
    }
    // Functions may do anything, so nothing is held on to.
    return caller != 0 ? step_caller(caller, input) : step_by_functions(scheduler, groups);
  }

  // How many steps it has made, and whether in the last one it was time to reduce.
  std::int64_t steps() const { return steps_; }
  bool reduced() const { return reduced_; }

  // The learning rates of a step that was declined after the scheduler's functions were called, as a list.
  // The counters have gone on then. Empty otherwise.
  Ref take_lrs() { return std::exchange(lrs_of_functions_, Ref()); }

  // Of such a step, or one that was declined with nothing changed; `value` as step() has read it, from that
  // `metric`.
  Declined declined(PyObject* metric, double value) {
    Declined declined;
    if (Ref lrs = take_lrs()) declined.lrs = pybind11::reinterpret_steal<pybind11::object>(lrs.release());
    const bool measured = reads_metric_ && !(metric == Py_None && is_composite(kind_));
    if (measured) declined.metric = pybind11::float_(value);
    return declined;
  }

  // Of a composition: whether a scheduler in it does.
  bool reads_metric() const { return reads_metric_; }
  bool is_of_composition() const { return is_composite(kind_); }

  // A history, a tensor laid out as csrc/schedule/report/history.h says, to which each step appends; or None.
  const pybind11::object& history() const { return history_; }
  void record(pybind11::object history) {
    rows_ = history.is_none() ? nullptr
                              : reinterpret_cast<double*>(history.attr("data_ptr")().cast<std::uintptr_t>());
    history_ = std::move(history);
  }
  std::size_t groups() const { return groups_.groups(); }

  // The caller has looked whether optimizer.step() came first, which torch does at the first step.
  void check_order() { order_checked_ = true; }
  bool order_checked() const { return order_checked_; }

  // The scheduler may not be what it was.
  void look_again() { settings_.look_again(); }

  // The value of a counter or of _last_lr; an empty reference for any other name.
  Ref get(PyObject* name) const {
    if (is_last_lr(name)) return has_last_lr_ ? last_lr_.to_list() : Ref();
    if (is_window(name)) return list_of(std::vector<double>(window_));
    const int i = counter_index(name);
    if (i < 0) return Ref();
    return to_python(about_.counters[static_cast<std::size_t>(i)], counters_.words[i]);
  }

  // False if the value is not one the engine can hold.
  bool set(PyObject* name, PyObject* value) {
    if (is_last_lr(name)) return set_last_lr(value);
    if (is_window(name)) return read_window(about_, value, static_cast<double>(window_.size()), window_);
    const int i = counter_index(name);
    order_checked_ = false;
    return i >= 0 && read(about_.counters[static_cast<std::size_t>(i)], value, counters_.words[i]);
  }

 private:
  struct Counters {
    double words[kNodeCounters];
  };

  // What becomes of a group's learning rate where ints have to do with it.
  struct Taken {
    bool written = false;
    PyObject* object = nullptr;  // an int of the user's, or a new float
  };

  // An entry that is driven along with the learning rate: momentum that cycles.
  struct Track {
    Entry entry;
    std::vector<double> values;  // of all groups
    bool updated;
  };

  // A scheduler in a tree. Its address is good where the list that it is in still holds it.
  struct TreeNode {
    HostEngine* engine;
    Ref alive;
    PyObject* scheduler;
    Ref dict;          // its __dict__, while a step is made
    std::size_t size;  // how many nodes its subtree has
  };
  // A composition in it that waits for a step below it.
  struct StepsBelow {
    HostEngine* engine;
    Ref alive;
    Ref scheduler;
    Ref children;
    PlateauReport report;  // of what the others in it make of the step
  };
  struct HeldDicts {
    std::vector<TreeNode>& nodes;
    ~HeldDicts() {
      for (TreeNode& node : nodes) node.dict = Ref();
    }
  };

  // The children of a node in a tree.
  class ChildrenInTree {
   public:
    ChildrenInTree(const std::vector<TreeNode>& nodes, std::size_t place)
        : nodes_(nodes), at_(place + 1), end_(place + nodes[place].size) {}

    bool more() const { return at_ < end_; }
    Kind kind() const { return nodes_[at_].engine->kind_; }
    void tell(Event event) const { nodes_[at_].engine->event_ = event; }
    void next() { at_ += nodes_[at_].size; }
    PyObject* scheduler() const { return nodes_[at_].scheduler; }

   private:
    const std::vector<TreeNode>& nodes_;
    std::size_t at_;
    const std::size_t end_;
  };

  bool has_window() const { return about_.window.values != nullptr; }
  bool is_window(PyObject* name) const {
    return has_window() && PyUnicode_Compare(name, about_.window.values) == 0;
  }
  bool is_last_lr(PyObject* name) const { return PyUnicode_Compare(name, protocol::last_lr()) == 0; }

  int counter_index(PyObject* name) const {
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      if (PyUnicode_Compare(about_.counters[i].name, name) == 0) return static_cast<int>(i);
    }
    return -1;
  }

  // The engines of a composition's children, and of theirs.
  bool take_children(PyObject* dict) {
    const Ref children = children_of(dict);
    if (!children) return decline("its schedulers are not in a list or tuple");
    if (PySequence_Fast_GET_SIZE(children.get()) == 0) return decline("it has no schedulers left");
    nodes_.resize(1);
    children_.record(children.get(), false);
    reads_metric_ = false;
    for (std::size_t i = 0; i < children_.size(); ++i) {
      const Ref child = Ref::borrow(PySequence_Fast_ITEMS(children.get())[i]);
      const Ref engine(PyObject_GetAttr(child.get(), protocol::engine()));
      PyErr_Clear();  // a scheduler of another library
      if (!children_.same(children.get())) return decline("its schedulers changed while they were looked at");
      const HostEngine* const host = engine ? exactly<HostEngine>(engine.get()) : nullptr;
      if (host == nullptr) return decline("a scheduler in it has no engine of the host");
      if (host->optimizer_ != optimizer_) return decline("a scheduler in it drives other entries or groups");
      calls_functions_ = calls_functions_ || host->calls_functions_;
      for (const TreeNode& node : host->nodes_) {
        const bool first = node.engine == host;
        const auto is_same = [&node](const TreeNode& other) { return other.engine == node.engine; };
        if (std::any_of(nodes_.begin(), nodes_.end(), is_same)) return decline("a scheduler is in it twice");
        nodes_.push_back({node.engine,
                          Ref::borrow(first ? engine.get() : node.alive.get()),
                          first ? child.get() : node.scheduler,
                          {},
                          node.size});
      }
      reads_metric_ = reads_metric_ || host->reads_metric_;
    }
    if (calls_functions_ && kind_ == Kind::chained && children_.size() > 1) {
      return decline(
          "a scheduler in it calls functions, which may look at what the one before it has written");
    }
    nodes_[0].size = nodes_.size();
    return true;
  }

  // False where a scheduler in the tree is not what it was and cannot be followed.
  bool look_at_schedulers() {
    bool reread = false;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      TreeNode& node = nodes_[i];
      HostEngine& engine = *node.engine;
      if (i > 0 && (engine.busy_ || (reread && !has_same_schedulers(i)))) return false;
      node.dict = Ref(PyObject_GenericGetDict(node.scheduler, nullptr));
      if (!node.dict) return false;
      if (!engine.settings_.same(node.dict.get())) {
        if (PyErr_Occurred() || !engine.refresh(node.scheduler, node.dict.get())) return false;
        reread = true;
      }
      if (i > 0 && (engine.steps_itself_ || engine.optimizer_ != optimizer_)) return false;
      if (is_composite(engine.kind_) && !engine.has_same_children(node.dict.get())) return false;
    }
    if (reread) use_entries();
    return true;
  }

  // Whether the compositions among the first `count` have the same children: what may have run Python code
  // may have removed some.
  bool has_same_schedulers(std::size_t count) const {
    return std::all_of(
        nodes_.begin(), nodes_.begin() + static_cast<std::ptrdiff_t>(count), [](const TreeNode& node) {
          return !is_composite(node.engine->kind_) || node.engine->has_same_children(node.dict.get());
        });
  }

  // Takes the learning rates of the groups that have changed. False where one is no number, or the groups are
  // not those that there were.
  bool load(Ref& groups) {
    groups = param_groups(optimizer_);
    if (!groups || (is_composite(kind_) && length(groups.get()) != count_)) return false;
    groups_.allocate(groups.get());
    // What has run Python code so far may have changed anything. From here to the last write nothing does.
    for (const TreeNode& node : nodes_) {
      if (!node.engine->settings_.is_settled(node.dict.get())) return false;
    }
    if (!groups_.refresh(groups.get())) return false;
    for (const TreeNode& node : nodes_) {
      double* const rows = node.engine->rows_;
      const auto groups_now = static_cast<std::int64_t>(groups_.groups());
      if (rows != nullptr && next_row(rows, read_words<History>(rows), groups_now) == nullptr) return false;
    }
    if (as_of_ != groups_.as_of() || stale_) {
      lrs_.assign(groups_.first(), groups_.first() + groups_.groups());
      for (std::size_t k = 0; k < along_.size(); ++k) {
        const double* const values = groups_.column(1 + k).values;
        along_[k].values.assign(values, values + groups_.groups());
      }
      lrs_version_ = ++clock_;
      as_of_ = groups_.as_of();
      stale_ = false;
    }
    return true;
  }

  bool has_same_children(PyObject* dict) const {
    const Ref list = children_of(dict);
    return list && children_.same(list.get());
  }

  // Decides and applies, one scheduler after another, then writes what has changed. Until then nobody sees
  // any of it.
  Outcome step_all(PyObject* groups, const StepInput& input) {
    stale_ = true;  // unless all is done
    updated_ = false;
    for (Track& track : along_) track.updated = false;
    taken_.clear();
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (!nodes_[i].engine->decide_in(*this, i, input)) return Outcome::declined;
    }
    if (updated_) {
      if (!write(groups)) return Outcome::failed;
      lrs_version_ = ++clock_;
    }
    stale_ = false;
    for (const TreeNode& node : nodes_) node.engine->commit(*this, input);
    return Outcome::stepped;
  }

  // Of a schedule, not a composition: the counters after the step, and what it does to the learning rates.
  bool decide_alone(const StepInput& input) {
    if (event_ == Event::step && about_.step_count >= 0 && counters_.words[about_.step_count] == 1.0 &&
        !order_checked_) {
      return false;
    }
    next_ = counters_;
    if (!valid_counters(kind_, next_.words)) return false;
    if (has_window()) next_window_ = window_;
    const NodeData data = {settings_.table(),
                           {next_window_.data(), static_cast<std::int64_t>(window_.size())}};
    update_ = decide(kind_, settings_.params(), next_.words, {event_, input.value, input.measured}, data);
    return true;
  }

  // The same within the tree of `root`, whose learning rates it then updates.
  bool decide_in(HostEngine& root, std::size_t place, const StepInput& input) {
    PyObject* const dict = root.nodes_[place].dict.get();
    left_.values.clear();
    if (is_composite(kind_)) {
      if (is_past_last_child()) return false;  // where torch raises
      next_ = counters_;
      update_ = route_event(kind_, next_.words, settings_.table(), ChildrenInTree(root.nodes_, place),
                            {event_, input.value, input.measured});
    } else if (event_ == Event::idle) {
      next_ = counters_;
      update_ = Update::idle();
    } else if (about_.calls_functions()) {
      return decline("a scheduler that begins calls functions");
    } else if (!decide_alone(input) || update_.kind() == Law::idle ||  // where torch raises
               (is_unsettled(kind_, update_) && !settle_in(root, dict))) {
      return false;
    }
    const Law law = update_.kind();
    if (law == Law::idle || law == Law::hold) return true;
    if (!about_.reads_metric && !(std::isfinite(update_.a) && std::isfinite(update_.b))) {
      return decline("the learning rate comes out as no finite number, where Python raises");
    }
    return own_.read_for(update_, owns_, dict, root.groups_) && update_momentum(root, dict) &&
           apply_in(root, place);
  }

  // By the law of the learning rate, between bounds of its own.
  bool update_momentum(HostEngine& root, PyObject* dict) {
    if (!settings_.cycles_momentum()) return true;
    const auto track = std::find_if(root.along_.begin(), root.along_.end(),
                                    [this](const Track& one) { return one.entry == settings_.momentum(); });
    if (track == root.along_.end()) return decline("it began to cycle momentum while it was stepped alone");
    if (!momentum_own_.read_for(update_, about_.momentum, dict, root.groups_)) return false;
    update_all(update_, momentum_own_.of(track->values.size()), track->values.data(),
               static_cast<void*>(nullptr));
    track->updated = true;
    return true;
  }

  // Whether the milestones leave the next epoch to a child that there is not.
  bool is_past_last_child() const {
    const Table milestones = settings_.table();
    const auto children = static_cast<std::int64_t>(children_.size());
    return event_ == Event::step && milestones.size >= children &&
           passed(milestones, counters_.words[0] + 1.0) >= children;
  }

  // False, with nothing changed, where the groups' own parameters are not plain numbers.
  bool settle_in(const HostEngine& root, PyObject* dict) {
    if (!own_.read_for(update_, owns_, dict, root.groups_)) return false;
    GroupParams own = own_.of(root.lrs_.size());
    bool at_bound = true;
    for (; own.index < own.groups; ++own.index) {
      const double lr = apply(update_, root.lrs_[static_cast<std::size_t>(own.index)], own).lr;
      at_bound = at_bound && !(lr > own.at(update_.own));
    }
    update_ = settle(settings_.params(), next_.words, update_, at_bound);
    return true;
  }

  bool apply_in(HostEngine& root, std::size_t place) {
    const Law law = update_.kind();
    const bool always_float = law == Law::cycle || law == Law::anneal_cosine || law == Law::anneal_linear;
    const bool may_take_own = law == Law::reduce || law == Law::raise || law == Law::restore;
    const bool lrs_have_integers = root.groups_.has_integers() || !root.taken_.empty();
    if ((lrs_have_integers || own_.has_integers()) && !always_float && !may_take_own) {
      return decline(
          "a learning rate, or a bound of one, is an int, with which Python may compute in ints; write it as "
          "a float");
    }
    if (place > 0) root.keep_last_lrs_before(place);
    GroupParams own = own_.of(root.lrs_.size());
    if (lrs_have_integers) {
      apply_to_integers(root, own);
    } else {
      update_all(update_, own, root.lrs_.data(), static_cast<void*>(nullptr));
      if (may_take_own && own_.has_integers() && reaches_own(root.lrs_)) {
        if (root.updated_)
          return decline("a bound is an int, and another scheduler's update comes before it");
        root.lrs_.assign(root.groups_.first(), root.groups_.first() + root.lrs_.size());
        apply_to_integers(root, own);
      }
    }
    root.updated_ = true;
    return true;
  }

  bool reaches_own(const std::vector<double>& lrs) const {
    const double* const own = own_.of(lrs.size()).params + static_cast<std::size_t>(update_.own) * lrs.size();
    bool reached = false;
    for (std::size_t i = 0; i < lrs.size(); ++i) reached |= lrs[i] == own[i];
    return reached;
  }

  // Where ints are among learning rates and bounds, it matters which object is written, if one is. As
  // Python's max() does: where the bound wins, it is the user's own that becomes the LR.
  void apply_to_integers(HostEngine& root, GroupParams own) const {
    root.taken_.resize(root.lrs_.size());
    for (; own.index < own.groups; ++own.index) {
      const auto i = static_cast<std::size_t>(own.index);
      const Applied applied = apply(update_, root.lrs_[i], own);
      root.lrs_[i] = applied.lr;
      if (!applied.written) continue;
      const bool is_own = applied.is_own && PyLong_CheckExact(own_.object(i));
      root.taken_[i] = {true, is_own ? own_.object(i) : nullptr};
    }
  }

  // The schedulers before have left the learning rates as they are now.
  void keep_last_lrs_before(std::size_t place) {
    for (std::size_t i = 0; i < place; ++i) {
      HostEngine& engine = *nodes_[i].engine;
      if (i + nodes_[i].size > place) continue;  // a composition that this one is in
      if (engine.left_.values.empty() && engine.leaves_lrs()) engine.left_ = current_lrs();
    }
  }
  // Whether it has had a part in this step.
  bool leaves_lrs() const {
    return is_composite(kind_) ? event_ != Event::idle : update_.kind() != Law::idle;
  }
  Numbers current_lrs() const {
    Numbers lrs = {lrs_, {}};
    const bool have_integers = groups_.has_integers() || !taken_.empty();
    for (std::size_t i = 0; have_integers && i < lrs_.size(); ++i) {
      const bool written = !taken_.empty() && taken_[i].written;
      if (written ? taken_[i].object != nullptr : groups_.is_integer(i)) lrs.set_integer(i);
    }
    return lrs;
  }

  // False on a Python error.
  bool write(PyObject* groups) {
    const bool only_floats = taken_.empty() && !groups_.has_integers() && !entry_.is_item();
    const auto is_updated = [](const Track& track) { return track.updated; };
    if (only_floats && std::none_of(along_.begin(), along_.end(), is_updated)) {
      return groups_.write_changed(groups, lrs_.data());
    }
    for (std::size_t i = 0; i < lrs_.size(); ++i) {
      const Ref group = GroupVersions::next(groups, i);
      if (!group) return false;
      for (std::size_t k = 0; k < along_.size(); ++k) {
        const double value = along_[k].values[i];
        if (!along_[k].updated || groups_.has_float(1 + k, i, value)) continue;
        Ref number(PyFloat_FromDouble(value));
        if (!number || !groups_.write(group.get(), 1 + k, i, std::move(number), value)) return false;
      }
      const Taken taken = taken_.empty() ? Taken() : taken_[i];
      if (!groups_.has(i, lrs_[i]) || taken.written) {
        const bool integer = taken.object != nullptr;
        Ref lr(integer ? Py_NewRef(taken.object) : PyFloat_FromDouble(lrs_[i]));
        if (!lr || !groups_.write(group.get(), 0, i, std::move(lr), lrs_[i], integer)) return false;
      }
    }
    return true;
  }

  // The step was made.
  void commit(const HostEngine& root, const StepInput& input) {
    if (event_ != Event::idle)
      order_checked_ = false;  // beginning anew makes the next step a first one again
    counters_ = next_;
    if (!leaves_lrs()) return;
    const bool is_own_step = is_step(kind_, event_, input.measured);
    if (has_window()) window_.swap(next_window_);
    if (!is_composite(kind_) && is_own_step) {
      reduced_ = reduces(update_.kind());
      ++steps_;
    }
    has_last_lr_ = true;
    if (!left_.values.empty()) {
      last_lr_ = std::exchange(left_, {});
      copied_version_ = 0;
    } else if (copied_version_ != root.lrs_version_) {
      if (root.groups_.has_integers()) {
        last_lr_ = root.current_lrs();
      } else {
        last_lr_.values = root.lrs_;
        last_lr_.integers.clear();
      }
      copied_version_ = root.lrs_version_;
    }
    if (rows_ != nullptr && is_own_step) append_row(report(input));
  }

  // What the plateaus in its tree make of a step that they have decided about.
  PlateauReport report(const StepInput& input) const {
    PlateauReport report = PlateauReport::none();
    for (const TreeNode& node : nodes_) {
      const HostEngine& engine = *node.engine;
      if (!is_plateau(engine.kind_)) continue;
      report.add(engine.kind_, engine.event_, engine.update_.kind(),
                 read_words<PlateauState>(engine.next_.words).best, input);
    }
    return report;
  }
  void append_row(const PlateauReport& report) {
    const auto history = read_words<History>(rows_);
    double* const row = next_row(rows_, history, static_cast<std::int64_t>(last_lr_.values.size()));
    if (row == nullptr) return;
    std::copy(last_lr_.values.begin(), last_lr_.values.end(), row + kHistoryOwn);
    finish_row(rows_, history, row, report);
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

  // Whether the scheduler has not been given to another engine, or to none, meanwhile.
  bool is_engine_of(PyObject* scheduler) const {
    const Ref now(PyObject_GetAttr(scheduler, protocol::engine()));
    if (!now) throw pybind11::error_already_set();
    return exactly<HostEngine>(now.get()) == this;
  }

  // Catches up with a __dict__ that changed. Only for the scheduler's own engine: one that was given up,
  // which a second thread may still be about to step, must not take the state away from its successor.
  bool refresh(PyObject* scheduler, PyObject* dict) {
    if (!is_engine_of(scheduler) || !read_settings(dict) || !read_state(dict) || PyErr_Occurred())
      return false;
    for (const Attribute& counter : about_.counters) remove(dict, counter.name);
    remove(dict, protocol::last_lr());
    if (has_window()) remove(dict, about_.window.values);
    steps_itself_ = Settings::has_step(dict);
    settings_.settle(dict);
    return true;
  }

  bool read_settings(PyObject* dict) {
    if (!settings_.read(dict) || !settings_.says_which_momentum()) return false;
    if (settings_.cycles_momentum() && settings_.momentum() == entry_) {
      return decline("what it schedules is the momentum that it cycles along");
    }
    optimizer_ = optimizer_of(dict);
    use_entries();
    return true;
  }

  // Reads counters and learning rates that are in __dict__: put there before this was attached, or by
  // somebody who wrote there directly.
  bool read_state(PyObject* dict) {
    Counters taken = counters_;
    for (std::size_t i = 0; i < about_.counters.size(); ++i) {
      const Attribute& counter = about_.counters[i];
      PyObject* value = PyDict_GetItemWithError(dict, counter.name);
      if (value != nullptr && !read(counter, value, taken.words[i])) return false;
    }
    std::vector<double> window = window_;
    const double size = settings_.window_size();
    PyObject* values = has_window() ? PyDict_GetItemWithError(dict, about_.window.values) : nullptr;
    if (values != nullptr ? !read_window(about_, values, size, window)
                          : static_cast<double>(window.size()) != size) {
      return decline(about_.window.size, PyDict_GetItemWithError(dict, about_.window.size), "what it was");
    }
    PyObject* last = PyDict_GetItemWithError(dict, protocol::last_lr());
    if (last != nullptr && !set_last_lr(last)) {
      if (!is_composite(kind_)) return decline(protocol::last_lr(), last, "a list of Python numbers");
      has_last_lr_ = false;  // then Python asks its children
    }
    counters_ = taken;
    window_ = std::move(window);
    return true;
  }

  // What its tree needs of each group: the learning rate, what is driven along, and what of a group's own the
  // updates take. Without a sequence in it nothing begins anew.
  void use_entries() {
    bool begins = false;
    std::vector<Entry> entries = {entry_};
    const auto add = [&entries](const Entry& entry) {
      if (std::find(entries.begin(), entries.end(), entry) == entries.end()) entries.push_back(entry);
    };
    for (const TreeNode& node : nodes_) {
      begins = begins || node.engine->kind_ == Kind::sequential;
      const Settings& settings = node.engine->settings_;
      if (settings.cycles_momentum()) add(settings.momentum());
    }
    along_.clear();
    for (std::size_t k = 1; k < entries.size(); ++k) along_.push_back({entries[k], {}, false});
    for (const TreeNode& node : nodes_) {
      const HostEngine& engine = *node.engine;
      const bool cycles = engine.settings_.cycles_momentum();
      for (const OwnParam& own : engine.owns_) {
        if (own.where == OwnParam::in_group && (begins || !is_composite(engine.kind_)))
          add(Entry::of(own.name));
      }
      for (const OwnParam& own : engine.about_.momentum) {
        if (own.where == OwnParam::in_group && cycles) add(Entry::of(own.name));
      }
    }
    groups_.use(std::move(entries));
    stale_ = true;
  }

  // Reads the groups. False, with nothing changed, where that cannot be or is being done.
  bool look_at(PyObject* groups) {
    const Busy busy(busy_);
    return busy.entered && groups_.refresh(groups);
  }

  // csrc/host/functions.h
  std::size_t turn_of_caller(const StepInput& input);
  Outcome step_caller(std::size_t place, const StepInput& input);
  bool keep_last_lr(PyObject* scheduler, PyObject* dict, const Numbers& lrs, bool known);
  Outcome step_by_functions(PyObject* scheduler, const Ref& groups);
  static Numbers as_floats(PyObject* lrs);
  Ref epoch_now(PyObject* scheduler, PyObject* dict) const;
  static Outcome changed_their_number();
  Ref lr_of(const Ref& group) const;
  double product(double operand, double factor) const;
  Ref products(const std::vector<double>& operands, const std::vector<double>& factors,
               std::size_t count) const;

  bool set_last_lr(PyObject* object) {
    if (!PyList_CheckExact(object) || !last_lr_.read(object)) return false;
    copied_version_ = 0;
    has_last_lr_ = true;
    return true;
  }

  static inline std::uint64_t clock_ = 0;

  const Kind kind_;
  const ScheduleAttributes& about_;
  const Entry entry_;
  std::vector<OwnParam> owns_;  // by the names that they have for this entry
  pybind11::type tensor_;
  pybind11::object read_tensor_;
  bool reads_metric_;
  bool calls_functions_;

  // The scheduler, and what its __dict__ says.
  Settings settings_;
  Counters counters_ = {};
  std::vector<double> window_;     // the last metrics
  PyObject* optimizer_ = nullptr;  // borrowed from the dict while that is unchanged
  bool order_checked_ = false;
  bool steps_itself_ = false;  // there is a step() of somebody's own
  pybind11::object history_ = pybind11::none();
  double* rows_ = nullptr;  // of that
  std::int64_t steps_ = 0;
  bool reduced_ = false;
  Numbers last_lr_;
  bool has_last_lr_ = false;          // a composition may have been made without
  std::uint64_t copied_version_ = 0;  // the lrs_version_ of what was copied there; 0: something else is there

  // The tree of what it steps, itself first, and its groups.
  std::vector<TreeNode> nodes_;
  ListContents children_;
  std::size_t count_ = 0;  // of groups, when this was attached
  GroupEntries groups_;
  std::vector<double> lrs_;        // of all groups
  std::vector<Track> along_;       // from column 1 on
  std::uint64_t lrs_version_ = 0;  // unique in the process, and another where they change
  std::uint64_t as_of_ = 0;        // the groups' number when they were loaded
  bool stale_ = true;              // they are not what the groups have
  bool busy_ = false;

  // Of the step that is being made.
  Event event_ = Event::step;
  Counters next_ = {};
  std::vector<double> next_window_;
  Update update_ = {};
  OwnValues own_;
  OwnValues momentum_own_;
  Numbers left_;              // the learning rates after its own update, where another's follows
  bool updated_ = false;      // by some scheduler
  std::vector<Taken> taken_;  // empty: no int has to do with it
  std::vector<double> operands_;
  std::vector<double> factors_;
  Ref lrs_of_functions_;
};

}  // namespace fastsched::host

#include "functions.h"
