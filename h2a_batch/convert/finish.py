"""Finishing: makes pictures of the model's answers, in the size that the user wants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.convert.photo import Part, Photo
from h2a_batch.faces import paste


def finish(photo: Photo, painted: Sequence[NDArray[np.uint8]], keep_alpha: bool) -> list[Image.Image]:
    """Return the pictures of a photo: one of the whole, or one of each face.

    Args:
        photo: the decoded photo.
        painted: the model's answer for each part: uint8 RGB, of any size with the proportions of the model's input.
        keep_alpha: whether the pictures get the photo's transparency.
    """
    if photo.canvas is None:
        return [_finish(part, answer, keep_alpha) for part, answer in zip(photo.parts, painted, strict=True)]
    return [_finish(photo.canvas, paste(photo.canvas.pixels, photo.faces, painted), keep_alpha)]


def _finish(part: Part, painted: NDArray[np.uint8], keep_alpha: bool) -> Image.Image:
    """Return an answer without its padding, in the output's size, with the photo's alpha where the caller wants it."""
    image = Image.fromarray(painted)
    down, across = part.pixels.shape[:2]
    left, top, right, bottom = part.placement.content
    wide, high = image.width / across, image.height / down
    box = (left * wide, top * high, right * wide, bottom * high)
    if image.size != part.placement.output or box != (0, 0, *image.size):
        image = image.resize(part.placement.output, Image.Resampling.BICUBIC, box=box)
    if part.alpha is not None and keep_alpha:
        image.putalpha(part.alpha)
    return image
