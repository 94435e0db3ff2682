"""CenterFace (arXiv 1911.03599), the face detector, as a MindSpore network with the weights of its ONNX file.

(N, 3, H, W) float32 RGB in 0 to 255, H and W divisible by 32, to four maps (N, channels, H/4, W/4), one position for
each 4x4 pixels:

- heatmap, 1 channel: the logit that the middle of a face lies there (the ONNX file has the Sigmoid behind it);
- scale, 2 channels: the logarithm of the face's height and width in units of 4 pixels;
- offset, 2 channels: from the middle of the position to that of the face, y and x, in units of 4 pixels;
- landmarks, 10 channels: five times y and x from the face's top left corner, in units of its height and width.

`onnx` is imported inside of functions, always after MindSpore: see train/export/onnx_export.py.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from train.errors import TrainError
from train.export.generator import CARD_VERSION, Fields, Picture, count_parameters, mindir_bytes, write_files
from train.lite import lite_version, run_graph_on_lite

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[np.float32]
Reference = Callable[[Array], list[Array]]

OUTPUTS = {"heatmap": 1, "scale": 2, "offset": 2, "landmarks": 10}  # name and channels, in their order
STRIDE = 32
STEM = 32  # channels of the first convolution
# MobileNetV2 (arXiv 1801.04381, table 2) up to its last bottleneck, cut into the levels that the neck reads:
# (expansion, channels, blocks, stride of the first block).
LEVELS = (
    ((1, 16, 1, 1), (6, 24, 2, 2)),  # stride 4
    ((6, 32, 3, 2),),  # stride 8
    ((6, 64, 4, 2), (6, 96, 3, 1)),  # stride 16
    ((6, 160, 3, 2), (6, 320, 1, 1)),  # stride 32
)
NECK = 24  # channels
# Width and height: what the graph is written for, and one to which Lite has to resize it.
SIZES = ((640, 640), (352, 256))
# Largest difference allowed anywhere in an output: a 4,000th of a probability, a 1,000th of a face's width.
MAX_DIFFERENCE = 1e-3


class Bottleneck(nn.Cell):
    """Inverted residual: 1x1 to more channels (unless expansion is 1), 3x3 on each of them, 1x1 back without ReLU."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [_convolution(inputs, inner), nn.ReLU()] if expansion > 1 else []
        depthwise = _convolution(inner, inner, 3, stride, groups=inner)
        self.layers = nn.SequentialCell(*expand, depthwise, nn.ReLU(), _convolution(inner, outputs))
        self.residual = stride == 1 and inputs == outputs

    def construct(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class Backbone(nn.Cell):
    """The picture's maps at the strides of LEVELS, finest first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.SequentialCell(_convolution(3, STEM, 3, 2), nn.ReLU())
        self.levels = nn.CellList()
        channels = STEM
        for level in LEVELS:
            blocks: list[nn.Cell] = []
            for expansion, outputs, count, stride in level:
                for number in range(count):
                    blocks.append(Bottleneck(channels, outputs, expansion, 1 if number else stride))
                    channels = outputs
            self.levels.append(nn.SequentialCell(*blocks))

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        maps: tuple[Tensor, ...] = ()
        for level in self.levels:
            x = level(x)
            maps += (x,)
        return maps


class Merge(nn.Cell):
    """The coarser map enlarged to twice its size, plus the finer one brought to as many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enlarge = nn.SequentialCell(nn.Conv2dTranspose(NECK, NECK, 2, 2, "pad", 0, has_bias=True), nn.ReLU())
        self.reduce = nn.SequentialCell(_convolution(channels, NECK), nn.ReLU())

    def construct(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.enlarge(coarse) + self.reduce(fine)


class Neck(nn.Cell):
    """The backbone's maps, merged from the coarsest to the finest (arXiv 1612.03144): one map of stride 4."""

    def __init__(self) -> None:
        super().__init__()
        *finer, coarsest = [level[-1][1] for level in LEVELS]
        self.top = nn.SequentialCell(_convolution(coarsest, NECK), nn.ReLU())
        self.merges = nn.CellList([Merge(channels) for channels in reversed(finer)])
        self.smooth = nn.SequentialCell(_convolution(NECK, NECK, 3), nn.ReLU())

    def construct(self, maps: tuple[Tensor, ...]) -> Tensor:
        x = self.top(maps[-1])
        for number, merge in enumerate(self.merges):
            x = merge(x, maps[-2 - number])
        return self.smooth(x)


class CenterFace(nn.Cell):
    """The whole network, with OUTPUTS in their order; its convolutions are in the order of the ONNX graph."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.neck = Neck()
        self.heads = nn.CellList([_convolution(NECK, channels) for channels in OUTPUTS.values()])

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.neck(self.backbone(x))
        outputs: tuple[Tensor, ...] = ()
        for head in self.heads:
            outputs += (head(x),)
        return outputs


def read_centerface(data: bytes) -> CenterFace:
    """The network with the weights of the ONNX file that is given as bytes; TrainError where they do not fit."""
    import onnx

    network = CenterFace()
    cells = [c for _, c in network.cells_and_names() if isinstance(c, (nn.Conv2d, nn.Conv2dTranspose))]
    convolutions = _convolutions(onnx.load_model_from_string(data))
    try:
        for cell, (weight, bias) in zip(cells, convolutions, strict=True):
            cell.weight.set_data(Tensor(weight))
            cell.bias.set_data(Tensor(bias))
    except ValueError as error:
        raise TrainError(f"the convolutions of the ONNX graph are not those of CenterFace: {error}") from error
    network.set_train(False)
    return network


def export_centerface(
    data: bytes, card: Fields, path: Path, pictures: Callable[[int, int], Sequence[Picture]]
) -> Fields:
    """Writes the ONNX file's network as `path` (.mindir) and its card beside it (.json); returns the card as written.

    `card` holds the fields that people write. On `pictures(width, height)`, at each of SIZES, MindSpore Lite's outputs
    must be within MAX_DIFFERENCE of MindSpore's and of those that ONNX Runtime has from the original. Nothing is
    written, and older files stay, when anything fails (TrainError).
    """
    network = read_centerface(data)

    import onnxruntime

    width, height = SIZES[0]
    model = mindir_bytes(network, (1, 3, height, width))
    references: dict[str, Reference] = {
        f"MindSpore {ms.__version__}": lambda x: forward_pass(network, x),
        f"ONNX Runtime {onnxruntime.__version__}": lambda x: run_on_onnx_runtime(data, x),
    }
    fields = {
        "card": CARD_VERSION,
        **card,
        "parameters": count_parameters(network),
        "file": path.name,
        "sha256": hashlib.sha256(model).hexdigest(),
        "verified": _verified(model, references, [as_input(pictures(*size)) for size in SIZES]),
    }
    text = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
    write_files({path: model, path.with_suffix(".json"): text.encode()})
    return fields


def as_input(pictures: Sequence[Picture]) -> Array:
    """(height, width, 3) uint8 RGB each -> (N, 3, height, width) float32."""
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2), np.float32)


def forward_pass(network: CenterFace, x: Array) -> list[Array]:
    """MindSpore's OUTPUTS for (N, 3, H, W), picture by picture."""
    parts = [[y.asnumpy() for y in network(Tensor(picture[None]))] for picture in x]
    return [np.concatenate(maps) for maps in zip(*parts, strict=True)]


def run_on_onnx_runtime(data: bytes, x: Array) -> list[Array]:
    """ONNX Runtime's OUTPUTS of the original file for (N, 3, H, W), picture by picture, on CPU with one thread."""
    import onnx
    import onnxruntime

    model = onnx.load_model_from_string(data)
    graph = model.graph
    graph.output[0].name = next(node.input[0] for node in graph.node if node.op_type == "Sigmoid")
    for value in (graph.input[0], *graph.output):  # they say 10 pictures of 32x32, and others would be refused
        value.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: it has warnings on unused counters of norms
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {graph.input[0].name: picture[None]}) for picture in x]
    return [np.concatenate(maps) for maps in zip(*parts, strict=True)]


