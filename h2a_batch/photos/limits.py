"""Limits: how much time and memory the reading of one photo may take, and who waits for whom when photos take much."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from PIL import Image

from h2a_batch.errors import PhotoError

USUAL_SECONDS = 60.0
USUAL_MEMORY = 2 << 30  # bytes
_UNITS = {"": 20, "K": 10, "M": 20, "G": 30, "T": 40}  # powers of two; a plain number is in MB
_MEMORY = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """What the reading of one photo may take.

    Args:
        seconds: of time, for a photo that is read in a process of its own.
        memory: in bytes.
        turn: a context in which a photo is read in a process of its own; entering it may wait.
        ended: tells whether nobody wants the photo any more.
        apart: whether even a usual photo is read in a process of its own.
    """

    seconds: float = USUAL_SECONDS
    memory: int = USUAL_MEMORY
    turn: Callable[[], AbstractContextManager[None]] = nullcontext
    ended: Callable[[], bool] = lambda: False
    apart: bool = False


def most_pixels() -> int:
    """Return the number of pixels beyond which Pillow takes a file for a bomb."""
    return 2 * (Image.MAX_IMAGE_PIXELS or 1 << 62)


def too_many_pixels() -> PhotoError:
    """Return the error of a photo with more than `most_pixels`."""
    what = f"it unpacks to more than the limit of {most_pixels() // 1_000_000} million pixels"
    return PhotoError("too-large", what, "make it smaller with another program")


def parse_memory(text: str) -> int | None:
    """Return the bytes that a text such as ``1500``, ``1500M`` or ``2G`` gives; None for another text."""
    found = _MEMORY.fullmatch(text.strip())
    return int(float(found[1]) * 2 ** _UNITS[found[2].upper()]) if found else None


def spoken(size: float) -> str:
    """Return a number of bytes for people, in MB or GB."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{max(1, round(size / 2**20))} MB"
