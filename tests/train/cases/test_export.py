"""Export: counted, verified on MindSpore Lite, written whole or not at all; and the model that is shipped."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_support import as_input, card_file
from mindspore import nn
from train_support import PHOTOS, ROOT, forward, shake

from h2a_batch.inference.card import card_of
from train.__main__ import main
from train.commands.export import read_card
from train.errors import TrainError
from train.export import generator as export
from train.export.generator import (
    MAX_DIFFERENCE,
    check_size,
    count_macs,
    count_parameters,
    export_generator,
    forward_pass,
    read_pictures,
    synthetic_pictures,
    verified,
)
from train.lite import run_on_lite
from train.networks import FastGenerator, ResNetGenerator, UNetGenerator, build_generator
from train.weights import write_weights

CARD_FILE = ROOT / "train" / "cards" / "anime-256.toml"
PIXELS = {"width": 64, "height": 48, "layout": "NCHW", "order": "RGB", "range": [-1.0, 1.0]}
CARD = {"name": "tiny", "input": PIXELS, "output": PIXELS, "generator": {"network": "tiny"}, "framing": "pad"}


def tiny() -> FastGenerator:
    return shake(FastGenerator((8, 8, 16), 1, 8))


def train_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_an_export_is_a_model_and_its_card(tmp_path: Path) -> None:
    generator, path = tiny(), tmp_path / "new" / "tiny.mindir"
    fields = export_generator(generator, CARD, path, read_pictures(PHOTOS, CARD))
    assert json.loads(path.with_suffix(".json").read_text()) == fields
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.json", "tiny.mindir"]
    assert (fields["card"], fields["file"]) == (1, "tiny.mindir")
    assert fields["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert fields["generator"] == {
        "network": "tiny",
        "parameters": count_parameters(generator),
        "macs": count_macs(generator, (1, 3, 48, 64)),
    }
    assert 0 < fields["verified"]["max_abs_difference"] <= fields["verified"]["limit"] == export.MAX_DIFFERENCE
    card = card_of(path)
    assert card is not None
    x = card.input.to_tensor(synthetic_pictures(64, 48))
    assert np.abs(run_on_lite(path, x) - forward(generator, x)).max() <= export.MAX_DIFFERENCE


def test_nothing_is_written_when_lite_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiny.mindir"
    path.write_bytes(b"the older model")
    monkeypatch.setattr(export, "MAX_DIFFERENCE", 1e-12)
    with pytest.raises(TrainError, match="MindSpore Lite differs from MindSpore by"):
        export_generator(tiny(), CARD, path)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.mindir"]
    assert path.read_bytes() == b"the older model"


def test_counts_are_the_textbooks() -> None:
    cell = nn.SequentialCell(
        nn.Conv2d(3, 8, 3, 2, "pad", 1, has_bias=True),
        nn.Conv2dTranspose(8, 4, 4, 2, "pad", 1),
    )
    assert count_parameters(cell) == 3 * 8 * 9 + 8 + 8 * 4 * 16
    assert count_macs(cell, (1, 3, 32, 16)) == 3 * 8 * 9 * 16 * 8 + 8 * 4 * 16 * 16 * 8


@pytest.mark.parametrize("change", [{"layout": "NHWC"}, {"width": 100}, {"height": None}, {"order": "BGR"}])
def test_a_card_that_the_network_cannot_serve_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="the card's input"):
        export_generator(tiny(), {**CARD, "input": {**PIXELS, **change}}, tmp_path / "x.mindir")


def test_each_generator_says_what_size_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell, stride in [
        (FastGenerator((8, 8, 16), 1, 8), 8),
        (ResNetGenerator(1, 4), 4),
        (UNetGenerator(2, 5), 32),
        (UNetGenerator(2, 5, "none"), 32),
    ]:
        check_size(cell, (1, 3, stride, 3 * stride))
        for shape in ((1, 3, stride // 2, stride), (1, 3, stride, stride + 2)):
            with pytest.raises(TrainError, match=f"needs a width and height divisible by {stride}"):
                check_size(cell, shape)
    write_weights(tmp_path / "w.npz", {"ema": UNetGenerator(2)})
    card = card_file(tmp_path / "c.toml", "unet-256", 128, "{width = 2}")
    assert main(["export", "--weights", str(tmp_path / "w.npz"), "--card", str(card), str(tmp_path)]) == 2
    assert "UNetGenerator needs a width and height divisible by 256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "options", "size"),
    [
        ("unet-256", "{width = 8, depth = 6}", 64),
        ("unet-256", '{width = 4, depth = 4, norm = "none"}', 48),
        ("resnet-6", "{width = 8}", 64),
        ("resnet-6", '{width = 4, padding = "zeros", norm = "none"}', 36),
    ],
)
def test_every_kind_of_generator_can_be_exported(network: str, options: str, size: int, tmp_path: Path) -> None:
    card = card_file(tmp_path / "card.toml", network, size, options)
    generator = shake(build_generator(network, **read_card(card)["generator"]["options"]))
    write_weights(tmp_path / "w.npz", {"ema": generator})
    arguments = ("--weights", tmp_path / "w.npz", "--card", card, "--images", PHOTOS, tmp_path)
    assert main(["export", *map(str, arguments)]) == 0
    path = tmp_path / "tiny.mindir"
    facts = card_of(path).facts
    assert facts["generator"]["parameters"] == count_parameters(generator)
    assert facts["verified"]["pictures"] + facts["verified"].get("left_out", 0) == 10
    x = as_input(read_pictures(PHOTOS, facts))
    expected = forward(generator, x)
    assert expected.std() > 0.01
    assert np.abs(run_on_lite(path, x) - expected).max() <= MAX_DIFFERENCE


def test_a_picture_of_one_colour_is_left_out_only_where_mindspore_has_no_answer_to_it() -> None:
    gray, *others = as_input(synthetic_pictures(32, 32))
    for generator, stable in [(ResNetGenerator(6, 4), False), (ResNetGenerator(6, 4, norm="none"), True)]:
        x = np.stack([gray, *others])
        expected = forward_pass(generator, x)
        fields = verified(generator, x, expected, expected, "It 1")
        assert (fields["max_abs_difference"], fields["pictures"], "left_out" in fields) == (0, 4, False)
        for picture, change in [(0, 0.01), (2, 0.01), (0, np.nan)]:
            actual = expected.copy()
            actual[picture, 0, 5, 5] += change
            if picture == 0 and not stable and change == 0.01:
                fields = verified(generator, x, expected, actual, "It 1")
                assert (fields["pictures"], fields["left_out"]) == (3, 1)
            else:
                with pytest.raises(TrainError, match=f"It differs from MindSpore by .* on picture {picture + 1} of 4"):
                    verified(generator, x, expected, actual, "It 1")


def test_a_direction_finds_its_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = card_file(tmp_path / "c.toml", "fast", 16, "{channels = [4, 4, 4], blocks = 1, last = 4}")
    cells = {name: shake(FastGenerator((4, 4, 4), 1, 4), n) for n, name in enumerate(("gab", "gba", "ema"))}
    write_weights(tmp_path / "w.npz", cells)
    inputs = ("--weights", str(tmp_path / "w.npz"), "--card", str(card))
    for arguments, network, said in [
        ((), "ema", "network ema of {} (a2b)\n"),
        (("--direction", "b2a", "--name", "faces"), "gba", "network gba of {} (b2a): it has no average 'ema_ba'"),
        (("--network", "gab", "--name", "last"), "gab", "network gab of {}\n"),
    ]:
        assert main(["export", *inputs, *arguments, str(tmp_path)]) == 0
        assert said.format(tmp_path / "w.npz") in capsys.readouterr().out
        name = arguments[-1] if arguments else "tiny"
        facts = json.loads((tmp_path / f"{name}.json").read_text())
        assert (facts["name"], facts["weights"]["network"]) == (name, network)
        x = as_input(read_pictures(PHOTOS, facts))
        assert np.abs(run_on_lite(tmp_path / f"{name}.mindir", x) - forward(cells[network], x)).max() < MAX_DIFFERENCE
    for arguments, message in [
        (("--direction", "b2a", "--network", "ema"), "--network ema is a2b, not b2a"),
        (("--name", "../x"), "the model's name '../x' must be usable as a file's name"),
    ]:
        assert main(["export", *inputs, *arguments, str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def test_the_command_writes_a_verified_model(tmp_path: Path) -> None:
    generator = read_card(CARD_FILE)["generator"]
    write_weights(tmp_path / "w.npz", {"ema": shake(build_generator(generator["network"], **generator["options"]))})
    text = CARD_FILE.read_text().replace("256\n", "64\n")
    (tmp_path / "card.toml").write_text(text)
    done = train_command("export", "--weights", tmp_path / "w.npz", "--card", tmp_path / "card.toml", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "1,663,350 parameters" in done.stdout
    card = card_of(tmp_path / "anime-256.mindir")
    assert card is not None
    assert (card.input.width, card.facts["weights"]["network"]) == (64, "ema")


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", {"ema": tiny()})
    card = card_file(tmp_path / "card.toml", "fast", 32, "{channels = [8, 8, 16], blocks = 1, last = 8}")
    for name in "ab":
        arguments = ("--weights", tmp_path / "w.npz", "--card", card, tmp_path / f"{name}.mindir")
        assert train_command("export", *arguments).returncode == 0
    assert (tmp_path / "a.mindir").read_bytes() == (tmp_path / "b.mindir").read_bytes()


def test_mistakes_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_weights(tmp_path / "w.npz", {"gab": FastGenerator((8, 8, 16), 1, 8)})
    (tmp_path / "bad.toml").write_text("name = ")
    (tmp_path / "poor.toml").write_text("name = 'x'")
    weights, card = tmp_path / "w.npz", card_file(tmp_path / "fast.toml", "fast", 64)
    unknown = card_file(tmp_path / "unknown.toml", "vast", 64)
    wrong = card_file(tmp_path / "wrong.toml", "resnet-9", 64, '{padding = "zero"}')
    for arguments, message in [
        (("--weights", weights, "--network", "ema", "--card", card), "has no network 'ema': it has gab"),
        (("--weights", weights, "--direction", "b2a", "--card", card), "no network 'ema_ba' or 'gba': it has gab"),
        (("--weights", weights, "--network", "gab", "--card", card), "weights do not fit FastGenerator"),
        (("--weights", tmp_path / "none.npz", "--card", card), "none.npz: no such file"),
        (("--weights", weights, "--card", tmp_path / "bad.toml"), "bad.toml: not a TOML file"),
        (("--weights", weights, "--card", tmp_path / "poor.toml"), "the card needs a table 'input'"),
        (("--weights", weights, "--card", tmp_path / "none.toml"), "none.toml"),
        (("--weights", weights, "--card", unknown), "[generator]: unknown generator 'vast'"),
        (("--weights", weights, "--card", wrong), "[generator]: padding 'zero': must be one of zeros, reflect"),
    ]:
        assert main(["export", *map(str, arguments), str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("train export: ")
        assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.mindir"))


def test_help_names_the_commands_without_loading_mindspore() -> None:
    done = train_command("--help")
    assert done.returncode == 0
    assert "export" in done.stdout
    assert train_command("nonsense").returncode == 2


def test_the_shipped_model_is_what_its_card_says() -> None:
    path = ROOT / "models" / "anime-256.mindir"
    card = card_of(path)  # checks the sha256
    assert card is not None
    written = read_card(CARD_FILE)
    assert {name: card.facts[name] for name in ("name", "limits", "licence", "training_data", "input", "output")} == {
        name: written[name] for name in ("name", "limits", "licence", "training_data", "input", "output")
    }
    generator = build_generator(card.facts["generator"]["network"], **card.facts["generator"].get("options", {}))
    assert card.facts["generator"]["parameters"] == count_parameters(generator)
    assert card.facts["generator"]["macs"] == count_macs(generator, card.input.shape(1))
