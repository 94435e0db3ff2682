"""Training of the fine half: its loss against PyTorch, what goes in, resuming, its mistakes, what a run leaves."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from run_support import assert_same
from train_support import PHOTOS, ROOT, Array, shake

from h2a_batch.places import sha256_of
from train.commands.export import chosen_weights, generator_of, read_card
from train.config import Config, config_from, read_config
from train.data.batches import held_out
from train.data.worn import bent, cell_means, softened, worn
from train.errors import TrainError
from train.models.choice import wanted_pictures
from train.models.fine import FineTraining, agreement, feature_loss
from train.networks import CoarseGenerator
from train.run import report
from train.run.fit import fit
from train.toml import tomllib
from train.weights import load_network, read_weights, write_weights

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[eval]'")
functional = torch.nn.functional

CONFIG = ROOT / "train" / "configs" / "fine-256.toml"
TINY = [
    *("domain_a=.", "domain_b=.", "size=64", "crop=32", "batch=2", "steps=2", "decay_steps=1", "samples=2"),
    *("d_width=8", "log_every=1", "save_every=1000", "sample_every=1000", "gan_start=0", "gan_steps=1"),
    *("generator_options.channels=8", "generator_options.blocks=1"),
]
COARSE = ["coarse_options.channels=[8,8,16]", "coarse_options.blocks=1", "coarse_options.refine=[1,0]"]


def tiny(*settings: str) -> Config:
    return read_config(CONFIG, [f"data={PHOTOS}", *TINY, *settings])


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a coarse half."""
    path = tmp_path_factory.mktemp("coarse") / "coarse.npz"
    write_weights(path, {"ema": shake(CoarseGenerator((8, 8, 16), 1, (1, 0)))})
    return path


