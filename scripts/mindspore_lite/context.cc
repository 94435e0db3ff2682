// Enums, Status, devices, context and runner configuration of `_c_lite_wrapper`.
#include "include/api/context.h"

#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bindings.h"
#include "converter.h"
#include "include/api/data_type.h"
#include "include/api/format.h"
#include "include/api/model_parallel_runner.h"
#include "include/api/status.h"
#include "include/api/types.h"

namespace py = pybind11;
using mindspore::AscendDeviceInfo;
using mindspore::Context;
using mindspore::CPUDeviceInfo;
using mindspore::DataType;
using mindspore::DeviceInfoContext;
using mindspore::DeviceType;
using mindspore::Format;
using mindspore::GPUDeviceInfo;
using mindspore::ModelType;
using mindspore::RunnerConfig;
using mindspore::Status;
using mindspore::converter::FmkType;

namespace {

#define VALUE(name) .value(#name, DataType::name)
void BindDataType(py::module_ *m) {
  py::enum_<DataType>(*m, "DataType") VALUE(kTypeUnknown) VALUE(kObjectTypeString) VALUE(kObjectTypeList)
      VALUE(kObjectTypeTuple) VALUE(kObjectTypeTensorType) VALUE(kNumberTypeBool) VALUE(kNumberTypeInt8)
      VALUE(kNumberTypeInt16) VALUE(kNumberTypeInt32) VALUE(kNumberTypeInt64) VALUE(kNumberTypeUInt8)
      VALUE(kNumberTypeUInt16) VALUE(kNumberTypeUInt32) VALUE(kNumberTypeUInt64) VALUE(kNumberTypeFloat16)
      VALUE(kNumberTypeFloat32) VALUE(kNumberTypeFloat64) VALUE(kInvalidType);
}
#undef VALUE

#define VALUE(name) .value(#name, Format::name)
void BindFormat(py::module_ *m) {
  py::enum_<Format>(*m, "Format") VALUE(DEFAULT_FORMAT) VALUE(NCHW) VALUE(NHWC) VALUE(NHWC4) VALUE(HWKC) VALUE(HWCK)
      VALUE(KCHW) VALUE(CKHW) VALUE(KHWC) VALUE(CHWK) VALUE(HW) VALUE(HW4) VALUE(NC) VALUE(NC4) VALUE(NC4HW4)
      VALUE(NCDHW) VALUE(NWC) VALUE(NCW) VALUE(NDHWC) VALUE(NC8HW8);
}
#undef VALUE

std::string DeviceList(Context *context) {
  std::string text;
  for (const auto &device : context->MutableDeviceInfo()) text += std::to_string(device->GetDeviceType()) + ", ";
  return text;
}

std::string ConfigText(const RunnerConfig &config) {
  std::string text;
  for (const auto &section : config.GetConfigInfo()) {
    text += section.first + ": ";
    for (const auto &entry : section.second) text += entry.first + " " + entry.second + "\n";
  }
  return text;
}

void BindDevices(py::module_ *m) {
  py::class_<DeviceInfoContext, std::shared_ptr<DeviceInfoContext>>(*m, "DeviceInfoContextBind");
  py::class_<CPUDeviceInfo, DeviceInfoContext, std::shared_ptr<CPUDeviceInfo>>(*m, "CPUDeviceInfoBind")
      .def(py::init<>())
      .def("get_device_type", &CPUDeviceInfo::GetDeviceType)
      .def("set_enable_fp16", &CPUDeviceInfo::SetEnableFP16)
      .def("get_enable_fp16", &CPUDeviceInfo::GetEnableFP16);
  py::class_<GPUDeviceInfo, DeviceInfoContext, std::shared_ptr<GPUDeviceInfo>>(*m, "GPUDeviceInfoBind")
      .def(py::init<>())
      .def("get_device_type", &GPUDeviceInfo::GetDeviceType)
      .def("set_device_id", &GPUDeviceInfo::SetDeviceID)
      .def("get_device_id", &GPUDeviceInfo::GetDeviceID)
      .def("set_enable_fp16", &GPUDeviceInfo::SetEnableFP16)
      .def("get_enable_fp16", &GPUDeviceInfo::GetEnableFP16)
      .def("get_rank_id", &GPUDeviceInfo::GetRankID)
      .def("get_group_size", &GPUDeviceInfo::GetGroupSize);
  py::class_<AscendDeviceInfo, DeviceInfoContext, std::shared_ptr<AscendDeviceInfo>>(*m, "AscendDeviceInfoBind")
      .def(py::init<>())
      .def("get_device_type", &AscendDeviceInfo::GetDeviceType)
      .def("set_device_id", &AscendDeviceInfo::SetDeviceID)
      .def("get_device_id", &AscendDeviceInfo::GetDeviceID)
      .def("set_precision_mode", [](AscendDeviceInfo *info, const std::string &mode) { info->SetPrecisionMode(mode); })
      .def("get_precision_mode", [](const AscendDeviceInfo &info) { return info.GetPrecisionMode(); });
}

}  // namespace

