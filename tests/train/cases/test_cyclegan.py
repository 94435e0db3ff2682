"""CycleGAN: the losses against numpy, the pool, the compiled steps, the training forms of layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore.common.api import ms_compile_cache
from train_support import Array, forward, shake

from train.config import Config
from train.losses import diffaugment
from train.losses.terms import lsgan, luminance, vanilla
from train.models.cyclegan import CycleGAN
from train.models.pool import ImagePool
from train.networks import FastGenerator, InstanceNorm, UNetGenerator, build_generator, conv2d

RANDOM = np.random.default_rng(0)
OPTIONS: dict[str, object] = {"channels": [8, 8, 16], "blocks": 1, "last": 8}
CONFIG = Config("x", generator_options=OPTIONS, size=64, d_width=8)
CYCLE = {"cycle_a": 10.0, "cycle_b": 10.0}
ALL = {**CYCLE, "identity_a": 5.0, "identity_b": 5.0}


@pytest.fixture(scope="module")
def model() -> CycleGAN:
    ms.set_seed(0)
    return CycleGAN(CONFIG)


def pictures(seed: int, count: int = 1) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, 64, 64)).astype(np.float32)


def values(parameters: Iterable[ms.Parameter]) -> list[Array]:
    return [p.asnumpy().copy() for p in parameters]  # asnumpy is a view of what the next step changes


def test_gan_losses_are_the_formulas() -> None:
    score = np.array([[-200.0, -1.5, 0.0, 0.3, 200.0]], np.float32)
    for target in (0.0, 1.0):
        assert float(lsgan(Tensor(score), target)) == pytest.approx(((score - target) ** 2).mean(), rel=1e-6)
        exact = np.logaddexp(0, (1 - 2 * target) * score.astype(np.float64)).mean()  # -log of the sigmoid of +-score
        assert float(vanilla(Tensor(score), target)) == pytest.approx(exact, rel=1e-5)


def test_luminance_is_the_mean_of_16x16_cells() -> None:
    x = pictures(3)
    expected = x.reshape(1, 3, 4, 16, 4, 16).mean((1, 3, 5))[:, None]
    np.testing.assert_allclose(luminance(Tensor(x)).asnumpy(), expected, atol=1e-6)


def test_the_generators_loss_is_the_papers(model: CycleGAN) -> None:
    """Equations 1 to 3 written out with forward passes of the networks and numpy."""
    x, y = pictures(0), pictures(1)
    g, f, d_x, d_y = (
        lambda z, c=cell: c(Tensor(z)).asnumpy() for cell in (model.g_ab, model.g_ba, model.d_a[0], model.d_b[0])
    )
    fake_b, fake_a = g(x), f(y)
    gan = ((d_y(fake_b) - 1) ** 2).mean() + ((d_x(fake_a) - 1) ** 2).mean()
    cycle = np.abs(f(fake_b) - x).mean() + np.abs(g(fake_a) - y).mean()
    identity = np.abs(g(y) - y).mean() + np.abs(f(x) - x).mean()
    for factors, expected in ((ALL, gan + 10 * cycle + 5 * identity), (CYCLE, gan + 10 * cycle)):
        numbers = Tensor([1.0, 1.0, *factors.values()], ms.float32)
        total = model.generator_loss(("gan_ab", "gan_ba", *factors), Tensor(x), Tensor(y), numbers)[0]
        assert float(total) == pytest.approx(expected, rel=1e-4)
    d = 0.5 * (((d_x(x) - 1) ** 2).mean() + (d_x(fake_a) ** 2).mean())
    values = model.discriminator_loss(Tensor(x), Tensor(y), Tensor(fake_a), Tensor(fake_b))
    assert float(values[1]) == pytest.approx(d, rel=1e-4)


def test_steps_lower_the_loss_of_a_fixed_batch(model: CycleGAN) -> None:
    x, y = pictures(0), pictures(1)
    before_d = values(model.d_parameters)
    totals = []
    for _ in range(4):
        losses, fake_b, fake_a, _ = model.train_generators(x, y, 1e-3, ALL, random=RANDOM)
        totals.append(sum(losses[n] for n in ("gan_ab", "gan_ba")) + 10 * (losses["cycle_a"] + losses["cycle_b"]))
    assert totals[1] < totals[0] and totals[3] < totals[1]
    assert all((a == b.asnumpy()).all() for a, b in zip(before_d, model.d_parameters, strict=True))
    before_g = values(model.g_parameters)
    scores = [sum(model.train_discriminators(x, y, fake_a, fake_b, 1e-3, random=RANDOM).values()) for _ in range(3)]
    assert scores[2] < scores[0]
    assert all((a == b.asnumpy()).all() for a, b in zip(before_g, model.g_parameters, strict=True))


def test_adams_first_step_is_the_rate(model: CycleGAN) -> None:
    """m / sqrt(v) is the gradient's sign then, so no weight moves by more than the rate, and most by just that."""
    fresh = CycleGAN(CONFIG)
    x, y = pictures(0), pictures(1)
    fake_a, fake_b = pictures(2), pictures(3)
    weights = [p for p in fresh.d_parameters if p.name.endswith("weight")]
    old = values(weights)
    fresh.train_discriminators(x, y, fake_a, fake_b, 1e-3, random=RANDOM)
    moved = [np.abs(p.asnumpy() - before) for p, before in zip(weights, old, strict=True)]
    assert max(m.max() for m in moved) == pytest.approx(1e-3, rel=1e-2)
    assert np.median(np.concatenate([m.ravel() for m in moved])) == pytest.approx(1e-3, rel=1e-2)
    old = values(weights)
    # A rate that changes reaches the compiled step.
    fresh.train_discriminators(x, y, fake_a, fake_b, 0.0, random=RANDOM)
    assert all(np.array_equal(p.asnumpy(), before) for p, before in zip(weights, old, strict=True))