def _verified(model: bytes, references: Mapping[str, Reference], inputs: Sequence[Array]) -> list[Fields]:
    """The card's fields of Lite's outputs compared with those of each reference; TrainError above the limit."""
    differences = dict.fromkeys(references, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "centerface.mindir")
        file.write_bytes(model)
        for x in inputs:
            actual = run_graph_on_lite(file, x)
            for against, reference in references.items():
                difference = _largest_difference(actual, reference(x))
                if not difference <= MAX_DIFFERENCE:  # so that NaN fails
                    raise TrainError(
                        f"MindSpore Lite differs from {against} by {difference:.3g}, more than {MAX_DIFFERENCE:g},"
                        f" on pictures of {x.shape[3]}x{x.shape[2]}; nothing was written"
                    )
                differences[against] = max(differences[against], difference)
    return [
        {
            "runtime": f"MindSpore Lite {lite_version()}",
            "against": against,
            "max_abs_difference": float(f"{difference:.3g}"),
            "limit": MAX_DIFFERENCE,
            "pictures": sum(len(x) for x in inputs),
            "sizes": [list(size) for size in SIZES],
        }
        for against, difference in differences.items()
    ]


def _largest_difference(actual: Sequence[Array], expected: Sequence[Array]) -> float:
    """NaN where there is one."""
    if [y.shape for y in actual] != [y.shape for y in expected]:
        raise TrainError(f"MindSpore Lite returns {[y.shape for y in actual]}, not {[y.shape for y in expected]}")
    return float(np.max([np.abs(y - z).max() for y, z in zip(actual, expected, strict=True)]))


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, "pad", kernel // 2, group=groups, has_bias=True)


def _convolutions(model: ModelProto) -> list[tuple[Array, Array]]:
    """Weight and bias of each convolution, in the graph's order.

    Those of stride 2 that enlarge have no bias but a batch norm behind them, which is multiplied in (in float64).
    """
    from onnx import helper, numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    norms = {node.input[0]: node for node in model.graph.node if node.op_type == "BatchNormalization"}
    result = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            result.append((arrays[node.input[1]], arrays[node.input[2]]))
        elif node.op_type == "ConvTranspose":
            norm = norms[node.output[0]]
            gamma, beta, mean, variance = (arrays[name].astype(np.float64) for name in norm.input[1:])
            factor = gamma / np.sqrt(variance + helper.get_node_attr_value(norm, "epsilon"))
            weight = arrays[node.input[1]] * factor[:, None, None]  # (in, out, 2, 2)
            result.append((weight.astype(np.float32), (beta - mean * factor).astype(np.float32)))
    return result
