"""Models in MindSpore Lite: right numbers, GIL, threads, lifetimes, wrong inputs, resize, parallel runner."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_support import ROOT, ConvTanh, Floats, run_python

lite = pytest.importorskip("mindspore_lite", exc_type=ImportError)
SMALL = ConvTanh()
HEAVY = ConvTanh(channels=64, size=256)  # about 60 ms on one core
TOLERANCE = 1e-4  # Lite's tanh is an approximation


def build(path: Path, threads: int = 1) -> Any:
    """A model on CPU."""
    context = lite.Context()
    context.target = ["cpu"]
    context.cpu.thread_num = threads
    model = lite.Model()
    model.build_from_file(str(path), lite.ModelType.MINDIR, context)
    return model


def predict(model: Any, x: Floats) -> Floats:
    """One predict of a model or runner with one input and one output."""
    inputs = model.get_inputs()
    inputs[0].set_data_from_numpy(x)
    result: Floats = model.predict(inputs)[0].get_data_to_numpy()
    return result


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return SMALL.write(tmp_path / "small.mindir")


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    return HEAVY.write(tmp_path / "heavy.mindir")


def test_numbers_are_those_of_numpy(small: Path) -> None:
    model = build(small)
    assert str(model) == f"model_path: {small}."
    (tensor,) = model.get_inputs()
    assert (tensor.shape, tensor.dtype) == (list(SMALL.shape), lite.DataType.FLOAT32)
    for seed in range(3):
        x = SMALL.input(seed)
        assert np.abs(predict(model, x) - SMALL.expected(x)).max() < TOLERANCE


EXPORT = """
import sys
import numpy as np
from mindspore import Tensor, nn
from train.export.generator import mindir_bytes
from train.networks.layers import ConvBlock, ResidualBlock, down, up
cells = [down(3, 8, 7, 1), down(8, 16, 3, 2), ResidualBlock(16), up(16, 8, 4), nn.Conv2d(8, 3, 5), nn.Tanh()]
cell = nn.SequentialCell(*cells).set_train(False)
x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
open(sys.argv[1], "wb").write(mindir_bytes(cell, x.shape))
np.savez(sys.argv[2], x=x, y=cell(Tensor(x)).asnumpy())
"""


@pytest.mark.slow
def test_numbers_are_those_of_mindspore(tmp_path: Path) -> None:
    if importlib.util.find_spec("mindspore") is None:
        pytest.skip("MindSpore is not installed: pip install mindspore==2.8.0")
    if not (ROOT / "train" / "networks").is_dir():
        pytest.skip("train/ is not in this checkout")
    graph, data = tmp_path / "graph.mindir", tmp_path / "data.npz"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run_python(EXPORT, graph, data, PYTHONPATH=paths)  # a child: the two runtimes do not fit into one process
    arrays = np.load(data)
    assert arrays["y"].std() > 1e-3
    assert np.abs(predict(build(graph), arrays["x"]) - arrays["y"]).max() < 1e-3


def ticks_while(work: Callable[[], object]) -> tuple[int, float]:
    """How often another thread could run Python code while `work` ran, and how long that took."""
    count, stop, started = 0, threading.Event(), threading.Event()

    def tick() -> None:
        nonlocal count
        started.set()
        while not stop.is_set():
            count += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    started.wait()
    before, start = count, time.perf_counter()
    work()
    ticks, seconds = count - before, time.perf_counter() - start
    stop.set()
    thread.join()
    return ticks, seconds


def test_predict_releases_the_gil(heavy: Path) -> None:
    model = build(heavy)
    inputs = model.get_inputs()
    inputs[0].set_data_from_numpy(HEAVY.input())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # nothing but a released GIL lets the other thread in
    try:
        ticks, seconds = ticks_while(lambda: [model.predict(inputs) for _ in range(5)])
    finally:
        sys.setswitchinterval(interval)
    assert ticks > 20 * seconds, f"{ticks} ticks in {seconds:.2f} s"  # 1000 a second on an idle machine


def test_build_releases_the_gil(tmp_path: Path) -> None:
    path = ConvTanh(channels=512, size=8).write(tmp_path / "wide.mindir")  # 9 MB of weights to pack
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        ticks, seconds = ticks_while(lambda: [build(path) for _ in range(3)])
    finally:
        sys.setswitchinterval(interval)
    assert ticks > 20 * seconds, f"{ticks} ticks in {seconds:.2f} s"


def test_models_are_built_and_run_in_many_threads_at_once(small: Path) -> None:
    def work(seed: int) -> float:
        x = SMALL.input(seed)
        return float(np.abs(predict(build(small), x) - SMALL.expected(x)).max())

    with ThreadPoolExecutor(6) as pool:
        assert max(pool.map(work, range(24))) < TOLERANCE


def test_one_model_used_by_many_threads_answers_each_with_its_own(small: Path) -> None:
    model = build(small)
    inputs = [SMALL.input(seed) for seed in range(6)]
    expected = [SMALL.expected(x) for x in inputs]

    def shape_of(_: int) -> list[int]:
        shape: list[int] = model.get_inputs()[0].shape
        return shape

    with ThreadPoolExecutor(6) as pool:
        shapes = pool.map(shape_of, range(60))
        results = list(pool.map(lambda i: predict(model, inputs[i % 6]).shape, range(60)))
        assert set(map(tuple, shapes)) == set(results) == {SMALL.shape}
    assert np.abs(predict(model, inputs[3]) - expected[3]).max() < TOLERANCE


def test_results_outlive_the_model_and_the_next_predict(small: Path) -> None:
    model = build(small)
    x = SMALL.input()
    inputs = model.get_inputs()
    inputs[0].set_data_from_numpy(x)
    output = model.predict(inputs)[0]
    array = output.get_data_to_numpy()
    kept = array.copy()
    predict(model, -x)
    assert array.flags.owndata and np.array_equal(array, kept)
    del model, inputs
    gc.collect()
    assert output.get_data_to_numpy().shape == SMALL.shape  # the tensor keeps its model
    del output
    gc.collect()
    assert np.array_equal(array, kept)


def test_thousand_predicts_keep_memory_flat(small: Path) -> None:
    model = build(small)
    x = SMALL.input()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    for _ in range(200):
        predict(model, x)
    before = resident()
    for _ in range(2000):
        predict(model, x)
    assert resident() - before < 5 << 20


def test_python_adds_little_to_a_predict(heavy: Path) -> None:
    model = build(heavy)
    inputs, x = model.get_inputs(), HEAVY.input()
    copies, predicts = [], []
    for _ in range(5):
        start = time.perf_counter()
        inputs[0].set_data_from_numpy(x)
        middle = time.perf_counter()
        output = model.predict(inputs)[0]
        end = time.perf_counter()
        output.get_data_to_numpy()
        copies.append(middle - start + time.perf_counter() - end)
        predicts.append(end - middle)
    assert min(copies) < 0.5 * min(predicts)  # 16 MB each way; 2 x 0.8 MB for a 256x256 picture


def tensor(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """A tensor of zeros, as a user would make one."""
    made = lite.Tensor()
    made.dtype, made.shape = lite.DataType[dtype.upper()], list(shape)
    made.set_data_from_numpy(np.zeros(shape, dtype))
    return made


def test_wrong_inputs_raise(small: Path) -> None:
    model = build(small)
    cases = {
        "takes 1 inputs, not 0": [],
        "takes 1 inputs, not 2": [tensor(SMALL.shape)] * 2,
        "shape [1, 3, 8, 8], the model takes [1, 3, 16, 16]": [tensor((1, 3, 8, 8))],
        "shape [3, 16, 16], the model takes": [tensor(SMALL.shape[1:])],
        "is float64, the model takes float32": [tensor(SMALL.shape, "float64")],
        "is uint8, the model takes float32": [tensor(SMALL.shape, "uint8")],
    }
    for text, inputs in cases.items():
        with pytest.raises(RuntimeError, match=re.escape(text)):
            model.predict(inputs)
    with pytest.raises(TypeError):
        model.predict([np.zeros(SMALL.shape, np.float32)])
    assert predict(model, SMALL.input()).shape == SMALL.shape  # and it still works


def test_a_model_that_is_not_built_says_so() -> None:
    model = lite.Model()
    for call in (model.get_inputs, lambda: model.predict([]), lambda: model.resize([], [])):
        with pytest.raises(RuntimeError, match="not built"):
            call()
    runner = lite.ModelParallelRunner()
    for call in (runner.get_inputs, lambda: runner.predict([])):
        with pytest.raises(RuntimeError, match="not built"):
            call()


def test_a_built_model_is_not_built_again(small: Path) -> None:
    model = build(small)
    with pytest.raises(RuntimeError, match="already built"):
        model.build_from_file(str(small), lite.ModelType.MINDIR)


def test_resize_changes_batch_and_size(small: Path) -> None:
    model = build(small)
    for batch in (4, 1, 7):
        model.resize(model.get_inputs(), [[batch, *SMALL.shape[1:]]])
        x = SMALL.input(batch, batch)
        assert np.abs(predict(model, x) - SMALL.expected(x)).max() < TOLERANCE
    model.resize(model.get_inputs(), [[1, 3, 20, 24]])
    x = np.random.default_rng(5).uniform(-1, 1, (1, 3, 20, 24)).astype(np.float32)
    assert np.abs(predict(model, x) - SMALL.expected(x)).max() < TOLERANCE


@pytest.mark.parametrize("shape", [[], [1, 3], [0, 3, 16, 16], [-1, 3, 16, 16], [1, 4, 16, 16], [1 << 40, 3, 16, 16]])
def test_impossible_resize_raises_and_the_model_goes_on(small: Path, shape: list[int]) -> None:
    model = build(small)
    with pytest.raises(RuntimeError, match="resize failed"):
        model.resize(model.get_inputs(), [shape])
    assert predict(model, SMALL.input()).shape == SMALL.shape


@pytest.mark.parametrize("device", ["ascend", "gpu"])
def test_a_device_that_is_not_there_raises(small: Path, device: str) -> None:
    if device == "ascend" and Path("/dev/davinci_manager").exists():
        pytest.skip("this machine has an Ascend device")
    context = lite.Context()
    context.target = [device]
    with pytest.raises(RuntimeError, match="cannot build it"):
        lite.Model().build_from_file(str(small), lite.ModelType.MINDIR, context)


def test_runner_serves_many_threads(small: Path) -> None:
    context = lite.Context()
    context.target = ["cpu"]
    context.cpu.thread_num = context.cpu.inter_op_parallel_num = 1
    context.parallel.workers_num = 2
    runner = lite.ModelParallelRunner()
    runner.build_from_file(str(small), context)

    def work(seed: int) -> float:
        x = SMALL.input(seed)
        return float(np.abs(predict(runner, x) - SMALL.expected(x)).max())

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(work, range(40))) < TOLERANCE
    with pytest.raises(RuntimeError, match="the model takes"):
        runner.predict([tensor((1, 3, 8, 8))])


def test_a_converted_model_gives_the_same_numbers(small: Path, tmp_path: Path) -> None:
    graph, made = ConvTanh(), tmp_path / "made.mindir"
    converter = lite.Converter()
    converter.save_type = lite.ModelType.MINDIR
    converter.convert(lite.FmkType.MINDIR, str(small), str(made.with_suffix("")))
    x = graph.input()
    assert np.array_equal(predict(build(made), x), predict(build(small), x))
    made.chmod(0o600)
    made.write_bytes(made.read_bytes()[:500])
    with pytest.raises(RuntimeError, match=r"Converter model failed"):
        converter.convert(lite.FmkType.MINDIR, str(made), str(tmp_path / "again"))


def test_quiet_at_glog_level_4(small: Path) -> None:
    code = (
        "import os, sys; os.dup2(1, 2)\n"
        "import mindspore_lite as lite, numpy as np\n"
        "model = lite.Model(); model.build_from_file(sys.argv[1], lite.ModelType.MINDIR)\n"
        "inputs = model.get_inputs(); inputs[0].set_data_from_numpy(np.zeros(inputs[0].shape, np.float32))\n"
        "model.predict(inputs); model.resize(inputs, [[2, 3, 16, 16]])\n"
    )
    assert run_python(code, small) == ""