def test_the_average_follows_the_generators(model: CycleGAN) -> None:
    old = values(model.ema_parameters)
    model.average(0.75)
    for before, after, new in zip(old, model.ema_parameters, model.g_parameters, strict=True):
        np.testing.assert_allclose(after.asnumpy(), 0.75 * before + 0.25 * new.asnumpy(), atol=1e-6)


def test_the_pool_keeps_then_exchanges() -> None:
    pool, random = ImagePool(3), np.random.default_rng(0)
    images = [np.full((1, 3, 2, 2), i, np.float32) for i in range(400)]
    assert [int(pool.query(image, random)[0, 0, 0, 0]) for image in images[:3]] == [0, 1, 2]
    returned = [int(pool.query(image, random)[0, 0, 0, 0]) for image in images[3:]]
    older = sum(given != number for number, given in enumerate(returned, 3))
    assert 150 < older < 250  # half of 397
    assert len(pool.images) == 3
    assert len([r for r in returned if r < 3]) <= 3  # an image leaves the pool once
    nothing = ImagePool(0)
    assert nothing.query(images[5], random)[0, 0, 0, 0] == 5 and not nothing.images


def test_each_scale_of_discriminators_sees_half_the_size() -> None:
    model = CycleGAN(dataclasses.replace(CONFIG, d_scales=2))
    assert list(model.networks()) == ["gab", "gba", "da", "da2", "db", "db2", "ema", "ema_ba"]
    assert len({p.name for p in model.d_parameters}) == len(model.d_parameters)
    x = pictures(0)
    half = x.reshape(1, 3, 32, 2, 32, 2).mean((3, 5)).astype(np.float32)
    expected = sum(((d(Tensor(z)).asnumpy() - 1) ** 2).mean() for d, z in zip(model.d_b, (x, half), strict=True))
    assert float(model.adversarial(model.d_b, Tensor(x), 1.0)) == pytest.approx(expected, rel=1e-4)
    old = values(model.d_parameters)
    model.train_discriminators(x, pictures(1), pictures(2), pictures(3), 1e-3, random=RANDOM)
    assert all((p.asnumpy() != before).any() for p, before in zip(model.d_parameters, old, strict=True) if p.ndim == 4)


