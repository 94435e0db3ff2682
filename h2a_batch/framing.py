"""Framing: faces, the squares around them that a generator was trained on, and the pixels of these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.card import FaceRule

# of a photo's longer side; portraits that people cut themselves, and the training set's, have 0.64 or more, by
# scripts/bench_faces --training
PORTRAIT = 0.6
CLOSE_UP = 1.15  # of the longer side: around a face that is nearer the generator wants to see more than the photo shows
COMPANY = 0.5  # of the width of the largest face: who is smaller only stands in the background of its portrait
_FINE = 2  # a square is turned at twice its size and then made smaller, which keeps it sharp without jagged edges
_MARGIN = 2  # pixels around it that the interpolation looks at

Point = tuple[float, float]
Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Face:
    """A face, in pixels of the picture that it was found in: x grows to the right, y down.

    ``box`` is left, top, right and bottom, from forehead to chin. ``landmarks`` are the eye on the left of the
    picture, the one on the right, the tip of the nose, the left and the right corner of the mouth; a landmark may lie
    outside of the picture. ``score`` is from 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[Point, Point, Point, Point, Point]
    score: float

    @property
    def width(self) -> float:
        """Pixels from the left to the right of its box."""
        return self.box[2] - self.box[0]


@dataclass(frozen=True)
class Frame:
    """A square of an upright photo, in the photo's pixels: its middle, its side, and how far it is turned.

    ``angle`` is in degrees, clockwise as one sees it.
    """

    x: float
    y: float
    side: float
    angle: float

    def to_photo(self, size: tuple[int, int]) -> Matrix:
        """The matrix A of shape (2, 3) by which A @ (u, v, 1) is the photo's point for (u, v) of the cut picture.

        Args:
            size: width and height of the cut picture; the shorter of the two takes the square's side.
        """
        turn, step = math.radians(self.angle), self.side / min(size)
        linear = step * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        middle = np.array([self.x, self.y]) - linear @ np.array(size) / 2
        return np.column_stack([linear, middle])


def frame_of(face: Face, rule: FaceRule) -> Frame:
    """The square in which the face lies as the rule says: eyes level and in their place, the head in its size.

    Direction and size come from the eyes and the mouth together, as in FFHQ (Karras et al., arXiv 1812.04948,
    appendix C): a head that is turned to the side brings its eyes together, not the mouth nearer to them.
    """
    left, right, _, *corners = (np.array(point) for point in face.landmarks)
    eyes, mouth = (left + right) / 2, (corners[0] + corners[1]) / 2
    between, below = right - left, mouth - eyes
    direction = between + np.array([below[1], -below[0]])
    side = max(math.hypot(*between) / rule.eyes, math.hypot(*below) / rule.mouth, face.width)
    angle = math.degrees(math.atan2(direction[1], direction[0]))
    around_eyes = Frame(float(eyes[0]), float(eyes[1]), side, angle)
    x, y = around_eyes.to_photo((1, 1)) @ np.array([1 - rule.x, 1 - rule.y, 1])
    return Frame(float(x), float(y), side, angle)


def is_portrait(size: tuple[int, int], faces: Sequence[Face], frames: Sequence[Frame]) -> bool:
    """Whether a photo is the portrait of one person already: converted as a whole, it comes out as it should.

    It is if the square around its largest face spans 0.6 or more of its longer side, and no other face is half as wide.

    Args:
        size: width and height of the photo.
        faces, frames: what was found in it, and the square of each.
    """
    if not faces:
        return False
    first, *others = sorted(zip(faces, frames, strict=True), key=lambda pair: -pair[0].width)
    alone = all(face.width < COMPANY * first[0].width for face, _ in others)
    return alone and first[1].side >= PORTRAIT * max(size)


def cut(image: Image.Image, frame: Frame, size: tuple[int, int]) -> Pixels:
    """The pixels of a square, upright; beyond its borders the photo is mirrored, as often as it takes.

    Args:
        image: the photo, RGB.
        size: width and height of the result.

    Returns:
        uint8 RGB of shape (height, width, 3).
    """
    fine = (_FINE * size[0], _FINE * size[1])
    density = min(fine) / frame.side  # the photo as it is with as many pixels as the finer square is to have
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
    """The pixels that one sees from `start` to `end` of a row of `length` pixels between two mirrors."""
    place = np.arange(start, end) % (2 * length)
    return np.minimum(place, 2 * length - 1 - place)
