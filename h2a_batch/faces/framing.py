"""Framing: faces, and the squares around them that a generator was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from h2a_batch.inference import FaceRule
from h2a_batch.photos import Frame, Point

# of a photo's longer side; portraits that people cut themselves, and the training set's, have 0.64 or more, by
# scripts/bench_faces --training
PORTRAIT = 0.6
COMPANY = 0.5  # of the width of the largest face: who is smaller only stands in the background of its portrait


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
