// `_c_lite_converter`: the native half of `mindspore_lite.Converter`. A module of its own, loaded on first use, since
// the converter's library is large and has a second `mindspore::Model`, which must not meet the runtime's.
#include "converter.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <vector>

namespace py = pybind11;
using mindspore::Converter;
using Chars = Converter::Chars;

namespace {

Chars ToChars(const std::string &text) { return Chars(text.begin(), text.end()); }
std::string ToText(const Chars &chars) { return std::string(chars.begin(), chars.end()); }

std::map<std::string, std::map<std::string, std::string>> ConfigInfo(const Converter &converter) {
  std::map<std::string, std::map<std::string, std::string>> info;
  for (const auto &section : converter.GetConfigInfoChar()) {
    for (const auto &entry : section.second) info[ToText(section.first)][ToText(entry.first)] = ToText(entry.second);
  }
  return info;
}

void SetConfigInfo(Converter *converter, const std::string &section, const std::map<std::string, std::string> &info) {
  std::map<Chars, Chars> entries;
  for (const auto &entry : info) entries[ToChars(entry.first)] = ToChars(entry.second);
  converter->SetConfigInfo(ToChars(section), entries);
}

std::map<std::string, std::vector<int64_t>> InputShape(const Converter &converter) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto &entry : converter.GetInputShapeChar()) shapes[ToText(entry.first)] = entry.second;
  return shapes;
}

void SetInputShape(Converter *converter, const std::map<std::string, std::vector<int64_t>> &shapes) {
  std::map<Chars, std::vector<int64_t>> entries;
  for (const auto &entry : shapes) entries[ToChars(entry.first)] = entry.second;
  converter->SetInputShape(entries);
}

mindspore::Status Convert(Converter *converter, mindspore::converter::FmkType framework, const std::string &model,
                          const std::string &output, const std::string &weights) {
  return converter->Convert(framework, ToChars(model), ToChars(output), ToChars(weights));
}

// A setter or getter of one text.
template <void (Converter::*Setter)(const Chars &)>
void Set(Converter *converter, const std::string &text) {
  (converter->*Setter)(ToChars(text));
}
template <Chars (Converter::*Getter)() const>
std::string Get(const Converter &converter) {
  return ToText((converter.*Getter)());
}

}  // namespace

PYBIND11_MODULE(_c_lite_converter, m) {
  m.doc() = "MindSpore Lite's converter, for this interpreter.";
  py::class_<Converter>(m, "ConverterBind")
      .def(py::init<>())
      .def("convert", &Convert, py::call_guard<py::gil_scoped_release>())
      .def("set_config_file", &Set<&Converter::SetConfigFile>)
      .def("set_config_info", &SetConfigInfo)
      .def("get_config_info", &ConfigInfo)
      .def("set_decrypt_key", &Set<&Converter::SetDecryptKey>)
      .def("get_decrypt_key", &Get<&Converter::GetDecryptKeyChar>)
      .def("set_decrypt_mode", &Set<&Converter::SetDecryptMode>)
      .def("get_decrypt_mode", &Get<&Converter::GetDecryptModeChar>)
      .def("set_device", &Set<&Converter::SetDevice>)
      .def("get_device", [](Converter *converter) { return ToText(converter->GetDeviceChar()); })
      .def("set_enable_encryption", &Converter::SetEnableEncryption)
      .def("get_enable_encryption", &Converter::GetEnableEncryption)
      .def("set_encrypt_key", &Set<&Converter::SetEncryptKey>)
      .def("get_encrypt_key", &Get<&Converter::GetEncryptKeyChar>)
      .def("set_infer", &Converter::SetInfer)
      .def("get_infer", &Converter::GetInfer)
      .def("set_input_data_type", &Converter::SetInputDataType)
      .def("get_input_data_type", &Converter::GetInputDataType)
      .def("set_input_format", &Converter::SetInputFormat)
      .def("get_input_format", &Converter::GetInputFormat)
      .def("set_input_shape", &SetInputShape)
      .def("get_input_shape", &InputShape)
      .def("set_no_fusion", &Converter::SetNoFusion)
      .def("set_output_data_type", &Converter::SetOutputDataType)
      .def("get_output_data_type", &Converter::GetOutputDataType)
      .def("set_save_type", &Converter::SetSaveType)
      .def("get_save_type", &Converter::GetSaveType)
      .def("set_weight_fp16", &Converter::SetWeightFp16)
      .def("get_weight_fp16", &Converter::GetWeightFp16);
}
