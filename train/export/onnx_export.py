"""A trained generator as an ONNX graph, and ONNX Runtime to check it.

The graph is written cell by cell from the trained network, one operator for each thing that the network is made of
(InstanceNormalization, Pad, LeakyRelu), with the weights under the names of their cells. MindSpore's own export to
ONNX stops at the written-out norm ("Can not find key Rsqrt in convert map"), and the graph that it traces has nine
operators for each norm and up to fourteen for each mirrored border. The inference form is not used: ONNX Runtime has a
layout of its own, and runs transposed convolutions faster than sub-pixel ones.

`onnx` is imported inside of functions, always after MindSpore: MindSpore switches protobuf to its Python
implementation, and cannot be imported once another one is loaded. ONNX Runtime shares a process with MindSpore.

Operators: https://onnx.ai/onnx/operators/, opset 17.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import nn
from numpy.typing import NDArray

from h2a_batch import __version__
from train.errors import TrainError
from train.export.inference import is_block
from train.networks import (
    LIMIT,
    RESIDUAL,
    CoarseToFine,
    FineBlock,
    FineGenerator,
    InstanceNorm,
    ReflectConv2d,
    ResidualBlock,
    UNetGenerator,
)

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Array = NDArray[np.float32]

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12 (2022): what today's readers have in common
INPUT, OUTPUT, BATCH = "input", "output", "batch"
PICTURES_AT_ONCE = 4
CARD_FIELDS = ("name", "description", "framing", "input", "output", "weights", "licence", "training_data", "limits")


def onnx_bytes(cell: nn.Cell, shape: tuple[int, ...], name: str, metadata: Mapping[str, str]) -> bytes:
    """The generator as an ONNX file that has passed the full check of `onnx`; the same bytes each time.

    Input `input` and output `output`, float32 (batch, 3, H, W); the batch is free, H and W are those of `shape`, which
    the fine half alone enlarges.
    Raises TrainError for a layer that has no known ONNX operator.
    """
    import onnx
    from onnx import helper

    graph = _Graph()
    graph.cell(cell, INPUT, "")
    graph.nodes[-1].output[0] = OUTPUT
    times = cell.times if isinstance(cell, FineGenerator) else 1
    sizes = {INPUT: shape[2:], OUTPUT: [times * side for side in shape[2:]]}
    ends = [
        helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [BATCH, 3, *size]) for end, size in sizes.items()
    ]
    model: ModelProto = helper.make_model(
        helper.make_graph(graph.nodes, name, ends[:1], ends[1:], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="h2a-batch",
        producer_version=__version__,
    )
    helper.set_model_props(model, dict(metadata))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise TrainError(f"the ONNX graph is not valid: {error}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def card_metadata(card: Mapping[str, Any]) -> dict[str, str]:
    """What a user of the file needs of its card, as texts: {"name": "anime-256", "input.range": "[-1.0, 1.0]", ...}.

    The fields of a table are TABLE.FIELD; all but text is JSON.
    """
    fields: dict[str, Any] = {}
    for name, value in ((name, card[name]) for name in CARD_FIELDS if name in card):
        fields |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}


def run_on_onnx_runtime(model: bytes, x: Array) -> tuple[Array, str]:
    """The output for (N, 3, H, W), on CPU with one thread, a few pictures at a time; and what computed it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        parts = [x[start : start + PICTURES_AT_ONCE] for start in range(0, len(x), PICTURES_AT_ONCE)]
        y = np.concatenate([session.run([OUTPUT], {INPUT: part})[0] for part in parts])
    except Exception as error:  # its errors have no common class of their own
        raise TrainError(f"cannot verify on ONNX Runtime: {error}") from error
    return y, f"ONNX Runtime {onnxruntime.__version__}"


