"""Searching: which parts of a photo go to the generator, the whole of it or the portraits of those who are in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from h2a_batch.card import FaceRule
from h2a_batch.errors import PhotoError
from h2a_batch.faces import NARROWEST, Face
from h2a_batch.framing import Frame, frame_of, is_portrait

FACES = ("off", "crop", "paste")
NO_FACE = ("convert", "skip", "fail")
SMALLEST, MOST = 40, 50  # the defaults: pixels across a face, faces of a photo

Find = Callable[[NDArray[np.uint8], float], list[Face]]


@dataclass(frozen=True)
class Search:
    """How the faces of a photo are looked for.

    Args:
        find: a detector's; faces of a picture, uint8 RGB, no narrower than so many pixels, strongest first.
        rule: how the model wants a face framed.
        smallest: pixels across a face in the photo.
        most: faces of one photo, the largest of them.
        no_face: what becomes of a photo without a face: ``convert`` (as a whole), ``skip`` or ``fail``.
        paste: the painted faces are put back into the photo.
    """

    find: Find
    rule: FaceRule
    smallest: float
    most: int
    no_face: str
    paste: bool

    @property
    def scale(self) -> float:
        """How much smaller a photo may come than it is, for the narrowest face to be found."""
        return min(1.0, NARROWEST / self.smallest)

    def frames(self, picture: NDArray[np.uint8], scale: float) -> tuple[Frame, ...]:
        """The squares around the faces of a photo, in its own pixels, from left to right.

        None of them where the photo is to be converted as a whole: it is a portrait already, or nobody is in it.

        Args:
            picture: the photo, uint8 RGB, smaller by `scale` or as it is (1.0).

        Raises:
            PhotoError: nobody is in it, and that is to be told (``no-face``).
        """
        faces = self.find(picture, self.smallest * scale)
        if not faces and self.no_face != "convert":
            raise PhotoError("no-face", "no face was found in it", "--no-face convert converts it as a whole")
        frames = [frame_of(face, self.rule) for face in faces]
        size = picture.shape[1], picture.shape[0]
        if not self.paste and is_portrait(size, faces, frames):
            return ()
        largest = sorted(frames, key=lambda frame: -frame.side)[: self.most]
        whole = [replace(frame, x=frame.x / scale, y=frame.y / scale, side=frame.side / scale) for frame in largest]
        return tuple(sorted(whole, key=lambda frame: frame.x))
