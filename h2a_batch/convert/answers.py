"""The answers of a generator: tells a picture from what a broken model gives, before anything is made of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from h2a_batch.errors import ModelError
from h2a_batch.inference import Generator

_SAME = 1  # steps of 255: what rounding makes of one colour
_PLAIN = 8  # steps of 255: what may be in a part that shows nothing, such as the noise of a camera
_GLANCE = 32  # of so many pixels one is looked at first, in each direction


def answers_of(generator: Generator, parts: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return what the generator paints, once it is sure that these are pictures.

    Args:
        generator: the generator.
        parts: uint8 RGB of shape (height, width, 3), in the size of its input.

    Returns:
        uint8 RGB of shape (height, width, 3), one for each part.

    Raises:
        ModelError: it failed, gave numbers that are not finite, or one colour all over where the part shows something.
    """
    answers = generator.paint(list(parts))
    for part, answer in zip(parts, answers, strict=True):
        if _is_plain(answer, _SAME) and not _is_plain(part, _PLAIN):
            what = f"{generator.card.path}: the generator gave one colour for the whole picture"
            raise ModelError(what, "train or export it again")
    return answers


def _is_plain(image: NDArray[np.uint8], most: int) -> bool:
    """Tell whether an image is one colour, give or take `most` steps; a few of its pixels nearly always say no."""
    looks = (image[::_GLANCE, ::_GLANCE], image)
    return all(int(np.ptp(look.reshape(-1, 3), axis=0).max()) <= most for look in looks)
