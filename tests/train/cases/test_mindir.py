"""MINDIR version 3 to 1: real exports load and compute the same; what is not known is refused."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore.ops.auto_generate import gen_ops_prim
from mindspore.train.mind_ir_pb2 import ModelProto
from train_support import Array, forward, shake

from train.export.centerface import CenterFace
from train.export.generator import MAX_DIFFERENCE
from train.export.mindir import MOVED, UNCHANGED, MindIRError, to_version_1
from train.lite import run_on_lite
from train.networks import FastGenerator, PatchDiscriminator, ResNetGenerator, UNetGenerator


class Normalised(nn.Cell):
    """Has a BatchNorm, the only rewritten operator that none of the project's networks has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, has_bias=True), nn.BatchNorm2d(3)

    def construct(self, x: Tensor) -> Tensor:
        return ops.tanh(self.norm(self.conv(x)))


class Multiplied(nn.Cell):
    """Has a MatMul that transposes, a slope, and limits from both sides."""

    def construct(self, x: Tensor) -> Tensor:
        rows = ops.reshape(ops.PReLU()(x, Tensor([0.2])), (-1, x.shape[3]))
        product = ops.MatMul(transpose_b=True)(rows, ops.tanh(rows[: x.shape[3]]))
        return ops.minimum(ops.maximum(ops.reshape(product, x.shape), Tensor(-0.9)), Tensor(0.9))


CELLS = {
    "fast": lambda: FastGenerator((8, 8, 16), 2, 8),
    "resnet": lambda: ResNetGenerator(2, 8),
    "resnet-zeros": lambda: ResNetGenerator(1, 8, "zeros"),
    "unet": lambda: UNetGenerator(4, 5),
    "discriminator": lambda: PatchDiscriminator(8),
    "batch-norm": Normalised,
    "product": Multiplied,
}


def exported(cell: nn.Cell, x: Array, folder: Path) -> ModelProto:
    ms.export(cell.set_train(False), Tensor(x), file_name=str(folder / "v3"), file_format="MINDIR")
    return ModelProto.FromString((folder / "v3.mindir").read_bytes())


@pytest.fixture
def model(small_picture: Array, tmp_path: Path) -> ModelProto:
    return exported(ResNetGenerator(1, 8), small_picture, tmp_path)


@pytest.mark.parametrize("name", CELLS)
def test_real_exports_compute_the_same(name: str, small_picture: Array, tmp_path: Path) -> None:
    cell = shake(CELLS[name]())
    expected = forward(cell, small_picture)
    model = exported(cell, small_picture, tmp_path)
    assert model.mind_ir_version == 3
    path = tmp_path / "v1.mindir"
    path.write_bytes(to_version_1(model).SerializeToString())
    np.testing.assert_array_equal(forward(nn.GraphCell(ms.load(str(path))), small_picture), expected)
    if name != "discriminator":  # h2a_batch runs pictures to pictures
        assert np.abs(run_on_lite(path, small_picture) - expected).max() < MAX_DIFFERENCE