@pytest.fixture(scope="module")
def whole(coarse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps in one go, with a coarse half."""
    out = tmp_path_factory.mktemp("whole")
    assert fit(tiny(f"coarse={coarse}", *COARSE), out) == 2
    return out


def pictures(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def value_and_gradient(loss: Any, x: Array, *rest: Any) -> tuple[float, Array]:
    value, gradient = ms.value_and_grad(loss)(Tensor(x), *rest)
    return float(value), gradient.asnumpy()


def torch_value_and_gradient(loss: Any, x: Array) -> tuple[float, Array]:
    leaf = torch.from_numpy(x).requires_grad_()
    value = loss(leaf)
    value.backward()
    return float(value.detach()), leaf.grad.numpy()


def test_agreement_is_pytorchs_mean_over_cells() -> None:
    made, small = pictures(0, 2, 3, 16, 24), pictures(1, 2, 3, 4, 6)
    ours = value_and_gradient(lambda x: agreement(x, Tensor(small), 4), made)
    theirs = torch_value_and_gradient(
        lambda x: (functional.avg_pool2d(x, 4) - torch.from_numpy(small)).abs().mean(), made
    )
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-8)


def test_the_feature_loss_is_measured_by_the_real_features() -> None:
    """A hundred times larger features of one layer weigh the same."""
    made = pictures(0, 2, 3, 8, 8)
    real = [pictures(1, 2, 3, 8, 8), 100 * pictures(2, 2, 3, 8, 8)]
    ours = value_and_gradient(lambda x: feature_loss((x, 100.0 * x), tuple(map(Tensor, real))), made)
    first, second = map(torch.from_numpy, real)
    theirs = torch_value_and_gradient(
        lambda x: (x - first).abs().mean() / first.abs().mean() + (100 * x - second).abs().mean() / second.abs().mean(),
        made,
    )
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-7)


def test_the_whole_loss_is_the_sum_of_its_terms(coarse: Path) -> None:
    """Photos have no right answer: what was asked of the first half of the batch is not asked of theirs."""
    settings = ("recon=2", "agreement=3", "features=0.5", "projected=0", "patch=0.7", "photos=0.25", *COARSE)
    model = FineTraining(tiny(f"coarse={coarse}", *settings))
    assert model.right == 1
    small, whole = pictures(0, 2, 3, 8, 8), pictures(1, 2, 3, 32, 32)
    gan = 0.3
    values = [value.asnumpy() for value in model.generator_loss(Tensor(gan), Tensor(small), Tensor(whole))]
    total, recon, agree, feature, adversarial, photos, made = values
    assert recon == pytest.approx(np.abs(made[:1] - whole[:1]).mean(), rel=1e-5)
    answers = np.concatenate((cell_means(whole[:1], 4), small[1:]))
    assert agree == pytest.approx(np.abs(cell_means(made, 4) - answers).mean(), rel=1e-5)
    own, real = (model.projected.lite(Tensor(x)) for x in (made, whole))
    ratios = [
        np.abs(a.asnumpy()[:1] - b.asnumpy()[:1]).mean() / np.abs(b.asnumpy()[:1]).mean()
        for a, b in zip(own[:3], real[:3], strict=True)
    ]
    assert feature == pytest.approx(sum(ratios), rel=1e-4)
    scores = [model.patch(Tensor(part)).asnumpy() for part in (made[:1], made[1:])]
    assert [adversarial, photos] == pytest.approx([0.7 * ((s - 1) ** 2).mean() for s in scores], rel=1e-4)
    expected = 2 * recon + 3 * agree + 0.5 * feature + gan * (0.5 * adversarial + 0.5 * 0.25 * photos)
    assert total == pytest.approx(expected, rel=1e-5)


def test_a_factor_of_0_leaves_a_term_out() -> None:
    """With the GAN, its discriminators and their optimizer, and with the features their network."""
    model = FineTraining(tiny("adversarial=0", "features=0", "agreement=0", "projected=0", "patch=0"))
    assert set(model.networks()) == {"gab", "ema"}
    assert set(model.optimizers) == {"g_optimizer"}
    assert model.panels == (("recon",),)
    x = np.zeros((2, 3, 64, 64), np.float32)
    before = model.generator.head.weight.asnumpy().copy()
    losses, (made,) = model.step(1, x, pictures(0, 2, 3, 64, 64), np.random.default_rng(0))
    assert losses["recon"] > 0 and losses["agreement"] == losses["features"] == losses["gan"] == 0
    assert "d_patch" not in losses
    assert made.shape == (2, 3, 32, 32)
    assert not np.array_equal(before, model.generator.head.weight.asnumpy())


def test_soft_pictures_are_pytorchs_means() -> None:
    x = pictures(0, 3, 8, 10)
    padded = functional.pad(torch.from_numpy(x)[None], (1, 1, 1, 1), mode="reflect")
    np.testing.assert_allclose(softened(x), functional.avg_pool2d(padded, 3, 1)[0].numpy(), atol=1e-6)


def test_bent_pictures_are_pytorchs_grid_sample() -> None:
    """Shifts of one size everywhere: by a third of a pixel, and none."""
    x = pictures(0, 3, 16, 24)
    np.testing.assert_allclose(bent(x, np.zeros((2, 8, 8))), x, atol=1e-6)
    shifts = np.stack([np.full((8, 8), 2 / 24 / 3), np.full((8, 8), -2 / 16 / 3)])
    grid = functional.affine_grid(torch.eye(2, 3)[None], (1, 3, 16, 24), align_corners=False)
    grid = grid + torch.tensor([shifts[0, 0, 0], shifts[1, 0, 0]], dtype=torch.float32)
    expected = functional.grid_sample(torch.from_numpy(x)[None], grid, padding_mode="reflection", align_corners=False)
    np.testing.assert_allclose(bent(x, shifts), expected[0].numpy(), atol=1e-5)


def test_pictures_are_worn_a_little_and_each_in_its_own_way() -> None:
    x = np.repeat(cell_means(held_out(tiny("size=256"), 1)[0], 4), 40, 0)
    y = worn(x, np.random.default_rng(0))
    np.testing.assert_array_equal(y, worn(x, np.random.default_rng(0)))
    change = np.abs(y - x).mean((1, 2, 3))
    assert len(np.unique(change.round(6))) == 40
    assert change.min() > 0.002 and change.max() < 0.1


def test_small_and_whole_pictures_are_cut_at_the_same_places(coarse: Path) -> None:
    model = FineTraining(tiny("batch=4", f"coarse={coarse}", *COARSE))
    across, along = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64))
    ramp = np.float32([[across, along, along - across]]).repeat(4, 0)
    smalls, wholes = model.pairs(ramp, ramp, np.random.default_rng(0))
    assert smalls.shape == (4, 3, 8, 8) and wholes.shape == (4, 3, 32, 32)
    differences = np.abs(cell_means(wholes[:2], 4)[:, :2] - smalls[:2, :2]).mean((1, 2, 3))
    assert differences.max() < 0.06  # what wearing does; a cell further is 0.13
    assert len({wholes[i, 0, 0, 0] for i in range(4)}) > 1


def test_resuming_is_the_same_as_not_stopping(coarse: Path, whole: Path, tmp_path: Path) -> None:
    config = tiny(f"coarse={coarse}", *COARSE)
    assert fit(config, tmp_path, stop_after=1) == 1
    assert fit(config, tmp_path, resume=True) == 2
    assert_same(whole, tmp_path)


def test_what_a_run_leaves(coarse: Path, whole: Path) -> None:
    log = report.read_log(whole / "log.csv")
    names = ("recon", "agreement", "features", "gan", "gan_photos", "d_patch", "d_projected", "rate")
    assert all(float(row[name]) != 0 for row in log for name in names)
    assert json.loads((whole / "about.json").read_text())["coarse_sha256"] == sha256_of(coarse)
    config = tomllib.loads((whole / "config.toml").read_text())
    assert config_from(config, "config.toml") == tiny(f"coarse={coarse}", *COARSE)
    assert set(read_weights(whole / "weights.npz")) == {"gab", "db", "pb", "ema"}
    with Image.open(whole / "samples" / "step-000002.png") as sheet:
        assert sheet.size == (2 * 64, 4 * 64)
    # Its card and weights are those of `export`, with the coarse half's.
    card = read_card(whole / "card.toml")
    options = Namespace(weights=[coarse], fine=whole / "weights.npz", network=None, direction=None)
    given, origin, _ = chosen_weights(options, card["generator"]["network"])
    assert origin["fine"]["network"] == "ema"
    load_network(generator_of(whole / "card.toml", card), given)


def test_alone_it_reads_anime_alone(tmp_path: Path) -> None:
    config = tiny("domain_a=there is none")
    assert wanted_pictures(config).domain_a == "."
    assert wanted_pictures(tiny("domain_a=faces", "coarse=x.npz")).domain_a == "faces"


def test_mistakes_are_one_line(coarse: Path, whole: Path, tmp_path: Path) -> None:
    for settings, message in (
        (["crop=40"], "crop = 40: must be divisible by 32"),
        (["crop=96"], "crop = 96: must be above 0, at most size (64)"),
        (["teacher=x.npz"], "teacher = 'x.npz': is not for generator = 'fine'"),
        (["generator=fast", "coarse=x.npz"], "coarse = 'x.npz': is for generator = 'fine' alone"),
        (["batch=1", "coarse=x.npz"], "coarse = 'x.npz': needs a batch of 2 or more"),
        (["coarse=none.npz"], "none.npz: no such file"),
        ([f"coarse={coarse}"], f"{coarse}: network 'ema' is no 'coarse' with {{}} (coarse_options)"),
        (["generator_options.times=3"], "generator 'fine' with {'channels': 8, 'blocks': 1, 'times': 3}: times 3"),
    ):
        with pytest.raises(TrainError) as caught:
            fit(tiny(*settings), tmp_path)
        assert message in str(caught.value)
    with pytest.raises(TrainError, match="is a run of the fine half; resume it as that"):
        fit(read_config(ROOT / "train" / "configs" / "smoke.toml", [f"data={PHOTOS}"]), whole, resume=True)
