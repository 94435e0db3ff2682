"""Fixtures of the tests of `train`, which run only when asked for by name: see `tests/train/test_train_cases.py`.

Nothing here imports MindSpore: pytest reads this file in every run, also in one that loads MindSpore Lite.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

os.environ.setdefault("GLOG_v", "4")  # read when MindSpore is imported: no log


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leaves these tests to a process of their own."""
    return None if any("cases" in Path(argument.partition("::")[0]).parts for argument in config.args) else True


@pytest.fixture
def small_picture() -> NDArray[np.float32]:
    """(1, 3, 64, 96): not square, so that swapped axes show."""
    return np.random.default_rng(1).uniform(-1, 1, (1, 3, 64, 96)).astype(np.float32)
