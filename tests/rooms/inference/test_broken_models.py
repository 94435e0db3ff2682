"""Models that are broken, on the real MindSpore Lite: found at the start, or each photo fails and is kept."""

from __future__ import annotations

import json
import mmap
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, SHARED, Command, tree
from hypothesis import given, settings
from hypothesis import strategies as some
from lite_support import ConvTanh
from PIL import Image

from h2a_batch import Generator, convert_image
from h2a_batch.convert.answers import answers_of
from h2a_batch.errors import ModelError
from h2a_batch.inference.card import DETECTOR, card_of, check_detector_card, find_model, read_card
from h2a_batch.inference.weights import _weights, check_weights
from h2a_batch.places import sha256_of

MODEL = ROOT / "models" / "anime-256.mindir"
NUMBERS = (float("nan"), float("inf"), -float("inf"))


def _model(folder: Path, scale: float, last: str = "Tanh") -> Path:
    """A generator whose weights are all of one value: with 0 it answers one gray for whatever it sees."""
    return ConvTanh(size=64, scale=scale, last=last).write(folder / f"m{scale}{last}.mindir")


def _with_card(folder: Path, change: dict[str, Any]) -> Path:
    """The shipped model with a card that was changed; a change of a part names it as in ``output.std``."""
    fields = json.loads(MODEL.with_suffix(".json").read_text())
    for name, value in change.items():
        part, _, inner = name.partition(".")
        fields[part] = {**fields[part], inner: value} if inner else value
    model = folder / "m.mindir"
    shutil.copyfile(MODEL, model)
    model.with_suffix(".json").write_text(json.dumps(fields))
    return model


@pytest.mark.parametrize(
    "change",
    [
        {"output.std": [0, 0, 0]},
        {"input.std": [1, 0, 1]},
        {"output.std": [1, -1, 1]},
        {"output.std": [1e-320, 1, 1]},
        {"output.std": [1, 1]},
        *({"output.std": [1, number, 1]} for number in NUMBERS),
        *({"input.mean": [0, number, 0]} for number in NUMBERS),
        *({"output.range": [-1, number]} for number in NUMBERS),
        {"output.range": [1, -1]},
        {"output.range": [0, 0]},
        {"output.range": [0, 1e-300]},
        {"output.range": [-1e308, 1e308]},
        {"output.range": [0, 10**400]},
        {"output.range": ["0", "1"]},
        {"output.range": [False, True]},
        {"input.width": 0},
        {"input.width": -256},
        {"input.width": 256.5},
        {"input.width": float("nan")},
        {"input.height": 10**9},
        {"input.height": "256"},
        {"output.width": 512},
        {"input.height": 128},
        {"face": {"x": float("nan")}},
        {"face": {"eyes": float("inf")}},
        {"face": {"x": None}},
        {"face": []},
        {"output": None},
        {"output": []},
    ],
    ids=str,
)
def test_a_card_whose_numbers_make_no_sense_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        Generator(_with_card(tmp_path, change), device="cpu")
    assert "m.json: not a usable model card" in str(error.value) or "its card says" in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@given(
    some.recursive(
        some.none() | some.booleans() | some.floats(allow_subnormal=False) | some.integers() | some.text(max_size=4),
        lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
    some.sampled_from(["input", "output", "face", "framing", "input.range", "output.std", "input.mean", "input.width"]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_stands_in_a_card_it_is_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, value: Any, name: str
) -> None:
    model = _with_card(tmp_path_factory.mktemp("card"), {name: value})
    try:
        card = card_of(model)
    except ModelError as error:
        assert "\n" not in str(error)
    else:
        assert card is not None
        picture = np.random.default_rng(0).integers(0, 256, (card.output.height, card.output.width, 3), np.uint8)
        assert np.isfinite(card.output.to_tensor([picture])).all()


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("input", {"range": [0, float("nan")]}),
        ("input", {"range": [255, 0]}),
        ("input", {"std": [0, 1, 1]}),
        ("input", {"mean": [0, float("inf"), 1]}),
        ("input", {"layout": "CHWN"}),
        ("input", {"multiple_of": 0}),
        ("outputs", {"scale": {"channels": float("nan")}}),
        ("outputs", {"scale": None}),
    ],
    ids=str,
)
def test_the_card_of_the_face_detector_is_checked_too(part: str, change: dict[str, Any]) -> None:
    path = find_model("centerface")
    fields = read_card(path, DETECTOR)
    assert fields is not None
    check_detector_card(path, fields)
    with pytest.raises(ModelError, match="not a usable model card"):
        check_detector_card(path, {**fields, part: {**fields[part], **change}})