def test_the_result_is_a_copy_and_version_1_is_left_alone(model: ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    result = to_version_1(model)
    assert model.SerializeToString(deterministic=True) == before
    assert result.mind_ir_version == 1
    again = to_version_1(result)
    assert again == result
    assert again is not result


def test_names_stay(model: ModelProto) -> None:
    def names(m: ModelProto) -> list[list[list[str]]]:
        """Each in parts: the order of the variables in CNode_23$y$x:10 may change."""
        nodes = [node for node in m.graph.node if node.op_type != "Constant"]
        kinds = (nodes, m.graph.parameter, m.graph.input, m.graph.output)
        return [[sorted(re.split("[$:]", value.name)) for value in values] for values in kinds]

    result = to_version_1(model)
    assert names(result) == names(model)
    assert {p.name for p in model.primitives} <= {p.name for p in result.primitives}


def test_each_set_of_settings_has_its_primitive(model: ModelProto) -> None:
    """The reflection joins rows, then columns: two Concat with different axes were one primitive in version 3."""
    result = to_version_1(model)
    axes = sorted(p.attribute[-1].i for p in result.primitives if p.op_type == "Concat")
    assert sum(p.op_type == "Concat" for p in model.primitives) == 1
    assert axes == [2, 3]


def test_one_network_gives_one_file(small_picture: Array, tmp_path: Path) -> None:
    cell = shake(FastGenerator((8, 8, 16), 1, 8))
    files = [to_version_1(exported(cell, small_picture, tmp_path)).SerializeToString(deterministic=True) for _ in "ab"]
    assert files[0] == files[1]


def test_one_network_gives_one_file_in_another_process(small_picture: Array, tmp_path: Path) -> None:
    """Where the variables that held a node's value may be listed in another order: CNode_23$y$x$input_data:10."""
    data = exported(shake(CenterFace()), small_picture, tmp_path).SerializeToString()
    other = re.sub(rb"(?:\$[a-z_]+){2,}(?=:)", lambda found: b"".join(re.findall(rb"\$\w+", found[0])[::-1]), data)
    assert other != data
    files = [to_version_1(ModelProto.FromString(d)).SerializeToString(deterministic=True) for d in (data, other)]
    assert files[0] == files[1]


def test_an_unknown_operator_is_refused(small_picture: Array, tmp_path: Path) -> None:
    class Rolled(nn.Cell):
        def construct(self, x: Tensor) -> Tensor:
            return ops.cumsum(x, 2)

    with pytest.raises(MindIRError, match="no rule for CumSum"):
        to_version_1(exported(Rolled(), small_picture, tmp_path))


def test_what_does_not_fit_a_rule_is_refused(model: ModelProto) -> None:
    def first(m: ModelProto, operator: str):
        names = {f"REF::{p.name}" for p in m.primitives if p.op_type == operator}
        return next(node for node in m.graph.node if node.op_type in names)

    def damage(change) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(model)
        change(copy)
        return copy

    def drop_a_setting(m: ModelProto) -> None:
        del first(m, "ReduceMean").input[-1]

    def compute_a_setting(m: ModelProto) -> None:
        first(m, "Concat").input[1] = first(m, "Tanh").output[0]

    def unknown_format(m: ModelProto) -> None:
        name = first(m, "BiasAdd").input[2]
        next(node for node in m.graph.node if node.name == name).attribute[0].i = 7

    def unknown_primitive(m: ModelProto) -> None:
        first(m, "Tanh").op_type = "REF::Nothing"

    for change, message in [
        (drop_a_setting, "has 2 inputs, not 2 [+] 1"),
        (compute_a_setting, "is computed, not a constant"),
        (unknown_format, "neither NCHW nor NHWC"),
        (unknown_primitive, "uses primitive 'Nothing'"),
        (lambda m: setattr(m, "mind_ir_version", 2), "mind_ir_version 2"),
        (lambda m: m.functions.add(name="loop"), "sub-graphs"),
    ]:
        with pytest.raises(MindIRError, match=message):
            to_version_1(damage(change))


def test_the_rules_are_mindspores_own() -> None:
    """In MindSpore 2.8 an operator's settings are the arguments of its class; the rest of a call are its inputs."""
    for name, signature in MOVED.items():
        if (operator := getattr(gen_ops_prim, name, None)) is None:
            continue  # BatchNorm and others are still written by hand
        settings = [s for s in inspect.signature(operator.__init__).parameters if s != "self"]
        inputs = [i for i in inspect.signature(operator.__call__).parameters if i != "self"]
        assert [s.replace("data_format", "format") for s in settings] == [name for name, _ in signature.settings]
        assert len(inputs) == signature.inputs
    for name in UNCHANGED:
        if (operator := getattr(gen_ops_prim, name, None)) is not None and inspect.isclass(operator):
            assert list(inspect.signature(operator.__init__).parameters) == ["self"], name
