"""Augmentation of whole pictures against PyTorch's sampling, cutout, and that all is a function of seed and step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from PIL import Image
from train_support import Array

from train.config import Config
from train.data.augmentation import affine, draw_affine, jitter
from train.data.batches import A, B, Domain, to_array
from train.losses import diffaugment

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")

LIMITS = {"turn": 0.14, "zoom": [0.92, 1.12], "shift": 0.05}
JITTER = {"contrast": 0.15, "brightness": 0.1, "saturation": 0.25, "gray": 0.03}
STRONG = {"turn": 3.0, "zoom": [0.3, 2.0], "shift": 1.5}


def picture(seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (3, 48, 32)).astype(np.float32)


@pytest.mark.parametrize("limits", [LIMITS, STRONG])
def test_affine_is_pytorchs_sampling(limits: dict[str, object]) -> None:
    """Bilinear, mirrored outside, for pictures that are not square, too."""
    random, x = np.random.default_rng(1), picture()
    for _ in range(20):
        matrix = draw_affine(limits, 0.5, random)
        theta = torch.from_numpy(matrix.astype(np.float32))[None]
        grid = torch.nn.functional.affine_grid(theta, [1, 3, 48, 32], align_corners=False)
        sampled = torch.nn.functional.grid_sample(
            torch.from_numpy(x)[None], grid, "bilinear", "reflection", align_corners=False
        )
        np.testing.assert_allclose(affine(x, matrix), sampled[0].numpy(), atol=3e-4)


def test_affine_draws_within_its_limits() -> None:
    random, x = np.random.default_rng(2), picture()
    np.testing.assert_allclose(affine(x, draw_affine({}, 0.0, random)), x, atol=1e-6)
    np.testing.assert_allclose(affine(x, draw_affine({}, 1.0, random)), x[:, :, ::-1], atol=1e-6)
    drawn = np.array([draw_affine(LIMITS, 0.5, random) for _ in range(500)])
    zoom = 1 / np.hypot(drawn[:, 0, 0], drawn[:, 1, 0])
    turn = np.arctan2(-drawn[:, 0, 1], drawn[:, 1, 1])
    assert 0.92 <= zoom.min() < 0.93 and 1.11 < zoom.max() <= 1.12
    assert 0.13 < np.abs(turn).max() <= 0.14
    assert 0.045 < np.abs(drawn[:, :, 2]).max() <= 0.05
    assert 200 < (np.linalg.det(drawn[:, :, :2]) < 0).sum() < 300  # mirrored


def test_jitter_changes_colours_within_its_limits() -> None:
    x, random = 0.5 * picture(), np.random.default_rng(3)
    factors, grays = [], 0
    for _ in range(300):
        y = jitter(x, JITTER, random)
        mean, own = y.mean(0), x.mean(0)
        contrast, brightness = np.polyfit(own.ravel(), mean.ravel(), 1)
        kept = float(np.vdot(y - mean, x - own) / np.vdot(x - own, x - own)) / contrast
        np.testing.assert_allclose(y, mean + kept * contrast * (x - own), atol=1e-4)
        grays += kept < 1e-3
        factors.append((contrast, brightness, kept if kept > 1e-3 else 1.0))
    lowest, highest = np.min(factors, 0), np.max(factors, 0)
    np.testing.assert_allclose(lowest, [0.85, -0.1, 0.75], atol=0.02)
    np.testing.assert_allclose(highest, [1.15, 0.1, 1.25], atol=0.02)
    assert 0 < grays < 30
    np.testing.assert_allclose(jitter(x, {}, random), x, atol=1e-6)


def test_pictures_are_augmented_as_the_config_says(tmp_path: Path) -> None:
    """Faces and anime by their own tables; the same numbers for the same seed and step."""
    noise = np.random.default_rng(4).integers(60, 200, (64, 64, 3), np.uint8)
    Image.fromarray(noise).resize((128, 128), Image.Resampling.NEAREST).save(tmp_path / "one.png")
    config = Config("x", size=64, batch=3, affine_a=LIMITS, affine_b={"zoom": [1.0, 1.0]}, jitter_a=JITTER, flip=0.0)
    faces = Domain(tmp_path, config, A).batch(7)
    assert faces.shape == (3, 3, 64, 64) and faces.dtype == np.float32 and np.abs(faces).max() <= 1
    assert not np.array_equal(faces[0], faces[1])
    np.testing.assert_array_equal(Domain(tmp_path, config, A).batch(7), faces)
    assert not np.array_equal(Domain(tmp_path, config, A).batch(8), faces)
    assert not np.array_equal(Domain(tmp_path, dataclasses.replace(config, seed=1), A).batch(7), faces)
    plain = Domain(tmp_path, config, B).batch(7)
    np.testing.assert_allclose(plain[0], to_array(Image.fromarray(noise)), atol=1e-5)
    again = Domain(tmp_path, dataclasses.replace(config, jitter_a={}), A).batch(7)
    assert np.abs(again[0] - faces[0]).max() > 0.01


def test_cutout_blanks_a_square_of_every_second_picture() -> None:
    n, side = 200, 64
    still = diffaugment.draw("cutout", (n, 3, side, side), np.random.default_rng(5))
    x = np.random.default_rng(6).uniform(0.1, 1, (n, 3, side, side)).astype(np.float32)

    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        y = diffaugment.augment(x, still)
        return ops.sum(y), y

    (_, y), gradient = ms.value_and_grad(total, 0, has_aux=True)(Tensor(x))
    kept = gradient.asnumpy()
    np.testing.assert_allclose(y.asnumpy(), x * kept, atol=1e-6)
    assert set(np.unique(kept)) == {0, 1}
    holes = []
    for mask in kept:
        assert (mask == mask[0]).all()
        if mask.min() == 0:
            rows, columns = (np.flatnonzero((mask[0] == 0).any(axis)) for axis in (1, 0))
            assert (mask[0] == 0).sum() == len(rows) * len(columns)  # one rectangle
            assert len(rows) == rows[-1] - rows[0] + 1 and len(columns) == columns[-1] - columns[0] + 1
            holes.append((len(rows), len(columns)))
    assert 75 < len(holes) < 125
    assert np.max(holes) == 26 and np.min(holes) < 20  # 0.4 of 64 is 25.6; at the border it is cut


def test_translation_reaches_an_eighth_of_64_pixels() -> None:
    moves = diffaugment.draw("translation", (400, 3, 64, 64), np.random.default_rng(7))[1].asnumpy()
    shifts = {int(np.argmax(move[0, 32]) - 32) for move in moves}
    assert shifts == set(range(-8, 9))
