// What compiled code asks of a Python scheduler: the attributes that it reads and the methods that it calls,
// all of them. In Python they are declared in fastsched/schedulers/base.py and compose.py.
#pragma once

#include "python.h"

namespace fastsched::host::protocol {

#define FASTSCHED_NAME(function, text)          \
  inline PyObject* function() {                 \
    static PyObject* const name = intern(text); \
    return name;                                \
  }

// Of every scheduler.
FASTSCHED_NAME(engine, "_engine")          // what steps it
FASTSCHED_NAME(optimizer, "optimizer")     // whose groups it drives
FASTSCHED_NAME(last_lr, "_last_lr")        // the learning rates as it left them
FASTSCHED_NAME(step_count, "_step_count")  // how often it was stepped, construction included
FASTSCHED_NAME(step, "step")
FASTSCHED_NAME(step_off_path, "_step_off_path")  // (declined): what an engine has declined

// Of a composition.
FASTSCHED_NAME(schedulers, "_schedulers")  // its children
FASTSCHED_NAME(go_on, "_go_on")            // (children): of a chain, after the first of these has stepped

#undef FASTSCHED_NAME

}  // namespace fastsched::host::protocol
