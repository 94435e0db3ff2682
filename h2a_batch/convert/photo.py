"""Photo: what is made of a file before it goes through the generator, and what to make of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.faces import Search
from h2a_batch.photos import Frame, Placement, Size


@dataclass(frozen=True)
class Part:
    """A piece of a photo for the model.

    Args:
        pixels: uint8 RGB of shape (height, width, 3), in the model's size.
        placement: where the piece lies in the photo and in the model's frame, and how large its output is.
        alpha: the transparency in the output's size; None for an opaque photo.
    """

    pixels: NDArray[np.uint8]
    placement: Placement
    alpha: Image.Image | None


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Args:
        parts: the whole photo as one part, or one part for each face.
        exif: the metadata that the outputs keep; None where they keep none.
        sha256: of the file's bytes, in hex.
        faces: for each part, where the face is in the upright photo; empty where the photo is one part.
        canvas: the photo into which the painted faces are put back, with its own alpha; None where they are not.
        note: what of the file was left out, in words; empty for most photos.
    """

    parts: tuple[Part, ...]
    exif: bytes | None
    sha256: str
    faces: tuple[Frame, ...] = ()
    canvas: Part | None = None
    note: str = ""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The pixels of a photo that is one part."""
        return self.parts[0].pixels

    @property
    def placement(self) -> Placement:
        """The placement of a photo that is one part."""
        return self.parts[0].placement

    @property
    def alpha(self) -> Image.Image | None:
        """The alpha of a photo that is one part."""
        return self.parts[0].alpha


@dataclass(frozen=True)
class Wish:
    """The arguments of `decode` that say what to make of a photo."""

    frame: Size
    fit: str
    size: str
    keep_metadata: bool
    search: Search | None
