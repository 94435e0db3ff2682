"""Convolutions in the forms that train faster: values and gradients are those of MindSpore's own kernel."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from train_support import Array

from train.networks import conv2d
from train.networks.convolution import FastConvolution, Shifted, Winograd

FORMS = [
    (Winograd(), 3, (2, 5, 3, 16, 12)),
    (Winograd(), 3, (1, 3, 4, 4, 32)),
    (Shifted(3), 3, (2, 5, 3, 10, 13)),
    (Shifted(5), 5, (1, 3, 2, 9, 8)),
    (Shifted(7), 7, (2, 2, 4, 8, 11)),
    (Shifted(1), 1, (2, 4, 3, 3, 5)),
]


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("form", "kernel", "sizes"), FORMS, ids=lambda value: type(value).__name__)
def test_values_and_gradients_are_the_kernels(form: nn.Cell, kernel: int, sizes: tuple[int, ...]) -> None:
    n, inputs, outputs, height, width = sizes
    x, weight = Tensor(normal(0, n, inputs, height, width)), Tensor(normal(1, outputs, inputs, kernel, kernel))
    dy = Tensor(normal(2, n, outputs, height, width))
    own = ops.Conv2D(outputs, kernel, 1, "pad", kernel // 2)

    def loss(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        y = form(x, weight)
        return ops.sum(y * dy), y

    def plain(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        y = own(x, weight)
        return ops.sum(y * dy), y

    results = []
    for function in (loss, plain):
        (_, y), (dx, dw) = ms.jit(ms.value_and_grad(function, (0, 1), has_aux=True))(x, weight)
        results.append([y.asnumpy(), dx.asnumpy(), dw.asnumpy()])
    for value, expected in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, atol=3e-5 * np.abs(expected).max())


def test_winograds_form_is_taken_where_it_fits() -> None:
    """It rounds differently, so that it shows."""
    for sizes, taken in (((16, 32), True), ((16, 30), False), ((16, 36), False)):
        x, weight = Tensor(normal(3, 1, 2, *sizes)), Tensor(normal(4, 2, 2, 3, 3))
        y = FastConvolution(3)(x, weight).asnumpy()
        form = Winograd() if taken else Shifted(3)
        np.testing.assert_array_equal(y, form(x, weight).asnumpy())


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("kernel", [3, 7])
def test_a_layer_is_the_same_in_training(kernel: int, padding: str) -> None:
    conv, x = nn.SequentialCell(conv2d(3, 2, kernel, 1, padding)), Tensor(normal(5, 2, 3, 16, 20))
    plain = conv.set_train(False)(x).asnumpy()
    np.testing.assert_allclose(conv.set_train(True)(x).asnumpy(), plain, atol=1e-5)
