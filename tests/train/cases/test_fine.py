"""Coarse to fine: the cells against PyTorch, the joined network against its halves, and both in one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_support import as_input, card_file
from mindspore import Tensor
from train_support import PHOTOS, Array, forward, shake

from train.__main__ import main
from train.commands.export import read_card
from train.export.generator import MAX_DIFFERENCE, check_size, count_macs, read_pictures
from train.lite import run_on_lite
from train.networks import CoarseGenerator, CoarseToFine, FastGenerator, FineGenerator, total_stride
from train.networks.fine import LIMIT
from train.weights import network_arrays, write_weights

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[eval]'")
functional = torch.nn.functional

COARSE = {"channels": [8, 8, 16], "blocks": 1, "refine": [1, 1]}
FINE = {"channels": 8, "blocks": 2, "middle": 8, "last": 4}
OPTIONS = (
    "{coarse = {channels = [8, 8, 16], blocks = 1, refine = [1, 1]},"
    " fine = {channels = 8, blocks = 2, middle = 8, last = 4}}"
)


def twin(weights: dict[str, Array], x: Array, times: int) -> Any:
    """The fine half in PyTorch, of the arrays of a weights file."""
    w = {name: torch.from_numpy(array) for name, array in weights.items()}
    picture = torch.from_numpy(x)

    def conv(value: Any, name: str) -> Any:
        return functional.conv2d(value, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    first = functional.relu(conv(functional.pixel_unshuffle(picture, 4 // times), "head"))
    y = first
    for block in range(sum(name.endswith("a.weight") for name in w)):
        y = y + 0.2 * conv(functional.relu(conv(y, f"body.{block}.a")), f"body.{block}.b")
    y = first + y
    for name in ("up1", "up2"):
        y = functional.leaky_relu(functional.pixel_shuffle(conv(y, name), 2), 0.2)
    large = functional.interpolate(picture, scale_factor=times, mode="bilinear", align_corners=False)
    return (large + conv(y, "tail")).clamp(-LIMIT, LIMIT).numpy()


@pytest.mark.parametrize("times", [2, 4])
def test_the_fine_half_is_pytorchs(times: int, small_picture: Array) -> None:
    network = shake(FineGenerator(**FINE, times=times))
    network.tail.weight.set_data(Tensor(40 * network.tail.weight.asnumpy()))  # so that the limit is reached
    y = forward(network, small_picture)
    assert y.shape == (1, 3, times * 64, times * 96)
    assert np.abs(y).max() == np.float32(LIMIT)
    np.testing.assert_allclose(y, twin(network_arrays(network), small_picture, times), atol=1e-5)


def test_its_first_weights_are_pytorchs_default() -> None:
    """Uniform up to 1 / sqrt(inputs of an output): as many values, the same bound, the same spread."""
    network, module = FineGenerator(), torch.nn.Conv2d(48, 128, 3)
    for ours, theirs in ((network.up1.weight, module.weight), (network.up1.bias, module.bias)):
        bound = 1 / np.sqrt(48 * 9)
        assert 0.9 * bound < np.abs(ours.asnumpy()).max() <= bound
        assert abs(float(ours.asnumpy().std()) / float(theirs.detach().std()) - 1) < 0.25


def test_both_halves_joined_are_the_halves_in_turn(small_picture: Array) -> None:
    joined = shake(CoarseToFine(COARSE, FINE))
    arrays = network_arrays(joined)
    assert {"coarse.m.0.0.weight", "fine.head.weight", "fine.body.1.b.bias", "fine.up2.weight"} <= arrays.keys()
    small = small_picture.reshape(1, 3, 16, 4, 24, 4).mean((3, 5))
    expected = forward(joined.fine, forward(joined.coarse, small)).clip(-1, 1)
    np.testing.assert_allclose(forward(joined, small_picture), expected, atol=2e-5)
    assert expected.shape == small_picture.shape
    halves = count_macs(joined.coarse, (1, 3, 16, 24)) + count_macs(joined.fine, (1, 3, 16, 24))
    assert count_macs(joined, (1, 3, 64, 96)) == halves


def test_the_size_is_what_both_halves_need() -> None:
    assert total_stride(CoarseToFine()) == 16
    assert total_stride(CoarseToFine(fine={"times": 2})) == 8
    assert (total_stride(FineGenerator()), total_stride(FineGenerator(times=2))) == (1, 2)
    check_size(CoarseToFine(COARSE, FINE), (1, 3, 48, 16))
    with pytest.raises(ValueError, match="times 3: must be one of 2, 4"):
        FineGenerator(times=3)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CoarseToFine]:
    """A folder of the halves' files, as two trainings leave them: the coarse one in two parts, the fine one unnamed."""
    folder, joined = tmp_path_factory.mktemp("halves"), shake(CoarseToFine(COARSE, FINE))
    coarse, fine = network_arrays(joined.coarse), network_arrays(joined.fine)
    coarse, fine = ({n.partition(".")[2]: a for n, a in part.items()} for part in (coarse, fine))
    np.savez(folder / "coarse.npz", **{f"ema.{name}": array for name, array in coarse.items()})
    np.savez(folder / "fine.npz", **fine)
    np.savez(folder / "named.npz", **{f"{n}.{k}": a for n in ("gab", "ema") for k, a in fine.items()})
    for number in range(2):
        part = dict(list(coarse.items())[number::2])
        np.savez(folder / f"part{number}.npz", **{f"ema.{name}": array for name, array in part.items()})
    write_weights(folder / "joined.npz", {"ema": joined})
    return folder, joined


