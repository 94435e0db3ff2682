"""Fits: where a whole photo lies in the model's frame, and how large its output is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from h2a_batch.photos.frame import Frame

CLOSE_UP = 1.15  # of the longer side: for a face that is nearer, the model needs more around it than the photo shows

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
Size = tuple[int, int]  # width, height, in pixels
Fitted = tuple[Box, Box, bool]
"""The part of the photo to use, the part of the frame that it fills, and whether the proportions stay the photo's."""


@dataclass(frozen=True)
class Placement:
    """Where a photo lies in the model's frame, and how large its output is; all in pixels.

    Args:
        crop: the part of the upright photo that is used.
        content: the part of the frame that it fills.
        output: the width and height of the output.
    """

    crop: Box
    content: Box
    output: Size


def fit_photo(photo: Size, frame: Size, fit: str, size: str) -> Placement:
    """Fit a photo into the model's frame.

    Args:
        photo: the width and height of the upright photo.
        frame: the width and height of the model's input.
        fit: a key of `FITS`.
        size: ``model``, ``source``, or the output's longest side in pixels.
    """
    crop, content, whole = FITS[fit](photo, frame)
    output = extent(crop) if size == "source" else extent(content)
    if size.isdigit():
        shape = photo if whole else output
        scale = int(size) / max(shape)
        output = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    return Placement(crop, content, output)


def _crop(photo: Size, frame: Size) -> Fitted:
    """Fill the frame from the middle of the photo."""
    (width, height), (across, down) = photo, frame
    w = max(1, min(width, round(height * across / down)))
    h = max(1, min(height, round(width * down / across)))
    left, top = (width - w) // 2, (height - h) // 2
    return (left, top, left + w, top + h), (0, 0, across, down), False


def _pad(photo: Size, frame: Size) -> Fitted:
    """Keep the whole photo, in the middle of the frame (letterbox)."""
    (width, height), (across, down) = photo, frame
    scale = min(across / width, down / height)
    w = min(across, max(1, round(width * scale)))
    h = min(down, max(1, round(height * scale)))
    left, top = (across - w) // 2, (down - h) // 2
    return (0, 0, width, height), (left, top, left + w, top + h), True


def _stretch(photo: Size, frame: Size) -> Fitted:
    """Fill the frame with the whole photo, whatever its proportions."""
    return (0, 0, *photo), (0, 0, *frame), False


FITS: dict[str, Callable[[Size, Size], Fitted]] = {"crop": _crop, "pad": _pad, "stretch": _stretch}
"""The ONE table of fits: each maps the sizes of photo and frame to a `Fitted`."""


def step_back(placement: Placement, face: Frame, frame: Size) -> Placement:
    """Shrink the content of a close-up, so that the model sees the head as large as in its training set.

    The content then lies inside a larger picture, whose rest the caller makes up by mirroring. Only the content of the
    model's answer is kept: the output shows what the photo shows, in the same size.

    Args:
        placement: the placement of a portrait, by `fit_photo`.
        face: the square around its face, in the photo's pixels.
        frame: the width and height of the model's input.

    Returns:
        the new placement; the old one where the photo is no close-up, or the frame no square.
    """
    (left, top, right, bottom), (across, down) = placement.crop, frame
    width, height = right - left, bottom - top
    if across != down or face.side < CLOSE_UP * max(width, height):
        return placement
    # the square must contain the whole content
    start_x = min(0.0, max(width - face.side, face.x - left - face.side / 2))
    start_y = min(0.0, max(height - face.side, face.y - top - face.side / 2))
    scale = across / face.side
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = min(round(-start_x * scale), across - wide), min(round(-start_y * scale), down - high)
    return replace(placement, content=(x, y, x + wide, y + high))


def extent(box: Box) -> Size:
    """Return the width and height of a box."""
    return box[2] - box[0], box[3] - box[1]