def test_diffaugment_is_the_papers_and_moves_real_pixels() -> None:
    x = pictures(5, 2)
    brightness, saturation, contrast = np.random.default_rng(1).uniform(0.5, 1, (3, 2, 1, 1, 1)).astype(np.float32)
    expected = x + brightness
    expected = (expected - expected.mean(1, keepdims=True)) * saturation + expected.mean(1, keepdims=True)
    mean = expected.mean((1, 2, 3), keepdims=True)
    expected = (expected - mean) * contrast + mean
    drawn = diffaugment.draw("color,translation", x.shape, np.random.default_rng(0))
    colour = Tensor(np.stack([brightness, saturation, contrast]))
    still = diffaugment.draw("color", x.shape, np.random.default_rng(0))
    np.testing.assert_allclose(diffaugment.augment(Tensor(x), (colour, *still[1:])).asnumpy(), expected, atol=1e-5)
    moved = diffaugment.augment(Tensor(expected), (diffaugment.draw("translation", x.shape, RANDOM)[0], *drawn[1:]))
    for before, after in zip(expected, moved.asnumpy(), strict=True):
        shifts = [(y, z) for y in range(-8, 9) for z in range(-8, 9) if np.allclose(shifted(before, y, z), after)]
        assert len(shifts) == 1
    assert diffaugment.draw("", x.shape, RANDOM) == ()


def shifted(x: Array, down: int, right: int) -> Array:
    """By whole pixels, zeros where nothing was."""
    wide = np.pad(x, ((0, 0), (8, 8), (8, 8)))
    return wide[:, 8 - down : 72 - down, 8 - right : 72 - right]


def test_augmented_steps_are_a_function_of_their_random_numbers() -> None:
    """And the generators learn through the augmentation: other numbers, other gradients."""
    results = []
    for seed in (0, 0, 1):
        ms.set_seed(0)
        model = CycleGAN(dataclasses.replace(CONFIG, diffaugment="color,translation"))
        random = np.random.default_rng(seed)
        graphs = []
        for _ in range(3):
            losses, fake_b, fake_a, _ = model.train_generators(pictures(0), pictures(1), 1e-3, CYCLE, random=random)
            losses |= model.train_discriminators(pictures(0), pictures(1), fake_a, fake_b, 1e-3, random=random)
            graphs.append(len(ms_compile_cache))
        assert graphs[1] == graphs[2], "a step was compiled again"
        results.append(losses)
    assert results[0] == results[1]
    assert results[0]["gan_ab"] != results[2]["gan_ab"] and results[0]["d_a"] != results[2]["d_a"]


@pytest.mark.parametrize("count", [1, 2])
def test_the_fused_instance_norm_is_the_plain_one(count: int, small_picture: Array) -> None:
    norm = shake(InstanceNorm(3))
    x = np.concatenate([small_picture + 10 * i for i in range(count)])
    seed = np.random.default_rng(9).normal(size=x.shape).astype(np.float32)

    def loss(z: Tensor) -> Tensor:
        return ops.sum(norm(z) * Tensor(seed))

    results = []
    for training in (False, True):
        norm.set_train(training)
        (dx, dw) = ms.grad(loss, 0, norm.trainable_params())(Tensor(x))
        results.append([norm(Tensor(x)).asnumpy(), dx.asnumpy(), *(d.asnumpy() for d in dw)])
    for plain, fused in zip(*results, strict=True):
        np.testing.assert_allclose(fused, plain, atol=2e-3 * np.abs(plain).max())


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("kernel", [5, 7])
def test_the_last_convolution_is_the_same_in_training(kernel: int, padding: str, small_picture: Array) -> None:
    conv = shake(nn.SequentialCell(conv2d(3, 2, kernel, 1, padding)))
    plain = forward(conv, small_picture)
    np.testing.assert_allclose(conv.set_train(True)(Tensor(small_picture)).asnumpy(), plain, atol=1e-5)


def test_a_generator_is_the_same_in_training() -> None:
    generator = shake(FastGenerator((8, 8, 16), 1, 8))
    plain = forward(generator, pictures(4, 2))
    np.testing.assert_allclose(generator.set_train(True)(Tensor(pictures(4, 2))).asnumpy(), plain, atol=1e-4)


def test_the_unet_has_the_papers_size_and_learns() -> None:
    """54.4 million weights, as unet_256 of the PyTorch code has, plus biases and factors of norms."""
    count = sum(p.size for p in build_generator("unet-256").get_parameters())
    assert count == pytest.approx(54.41e6, rel=1e-3)
    unet = shake(UNetGenerator(4, 5))
    assert forward(unet, pictures(4, 2)).shape == (2, 3, 64, 64)
    gradients = ms.grad(lambda z: ops.sum(ops.square(unet(z))), None, unet.trainable_params())(Tensor(pictures(4)))
    weights = [p.name for p in unet.trainable_params()]
    assert all(np.abs(g.asnumpy()).max() > 0 for g, name in zip(gradients, weights, strict=True) if "weight" in name)
