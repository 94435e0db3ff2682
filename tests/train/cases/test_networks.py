"""The networks: their shapes, and their arithmetic against numpy and PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from torch.nn import functional
from train_support import Array, forward, shake

from train.networks import (
    GENERATORS,
    CoarseGenerator,
    ConvBlock,
    FastGenerator,
    InstanceNorm,
    PatchDiscriminator,
    ReflectConv2d,
    ResidualBlock,
    ResNetGenerator,
    build_generator,
)
from train.networks.layers import ReflectPad, up


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("network", [lambda p: FastGenerator((8, 8, 16), 2, 8, p), lambda p: ResNetGenerator(2, 8, p)])
def test_a_generator_keeps_shape_and_range(network, padding: str, small_picture: Array) -> None:
    y = forward(network(padding), small_picture)
    assert y.shape == small_picture.shape
    assert np.abs(y).max() <= 1
    assert y.std() > 0.01


def test_the_patch_discriminator_scores_30x30_patches() -> None:
    assert forward(PatchDiscriminator(8), np.zeros((2, 3, 256, 256), np.float32)).shape == (2, 1, 30, 30)


def test_a_patch_is_70x70() -> None:
    """Without norms, which see the whole picture, one score depends on exactly 70x70 pixels."""
    network = PatchDiscriminator(4)
    plain = [cell for cell in network if not isinstance(cell, InstanceNorm)]
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32)

    def score(picture: Array) -> float:
        value = Tensor(picture)
        for cell in plain:
            value = cell(value)
        return float(value.asnumpy()[0, 0, 15, 15])

    first = 15 * 8 - 31 + 8  # of the patch: the strides and paddings of five layers
    inside, outside = x.copy(), np.random.default_rng(1).uniform(-1, 1, x.shape).astype(np.float32)
    outside[:, :, first : first + 70, first : first + 70] = x[:, :, first : first + 70, first : first + 70]
    inside[:, :, first, first] += 1
    assert score(outside) == score(x)
    assert score(inside) != score(x)


def test_instance_norm_is_the_papers(small_picture: Array) -> None:
    norm = shake(InstanceNorm(3))
    mean, variance = small_picture.mean((2, 3), keepdims=True), small_picture.var((2, 3), keepdims=True)
    expected = (small_picture - mean) / np.sqrt(variance + 1e-5) * norm.gamma.asnumpy() + norm.beta.asnumpy()
    np.testing.assert_allclose(forward(norm, small_picture), expected, atol=2e-6)


def test_instance_norm_survives_a_large_mean() -> None:
    x = np.random.default_rng(0).normal(1000, 0.1, (1, 2, 32, 32)).astype(np.float32)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean((2, 3), keepdims=True)) / np.sqrt(exact.var((2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(forward(InstanceNorm(2), x), exact, atol=2e-3)


@pytest.mark.parametrize("size", [1, 3])
def test_reflection_is_numpys(size: int, small_picture: Array) -> None:
    pads = ((0, 0), (0, 0), (size, size), (size, size))
    np.testing.assert_array_equal(forward(ReflectPad(size), small_picture), np.pad(small_picture, pads, mode="reflect"))


@pytest.mark.parametrize("kernel", [3, 4])
def test_up_is_pytorchs_transposed_convolution(kernel: int) -> None:
    """out[2i - 1 + k] += x[i] * w[k], cut to twice the size: padding 1, and output_padding 1 where the kernel is 3."""
    conv = shake(up(2, 3, kernel)).conv
    x = np.random.default_rng(2).normal(size=(1, 2, 5, 6)).astype(np.float32)
    weight, bias = conv.weight.asnumpy(), conv.bias.asnumpy()
    full = np.zeros((1, 3, 5 * 2 + 4, 6 * 2 + 4))
    for i, j, a, b in np.ndindex(5, 6, kernel, kernel):
        full[0, :, 2 * i + a, 2 * j + b] += x[0, :, i, j] @ weight[:, :, a, b]
    expected = full[:, :, 1:11, 1:13] + bias.reshape(1, 3, 1, 1)
    np.testing.assert_allclose(forward(conv, x), expected, atol=1e-5)


@pytest.mark.parametrize(
    "generator",
    [
        lambda: FastGenerator((8, 8, 16), 2, 8),
        lambda: CoarseGenerator((8, 16, 24), 2, (1, 2)),
        lambda: ResNetGenerator(2, 8),
    ],
)
def test_a_generator_computes_what_pytorch_computes(generator: Callable[[], nn.Cell], small_picture: Array) -> None:
    cell = shake(generator())
    expected = in_pytorch(cell, torch.from_numpy(small_picture)).numpy()
    np.testing.assert_allclose(forward(cell, small_picture), expected, atol=1e-4)


def in_pytorch(cell: nn.Cell, x: torch.Tensor) -> torch.Tensor:
    """The cell's function, layer by layer, by PyTorch's own layers with the cell's parameters."""
    if isinstance(cell, nn.SequentialCell):
        for layer in cell:
            x = in_pytorch(layer, x)
        return x
    if isinstance(cell, ResidualBlock):
        return x + in_pytorch(cell.second, in_pytorch(cell.first, x))
    if isinstance(cell, ConvBlock):
        return in_pytorch(cell.activation, in_pytorch(cell.norm, in_pytorch(cell.conv, x)))
    if isinstance(cell, InstanceNorm):
        gamma, beta = (torch.from_numpy(p.asnumpy().ravel()) for p in (cell.gamma, cell.beta))
        return functional.instance_norm(x, weight=gamma, bias=beta, eps=cell.epsilon)
    if isinstance(cell, (nn.Conv2d, nn.Conv2dTranspose)):
        weight, bias = (torch.from_numpy(p.asnumpy()) for p in (cell.weight, cell.bias))
        stride, reach = cell.stride[0], (weight.shape[2] - 1) // 2
        if isinstance(cell, nn.Conv2dTranspose):
            return functional.conv_transpose2d(x, weight, bias, stride, 1, 4 - weight.shape[2])
        mode = "reflect" if isinstance(cell, ReflectConv2d) else "constant"
        return functional.conv2d(functional.pad(x, (reach,) * 4, mode), weight, bias, stride)
    simple = {nn.ReLU: torch.relu, nn.Tanh: torch.tanh, nn.Identity: torch.clone}
    return simple[type(cell)](x) if type(cell) in simple else in_pytorch(cell.layers, x)


def test_generators_have_names() -> None:
    assert {"fast", "resnet-9", "resnet-6"} <= GENERATORS.keys()
    with pytest.raises(ValueError, match="unknown generator 'slow': must be one of fast"):
        build_generator("slow")
    with pytest.raises(ValueError, match="padding 'mirror'"):
        build_generator("fast", padding="mirror")
