// The floor under an operator call: an operator without arguments that does nothing, registered as fastsched's are.
#include <torch/csrc/stable/library.h>

namespace {
void nothing() {}
}  // namespace

STABLE_TORCH_LIBRARY(fastsched_floor, library) { library.def("nothing() -> ()"); }

STABLE_TORCH_LIBRARY_IMPL(fastsched_floor, CompositeExplicitAutograd, library) {
  library.impl("nothing", TORCH_BOX(&nothing));
}
