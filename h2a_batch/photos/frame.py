"""Frames: squares of a photo, anywhere and at any angle, and their pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FINE = 2  # a square is turned at twice its size and then shrunk: this keeps it sharp without jagged edges
_MARGIN = 2  # pixels around the square that the interpolation reads
Point = tuple[float, float]
Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """A square of an upright photo.

    Args:
        x: the middle, in the photo's pixels from the left.
        y: the middle, in the photo's pixels from the top.
        side: in the photo's pixels.
        angle: in degrees, clockwise as one sees it.
    """

    x: float
    y: float
    side: float
    angle: float

    def to_photo(self, size: tuple[int, int]) -> Matrix:
        """Return the matrix A of shape (2, 3) from the cut picture to the photo: A @ (u, v, 1) is the point for (u, v).

        Args:
            size: the width and height of the cut picture; the shorter of the two takes the square's side.
        """
        turn, step = math.radians(self.angle), self.side / min(size)
        linear = step * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        middle = np.array([self.x, self.y]) - linear @ np.array(size) / 2
        return np.column_stack([linear, middle])


def cut(image: Image.Image, frame: Frame, size: tuple[int, int]) -> Pixels:
    """Cut a square out of a photo, upright; beyond its borders the photo is mirrored, as often as necessary.

    Args:
        image: the photo, RGB.
        frame: the square.
        size: the width and height of the result.

    Returns:
        uint8 RGB of shape (height, width, 3).
    """
    fine = (_FINE * size[0], _FINE * size[1])
    density = min(fine) / frame.side  # pixels of the finer square for each pixel of the photo
    width, height = (max(1, round(side * density)) for side in image.size)
    across, down = width / image.width, height / image.height
    matrix = frame.to_photo(fine) * np.array([[across], [down]])
    corners = matrix @ np.array([[0, fine[0], 0, fine[0]], [0, 0, fine[1], fine[1]], [1, 1, 1, 1]])
    left, top = np.floor(corners.min(axis=1)).astype(int) - _MARGIN
    right, bottom = np.ceil(corners.max(axis=1)).astype(int) + _MARGIN
    columns, rows = _mirrored(left, right, width), _mirrored(top, bottom, height)
    x, y, end_x, end_y = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
    box = (x / across, y / down, min(image.width, end_x / across), min(image.height, end_y / down))
    part = image.resize((end_x - x, end_y - y), Image.Resampling.BICUBIC, box=box, reducing_gap=1.1)
    window = Image.fromarray(np.asarray(part)[np.ix_(rows - y, columns - x)])
    matrix[:, 2] -= left, top
    turned = window.transform(fine, Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR)
    return np.asarray(turned.resize(size, Image.Resampling.LANCZOS))


def _mirrored(start: int, end: int, length: int) -> NDArray[np.intp]:
    """Return the pixels that one sees from `start` to `end` of a row of `length` pixels between two mirrors."""
    place = np.arange(start, end) % (2 * length)
    return np.minimum(place, 2 * length - 1 - place)