def test_two_files_become_one_model(halves: tuple[Path, CoarseToFine], capsys: pytest.CaptureFixture[str]) -> None:
    folder, joined = halves
    card = card_file(folder / "card.toml", "coarse-to-fine", 64, OPTIONS)
    x = as_input(read_pictures(PHOTOS, read_card(card)))
    expected, facts = forward(joined, x), {}
    assert expected.std() > 0.01
    for name, weights, fine in (
        ("one", ["coarse.npz"], ["--fine", str(folder / "fine.npz")]),
        ("two", ["part0.npz", "part1.npz"], ["--fine", str(folder / "named.npz")]),
        ("three", ["joined.npz"], []),
    ):
        files = [str(folder / file) for file in weights]
        given = ["--weights", *files, *fine, "--card", str(card), "--name", name, "--images", str(PHOTOS), str(folder)]
        assert main(["export", *given]) == 0, capsys.readouterr().err
        facts[name] = json.loads((folder / f"{name}.json").read_text())
        assert np.abs(run_on_lite(folder / f"{name}.mindir", x) - expected).max() <= MAX_DIFFERENCE
    assert facts["one"]["weights"]["network"] == "ema"
    assert facts["two"]["weights"]["fine"]["network"] == "ema"
    assert len(facts["two"]["weights"]["sha256"]) == 2


def test_what_does_not_fit_together_is_one_line(
    halves: tuple[Path, CoarseToFine], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = halves
    joined = card_file(folder / "joined.toml", "coarse-to-fine", 32, OPTIONS)
    odd = card_file(folder / "odd.toml", "coarse-to-fine", 24, OPTIONS)
    fast = card_file(folder / "fast.toml", "fast", 32, "{channels = [4, 4, 4], blocks = 1, last = 4}")
    write_weights(folder / "w.npz", {"ema": FastGenerator((4, 4, 4), 1, 4), "da": CoarseGenerator((4, 4, 4), 1)})
    for card, weights, fine, message in (
        (
            joined,
            ["coarse.npz"],
            None,
            "'ema' is only the coarse half of coarse-to-fine: give the other",
        ),
        (joined, ["joined.npz"], "fine.npz", "'ema' has both halves already: leave --fine away"),
        (fast, ["w.npz"], "fine.npz", "--fine is for the network 'coarse-to-fine', and the card's is 'fast'"),
        (joined, ["coarse.npz"], "coarse.npz", "weights do not fit CoarseToFine: the file lacks fine.body"),
        (joined, ["coarse.npz"], "none.npz", "none.npz: no such file"),
        (
            joined,
            ["coarse.npz", "part1.npz"],
            "fine.npz",
            "part1.npz: has ema.m.0.0.bias, which an earlier file has",
        ),
        (joined, ["part0.npz"], "fine.npz", "the file lacks coarse.m.0.0.bias"),
        (odd, ["coarse.npz"], "fine.npz", "CoarseToFine needs a width and height divisible by 16"),
    ):
        given = ["--weights", *(str(folder / file) for file in weights), "--card", str(card)]
        given += ["--fine", str(folder / fine)] if fine else []
        assert main(["export", *given, str(folder / "wrong.mindir")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (folder / "wrong.mindir").exists()
