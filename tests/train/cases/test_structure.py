"""Own structure and own colour against PyTorch, values and gradients, and the controller that holds a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from train_support import Array

from train.losses.structure import Controller, own_colour, own_structure

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")

Term = Callable[[Tensor, Tensor], Tensor]


def pictures(seed: int, count: int = 4) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, 64, 64)).astype(np.float32)


def expected(made: Any, source: Any, cells: int, colour: bool) -> Any:
    """The definition, in PyTorch: Pearson's correlation over cells, without the batch's mean picture."""
    parts = []
    for x in (made, source):
        gray = x.mean(1, keepdim=True)
        x = torch.nn.functional.avg_pool2d(x - gray if colour else gray, 64 // cells).flatten(1)
        x = x - x.mean(0, keepdim=True)
        parts.append(x - x.mean(1, keepdim=True))
    m, s = parts
    lengths = s.norm(dim=1), torch.maximum(m.norm(dim=1), 0.6 * s.norm(dim=1))
    return ((m * s).sum(1) / (lengths[0] * lengths[1] + 1e-4)).mean()


@pytest.mark.parametrize("difference", [1.0, 0.3])  # of the outputs from their mean: the second is below the floor
@pytest.mark.parametrize(("term", "cells", "colour"), [(own_structure, 32, False), (own_colour, 16, True)])
def test_terms_and_their_gradients_are_the_definition(term: Term, cells: int, colour: bool, difference: float) -> None:
    source = pictures(0)
    made = difference * (0.7 * source + 0.5 * pictures(1)) + 0.1
    value, gradient = ms.value_and_grad(term, 0)(Tensor(made), Tensor(source))
    tensor = torch.from_numpy(made).requires_grad_(True)
    truth = expected(tensor, torch.from_numpy(source), cells, colour)
    truth.backward()
    assert float(value) == pytest.approx(truth.item(), rel=1e-4)
    largest = tensor.grad.abs().max().item()
    np.testing.assert_allclose(gradient.asnumpy(), tensor.grad.numpy(), atol=1e-3 * largest)


def test_only_ones_own_input_counts() -> None:
    """Outputs that follow their inputs have 1; those of others, and one picture for everybody, have nothing."""
    source = pictures(2, 8)
    assert float(own_structure(Tensor(0.8 * source - 0.1), Tensor(source))) == pytest.approx(1, abs=1e-3)
    assert abs(float(own_structure(Tensor(np.roll(source, 1, 0)), Tensor(source)))) < 0.2
    same = np.repeat(source[:1], 8, 0)
    value, gradient = ms.value_and_grad(own_structure, 0)(Tensor(same), Tensor(source))
    assert abs(float(value)) < 1e-3
    assert np.isfinite(gradient.asnumpy()).all() and np.abs(gradient.asnumpy()).max() > 0


def test_what_hardly_differs_counts_as_little_as_it_differs() -> None:
    source = pictures(3)
    full, faint = (float(own_structure(Tensor(share * source), Tensor(source))) for share in (0.6, 0.3))
    assert full == pytest.approx(1, abs=1e-3)
    assert faint == pytest.approx(0.5, abs=1e-3)


def test_the_controller_moves_towards_its_target_within_limits() -> None:
    controller = Controller(0.8)
    assert float(controller) == 2
    controller.update(0.3)
    assert float(controller) == pytest.approx(2 * np.exp(0.02 * 0.5), rel=1e-6)
    for value, limit in ((-1.0, 30.0), (1.0, 0.05)):
        for _ in range(2000):
            controller.update(value)
        assert float(controller) == pytest.approx(limit)