void BindEnums(py::module_ *m) {
  BindDataType(m);
  BindFormat(m);
  py::enum_<ModelType>(*m, "ModelType")
      .value("kMindIR", mindspore::kMindIR)
      .value("kMindIR_Lite", mindspore::kMindIR_Lite);
  py::enum_<DeviceType>(*m, "DeviceType", py::arithmetic())
      .value("kCPU", DeviceType::kCPU)
      .value("kGPU", DeviceType::kGPU)
      .value("kKirinNPU", DeviceType::kKirinNPU)
      .value("kAscend", DeviceType::kAscend);
  py::enum_<FmkType>(*m, "FmkType")
      .value("kFmkTypeTf", FmkType::kFmkTypeTf)
      .value("kFmkTypeCaffe", FmkType::kFmkTypeCaffe)
      .value("kFmkTypeOnnx", FmkType::kFmkTypeOnnx)
      .value("kFmkTypeMs", FmkType::kFmkTypeMs)
      .value("kFmkTypeTflite", FmkType::kFmkTypeTflite)
      .value("kFmkTypePytorch", FmkType::kFmkTypePytorch);
  // converter.py calls it like a class; its library is loaded by the first call only
  m->def("ConverterBind", [] { return py::module_::import("mindspore_lite.lib._c_lite_converter").attr("ConverterBind")(); });
  py::class_<Status>(*m, "Status")
      .def("IsOk", &Status::IsOk)
      .def("IsError", &Status::IsError)
      .def("ToString", [](const Status &status) { return status.ToString(); });
}

void BindContext(py::module_ *m) {
  BindDevices(m);
  py::class_<Context, std::shared_ptr<Context>>(*m, "ContextBind")
      .def(py::init<>())
      .def("append_device_info",
           [](Context *context, const std::shared_ptr<DeviceInfoContext> &device) {
             context->MutableDeviceInfo().push_back(device);
           })
      .def("clear_device_info", [](Context *context) { context->MutableDeviceInfo().clear(); })
      .def("get_device_list", &DeviceList)
      .def("set_thread_num", &Context::SetThreadNum)
      .def("get_thread_num", &Context::GetThreadNum)
      .def("set_inter_op_parallel_num", &Context::SetInterOpParallelNum)
      .def("get_inter_op_parallel_num", &Context::GetInterOpParallelNum)
      .def("set_thread_affinity_mode", py::overload_cast<int>(&Context::SetThreadAffinity))
      .def("get_thread_affinity_mode", &Context::GetThreadAffinityMode)
      .def("set_thread_affinity_core_list", py::overload_cast<const std::vector<int> &>(&Context::SetThreadAffinity))
      .def("get_thread_affinity_core_list", &Context::GetThreadAffinityCoreList);
  py::class_<RunnerConfig, std::shared_ptr<RunnerConfig>>(*m, "RunnerConfigBind")
      .def(py::init<>())
      .def("set_config_info",
           [](RunnerConfig *config, const std::string &section, const std::map<std::string, std::string> &info) {
             config->SetConfigInfo(section, info);
           })
      .def("get_config_info_string", &ConfigText)
      .def("set_config_path", [](RunnerConfig *config, const std::string &path) { config->SetConfigPath(path); })
      .def("get_config_path", [](const RunnerConfig &config) { return config.GetConfigPath(); })
      .def("set_workers_num", &RunnerConfig::SetWorkersNum)
      .def("get_workers_num", &RunnerConfig::GetWorkersNum)
      .def("set_context", &RunnerConfig::SetContext);
}
