"""Rewrites a MINDIR of version 3 as version 1, which MindSpore Lite 2.0.0 (and every MindSpore 2.x) reads.

MindSpore 2.7 and later export `mind_ir_version` 3; Lite 2.0.0 stops at 1. The container is the same protobuf. What
changed is where an operator keeps its settings: version 1 has them as attributes of the primitive, version 3 passes
them as constant inputs after the tensors. The rewrite moves them back. A primitive is shared by all nodes of its
kind, so each further set of settings gets a primitive of its own.

An operator is rewritten only if it is in `MOVED`, and left alone only if it is in `UNCHANGED`; any other is refused,
because a graph that loads and computes something else is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, NodeProto, PrimitiveProto

from train.errors import TrainError

REFERENCE = "REF::"  # the op_type of a node that names a primitive of the model
CONSTANT = "Constant"
SOURCE_VERSION, TARGET_VERSION = 3, 1
# What MindSpore 2.0 writes in a version-1 file.
TARGET_IR_VERSION, TARGET_MODEL_VERSION = "0.1.1", "2.0.0"
# Names the export by time and address: it would make two exports of one network differ.
EPHEMERAL = "compile_phase"
# In the name of a node: the Python variables that held its value.
VARIABLES = re.compile(r"\$[^:]+")
DATA_FORMATS = {0: b"NCHW", 1: b"NHWC"}  # MindSpore's enum Format

Convert = Callable[[AttributeProto, AttributeProto], None]
M = TypeVar("M", AttributeProto, NodeProto, PrimitiveProto)


class MindIRError(TrainError):
    """The graph cannot be rewritten faithfully."""


def _copy(value: AttributeProto, attribute: AttributeProto) -> None:
    name = attribute.name
    attribute.CopyFrom(value)
    attribute.name = name


def _data_format(value: AttributeProto, attribute: AttributeProto) -> None:
    if value.type != AttributeProto.INT64 or value.i not in DATA_FORMATS:
        raise MindIRError(f"data format {value.i} is neither NCHW nor NHWC")
    attribute.type, attribute.s = AttributeProto.STRING, DATA_FORMATS[value.i]


@dataclass(frozen=True)
class Signature:
    """An operator whose settings moved: how many inputs are tensors, then the settings in their order."""

    inputs: int
    settings: tuple[tuple[str, Convert], ...]


def _signature(inputs: int, *names: str) -> Signature:
    return Signature(inputs, tuple((name, _data_format if name == "format" else _copy) for name in names))


MOVED = {
    # x, begin, end, strides; one bit a dimension: begin or end ignored, "...", new axis, axis dropped.
    "StridedSlice": _signature(4, "begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"),
    # the tuple of tensors; the dimension along which they are joined.
    "Concat": _signature(1, "axis"),
    # x, scale, offset, mean, variance; statistics from the batch or given, numeric guard, their update, layout.
    "BatchNorm": _signature(5, "is_training", "epsilon", "momentum", "format"),
    # x, axes; whether the reduced dimensions stay, with length 1.
    "ReduceMean": _signature(2, "keep_dims"),
    # x, bias; the layout, which an enum names in version 3 and a string in version 1.
    "BiasAdd": _signature(2, "format"),
    # a, b; whether each of them is transposed first.
    "MatMul": _signature(2, "transpose_a", "transpose_b"),
}

# Same inputs and attributes in both versions. The last line computes nothing: it passes values and their order on.
UNCHANGED = frozenset(
    "Add Conv2D Conv2DTranspose Maximum Minimum Mul PReLU ReLU Reshape Rsqrt Square Sub Tanh Transpose "
    "Depend Load MakeTuple TupleGetItem UpdateState".split()
)


def to_version_1(model: ModelProto) -> ModelProto:
    """A version-1 copy of the model; the model itself is not changed.

    Names of nodes, parameters, inputs and outputs stay, but for the order of the variables in them; one network gives
    one file, byte by byte. A version-1 model
    comes back as an equal copy. Raises MindIRError for any other version, and for operators that are neither known to
    be the same nor known to have moved settings.
    """
    result = ModelProto()
    result.CopyFrom(model)
    version = model.mind_ir_version
    if version == TARGET_VERSION:
        return result
    if version != SOURCE_VERSION:
        raise MindIRError(f"mind_ir_version {version}: only {SOURCE_VERSION} can be rewritten as {TARGET_VERSION}")
    _Rewrite(result).run()
    result.mind_ir_version = TARGET_VERSION
    result.ir_version, result.model_version = TARGET_IR_VERSION, TARGET_MODEL_VERSION
    return result


class _Rewrite:
    """One pass over a model of a single graph, which is rewritten in place."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.constants = {n.output[0]: n.attribute[0] for n in self.graph.node if n.op_type == CONSTANT}
        self.primitives = {p.name: p for p in model.primitives}
        # Copies from before the rewrite: what a further primitive of the same kind starts from.
        self.originals = {name: _duplicate(p) for name, p in self.primitives.items()}
        self.names: dict[tuple[object, ...], str] = {}  # (original name, *settings) -> name of the primitive

    def run(self) -> None:
        self._refuse_unknown()
        for node in self.graph.node:
            primitive = self._primitive(node)
            if primitive is not None and primitive.op_type in MOVED:
                self._move(node, primitive, MOVED[primitive.op_type])
        self._drop_unused_constants()
        self._make_reproducible()

    def _primitive(self, node: NodeProto) -> PrimitiveProto | None:
        if not node.op_type.startswith(REFERENCE):
            return None
        name = node.op_type[len(REFERENCE) :]
        if name not in self.originals:
            raise MindIRError(f"node {node.name!r} uses primitive {name!r}, which the model does not have")
        return self.originals[name]

    def _refuse_unknown(self) -> None:
        if self.model.functions:
            raise MindIRError("the model has control flow or sub-graphs: only a single graph can be rewritten")
        plain = {n.op_type for n in self.graph.node if not n.op_type.startswith(REFERENCE)} - {CONSTANT}
        used = {p.op_type for n in self.graph.node if (p := self._primitive(n)) is not None}
        unknown = sorted((plain | used) - MOVED.keys() - UNCHANGED)
        if unknown:
            raise MindIRError(
                f"no rule for {', '.join(unknown)}: add it to MOVED or UNCHANGED in train/export/mindir.py, with a test"
            )

    def _move(self, node: NodeProto, primitive: PrimitiveProto, signature: Signature) -> None:
        names = list(node.input)[signature.inputs :]
        if len(names) != len(signature.settings):
            raise MindIRError(
                f"{primitive.op_type} {node.name!r} has {len(node.input)} inputs,"
                f" not {signature.inputs} + {len(signature.settings)}"
            )
        if computed := [name for name in names if name not in self.constants]:
            raise MindIRError(f"{primitive.op_type} {node.name!r}: {computed[0]!r} is computed, not a constant")
        values = [self.constants[name] for name in names]
        node.op_type = REFERENCE + self._with_settings(primitive, signature, values)
        del node.input[signature.inputs :]

    def _with_settings(self, primitive: PrimitiveProto, signature: Signature, values: list[AttributeProto]) -> str:
        """The name of the primitive that has these settings, which is made when it is the first to have them."""
        key = (primitive.name, *(value.SerializeToString(deterministic=True) for value in values))
        if key not in self.names:
            target = self._unused(primitive)
            for (name, convert), value in zip(signature.settings, values, strict=True):
                convert(value, target.attribute.add(name=name))
            self.names[key] = target.name
        return self.names[key]

    def _unused(self, primitive: PrimitiveProto) -> PrimitiveProto:
        """The primitive itself the first time, a copy under a new name from then on."""
        if primitive.name not in self.names.values():
            return self.primitives[primitive.name]
        number = 2
        while f"{primitive.name}:{number}" in self.primitives:
            number += 1
        target: PrimitiveProto = self.model.primitives.add()
        target.CopyFrom(primitive)
        target.name = f"{primitive.name}:{number}"
        self.primitives[target.name] = target
        return target

    def _drop_unused_constants(self) -> None:
        used = {name for node in self.graph.node for name in node.input}
        used |= {output.name for output in self.graph.output}
        kept = [_duplicate(n) for n in self.graph.node if n.op_type != CONSTANT or n.output[0] in used]
        del self.graph.node[:]
        self.graph.node.extend(kept)

    def _make_reproducible(self) -> None:
        """Primitives and attributes are found by name; the export lists them in the order of their addresses.

        So it does with the variables that held a node's value, inside of its name: CNode_23$x$y:10.
        """
        kept = [_duplicate(a) for a in self.graph.attribute if a.name != EPHEMERAL]
        del self.graph.attribute[:]
        self.graph.attribute.extend(kept)
        self.model.primitives.sort(key=lambda p: p.name)
        for holder in (self.graph, *self.model.primitives, *self.graph.node):
            holder.attribute.sort(key=lambda a: a.name)
        for node in self.graph.node:
            node.name = _in_order(node.name)
            node.input[:] = [_in_order(name) for name in node.input]
            node.output[:] = [_in_order(name) for name in node.output]
        for output in self.graph.output:
            output.name = _in_order(output.name)


def _in_order(name: str) -> str:
    """`CNode_23$y$x:10` -> `CNode_23$x$y:10`."""
    return VARIABLES.sub(lambda found: "$" + "$".join(sorted(found[0][1:].split("$"))), name)


def _duplicate(message: M) -> M:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
