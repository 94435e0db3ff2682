"""What the tests of the export share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PIXELS = 'width = {size}\nheight = {size}\nlayout = "NCHW"\norder = "RGB"\nrange = [-1.0, 1.0]\n'


def card_file(path: Path, network: str, size: int, options: str = "{}") -> Path:
    """A card in TOML for the model `tiny`, a generator of these options (a TOML table) for size x size pictures."""
    tables = [f"[{name}]\n{PIXELS.format(size=size)}" for name in ("input", "output")]
    generator = f'[generator]\nnetwork = "{network}"\noptions = {options}\n'
    path.write_text("\n".join(['name = "tiny"\n', *tables, generator, "[weights]\nsteps = 7\n"]))
    return path


def as_input(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """(height, width, 3) pictures as (N, 3, height, width) in [-1, 1]."""
    return (np.stack(pictures).transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)
