"""Export: counted, verified on MindSpore Lite, written whole or not at all; and the model that is shipped."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore import nn
from train_support import PHOTOS, ROOT, forward, shake

from h2a_batch.card import card_of
from train import export
from train.commands.export import read_card
from train.errors import TrainError
from train.export import count_macs, count_parameters, export_generator, read_pictures, synthetic_pictures
from train.lite import run_on_lite
from train.networks import FastGenerator, build_generator
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


def test_the_command_writes_a_verified_model(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", {"ema": shake(build_generator("fast"))})
    text = CARD_FILE.read_text().replace("256\n", "64\n")
    (tmp_path / "card.toml").write_text(text)
    done = train_command("export", "--weights", tmp_path / "w.npz", "--card", tmp_path / "card.toml", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "4,118,395 parameters" in done.stdout
    card = card_of(tmp_path / "anime-256.mindir")
    assert card is not None
    assert (card.input.width, card.facts["weights"]["network"]) == (64, "ema")


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", {"ema": shake(build_generator("fast"))})
    (tmp_path / "card.toml").write_text(CARD_FILE.read_text().replace("256\n", "32\n"))
    for name in "ab":
        arguments = ("--weights", tmp_path / "w.npz", "--card", tmp_path / "card.toml", tmp_path / f"{name}.mindir")
        assert train_command("export", *arguments).returncode == 0
    assert (tmp_path / "a.mindir").read_bytes() == (tmp_path / "b.mindir").read_bytes()


def test_mistakes_are_one_clear_line(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", {"gab": FastGenerator((8, 8, 16), 1, 8)})
    (tmp_path / "bad.toml").write_text("name = ")
    (tmp_path / "poor.toml").write_text("name = 'x'")
    weights, card = tmp_path / "w.npz", CARD_FILE
    for arguments, message in [
        (("--weights", weights, "--card", card), "has no network 'ema': it has gab"),
        (("--weights", weights, "--network", "gab", "--card", card), "weights do not fit FastGenerator"),
        (("--weights", tmp_path / "none.npz", "--card", card), "none.npz: no such file"),
        (("--weights", weights, "--card", tmp_path / "bad.toml"), "bad.toml: not a TOML file"),
        (("--weights", weights, "--card", tmp_path / "poor.toml"), "the card needs a table 'input'"),
        (("--weights", weights, "--card", tmp_path / "none.toml"), "none.toml"),
    ]:
        done = train_command("export", *arguments, tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.startswith("train export: ")
        assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.mindir"))


def test_help_names_the_commands_without_loading_mindspore() -> None:
    done = train_command("--help")
    assert done.returncode == 0
    assert "export" in done.stdout
    assert train_command("nonsense").returncode == 2


def test_the_shipped_model_is_what_its_card_says(weights: Path) -> None:
    path = ROOT / "models" / "anime-256.mindir"
    card = card_of(path)  # checks the sha256
    assert card is not None
    written = read_card(CARD_FILE)
    assert {name: card.facts[name] for name in ("name", "limits", "licence", "training_data", "input", "output")} == {
        name: written[name] for name in ("name", "limits", "licence", "training_data", "input", "output")
    }
    generator = build_generator(card.facts["generator"]["network"])
    assert card.facts["generator"]["parameters"] == count_parameters(generator)
    assert card.facts["generator"]["macs"] == count_macs(generator, card.input.shape(1))
    source = weights / "anime-256-warm.npz"
    if card.facts["weights"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest():
        check = np.load(weights / "check.npz")
        assert np.abs(run_on_lite(path, check["x"]) - check["y"]).max() < export.MAX_DIFFERENCE
