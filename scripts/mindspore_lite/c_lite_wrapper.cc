// The native half of the official `mindspore_lite` Python package, for any CPython: what its *.py files take from
// `mindspore_lite.lib._c_lite_wrapper`, over the C++ API of the wheel's include/api. See README.md.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "include/api/context.h"
#include "include/api/model.h"
#include "include/api/model_parallel_runner.h"
#include "include/api/types.h"
#include "bindings.h"
#include "model_file.h"

namespace py = pybind11;
using mindspore::Context;
using mindspore::DataType;
using mindspore::ModelType;
using mindspore::MSTensor;
using mindspore::RunnerConfig;
using mindspore::Status;

namespace {

using TensorPtr = std::shared_ptr<MSTensor>;

// Loading a MINDIR goes through global registries of the runtime: one at a time, destruction included.
std::mutex &BuildMutex() {
  static auto *mutex = new std::mutex;  // never destroyed: models may outlive static destructors
  return *mutex;
}

// ---- tensors ----

struct NumpyType {
  const char *name;
  size_t size;
};

NumpyType NumpyTypeOf(DataType type) {
  switch (type) {
    case DataType::kNumberTypeBool: return {"bool", 1};
    case DataType::kNumberTypeInt8: return {"int8", 1};
    case DataType::kNumberTypeInt16: return {"int16", 2};
    case DataType::kNumberTypeInt32: return {"int32", 4};
    case DataType::kNumberTypeInt64: return {"int64", 8};
    case DataType::kNumberTypeUInt8: return {"uint8", 1};
    case DataType::kNumberTypeUInt16: return {"uint16", 2};
    case DataType::kNumberTypeUInt32: return {"uint32", 4};
    case DataType::kNumberTypeUInt64: return {"uint64", 8};
    case DataType::kNumberTypeFloat16: return {"float16", 2};
    case DataType::kNumberTypeFloat32: return {"float32", 4};
    case DataType::kNumberTypeFloat64: return {"float64", 8};
    case DataType::kObjectTypeString: return {"uint8", 1};
    default:
      throw std::runtime_error("tensor data type " + std::to_string(static_cast<int>(type)) + " has no numpy type");
  }
}

std::string ShapeText(const std::vector<int64_t> &shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// Bytes that a tensor of this type and shape holds; refuses unknown (-1) dimensions and overflow.
size_t ByteSize(const MSTensor &tensor) {
  size_t bytes = NumpyTypeOf(tensor.DataType()).size;
  for (int64_t dim : tensor.Shape()) {
    if (dim < 0) throw std::runtime_error("tensor shape " + ShapeText(tensor.Shape()) + " is not fixed: resize first");
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(dim), &bytes) || bytes > (size_t{1} << 40)) {
      throw std::runtime_error("tensor shape " + ShapeText(tensor.Shape()) + " is too large");
    }
  }
  return bytes;
}

TensorPtr NewTensor(const std::string &name, DataType type, const std::vector<int64_t> &shape, const void *data,
                    size_t size) {
  MSTensor *tensor = MSTensor::CreateTensor(name, type, shape, data, size);
  if (tensor == nullptr) throw std::runtime_error("create tensor failed");
  return TensorPtr(tensor, [](MSTensor *pointer) { MSTensor::DestroyTensorPtr(pointer); });
}

TensorPtr CreateTensor() {
  auto tensor = NewTensor("", DataType::kNumberTypeFloat32, {}, nullptr, 0);
  tensor->SetFormat(mindspore::NCHW);
  return tensor;
}

// One copy into a buffer of its own: the array may change or vanish afterwards, and no other tensor sees the data.
bool SetDataFromNumpy(MSTensor *tensor, const py::array &input) {
  auto type = NumpyTypeOf(tensor->DataType());
  size_t size = ByteSize(*tensor);
  py::dtype expected(type.name);
  if (input.dtype().kind() != expected.kind() || static_cast<size_t>(input.itemsize()) != type.size) {
    throw std::runtime_error("set_data_from_numpy: the tensor takes " + std::string(type.name) + ", the array is " +
                             py::str(input.dtype()).cast<std::string>());
  }
  if (static_cast<size_t>(input.nbytes()) != size) {
    throw std::runtime_error("set_data_from_numpy: the tensor takes " + std::to_string(size) +
                             " bytes, the array has " + std::to_string(input.nbytes()));
  }
  // Fortran order and foreign byte order are brought to C order and native here; a plain array passes untouched.
  py::array plain = py::module_::import("numpy").attr("ascontiguousarray")(input, expected);
  auto filled = NewTensor(tensor->Name(), tensor->DataType(), tensor->Shape(), plain.data(), size);
  filled->SetFormat(tensor->format());
  *tensor = *filled;  // shares the new buffer; the model's own tensor stays as it is
  return true;
}

