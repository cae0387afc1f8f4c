// The floor under a step on Python-number learning rates: the cheapest C loop that puts a new float into each
// of the param groups' dicts. It decides nothing, checks nothing and remembers nothing.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject* lr;
static PyObject* momentum;
static double value = 0.1;

static int write_entry(PyObject* group, PyObject* key) {
  value += 1e-9;
  PyObject* number = PyFloat_FromDouble(value);
  if (number == NULL) return -1;
  const int failed = PyDict_SetItem(group, key, number);
  Py_DECREF(number);
  return failed;
}

static PyObject* write_lrs(PyObject* module, PyObject* groups) {
  (void)module;
  const Py_ssize_t count = PyList_GET_SIZE(groups);
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (write_entry(PyList_GET_ITEM(groups, i), lr)) return NULL;
  }
  Py_RETURN_NONE;
}

static PyObject* write_lrs_and_momenta(PyObject* module, PyObject* groups) {
  (void)module;
  const Py_ssize_t count = PyList_GET_SIZE(groups);
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* group = PyList_GET_ITEM(groups, i);
    if (write_entry(group, lr) || write_entry(group, momentum)) return NULL;
  }
  Py_RETURN_NONE;
}

// And where a user's function gives each group's factor: the calls are part of what cannot be saved.
static PyObject* write_lrs_by(PyObject* module, PyObject* const* args, Py_ssize_t count) {
  (void)module;
  if (count != 2) return PyErr_Format(PyExc_TypeError, "groups and a function, got %zd arguments", count);
  PyObject* epoch = PyLong_FromLong(1000);
  for (Py_ssize_t i = 0; epoch != NULL && i < PyList_GET_SIZE(args[0]); ++i) {
    PyObject* factor = PyObject_CallOneArg(args[1], epoch);
    PyObject* number = factor != NULL ? PyFloat_FromDouble(value * PyFloat_AsDouble(factor)) : NULL;
    const int failed = number == NULL || PyDict_SetItem(PyList_GET_ITEM(args[0], i), lr, number);
    Py_XDECREF(factor);
    Py_XDECREF(number);
    if (failed) Py_CLEAR(epoch);
  }
  if (epoch == NULL) return NULL;
  Py_DECREF(epoch);
  Py_RETURN_NONE;
}

// Where a step writes nothing: what any call from Python into C costs.
static PyObject* nothing(PyObject* module, PyObject* ignored) {
  (void)module;
  (void)ignored;
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"write_lrs", write_lrs, METH_O, "Put a new float under \"lr\" into every dict of a list."},
    {"write_lrs_and_momenta", write_lrs_and_momenta, METH_O, "And another one under \"momentum\"."},
    {"write_lrs_by", (PyCFunction)(void (*)(void))write_lrs_by, METH_FASTCALL,
     "write_lrs with a factor that a function gives for each dict."},
    {"nothing", nothing, METH_NOARGS, "Nothing."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "dict_writes", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_dict_writes(void) {
  lr = PyUnicode_InternFromString("lr");
  momentum = PyUnicode_InternFromString("momentum");
  return lr != NULL && momentum != NULL ? PyModule_Create(&definition) : NULL;
}