class _Graph:
    """Nodes and constants, in the order in which cells are added; each method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def cell(self, cell: nn.Cell, x: str, path: str) -> str:
        for kinds, rule in RULES:
            if isinstance(cell, kinds):
                return rule(self, cell, x, path)
        if is_block(cell):
            return _block(self, cell, x, path)
        if isinstance(getattr(cell, "layers", None), nn.SequentialCell):
            return self.cell(cell.layers, x, _join(path, "layers"))
        raise TrainError(f"no ONNX operator is known for the layer {type(cell).__name__}")

    def node(self, operator: str, inputs: list[str], path: str, **attributes: Any) -> str:
        from onnx import helper

        name = _join(path, operator)
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, values: NDArray[Any], name: str) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def _sequence(graph: _Graph, cells: nn.SequentialCell, x: str, path: str) -> str:
    for number, cell in enumerate(cells):
        x = graph.cell(cell, x, _join(path, str(number)))
    return x


def _block(graph: _Graph, block: nn.Cell, x: str, path: str) -> str:
    x = graph.cell(block.conv, x, _join(path, "conv"))
    if (norm := getattr(block, "norm", None)) is not None:
        x = graph.cell(norm, x, _join(path, "norm"))
    return graph.cell(block.activation, x, _join(path, "activation"))


def _residual(graph: _Graph, block: ResidualBlock, x: str, path: str) -> str:
    y = graph.cell(block.first, x, _join(path, "first"))
    return graph.node("Add", [x, graph.cell(block.second, y, _join(path, "second"))], path)


def _unet(graph: _Graph, unet: UNetGenerator, x: str, path: str) -> str:
    levels = []
    for level, cell in enumerate(unet.downs):
        x = graph.cell(cell, x, _join(path, f"downs.{level}"))
        levels.append(x)
    for level in range(unet.depth - 1, 0, -1):
        up = graph.cell(unet.ups[level], x, _join(path, f"ups.{level}"))
        x = graph.node("Concat", [levels[level - 1], up], _join(path, f"ups.{level}"), axis=1)
    return graph.node("Tanh", [graph.cell(unet.ups[0], x, _join(path, "ups.0"))], path)


def _fine_block(graph: _Graph, block: FineBlock, x: str, path: str) -> str:
    y = graph.node("Relu", [graph.cell(block.first, x, _join(path, "a"))], path)
    factor = graph.constant(np.array(RESIDUAL, np.float32), _join(path, "factor"))
    y = graph.node("Mul", [graph.cell(block.second, y, _join(path, "b")), factor], path)
    return graph.node("Add", [x, y], path)


def _fine(graph: _Graph, fine: FineGenerator, x: str, path: str) -> str:
    scales = graph.constant(np.array([1, 1, fine.times, fine.times], np.float32), _join(path, "scales"))
    resized = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    large = graph.node("Resize", [x, "", scales], path, **resized)
    head = graph.node("Relu", [graph.cell(fine.head, _cells(graph, fine, x, path), _join(path, "head"))], path)
    y = graph.node("Add", [head, graph.cell(fine.body, head, _join(path, "body"))], _join(path, "body"))
    for name in ("up1", "up2"):
        up = _join(path, name)
        y = graph.node("DepthToSpace", [graph.cell(getattr(fine, name), y, up)], up, blocksize=2, mode="CRD")
        y = graph.cell(fine.activation, y, up)
    y = graph.node("Add", [large, graph.cell(fine.tail, y, _join(path, "tail"))], _join(path, "tail"))
    return _clip(graph, y, LIMIT, path)


def _cells(graph: _Graph, fine: FineGenerator, x: str, path: str) -> str:
    """The pixels of 2x2 cells as channels, where the network wants them; ONNX has them in another order."""
    if fine.cell == 1:
        return x
    phases = graph.node("SpaceToDepth", [x], path, blocksize=2)
    order = graph.constant(np.arange(12, dtype=np.int64).reshape(4, 3).T.reshape(-1), _join(path, "order"))
    return graph.node("Gather", [phases, order], path, axis=1)


def _coarse_to_fine(graph: _Graph, generator: CoarseToFine, x: str, path: str) -> str:
    cells = [generator.fine.times] * 2
    x = graph.node("AveragePool", [x], path, kernel_shape=cells, strides=cells)
    x = graph.cell(generator.coarse, x, _join(path, "coarse"))
    return _clip(graph, graph.cell(generator.fine, x, _join(path, "fine")), 1, path)


def _clip(graph: _Graph, x: str, limit: float, path: str) -> str:
    ends = [graph.constant(np.array(end, np.float32), _join(path, f"end{end}")) for end in (-limit, limit)]
    return graph.node("Clip", [x, *ends], path)


def _convolution(graph: _Graph, conv: nn.Conv2d | nn.Conv2dTranspose, x: str, path: str) -> str:
    if isinstance(conv, ReflectConv2d):
        size = conv.reflect.size
        pads = graph.constant(np.array([0, 0, size, size, 0, 0, size, size], np.int64), _join(path, "pads"))
        x = graph.node("Pad", [x, pads], path, mode="reflect")
    weight = conv.weight.asnumpy()
    inputs = [x, graph.constant(weight, _join(path, "weight"))]
    if conv.has_bias:
        inputs.append(graph.constant(conv.bias.asnumpy(), _join(path, "bias")))
    return graph.node(
        "ConvTranspose" if isinstance(conv, nn.Conv2dTranspose) else "Conv",
        inputs,
        path,
        kernel_shape=list(weight.shape[2:]),
        strides=list(conv.stride),
        pads=_pads(conv),
        dilations=list(conv.dilation),
        group=conv.group,
    )


def _pads(conv: nn.Conv2d | nn.Conv2dTranspose) -> list[int]:
    """MindSpore has top, bottom, left, right, or one number; ONNX top, left, bottom, right."""
    if conv.pad_mode != "pad":
        raise TrainError(f"no ONNX form is known for a convolution padded as {conv.pad_mode!r}")
    padding = conv.padding
    top, bottom, left, right = padding if isinstance(padding, tuple) else (padding,) * 4
    return [top, left, bottom, right]


def _instance_norm(graph: _Graph, norm: InstanceNorm, x: str, path: str) -> str:
    gamma = graph.constant(norm.gamma.asnumpy().reshape(-1), _join(path, "gamma"))
    beta = graph.constant(norm.beta.asnumpy().reshape(-1), _join(path, "beta"))
    return graph.node("InstanceNormalization", [x, gamma, beta], path, epsilon=norm.epsilon)


Rule = Callable[[_Graph, Any, str, str], str]
# The first that fits counts.
RULES: tuple[tuple[type[nn.Cell] | tuple[type[nn.Cell], ...], Rule], ...] = (
    (UNetGenerator, _unet),
    (CoarseToFine, _coarse_to_fine),
    (FineGenerator, _fine),
    (FineBlock, _fine_block),
    (nn.SequentialCell, _sequence),
    (ResidualBlock, _residual),
    ((nn.Conv2d, nn.Conv2dTranspose), _convolution),
    (InstanceNorm, _instance_norm),
    (nn.Identity, lambda graph, cell, x, path: x),
    (nn.ReLU, lambda graph, cell, x, path: graph.node("Relu", [x], path)),
    (nn.LeakyReLU, lambda graph, cell, x, path: graph.node("LeakyRelu", [x], path, alpha=cell.alpha)),
    (nn.Tanh, lambda graph, cell, x, path: graph.node("Tanh", [x], path)),
)


def _join(*terms: str) -> str:
    return ".".join(term for term in terms if term)
