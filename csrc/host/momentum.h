// Momentum that cycles along with learning rates that are tensors, as Python numbers in the param-group
// dicts: the counters run along on the host. Where the learning rates are numbers too, the host engine does
// both.
#pragma once

#include <vector>

#include "group_entries.h"
#include "guard.h"
#include "schedule/plan/step_on_host.h"
#include "settings.h"

namespace fastsched::host {

class HostMomentum : public Bound {
 public:
  explicit HostMomentum(const std::string& scheduler)
      : about_(attributes_of(kind_of(scheduler))), settings_(about_) {}

  // A counter by its place among the description's.
  void set(std::size_t index, double counter) {
    if (index < static_cast<std::size_t>(kNodeCounters)) counters_.counters[index] = counter;
  }

  // Makes one step and writes the momentum of every group. False, with nothing changed, where it cannot.
  // Because of that the guard of the learning rates' buffers, if they have one, need not look at the groups
  // again.
  bool step(const pybind11::object& scheduler, int event, double epoch, Guard* guard) {
    Ref dict(PyObject_GenericGetDict(scheduler.ptr(), nullptr));
    if (!dict) throw pybind11::error_already_set();
    if (event < 0 || event >= kEvents) return false;
    const Busy busy(busy_);
    if (!busy.entered) return false;
    if (!settings_.same(dict.get()) && !refresh(dict.get())) return false;
    if (!settings_.cycles_momentum()) return true;
    Ref groups = param_groups(optimizer_of(dict.get()));
    if (!groups) return false;
    entries_.allocate(groups.get());
    if (!entries_.refresh(groups.get())) return false;
    NodeState next = counters_;
    const Update update = decide(about_.kind, settings_.params(), next.counters,
                                 StepInput::make(static_cast<Event>(event), epoch), {settings_.table(), {}});
    if (update.kind() == Law::idle || !own_.read_for(update, about_.momentum, dict.get(), entries_))
      return false;
    counters_ = next;
    values_.assign(entries_.first(), entries_.first() + entries_.groups());
    update_all(update, own_.of(values_.size()), values_.data(), static_cast<void*>(nullptr));
    for (std::size_t i = 0; i < values_.size(); ++i) {
      if (entries_.has_float(0, i, values_[i])) continue;
      const Ref group = GroupVersions::next(groups.get(), i);
      Ref value(group ? PyFloat_FromDouble(values_[i]) : nullptr);
      const auto write = [&] { return entries_.write(group.get(), 0, i, std::move(value), values_[i]); };
      if (!value || !(guard != nullptr ? guard->keep_up(group.get(), i, write) : write())) {
        throw pybind11::error_already_set();
      }
    }
    return true;
  }

 private:
  bool refresh(PyObject* dict) {
    if (!settings_.read(dict) || !settings_.says_which_momentum()) return false;
    std::vector<Entry> entries = {settings_.momentum()};
    for (const OwnParam& own : about_.momentum) {
      if (own.where == OwnParam::in_group) entries.push_back(Entry::of(own.name));
    }
    entries_.use(std::move(entries));
    settings_.settle(dict);
    return true;
  }

  const ScheduleAttributes& about_;
  Settings settings_;
  NodeState counters_ = {};
  GroupEntries entries_;
  OwnValues own_;
  std::vector<double> values_;
  bool busy_ = false;
};

}  // namespace fastsched::host
