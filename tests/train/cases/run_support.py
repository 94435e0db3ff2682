"""What the tests of runs share: the arrays of a checkpoint, and whether two runs came to the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from train_support import Array

from train.run.checkpoint import CHECKPOINT
from train.run.report import read_log


def arrays(folder: Path) -> dict[str, Array]:
    """All of a run's checkpoint but `about`."""
    with np.load(folder / CHECKPOINT) as file:
        return {name: file[name] for name in file.files if name != "about"}


def assert_same(one: Path, other: Path) -> None:
    """Two runs have the same losses in each step, and end with the same networks, optimizers and pools, bit by bit."""
    rows = [[{**row, "images_per_second": ""} for row in read_log(folder / "log.csv")] for folder in (one, other)]
    assert rows[0] == rows[1]
    expected, found = arrays(one), arrays(other)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not np.array_equal(expected[name], found[name])] == []