// The array owns a copy, so it outlives the tensor, the model and the next predict.
py::array GetDataToNumpy(MSTensor *tensor) {
  auto type = NumpyTypeOf(tensor->DataType());
  size_t size = ByteSize(*tensor);
  std::vector<py::ssize_t> shape(tensor->Shape().begin(), tensor->Shape().end());
  py::array result(py::dtype(type.name), shape);
  if (size == 0) return result;
  if (tensor->DataSize() != size) {
    throw std::runtime_error("get_data_to_numpy: the tensor of shape " + ShapeText(tensor->Shape()) + " holds " +
                             std::to_string(tensor->DataSize()) + " bytes, not " + std::to_string(size));
  }
  const void *data = tensor->MutableData();
  if (data == nullptr) throw std::runtime_error("get_data_to_numpy: the tensor holds no data");
  std::memcpy(result.mutable_data(), data, size);
  return result;
}

// Tensors of a model may point into its memory, so each keeps its model alive.
template <typename Owner>
std::vector<TensorPtr> Share(const std::vector<MSTensor> &tensors, const std::shared_ptr<Owner> &owner) {
  std::vector<TensorPtr> shared;
  for (const auto &tensor : tensors) {
    shared.push_back(TensorPtr(new MSTensor(tensor), [owner](MSTensor *pointer) { delete pointer; }));
  }
  return shared;
}

std::vector<MSTensor> Plain(const std::vector<TensorPtr> &tensors) {
  std::vector<MSTensor> plain;
  for (const auto &tensor : tensors) {
    if (tensor == nullptr) throw std::runtime_error("an input tensor is None");
    plain.push_back(*tensor);
  }
  return plain;
}

// What the runtime would read past the end of, or misread: number, type, shape and data of the inputs.
void CheckInputs(const std::vector<MSTensor> &expected, std::vector<MSTensor> *inputs) {
  if (inputs->size() != expected.size()) {
    throw std::runtime_error("predict: the model takes " + std::to_string(expected.size()) + " inputs, not " +
                             std::to_string(inputs->size()));
  }
  for (size_t i = 0; i < expected.size(); i++) {
    auto &input = (*inputs)[i];
    std::string place = "predict: input " + std::to_string(i);
    if (input.DataType() != expected[i].DataType()) {
      throw std::runtime_error(place + " is " + NumpyTypeOf(input.DataType()).name + ", the model takes " +
                               NumpyTypeOf(expected[i].DataType()).name);
    }
    if (input.Shape() != expected[i].Shape()) {
      throw std::runtime_error(place + " has shape " + ShapeText(input.Shape()) + ", the model takes " +
                               ShapeText(expected[i].Shape()));
    }
    if (input.DataSize() != ByteSize(input) || (!input.IsDevice() && input.MutableData() == nullptr)) {
      throw std::runtime_error(place + " holds no data of its shape: call set_data_from_numpy first");
    }
  }
}

// ---- models ----

// A runtime object that answers only after it was built, one call at a time, and never while holding the GIL.
template <typename Runtime>
class Built : public std::enable_shared_from_this<Built<Runtime>> {
 public:
  ~Built() {
    std::unique_ptr<py::gil_scoped_release> release;  // waits for builds of other threads, which may want the GIL
    if (PyGILState_Check()) release = std::make_unique<py::gil_scoped_release>();
    std::lock_guard<std::mutex> lock(BuildMutex());
    runtime_.reset();
  }

  Runtime &runtime() { return *runtime_; }

  template <typename Build>
  Status BuildOnce(const std::string &path, bool mindir, Build build) {
    if (built_) return Status(mindspore::kLiteModelRebuild, "the model is already built: make a new one");
    std::string problem = lite_wrapper::ModelFileProblem(path, mindir);
    if (!problem.empty()) return Status(mindspore::kLiteGraphFileError, problem);
    std::lock_guard<std::mutex> lock(BuildMutex());
    Status status = build(runtime_.get());
    built_ = status.IsOk();
    if (built_) return status;
    return Status(mindspore::kLiteGraphFileError,
                  path + ": the runtime cannot build it (" + status.ToString() + "): damaged, an operator that this "
                  "device lacks, or no such device; GLOG_v=3 shows the runtime's log");
  }

  std::vector<MSTensor> Inputs() {
    if (!built_) throw std::runtime_error("the model is not built: call build_from_file first");
    return runtime_->GetInputs();
  }

  std::vector<TensorPtr> Predict(const std::vector<TensorPtr> &tensors) {
    auto inputs = Plain(tensors);
    CheckInputs(Inputs(), &inputs);
    std::vector<MSTensor> outputs;
    Status status = runtime_->Predict(inputs, &outputs);
    if (!status.IsOk()) throw std::runtime_error("predict failed! Error is " + status.ToString());
    return Share(outputs, this->shared_from_this());
  }

  std::mutex &mutex() { return mutex_; }

 private:
  std::unique_ptr<Runtime> runtime_ = std::make_unique<Runtime>();
  std::mutex mutex_;
  bool built_ = false;
};

using BuiltModel = Built<mindspore::Model>;
using BuiltRunner = Built<mindspore::ModelParallelRunner>;