def test_the_card_of_the_case_is_refused_before_any_photo(photos: Path, tmp_path: Path, h2a: Command) -> None:
    case = SHARED / "cases" / "hostile" / "card-std0.json"
    if not case.exists():
        pytest.skip("the folder of cases is not here")
    model = tmp_path / "m.mindir"
    shutil.copyfile(MODEL, model)
    model.with_suffix(".json").write_text(json.dumps({**json.loads(case.read_text()), "sha256": sha256_of(model)}))
    before = tree(photos)
    done = h2a(photos, tmp_path / "out", "--model", model, "--on-success", "delete")
    assert done.returncode == 2 and "std [0.0, 0.0, 0.0] is not over 0" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and tree(photos) == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("last", ["Tanh", "ReLU"])
def test_weights_of_nan_are_found_before_any_photo(last: str, photos: Path, tmp_path: Path, h2a: Command) -> None:
    model = _model(tmp_path, float("nan"), last)
    before = tree(photos)
    with pytest.raises(ModelError, match="weights"):
        check_weights(model)
    done = h2a(photos, tmp_path / "out", "--model", model, "--faces", "off", "--on-success", "delete")
    assert done.returncode == 2 and f"{model}: some of its weights are not numbers" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and tree(photos) == before and not (tmp_path / "out").exists()


def test_one_weight_of_nan_in_the_shipped_model_is_found(tmp_path: Path) -> None:
    check_weights(MODEL)
    check_weights(find_model("centerface"))
    with MODEL.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        places = list(_weights(mapped))
    data = bytearray(MODEL.read_bytes())
    _, start, end = max(places, key=lambda place: place[2] - place[1])
    data[end - 4 : end] = np.float32("nan").tobytes()
    model = tmp_path / "m.mindir"
    model.write_bytes(data)
    with pytest.raises(ModelError, match="weights"):
        Generator(model, device="cpu")
    assert start < end and len(places) > 100


def test_a_file_that_is_no_mindir_is_left_to_mindspore_lite(tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"\xff" * 100, b"\x3a\xff\xff\x03", b"photo", MODEL.read_bytes()[:1000])):
        file = tmp_path / f"{number}.mindir"
        file.write_bytes(data)
        check_weights(file)


def test_an_answer_to_gray_that_is_not_finite_is_found_when_the_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(tmp_path, float("nan"), "ReLU")
    monkeypatch.setattr("h2a_batch.inference.generator.check_weights", lambda path: None)
    with pytest.raises(ModelError, match="not finite"):
        Generator(model, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("rule", [(), ("--on-success", "delete", "--on-failure")])
def test_one_colour_fails_each_photo_and_after_twenty_the_run_stops(
    rule: tuple[str, ...], many: Path, tmp_path: Path, h2a: Command
) -> None:
    model = _model(tmp_path, 0.0)
    before = tree(many)
    words = (*rule, f"move={tmp_path / 'failed'}") if rule else ()
    for _ in range(2):
        done = h2a(many, tmp_path / "out", "--model", model, "--faces", "off", "--json", *words)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(line["state"], line["kind"]) for line in lines] == 20 * [("failed", "model")], done.stderr
        assert all("one colour" in line["message"] and str(model) in line["message"] for line in lines)
        said = [line for line in done.stderr.splitlines() if "no picture for 20 photos in a row" in line]
        assert done.returncode == 1 and len(said) == 1 and str(model) in said[0], done.stderr
        assert "Traceback" not in done.stderr
        assert tree(many) == before and not tree(tmp_path / "out") and not tree(tmp_path / "failed")
    shipped = h2a(many, tmp_path / "out", "--limit", "2")
    assert shipped.returncode == 0 and "2 converted" in shipped.stderr, shipped.stderr


@pytest.mark.slow
def test_nineteen_failures_do_not_stop_a_run_and_a_plain_photo_is_no_failure(
    many: Path, tmp_path: Path, h2a: Command
) -> None:
    for path in sorted(many.iterdir())[19:]:
        path.unlink()
    Image.new("RGB", (100, 100), (200, 30, 60)).save(many / "plain.png")
    model = _model(tmp_path, 0.0)
    done = h2a(many, tmp_path / "out", "--model", model, "--faces", "off")
    assert done.returncode == 1 and "1 converted, 0 skipped, 19 failed" in done.stderr, done.stderr
    assert set(tree(tmp_path / "out")) == {"plain.png"}


def test_one_colour_is_no_picture_from_python_either(tmp_path: Path) -> None:
    generator = Generator(_model(tmp_path, 0.0), device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with pytest.raises(ModelError, match="one colour"):
        convert_image(noise, generator=generator)
    with pytest.raises(ModelError, match="one colour"):
        answers_of(generator, [np.full((64, 64, 3), 7, np.uint8), noise])
    assert len(answers_of(generator, [np.full((64, 64, 3), 7, np.uint8)])) == 1
    spot = np.full((64, 64, 3), 7, np.uint8)
    spot[33, 35] = 200
    with pytest.raises(ModelError, match="one colour"):
        answers_of(generator, [spot])
