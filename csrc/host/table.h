// The attribute of a scheduler that holds several numbers: a dict of milestones, a list of them, the phases
// of a cycle, a tuple of numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "dict_version.h"
#include "number_list.h"
#include "param_groups.h"
#include "python.h"
#include "schedule_attributes.h"

namespace fastsched::host {

// A dict of numbers as sorted (key, value) pairs.
inline bool read_milestone_counts(PyObject* table, std::vector<double>& out) {
  if (!PyDict_Check(table)) return false;
  std::vector<std::pair<double, double>> pairs;
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  for (Py_ssize_t position = 0; PyDict_Next(table, &position, &key, &value);) {
    std::pair<double, double> pair;
    if (!read_number(key, pair.first) || !read_integer(value, pair.second) || pair.second < 0.0) return false;
    if (std::isnan(pair.first)) return false;  // no order: what torch finds then only its own code knows
    pairs.push_back(pair);
  }
  std::sort(pairs.begin(), pairs.end());
  for (const auto& [milestone, count] : pairs) out.insert(out.end(), {milestone, count});
  return true;
}

// The last epochs of OneCycleLR's phases, if they are the two or three that it makes and none is empty.
inline bool read_phases(PyObject* list, std::vector<double>& out) {
  static PyObject* const end_step = intern("end_step");
  static PyObject* const keys[] = {intern("start_lr"), intern("end_lr"), intern("start_momentum"),
                                   intern("end_momentum")};
  static PyObject* const first = intern("initial_lr");
  static PyObject* const top = intern("max_lr");
  static PyObject* const last = intern("min_lr");
  static PyObject* const high = intern("max_momentum");
  static PyObject* const low = intern("base_momentum");
  static PyObject* const up[] = {first, top, high, low};
  static PyObject* const back[] = {top, first, low, high};
  static PyObject* const down[] = {top, last, low, high};
  static PyObject* const out_of_it[] = {first, last, high, high};
  static PyObject* const* const two[] = {up, down};
  static PyObject* const* const three[] = {up, back, out_of_it};
  const Ref held = Ref::borrow(list);
  PyObject* const table = held.get();
  if (!PyList_CheckExact(table) || length(table) < 2 || length(table) > 3) return false;
  PyObject* const* const* expected = length(table) == 2 ? two : three;
  double before = 0.0;
  for (std::size_t i = 0; i < length(table); ++i) {
    const Ref phase = Ref::borrow(item(table, i));  // a key of another type may run Python code when compared
    if (!PyDict_CheckExact(phase.get())) return false;
    for (std::size_t k = 0; k < 4; ++k) {
      PyObject* name = PyDict_GetItemWithError(phase.get(), keys[k]);
      if (name == nullptr || !PyUnicode_CheckExact(name) || PyUnicode_Compare(name, expected[i][k]) != 0) {
        return false;
      }
    }
    PyObject* end = PyDict_GetItemWithError(phase.get(), end_step);
    double value = 0.0;
    if (end == nullptr || !read_number(end, value) || value == before) return false;
    out.push_back(value);
    before = value;
  }
  return true;
}

// The table of a scheduler, and whether it is still what it was when it was read.
class TableReader {
 public:
  const std::vector<double>& values() const { return values_; }
  Table table() const { return {values_.data(), static_cast<std::int64_t>(values_.size())}; }

  // False if the attribute does not hold what it should.
  bool read(const ScheduleAttributes& about, PyObject* scheduler_dict) {
    values_.clear();
    sources_.clear();
    if (about.table_type == TableType::none || about.table_type == TableType::factors) return true;
    PyObject* table = PyDict_GetItemWithError(scheduler_dict, about.table);
    const Ref held = Ref::borrow(table);
    if (table == nullptr || !parse(about.table_type, table)) {
      return decline(about.table, table, "what torch makes it, of Python numbers");
    }
    if (about.table_type == TableType::numbers) {
      tuple_ = Ref::borrow(table);
    } else if (PyDict_Check(table)) {
      sources_.emplace_back(table, version(table));
    } else if (about.table_type == TableType::phases) {
      for (std::size_t i = 0; i < length(table); ++i)
        sources_.emplace_back(item(table, i), version(item(table, i)));
    }
    return true;
  }

  // Whether the table changes only where the attribute does.
  static bool is_fixed(const ScheduleAttributes& about) {
    return about.table_type == TableType::none || about.table_type == TableType::numbers ||
           about.table_type == TableType::factors;
  }

  // The attribute itself is the same object as when it was read, or is looked up anew.
  bool same(const ScheduleAttributes& about, PyObject* scheduler_dict) {
    if (about.table_type == TableType::none || about.table_type == TableType::factors) return true;
    PyObject* table = PyDict_GetItemWithError(scheduler_dict, about.table);
    if (table == nullptr) return false;
    if (about.table_type == TableType::numbers) {
      if (table == tuple_.get()) return true;
    } else if (about.table_type == TableType::milestones) {
      if (PyList_CheckExact(table) && milestones_.holds(table)) return true;
    } else if (!sources_.empty() && unchanged_sources(table)) {
      return true;
    }
    TableReader now;
    if (!now.read(about, scheduler_dict) || now.values_ != values_) return false;
    *this = std::move(now);
    return true;
  }

 private:
  bool parse(TableType type, PyObject* table) {
    switch (type) {
      case TableType::milestone_counts: return read_milestone_counts(table, values_);
      case TableType::milestones:
        if (!PyList_CheckExact(table) || !milestones_.read(table)) return false;
        values_ = milestones_.numbers();
        return true;
      case TableType::phases: return read_phases(table, values_);
      case TableType::numbers:
        if (!PyTuple_CheckExact(table)) return false;
        values_.resize(static_cast<std::size_t>(PyTuple_GET_SIZE(table)));
        for (std::size_t i = 0; i < values_.size(); ++i) {
          if (!read_number(PyTuple_GET_ITEM(table, static_cast<Py_ssize_t>(i)), values_[i])) return false;
        }
        return true;
      case TableType::none:
      case TableType::factors: break;
    }
    return true;
  }

  bool unchanged_sources(PyObject* table) const {
    if (PyDict_Check(table)) return table == sources_[0].first && unchanged(table, sources_[0].second);
    if (!PyList_CheckExact(table) || length(table) != sources_.size()) return false;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      if (item(table, i) != sources_[i].first || !unchanged(item(table, i), sources_[i].second)) return false;
    }
    return true;
  }

  std::vector<double> values_;
  NumberList milestones_;  // of a list
  Ref tuple_;              // which cannot change
  // The dicts that were read and their versions. Compared by address only while they are in the table, so a
  // dict that took a freed one's address shows by its version.
  std::vector<std::pair<PyObject*, DictVersion>> sources_;
};

}  // namespace fastsched::host
