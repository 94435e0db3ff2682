"""What the tests of `train` share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

mindspore = pytest.importorskip("mindspore", reason="needs MindSpore: pip install -e '.[train]'")

ROOT = Path(__file__).resolve().parents[3]
PHOTOS = ROOT / "tests" / "photos"

Array = NDArray[np.float32]


def forward(cell: Any, x: Array) -> Array:
    result: Array = cell.set_train(False)(mindspore.Tensor(x)).asnumpy()
    return result


def shake(cell: Any, seed: int = 0) -> Any:
    """Gives every parameter, biases and the factors of norms too, a value that matters and is the same in each run."""
    numbers = np.random.default_rng(seed)
    for parameter in cell.get_parameters():
        start = 1 if parameter.name.endswith(("gamma", "moving_variance")) else 0
        noise = numbers.normal(0, 0.05, parameter.shape).astype(np.float32)
        parameter.set_data(mindspore.Tensor(start + noise))
    return cell
