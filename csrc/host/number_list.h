// The numbers in a list, read again only where it holds other objects than before.
#pragma once

#include <vector>

#include "list_contents.h"
#include "param_groups.h"
#include "python.h"
#include "schedule_attributes.h"

namespace fastsched::host {

class NumberList {
 public:
  // False if they are not plain numbers.
  bool read(PyObject* list) {
    if (holds(list)) return true;
    contents_.forget();
    numbers_.resize(length(list));
    has_integers_ = false;
    for (std::size_t i = 0; i < numbers_.size(); ++i) {
      if (!read_number(item(list, i), numbers_[i])) return false;
      has_integers_ |= !PyFloat_CheckExact(item(list, i));
    }
    contents_.record(list, true);
    return true;
  }

  // Whether these are the objects that were read, in the same order.
  bool holds(PyObject* list) const { return contents_.same(list); }

  // Kept alive.
  PyObject* object(std::size_t i) const { return contents_[i]; }
  const std::vector<double>& numbers() const { return numbers_; }
  bool has_integers() const { return has_integers_; }

 private:
  ListContents contents_;
  std::vector<double> numbers_;
  bool has_integers_ = false;
};

}  // namespace fastsched::host
