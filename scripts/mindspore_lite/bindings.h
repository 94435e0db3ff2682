// What the source files of `_c_lite_wrapper` share.
#ifndef H2A_LITE_BINDINGS_H_
#define H2A_LITE_BINDINGS_H_

#include <pybind11/pybind11.h>

void BindEnums(pybind11::module_ *m);    // enums, Status and the way to the converter
void BindContext(pybind11::module_ *m);  // devices, context, runner configuration

#endif  // H2A_LITE_BINDINGS_H_
