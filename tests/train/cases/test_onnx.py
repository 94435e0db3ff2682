"""The ONNX file: valid, read by ONNX Runtime at any batch size, the same function as MindSpore's, or not written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from export_support import as_input, card_file
from mindspore import nn
from train_support import PHOTOS, Array, forward, shake

from h2a_batch.inference.card import card_of
from train.__main__ import main
from train.commands import export as command
from train.errors import TrainError
from train.export import generator as export
from train.export.generator import MAX_DIFFERENCE, export_generator, read_pictures
from train.export.onnx_export import onnx_bytes, run_on_onnx_runtime
from train.networks import (
    CoarseToFine,
    FastGenerator,
    FineGenerator,
    ResNetGenerator,
    UNetGenerator,
    build_generator,
)
from train.weights import write_weights

onnx = pytest.importorskip("onnx", reason="needs the extra onnx: pip install -e '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx: pip install -e '.[onnx]'")

SMALL = "{channels = [4, 4, 4], blocks = 1, last = 4}"
NETWORKS = {
    "fast": lambda: FastGenerator((8, 8, 16), 2, 8),
    "fast-reflect": lambda: FastGenerator((8, 8, 16), 1, 8, "reflect"),
    "resnet": lambda: ResNetGenerator(2, 8),
    "resnet-zeros": lambda: ResNetGenerator(2, 8, "zeros"),
    "resnet-none": lambda: ResNetGenerator(2, 8, "reflect", "none"),
    "unet": lambda: UNetGenerator(4, 5),
    "unet-none": lambda: UNetGenerator(4, 5, "none"),
    "fine": lambda: FineGenerator(8, 2, 8, 4),
    "coarse-to-fine": lambda: CoarseToFine({"channels": (8, 8, 16), "blocks": 1}, {"channels": 8, "blocks": 2}),
    "coarse-to-fine-2": lambda: CoarseToFine({"channels": (8, 8, 16), "blocks": 1}, {"channels": 8, "times": 2}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_equals_the_network_at_any_batch_size(name: str, small_picture: Array) -> None:
    network = shake(NETWORKS[name]())
    data = onnx_bytes(network, small_picture.shape, name, {})
    assert onnx_bytes(network, small_picture.shape, name, {}) == data
    x = np.concatenate([small_picture, small_picture[:, :, ::-1] * 0.3, -small_picture])
    expected = forward(network, x)
    assert expected.std() > 0.01
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch in (x[:1], x):
        assert np.abs(session.run(["output"], {"input": batch})[0] - expected[: len(batch)]).max() < 1e-4


def test_the_graph_is_made_of_the_operators_that_runtimes_know(small_picture: Array) -> None:
    """One for each layer, none of MindSpore's detours, and weights that can be found by their names."""
    model = onnx.load_from_string(onnx_bytes(ResNetGenerator(1, 4), small_picture.shape, "resnet", {}))
    operators = [node.op_type for node in model.graph.node]
    assert {o: operators.count(o) for o in operators} == {
        "Pad": 4,
        "Conv": 6,
        "ConvTranspose": 2,
        "InstanceNormalization": 7,
        "Relu": 6,
        "Add": 1,
        "Tanh": 1,
    }
    weights = {w.name: w for w in model.graph.initializer}
    assert tuple(weights["layers.3.first.conv.weight"].dims) == (16, 16, 3, 3)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    for value in (model.graph.input[0], model.graph.output[0]):
        dimensions = value.type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in dimensions] == ["batch", 3, 64, 96]


@pytest.mark.parametrize(
    ("network", "options", "size"), [("fast", SMALL, 48), ("unet-256", "{width = 8, depth = 6}", 64)]
)
def test_the_command_writes_it_beside_the_model(
    network: str, options: str, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = card_file(tmp_path / "card.toml", network, size, options)
    generator = shake(build_generator(network, **command.read_card(card)["generator"]["options"]))
    write_weights(tmp_path / "w.npz", {"ema": generator})
    out = tmp_path / "out"
    arguments = ("--weights", tmp_path / "w.npz", "--card", card, "--images", PHOTOS, "--onnx", out)
    assert main(["export", *map(str, arguments)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["tiny.json", "tiny.mindir", "tiny.onnx"]
    facts = card_of(out / "tiny.mindir").facts  # the reader bears with the field
    digest = hashlib.sha256((out / "tiny.onnx").read_bytes()).hexdigest()
    assert (facts["onnx"]["file"], facts["onnx"]["sha256"]) == ("tiny.onnx", digest)
    assert facts["onnx"]["verified"]["max_abs_difference"] <= MAX_DIFFERENCE
    printed = capsys.readouterr().out
    assert f"tiny.onnx: {(out / 'tiny.onnx').stat().st_size:,} bytes, sha256 {digest}\n" in printed
    assert f"and MindSpore {export.ms.__version__} on 10 pictures" in printed.splitlines()[-1]

    model = onnx.load(out / "tiny.onnx")
    onnx.checker.check_model(model, full_check=True)
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties["name"] == "tiny"
    assert json.loads(properties["input.range"]) == [-1.0, 1.0]
    assert properties["output.order"] == "RGB"
    assert properties["weights.network"] == "ema"
    assert properties["weights.sha256"] == hashlib.sha256((tmp_path / "w.npz").read_bytes()).hexdigest()
    x = as_input(read_pictures(PHOTOS, facts))
    session = onnxruntime.InferenceSession(out / "tiny.onnx", providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"input": x})[0] - forward(generator, x)).max() <= MAX_DIFFERENCE


def test_nothing_is_written_when_onnx_runtime_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of other weights, where the trained ones should be: Lite's part of the export passes."""
    generator, other = (shake(FastGenerator((4, 4, 4), 1, 4), seed) for seed in (1, 2))
    card = command.read_card(card_file(tmp_path / "card.toml", "fast", 32))
    out = tmp_path / "out"
    out.mkdir()
    (out / "tiny.onnx").write_bytes(b"the older model")
    monkeypatch.setattr(export, "onnx_bytes", lambda _, *arguments: onnx_bytes(other, *arguments))
    with pytest.raises(TrainError, match="ONNX Runtime differs from MindSpore by"):
        export_generator(generator, card, out / "tiny.mindir", onnx=True)
    assert [p.name for p in out.iterdir()] == ["tiny.onnx"]
    assert (out / "tiny.onnx").read_bytes() == b"the older model"


def test_what_has_no_operator_is_refused(small_picture: Array) -> None:
    for layer, message in [
        (nn.Dropout(p=0.5), "no ONNX operator is known for the layer Dropout"),
        (nn.Conv2d(3, 3, 3, pad_mode="same"), "a convolution padded as 'same'"),
        (nn.Conv2d(4, 3, 3, pad_mode="pad"), "the ONNX graph is not valid"),  # 4 channels of the 3 that there are
    ]:
        with pytest.raises(TrainError, match=message):
            onnx_bytes(nn.SequentialCell(nn.ReLU(), layer), small_picture.shape, "x", {})
    with pytest.raises(TrainError, match="cannot verify on ONNX Runtime"):
        run_on_onnx_runtime(b"not a graph", small_picture)


def test_the_extra_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)  # as in an environment without them
    arguments = ("--weights", tmp_path / "w.npz", "--card", tmp_path / "card.toml", "--onnx", tmp_path)
    assert main(["export", *map(str, arguments)]) == 2
    assert capsys.readouterr().err == "train export: --onnx needs onnx and onnxruntime: pip install 'h2a-batch[onnx]'\n"
