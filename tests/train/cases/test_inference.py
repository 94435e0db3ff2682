"""The inference form is the same function as the trained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_support import as_input
from mindspore import Tensor, nn
from train_support import Array, forward, shake

from train.errors import TrainError
from train.export.generator import mindir_bytes, synthetic_pictures
from train.export.inference import inference_form
from train.export.inference.kernels import from_phases_kernel, phase_kernel, subpixel_kernel, to_phases_kernel
from train.lite import run_on_lite
from train.networks import (
    CoarseGenerator,
    CoarseToFine,
    FastGenerator,
    FineGenerator,
    ResNetGenerator,
    UNetGenerator,
)
from train.weights import network_arrays

COARSE, FINE = {"channels": (8, 8, 16), "blocks": 1, "refine": (1, 1)}, {"channels": 8, "blocks": 2}
NETWORKS = {
    "fast": lambda: FastGenerator((8, 8, 16), 2, 8),
    "fast-reflect": lambda: FastGenerator((8, 8, 16), 1, 8, "reflect"),
    "resnet": lambda: ResNetGenerator(2, 8),
    "resnet-zeros": lambda: ResNetGenerator(2, 8, "zeros"),
    "resnet-none": lambda: ResNetGenerator(1, 8, "reflect", "none"),
    "unet": lambda: UNetGenerator(4, 5),
    "unet-none": lambda: UNetGenerator(4, 5, "none"),
    "unet-shallow": lambda: UNetGenerator(4, 2),
    "coarse": lambda: CoarseGenerator((8, 8, 16), 1, (1, 1)),
    "coarse-reflect": lambda: CoarseGenerator((8, 8, 16), 1, (1, 0), "reflect"),
    "fine": lambda: FineGenerator(8, 2, 8, 4),
    "fine-2": lambda: FineGenerator(8, 2, 8, 4, 2),
    "coarse-to-fine": lambda: CoarseToFine(COARSE, FINE),
    "coarse-to-fine-2": lambda: CoarseToFine(COARSE, {**FINE, "times": 2}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_equals_the_network_at_any_batch_size(name: str, small_picture: Array) -> None:
    network = shake(NETWORKS[name]())
    before = network_arrays(network)
    form = inference_form(network)
    for x in (small_picture, np.concatenate([small_picture, small_picture[:, :, ::-1] * 0.3])):
        expected = forward(network, x)
        assert expected.std() > 0.01
        assert np.abs(forward(form, x) - expected).max() < 2e-5
    assert all(np.array_equal(before[layer], array) for layer, array in network_arrays(network).items())


def convolve(x: Array, kernel: Array, stride: int = 1, padding: int | tuple[int, ...] | None = None) -> Array:
    pads = kernel.shape[2] // 2 if padding is None else padding
    cell = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], stride, pad_mode="pad", padding=pads)
    cell.weight.set_data(Tensor(kernel))
    return forward(cell, x)


def interleave(phases: Array) -> Array:
    """(N, 4C, H, W), phase-major -> (N, C, 2H, 2W)"""
    n, c, h, w = phases.shape
    return phases.reshape(n, 2, 2, c // 4, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)


def test_a_transposed_convolution_is_a_convolution_to_phases() -> None:
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(1, 3, 6, 5)).astype(np.float32)
    weight = numbers.normal(size=(3, 2, 4, 4)).astype(np.float32)
    cell = nn.Conv2dTranspose(3, 2, 4, 2, "pad", 1)
    cell.weight.set_data(Tensor(weight))
    np.testing.assert_allclose(interleave(convolve(x, subpixel_kernel(weight))), forward(cell, x), atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_a_convolution_is_a_convolution_of_phases(size: int) -> None:
    numbers = np.random.default_rng(size)
    phases = numbers.normal(size=(1, 4 * 3, 6, 5)).astype(np.float32)
    weight = numbers.normal(size=(2, 3, size, size)).astype(np.float32)
    expected = convolve(interleave(phases), weight)
    np.testing.assert_allclose(interleave(convolve(phases, phase_kernel(weight))), expected, atol=1e-4)


@pytest.mark.parametrize("size", [5, 7])
def test_a_strided_convolution_gives_the_phases_of_a_plain_one(size: int) -> None:
    numbers = np.random.default_rng(size)
    x = numbers.normal(size=(1, 3, 12, 10)).astype(np.float32)
    weight = numbers.normal(size=(2, 3, size, size)).astype(np.float32)
    phases = convolve(x, to_phases_kernel(weight), 2, size // 2)
    np.testing.assert_allclose(interleave(phases), convolve(x, weight), atol=1e-4)


def test_a_strided_convolution_reads_phases() -> None:
    numbers = np.random.default_rng(0)
    phases = numbers.normal(size=(1, 4 * 3, 6, 5)).astype(np.float32)
    weight = numbers.normal(size=(2, 3, 3, 3)).astype(np.float32)
    expected = convolve(interleave(phases), weight, 2)
    np.testing.assert_allclose(convolve(phases, from_phases_kernel(weight), 1, (1, 0, 1, 0)), expected, atol=1e-4)


def test_a_layer_without_a_rule_is_refused() -> None:
    network = FastGenerator((8, 8, 16), 1, 8)
    network.layers.append(nn.Dropout(p=0.5))
    with pytest.raises(TrainError, match="no inference form is known for the layer Dropout"):
        inference_form(network)
    unet = UNetGenerator(4, 3)
    unet.ups[1].append(nn.Dropout(p=0.5))
    with pytest.raises(TrainError, match="no inference form is known for the layer Dropout"):
        inference_form(unet)
    norm = FastGenerator((8, 8, 16), 1, 8)
    norm.layers[0].norm = nn.BatchNorm2d(8)
    with pytest.raises(TrainError, match="no inference form is known for the layer BatchNorm2d"):
        inference_form(norm)


def test_the_means_of_large_pictures_are_exact_on_lite(tmp_path: Path) -> None:
    """Lite's sums lose digits: with one sum over 65,536 pixels a picture of one colour came out 0.0046 off here."""
    network = shake(ResNetGenerator(2, 4, "zeros"))
    x = as_input(synthetic_pictures(256, 256)[:1])
    (tmp_path / "large.mindir").write_bytes(mindir_bytes(inference_form(network), (1, 3, 256, 256)))
    assert np.abs(run_on_lite(tmp_path / "large.mindir", x) - forward(network, x)).max() < 2e-3
