"""Blending: puts painted faces back into the photo from which they were cut, without a seam."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.photos import Frame, Matrix, Pixels, cut

# half the width and half the height of an ellipse around the head, in shares of the square's side; nothing changes
# beyond the ellipse, and all is painted within the share _CORE of it
_RADII = (0.48, 0.5)
_CORE = 0.75
# outside of the core the colours match the photo's, and less and less down to this share of the ellipse; details finer
# than _COARSE of the side stay as painted
_OWN_COLOURS = 0.5
_COARSE = 0.05
_BAND = 256  # rows of a photo that are blended together, which bounds the memory

Floats = NDArray[np.float32]


def paste(photo: Pixels, frames: Sequence[Frame], painted: Sequence[Pixels]) -> Pixels:
    """Return the photo with painted faces in place of its own; pixels outside of the ellipses keep their bytes.

    Where ellipses overlap, each face takes the pixels nearest to its middle, and fades into the next.

    Args:
        photo: uint8 RGB of shape (height, width, 3).
        frames: the squares that `photos.cut` cut from the photo.
        painted: the model's answer for each square, uint8 RGB.
    """
    result = photo.copy()
    image = Image.fromarray(photo)
    for frame, answer in zip(frames, painted, strict=True):
        size = answer.shape[1], answer.shape[0]
        matched = _matched(answer, cut(image, frame, size))
        others = [other for other in frames if other is not frame and _near(frame, other)]
        for columns, rows in _bands(frame, photo.shape[1], photo.shape[0]):
            own = mask(frame, columns, rows)
            rivals = sum((mask(other, columns, rows) for other in others), own)
            share = own * np.divide(own, rivals, out=np.zeros_like(own), where=own > 0)
            window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            change = share[..., None] * (_placed(matched, frame, columns, rows) - photo[window].astype(np.float32))
            result[window] = np.rint(result[window] + change).clip(0, 255).astype(np.uint8)
    return result


def mask(frame: Frame, columns: NDArray[np.intp], rows: NDArray[np.intp]) -> Floats:
    """Return how far each pixel of a part of the photo is painted: 0 to 1, float32 of shape (rows, columns)."""
    return _smooth((1 - _distance(frame, columns, rows)) / (1 - _CORE))


def _distance(frame: Frame, columns: NDArray[np.intp], rows: NDArray[np.intp]) -> Floats:
    """Return the distance of each pixel from the middle of a face, 1 on its ellipse; float32, (rows, columns)."""
    inverse = _inverse(frame.to_photo((1, 1))).astype(np.float32)
    x, y = columns.astype(np.float32)[None, :] + 0.5, rows.astype(np.float32)[:, None] + 0.5
    u, v = (x * a + y * b + (c - np.float32(0.5)) for a, b, c in inverse)
    distance: Floats = np.hypot(u / np.float32(_RADII[0]), v / np.float32(_RADII[1]))
    return distance


def _smooth(values: Floats) -> Floats:
    """Return 0 for values up to 0, 1 for values from 1, and a soft step in between."""
    inside: Floats = values.clip(0, 1)
    return inside * inside * (3 - 2 * inside)


def _matched(answer: Pixels, original: Pixels) -> Pixels:
    """Return a painted square whose coarse colours become the photo's towards the edge of the ellipse.

    The difference of colours at the edge is smoothed, carried inwards, and fades before it reaches the eyes.
    """
    height, width = answer.shape[:2]
    frame = Frame(width / 2, height / 2, min(width, height), 0.0)
    distance = _distance(frame, np.arange(width), np.arange(height))
    edge = 1 - _smooth((1 - distance) / (1 - _CORE)) + np.float32(1e-6)  # avoids 0 / 0 in the middle, far from the edge
    across, down = (_gaussian(length, _COARSE * frame.side) for length in (width, height))
    difference = np.ascontiguousarray((original.astype(np.float32) - answer).transpose(2, 0, 1))
    coarse = (down @ (difference * edge) @ across) / (down @ edge @ across)
    strength = _smooth((distance - _OWN_COLOURS) / (_CORE - _OWN_COLOURS))
    matched = np.rint(answer + (strength * coarse).transpose(1, 2, 0)).clip(0, 255)
    return np.asarray(matched, np.uint8)


def _gaussian(length: int, spread: float) -> Floats:
    """Return a matrix of shape (length, length) that blurs rows of this many pixels; `spread` is in pixels, too."""
    place = np.arange(length, dtype=np.float32)
    rows: Floats = np.exp(-0.5 * ((place[:, None] - place[None, :]) / np.float32(spread)) ** 2)
    return rows


def _placed(square: Pixels, frame: Frame, columns: NDArray[np.intp], rows: NDArray[np.intp]) -> Floats:
    """Return a painted square as it lies in a part of the photo, float32; pixels beyond the square mean nothing."""
    image = Image.fromarray(square)
    if frame.side < min(image.size):
        scale = frame.side / min(image.size)
        smaller = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(smaller, Image.Resampling.LANCZOS)
    inverse = _inverse(frame.to_photo(image.size))
    inverse[:, 2] += inverse[:, :2] @ (columns[0], rows[0])
    size = (len(columns), len(rows))
    placed = image.transform(size, Image.Transform.AFFINE, inverse.ravel().tolist(), Image.Resampling.BICUBIC)
    return np.asarray(placed, np.float32)


def _bands(frame: Frame, width: int, height: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the columns and rows of the photo that a face's ellipse touches, `_BAND` rows at a time."""
    (left, right), (top, bottom) = (
        (max(0, int(np.floor(low))), min(length, int(np.ceil(high))))
        for (low, high), length in zip(_reach(frame), (width, height), strict=True)
    )
    for start in range(top, bottom, _BAND):
        if left < right:
            yield np.arange(left, right), np.arange(start, min(start + _BAND, bottom))


def _near(frame: Frame, other: Frame) -> bool:
    """Tell whether the boxes around two ellipses touch."""
    return all(a < d and c < b for (a, b), (c, d) in zip(_reach(frame), _reach(other), strict=True))


def _reach(frame: Frame) -> list[tuple[float, float]]:
    """Return from where to where a face's ellipse reaches, in x and in y."""
    half = np.hypot(*(frame.to_photo((1, 1))[:, :2] * _RADII).T)
    return [(frame.x - half[0], frame.x + half[0]), (frame.y - half[1], frame.y + half[1])]


def _inverse(matrix: Matrix) -> Matrix:
    """Return the inverse of an affine matrix of shape (2, 3)."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])
