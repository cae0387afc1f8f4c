// What is in a list or tuple, by identity: lists change without their owner's dict noticing, and the same
// objects in the same order are the same list.
#pragma once

#include <algorithm>
#include <vector>

#include "python.h"

namespace fastsched::host {

class ListContents {
 public:
  // `keep` them alive, unless they may refer to whoever has this, or somebody else does: an object that comes
  // to be later cannot have the address of one of these then.
  void record(PyObject* list, bool keep) {
    std::vector<PyObject*> objects(PySequence_Fast_ITEMS(list), PySequence_Fast_ITEMS(list) + size_of(list));
    std::vector<Ref> kept;
    for (PyObject* object : objects) {
      if (keep) kept.push_back(Ref::borrow(object));
    }
    objects_.swap(objects);
    kept_.swap(kept);  // what was kept goes last: that may run Python code, which finds all in order
  }
  void forget() { objects_.clear(); }

  bool same(PyObject* list) const {
    return size_of(list) == objects_.size() &&
           std::equal(objects_.begin(), objects_.end(), PySequence_Fast_ITEMS(list));
  }

  std::size_t size() const { return objects_.size(); }
  PyObject* operator[](std::size_t i) const { return objects_[i]; }

 private:
  static std::size_t size_of(PyObject* list) {
    return static_cast<std::size_t>(PySequence_Fast_GET_SIZE(list));
  }

  std::vector<PyObject*> objects_;
  std::vector<Ref> kept_;
};

}  // namespace fastsched::host
