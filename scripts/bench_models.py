"""Makes the graphs that `scripts/bench` and `scripts/bench_curve` run; a Python with MindSpore and onnx runs this.

    bench_models.py MODEL.mindir FOLDER

FOLDER/shipped.onnx     MODEL's own generator as ONNX: its trained weights are read back out of the MINDIR
FOLDER/resnet-9.onnx    the generator of the reference project's size: 9 residual blocks, ngf 64, random weights
FOLDER/resnet-9.mindir  the same for MindSpore Lite
FOLDER/tiny.mindir      32x32 pixels in, next to no work: with it a run costs what files and ledger cost

A MINDIR holds the inference form (train/inference.py): transposed convolutions as sub-pixel ones, the last convolution
on phases, biases in front of norms left out. All of it can be undone without loss, so a clean clone needs no file of
trained weights for its ONNX. ONNX gets the network as it was trained, with InstanceNormalization and ConvTranspose as
single operators: the form that `python -m train export --onnx` writes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("GLOG_v", "3")

import numpy as np  # noqa: E402
from mindspore import Tensor, nn, set_seed  # noqa: E402
from mindspore.train.mind_ir_pb2 import ModelProto  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from h2a_batch.files import replacing  # noqa: E402
from train.export import mindir_bytes  # noqa: E402
from train.inference import PHASES, SUBPIXEL_TAPS, inference_form, phase_kernel, subpixel_kernel  # noqa: E402
from train.networks import InstanceNorm, build_generator  # noqa: E402
from train.onnx_export import onnx_bytes  # noqa: E402

Array = NDArray[np.float32]
TINY = {"channels": (4, 8, 8), "blocks": 1, "last": 4}


def trained_form(model: Path) -> tuple[nn.Cell, tuple[int, ...]]:
    """The generator that a MINDIR was exported from, with its weights; and the shape of its input."""
    card = json.loads(model.with_suffix(".json").read_text())
    generator = build_generator(card["generator"]["network"], **card["generator"].get("options", {}))
    graph = ModelProto.FromString(model.read_bytes()).graph
    values = [np.frombuffer(p.raw_data, np.float32).reshape(p.dims) for p in graph.parameter]
    stored = iter(values)
    cells = [cell for _, cell in generator.cells_and_names()]
    layers = [c for c in cells if isinstance(c, (nn.Conv2d, nn.Conv2dTranspose, InstanceNorm))]
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, InstanceNorm):
            _set(layer.gamma, next(stored))
            _set(layer.beta, next(stored))
        else:
            _set(layer.weight, _weight(next(stored), layer))
            normed = isinstance(following, InstanceNorm)  # which takes the bias away again
            size = layer.bias.size
            _set(layer.bias, np.zeros(size, np.float32) if normed else next(stored)[:size])
    if (left := sum(1 for _ in stored)) != 0:
        raise SystemExit(f"{model}: {left} of {len(values)} parameters have no place in {card['generator']['network']}")
    side = card["input"]
    return generator.set_train(False), (1, 3, side["height"], side["width"])


def _weight(stored: Array, layer: nn.Cell) -> Array:
    """A convolution's weights as they were trained."""
    shape = tuple(layer.weight.shape)
    if stored.shape == shape:
        return stored
    transposed = isinstance(layer, nn.Conv2dTranspose)
    weight, again = (from_subpixel, subpixel_kernel) if transposed else (from_phases, phase_kernel)
    found = weight(stored, shape)
    if not np.array_equal(again(found), stored):
        raise SystemExit(f"a convolution of shape {stored.shape} is no inference form of {shape}")
    return found


def from_subpixel(kernel: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `train.inference.subpixel_kernel`: (4 out, in, 3, 3) -> (in, out, 4, 4)."""
    inputs, outputs = shape[:2]
    phases, weight = kernel.reshape(4, outputs, inputs, 3, 3), np.zeros(shape, np.float32)
    for phase, (down, right) in enumerate(PHASES):
        for y, source_y in SUBPIXEL_TAPS[down].items():
            for x, source_x in SUBPIXEL_TAPS[right].items():
                weight[:, :, source_y, source_x] = phases[phase, :, :, y, x].T
    return weight


def from_phases(kernel: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `train.inference.phase_kernel`: (4 out, 4 in, m, m) -> (out, in, k, k), k odd."""
    outputs, inputs, size, _ = shape
    reach, weight = (size // 2 + 1) // 2, np.zeros(shape, np.float32)
    phases = kernel.reshape(4, outputs, 4, inputs, 2 * reach + 1, 2 * reach + 1)
    for y, x in np.ndindex(size, size):  # the first phase holds them all
        (cell_y, source_y), (cell_x, source_x) = divmod(y - size // 2, 2), divmod(x - size // 2, 2)
        source = PHASES.index((source_y, source_x))
        weight[:, :, y, x] = phases[0, :, source, :, cell_y + reach, cell_x + reach]
    return weight


def _set(parameter: Tensor, values: Array) -> None:
    parameter.set_data(Tensor(np.ascontiguousarray(values.reshape(parameter.shape))))


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def main() -> None:
    model, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(1)
    resnet, tiny = build_generator("resnet-9"), build_generator("fast", **TINY)
    _write(folder / "resnet-9.mindir", mindir_bytes(inference_form(resnet), (1, 3, 256, 256)))
    _write(folder / "tiny.mindir", mindir_bytes(inference_form(tiny), (1, 3, 32, 32)))
    # onnx only after MindSpore's own exports, see train/onnx_export.py
    _write(folder / "resnet-9.onnx", onnx_bytes(resnet, (1, 3, 256, 256), "resnet-9", {}))
    generator, shape = trained_form(model)
    _write(folder / "shipped.onnx", onnx_bytes(generator, shape, model.stem, {}))


if __name__ == "__main__":
    main()