Status BuildModel(BuiltModel *model, const std::string &path, ModelType type, const std::shared_ptr<Context> &context) {
  std::lock_guard<std::mutex> lock(model->mutex());
  return model->BuildOnce(path, type == mindspore::kMindIR,
                          [&](mindspore::Model *runtime) { return runtime->Build(path, type, context); });
}

Status ResizeModel(BuiltModel *model, const std::vector<TensorPtr> &tensors,
                   const std::vector<std::vector<int64_t>> &shapes) {
  std::lock_guard<std::mutex> lock(model->mutex());
  auto inputs = model->Inputs();
  if (inputs.size() != tensors.size() || tensors.size() != shapes.size()) {
    return Status(mindspore::kLiteInputParamInvalid, "resize takes all inputs of the model and a shape for each");
  }
  for (size_t i = 0; i < shapes.size(); i++) {
    bool fits = shapes[i].size() == inputs[i].Shape().size();
    for (int64_t dim : shapes[i]) fits &= dim > 0;
    if (!fits) {
      return Status(mindspore::kLiteInputParamInvalid,
                    ShapeText(shapes[i]) + " is no shape for input " + std::to_string(i) + ", which has " +
                        ShapeText(inputs[i].Shape()) + ": as many dimensions, each 1 or more");
    }
  }
  Status status = model->runtime().Resize(Plain(tensors), shapes);
  if (status.IsOk()) return status;
  return Status(status.StatusCode(), "the runtime cannot run this model with " + ShapeText(shapes[0]) + " (" +
                                         status.ToString() + "); GLOG_v=3 shows its log");
}

template <typename Handle>
std::vector<TensorPtr> ModelInputs(Handle *handle) {
  std::lock_guard<std::mutex> lock(handle->mutex());
  return Share(handle->Inputs(), handle->shared_from_this());
}

std::vector<TensorPtr> PredictModel(BuiltModel *model, const std::vector<TensorPtr> &tensors) {
  std::lock_guard<std::mutex> lock(model->mutex());
  return model->Predict(tensors);
}

Status InitRunner(BuiltRunner *runner, const std::string &path, const std::shared_ptr<RunnerConfig> &config) {
  std::lock_guard<std::mutex> lock(runner->mutex());
  bool mindir = path.size() < 3 || path.compare(path.size() - 3, 3, ".ms") != 0;  // the runtime's own rule
  return runner->BuildOnce(
      path, mindir, [&](mindspore::ModelParallelRunner *runtime) { return runtime->Init(path, config); });
}

std::vector<TensorPtr> PredictRunner(BuiltRunner *runner, const std::vector<TensorPtr> &tensors,
                                     const py::object &before, const py::object &after) {
  if (!before.is_none() || !after.is_none()) throw py::type_error("callbacks are not offered: pass None");
  py::gil_scoped_release release;
  return runner->Predict(tensors);  // its workers take calls from many threads at once
}

// ---- what Python sees ----

void BindTensors(py::module_ *m) {
  py::class_<MSTensor, TensorPtr>(*m, "TensorBind")
      .def("set_tensor_name", [](MSTensor *tensor, const std::string &name) { tensor->SetTensorName(name); })
      .def("get_tensor_name", [](const MSTensor &tensor) { return tensor.Name(); })
      .def("set_data_type", &MSTensor::SetDataType)
      .def("get_data_type", &MSTensor::DataType)
      .def("set_shape", &MSTensor::SetShape)
      .def("get_shape", &MSTensor::Shape)
      .def("set_format", &MSTensor::SetFormat)
      .def("get_format", &MSTensor::format)
      .def("get_element_num", &MSTensor::ElementNum)
      .def("get_data_size", &MSTensor::DataSize)
      .def("set_data_from_numpy", &SetDataFromNumpy)
      .def("get_data_to_numpy", &GetDataToNumpy);
  m->def("create_tensor", &CreateTensor);
}

void BindModels(py::module_ *m) {
  using NoGil = py::call_guard<py::gil_scoped_release>;
  py::class_<BuiltModel, std::shared_ptr<BuiltModel>>(*m, "ModelBind")
      .def(py::init<>())
      .def("load_config", [](BuiltModel *model, const std::string &path) { return model->runtime().LoadConfig(path); })
      .def("build_from_file", &BuildModel, NoGil())
      .def("get_inputs", &ModelInputs<BuiltModel>, NoGil())
      .def("resize", &ResizeModel, NoGil())
      .def("predict", &PredictModel, NoGil());
  py::class_<BuiltRunner, std::shared_ptr<BuiltRunner>>(*m, "ModelParallelRunnerBind")
      .def(py::init<>())
      .def("init", &InitRunner, NoGil())
      .def("get_inputs", &ModelInputs<BuiltRunner>, NoGil())
      .def("predict", &PredictRunner);
}

}  // namespace

PYBIND11_MODULE(_c_lite_wrapper, m) {
  m.doc() = "MindSpore Lite's native API, rebuilt for this interpreter.";
  BindEnums(&m);
  BindContext(&m);
  BindTensors(&m);
  BindModels(&m);
}
