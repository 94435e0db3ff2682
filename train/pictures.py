"""Files of pictures: which there are in a folder, a picture's middle square, and writing one whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.convert import decode
from h2a_batch.photos import encode
from h2a_batch.places import replacing
from h2a_batch.sources import Scan, Source, scan
from train.errors import TrainError

T = TypeVar("T")


def list_pictures(folder: Path, limit: int | None = None) -> list[Path]:
    """All pictures of a folder in the order of their names, or `limit` of them at equal intervals."""
    if not folder.is_dir():
        raise TrainError(f"{folder}: no such folder")
    how = Scan(suffix="", format="png", recursive=False, out=folder / ".none")
    found = [item.path for item in scan([folder], how) if isinstance(item, Source)]
    files = [path for path in found if isinstance(path, Path)]  # all: a folder is no object store
    if not files:
        raise TrainError(f"{folder}: no pictures there")
    return equal_intervals(files, len(files) if limit is None else min(limit, len(files)))


def equal_intervals(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items in their order, evenly spread, the first among them; count must not exceed their number."""
    return [items[i * len(items) // count] for i in range(count)]


def square(path: Path, side: int) -> NDArray[np.uint8]:
    """A picture's middle square, upright, in sRGB: uint8 of shape (side, side, 3)."""
    return decode(path, (side, side), "crop", "model").pixels


def save(pixels: NDArray[np.uint8], path: Path, quality: int = 95) -> None:
    """Writes uint8 RGB of shape (height, width, 3) as the format that the path's suffix names, whole or not at all."""
    data = encode(Image.fromarray(pixels), path.suffix[1:], quality)
    with replacing(path) as file:
        file.write(data)


def save_grid(pairs: Sequence[tuple[Path, Path]], path: Path, side: int = 160, columns: int = 10) -> None:
    """Writes one picture of all pairs, the first of each above the second, each `side` pixels wide."""
    rows = []
    for start in range(0, len(pairs), columns):
        row = np.zeros((2 * side, min(columns, len(pairs)) * side, 3), np.uint8)
        for column, pair in enumerate(pairs[start : start + columns]):
            row[:, column * side : (column + 1) * side] = np.concatenate([square(picture, side) for picture in pair])
        rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(np.concatenate(rows), path)
