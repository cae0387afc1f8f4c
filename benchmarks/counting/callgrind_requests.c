// Callgrind's client requests for Python: what is counted begins and ends at a call, not at a function's name.
// Outside of valgrind they do nothing.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <valgrind/callgrind.h>

static PyObject* start(PyObject* module, PyObject* ignored) {
  (void)module;
  (void)ignored;
  CALLGRIND_START_INSTRUMENTATION;
  Py_RETURN_NONE;
}

static PyObject* zero(PyObject* module, PyObject* ignored) {
  (void)module;
  (void)ignored;
  CALLGRIND_ZERO_STATS;
  Py_RETURN_NONE;
}

static PyObject* dump(PyObject* module, PyObject* name) {
  (void)module;
  const char* label = PyUnicode_AsUTF8(name);
  if (label == NULL) return NULL;
  CALLGRIND_DUMP_STATS_AT(label);
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"start", start, METH_NOARGS, "Begin to count instructions."},
    {"zero", zero, METH_NOARGS, "Set the count to zero."},
    {"dump", dump, METH_O, "Write the count to a file, under a name."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "callgrind_requests", NULL, -1, methods, NULL, NULL, NULL,
                                        NULL};

PyMODINIT_FUNC PyInit_callgrind_requests(void) { return PyModule_Create(&definition); }
