"""Framing: the squares around faces that show them as in the model's training set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from h2a_batch.inference import FaceRule
from h2a_batch.photos import Frame, Point

# of a photo's longer side: portraits that people cut themselves, and those of the training set, have 0.64 or more,
# as scripts/bench_faces --training measures
PORTRAIT = 0.6
COMPANY = 0.5  # of the width of the largest face: a narrower face only stands in the background of its portrait


@dataclass(frozen=True)
class Face:
    """A face, in pixels of the picture that shows it; x grows to the right, y down.

    Args:
        box: left, top, right and bottom, from forehead to chin.
        landmarks: the eye on the left of the picture, the eye on the right, the tip of the nose, the left and the right
            corner of the mouth, each as x and y; they may lie outside of the picture.
        score: how sure the detector is, 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[Point, Point, Point, Point, Point]
    score: float

    @property
    def width(self) -> float:
        """The width of the box in pixels."""
        return self.box[2] - self.box[0]


def frame_of(face: Face, rule: FaceRule) -> Frame:
    """Return the square in which the face lies as the rule says: eyes level and in their place, the head in its size.

    Direction and size come from the eyes and the mouth together, as in FFHQ (Karras et al., arXiv 1812.04948,
    appendix C): a head that turns to the side brings its eyes closer to each other, but not the mouth to the eyes.
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
    """Tell whether a photo is the portrait of one person already, so that it should be converted as a whole.

    It is one if the square around its largest face spans `PORTRAIT` or more of its longer side, and every other face is
    narrower than `COMPANY` of the largest.

    Args:
        size: the width and height of the photo.
        faces: the faces in the photo.
        frames: the square of each face.
    """
    if not faces:
        return False
    first, *others = sorted(zip(faces, frames, strict=True), key=lambda pair: -pair[0].width)
    alone = all(face.width < COMPANY * first[0].width for face, _ in others)
    return alone and first[1].side >= PORTRAIT * max(size)
