"""The rebuilt `mindspore_lite` against the official API: names, context, devices, tensors, what it lacks."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

lite = pytest.importorskip("mindspore_lite", exc_type=ImportError)
native = pytest.importorskip("mindspore_lite.lib._c_lite_wrapper", exc_type=ImportError)
PACKAGE = Path(lite.__file__).parent
SOURCE = {path.name: path.read_text() for path in PACKAGE.glob("*.py")}

# Which native class stands behind the attribute that each Python file keeps it in.
OWNERS = {
    ("context.py", "_inner_context"): ["ContextBind"],
    ("context.py", "_runner_config"): ["RunnerConfigBind"],
    ("model.py", "_model"): ["ModelBind", "ModelParallelRunnerBind"],
    ("tensor.py", "_tensor"): ["TensorBind"],
    ("converter.py", "_converter"): ["ConverterBind"],
}
DEVICES = {"_CPU": "CPUDeviceInfoBind", "_GPU": "GPUDeviceInfoBind", "_Ascend": "AscendDeviceInfoBind"}


def calls(text: str, attribute: str) -> set[str]:
    """The methods that a source calls on one of its attributes."""
    return set(re.findall(rf"self\.{attribute}\.([a-z_]+)\(", text))


def test_every_native_name_that_the_package_takes_exists() -> None:
    names = {name for text in SOURCE.values() for name in re.findall(r"_c_lite_wrapper\.([A-Za-z_0-9.]+)", text)}
    assert len(names) > 50
    for name in sorted(names):
        found: Any = native
        for part in name.split("."):
            found = getattr(found, part)


@pytest.mark.parametrize(("file", "attribute"), OWNERS)
def test_every_native_method_that_the_package_calls_exists(file: str, attribute: str) -> None:
    used = calls(SOURCE[file], attribute)
    module = import_module("mindspore_lite.lib._c_lite_converter") if attribute == "_converter" else native
    owners = [getattr(module, name) for name in OWNERS[file, attribute]]
    offered = set().union(*(dir(owner) for owner in owners))
    assert used and used <= offered
    if attribute == "_model":  # one attribute, two classes: each has what its own half of the file calls
        model, runner = SOURCE[file].split("class ModelParallelRunner")
        assert calls(model, attribute) <= set(dir(owners[0]))
        assert calls(runner, attribute) <= set(dir(owners[1]))


@pytest.mark.parametrize("kind", DEVICES)
def test_every_device_method_that_the_package_calls_exists(kind: str) -> None:
    body = re.split(r"\nclass ", SOURCE["context.py"].partition(f"class {kind}(")[2])[0]
    used = calls(body, "_device_info")
    assert used and used <= set(dir(getattr(native, DEVICES[kind])))


def test_enums_have_the_numbers_of_the_python_enums() -> None:
    for table in (
        lite.tensor.data_type_py_cxx_map,
        lite.tensor.format_py_cxx_map,
        lite.model.model_type_py_cxx_map,
    ):
        for python, cxx in table.items():
            assert int(cxx) == python.value, python


def test_context_keeps_what_it_is_given() -> None:
    context = lite.Context()
    assert str(context) == "target: ['cpu']."
    context.cpu.thread_num = 3
    context.cpu.inter_op_parallel_num = 2
    context.cpu.thread_affinity_mode = 0
    context.cpu.thread_affinity_core_list = [0, 1]
    context.cpu.precision_mode = "preferred_fp16"
    assert str(context.cpu) == (
        "device_type: DeviceType.kCPU,\nprecision_mode: preferred_fp16,\nthread_num: 3,\n"
        "inter_op_parallel_num: 2,\nthread_affinity_mode: 0,\nthread_affinity_core_list: [0, 1]."
    )


def test_ascend_and_gpu_settings() -> None:
    context = lite.Context()
    context.target = ["ascend"]
    assert context._context.get_target() == "3, 0, "  # Ascend, then CPU for what it cannot do
    context.ascend.device_id = 2
    context.ascend.precision_mode = "preferred_fp32"
    assert str(context.ascend) == "device_type: DeviceType.kAscend,\nprecision_mode: preferred_fp32,\ndevice_id: 2."
    context.target = ["gpu"]
    context.gpu.device_id = 1
    context.gpu.precision_mode = "preferred_fp16"
    assert (context.gpu.device_id, context.gpu.rank_id, context.gpu.group_size) == (1, 0, 1)
    assert context.gpu.precision_mode == "preferred_fp16"


def test_runner_settings(tmp_path: Path) -> None:
    parallel = lite.Context().parallel
    parallel.workers_num = 4
    parallel.config_info = {"model_file": {"mindir_path": "/a b/ü.mindir"}}
    config = tmp_path / "config.txt"
    config.touch()
    parallel.config_path = str(config)
    assert str(parallel) == (
        f"workers num: 4,\nconfig info: model_file: mindir_path /a b/ü.mindir,\nconfig file: {config}."
    )


@pytest.mark.parametrize(
    "name",
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split(),
)
def test_tensor_round_trip_of_every_type(name: str) -> None:
    tensor = lite.Tensor()
    tensor.name, tensor.dtype, tensor.shape = "image ü", lite.DataType[name.upper()], [2, 3]
    tensor.format = lite.Format.NHWC
    values = np.arange(6).reshape(2, 3).astype(name)
    tensor.set_data_from_numpy(values)
    back = tensor.get_data_to_numpy()
    assert back.dtype == values.dtype and np.array_equal(back, values)
    assert (tensor.element_num, tensor.data_size) == (6, values.nbytes)
    assert (tensor.name, tensor.shape, tensor.format) == ("image ü", [2, 3], lite.Format.NHWC)


@pytest.mark.parametrize(
    "arrange",
    [
        np.asfortranarray,
        lambda a: a.astype(">f4"),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: a[::-1][::-1],
    ],
    ids=["fortran", "big-endian", "every second", "reversed twice"],
)
def test_any_memory_layout_is_read_in_c_order(arrange: Any) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensor = lite.Tensor()
    tensor.shape = [2, 3, 4]
    tensor.set_data_from_numpy(arrange(values))
    assert np.array_equal(tensor.get_data_to_numpy(), values)


def test_tensor_and_arrays_share_no_memory() -> None:
    values = np.ones(4, np.float32)
    tensor = lite.Tensor()
    tensor.shape = [4]
    tensor.set_data_from_numpy(values)
    values[:] = 7
    first = tensor.get_data_to_numpy()
    first[:] = 9
    assert tensor.get_data_to_numpy().tolist() == [1, 1, 1, 1]
    del tensor
    assert first.flags.owndata and first.tolist() == [9, 9, 9, 9]


def test_wrong_arrays_are_refused() -> None:
    tensor = lite.Tensor()
    tensor.shape = [2, 2]
    with pytest.raises(RuntimeError, match="data type not equal"):
        tensor.set_data_from_numpy(np.zeros((2, 2), np.float64))
    with pytest.raises(RuntimeError, match="data size not equal"):
        tensor.set_data_from_numpy(np.zeros(5, np.float32))
    with pytest.raises(TypeError):
        tensor.set_data_from_numpy([1.0])
    # The native half holds by itself, too.
    with pytest.raises(RuntimeError, match="takes float32, the array is float64"):
        tensor._tensor.set_data_from_numpy(np.zeros((2, 2), np.float64))
    with pytest.raises(RuntimeError, match="takes 16 bytes, the array has 20"):
        tensor._tensor.set_data_from_numpy(np.zeros(5, np.float32))


@pytest.mark.parametrize("shape", [[-1, 3], [1 << 40, 1 << 40], [1 << 62, 4]])
def test_impossible_shapes_are_refused(shape: list[int]) -> None:
    tensor = lite.Tensor()
    tensor.shape = shape
    with pytest.raises(RuntimeError, match="shape"):
        tensor.get_data_to_numpy()


def test_empty_and_scalar_tensors() -> None:
    tensor = lite.Tensor()
    tensor.shape = [0, 3]
    assert tensor.get_data_to_numpy().shape == (0, 3)
    scalar = lite.Tensor()
    scalar.shape = []
    scalar.set_data_from_numpy(np.array(2.5, np.float32))
    assert float(scalar.get_data_to_numpy()) == 2.5


def test_tensor_without_type_is_refused() -> None:
    tensor = lite.Tensor()
    tensor.dtype = lite.DataType.UNKNOWN
    with pytest.raises(RuntimeError, match="no numpy type"):
        tensor.get_data_to_numpy()


def test_the_converter_keeps_what_it_is_told() -> None:
    converter = lite.Converter()
    converter.input_shape = {"x": [1, 3, 16, 16]}
    converter.input_format = lite.Format.NCHW
    converter.input_data_type = lite.DataType.FLOAT32
    converter.save_type = lite.ModelType.MINDIR
    converter.optimize = "none"
    converter.decrypt_mode = "AES-CBC"
    converter.set_config_info("common_quant_param", {"quant_type": "WEIGHT_QUANT"})
    assert converter.input_shape == {"x": [1, 3, 16, 16]}
    assert converter.input_format == lite.Format.NCHW and converter.input_data_type == lite.DataType.FLOAT32
    assert converter.save_type == lite.ModelType.MINDIR and converter.decrypt_mode == "AES-CBC"
    assert converter.get_config_info() == {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}}
    assert "optimize: none" in str(converter) and lite.FmkType.ONNX.value == 2
