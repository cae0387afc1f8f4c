// The numbers in a list, read again only where it holds other objects than before.
#pragma once

#include <algorithm>
#include <vector>

#include "param_groups.h"
#include "python.h"
#include "schedule_attributes.h"

namespace fastsched::host {

class NumberList {
 public:
  // False if they are not plain numbers.
  bool read(PyObject* list) {
    if (holds(list)) return true;
    const std::size_t count = length(list);
    objects_.clear();
    kept_.clear();
    numbers_.resize(count);
    has_integers_ = false;
    for (std::size_t i = 0; i < count; ++i) {
      PyObject* number = item(list, i);
      if (!read_number(number, numbers_[i])) {
        objects_.clear();
        return false;
      }
      has_integers_ |= !PyFloat_CheckExact(number);
      kept_.push_back(Ref::borrow(number));
      objects_.push_back(number);
    }
    return true;
  }

  // Whether these are the objects that were read, in the same order.
  bool holds(PyObject* list) const {
    return objects_.size() == length(list) &&
           std::equal(objects_.begin(), objects_.end(), PySequence_Fast_ITEMS(list));
  }

  // Kept alive.
  PyObject* object(std::size_t i) const { return objects_[i]; }
  const std::vector<double>& numbers() const { return numbers_; }
  bool has_integers() const { return has_integers_; }

 private:
  std::vector<PyObject*> objects_;
  std::vector<Ref> kept_;  // so that an object that comes to be later cannot have the address of one of these
  std::vector<double> numbers_;
  bool has_integers_ = false;
};

}  // namespace fastsched::host
