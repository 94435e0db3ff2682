"""Searching: decides which parts of a photo go to the model, the whole photo or each of its faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from h2a_batch.errors import PhotoError
from h2a_batch.faces.detector import NARROWEST, usual_smallest
from h2a_batch.faces.framing import COMPANY, Face, frame_of, is_portrait
from h2a_batch.inference import FaceRule
from h2a_batch.options import Options
from h2a_batch.photos import Frame, Pixels

_LARGE = 8  # the face of a portrait is wider than this fraction of the photo's longer side: 1 / 8
_USUAL = 4  # the face of most portraits is even wider than 1 / 4 of it

Find = Callable[[Pixels, float], list[Face]]


@dataclass(frozen=True)
class Search:
    """How to look for the faces of a photo.

    Args:
        find: a detector's function: it takes a picture, uint8 RGB, and the width in pixels of the narrowest face, and
            returns the faces, the surest first.
        rule: how the model wants a face framed.
        smallest: the width in the photo's pixels of the narrowest face that counts; None for `usual_smallest`.
        most: how many faces of one photo count; the largest ones do.
        no_face: what to do with a photo without a face: ``convert`` (as a whole), ``skip`` or ``fail``.
        whole: whether to convert a portrait as a whole.
        paste: whether to put the painted faces back into the photo.
    """

    find: Find
    rule: FaceRule
    smallest: float | None
    most: int
    no_face: str
    whole: bool = True
    paste: bool = False

    def scale(self, size: tuple[int, int]) -> float:
        """Return the least share of its size at which a photo still shows the narrowest face that counts."""
        return min(1.0, NARROWEST / self._narrowest(size))

    def first_scale(self, size: tuple[int, int]) -> float:
        """Return the same share for the faces that `portrait` looks for."""
        return min(1.0, NARROWEST * _LARGE / max(size))

    def portrait(self, picture: Pixels, size: tuple[int, int]) -> Frame | None:
        """Return the square around the face of a portrait, in the photo's pixels; None for other photos.

        It takes a quick look for large faces alone.

        Args:
            picture: the photo, uint8 RGB, in the size of `first_scale` or larger.
            size: the photo's own width and height.
        """
        least, (usual, large) = self._narrowest(size), (max(size) / part for part in (_USUAL, _LARGE))
        seen = self._portrait(picture, size, max(least, usual))
        if seen is None or COMPANY * seen[0] < usual:  # company may have been too small to be seen
            seen = self._portrait(picture, size, max(least, large))
        return seen and seen[1]

    def _portrait(self, picture: Pixels, size: tuple[int, int], smallest: float) -> tuple[float, Frame] | None:
        """Return the width and the square of a portrait's face, in the photo's pixels; ignore narrower faces."""
        scale = picture.shape[1] / size[0]
        shown = (picture.shape[1], picture.shape[0])
        faces = self.find(picture, smallest * scale)
        frames = [frame_of(face, self.rule) for face in faces]
        if not is_portrait(shown, faces, frames):
            return None
        face, frame = max(zip(faces, frames, strict=True), key=lambda pair: pair[0].width)
        return face.width / scale, _enlarged(frame, scale)

    def frames(self, picture: Pixels, size: tuple[int, int]) -> tuple[Frame, ...]:
        """Return the squares around the faces of a photo, in its own pixels, from left to right; none without a face.

        Args:
            picture: the photo, uint8 RGB, in the size of `scale` or larger.
            size: the photo's own width and height.

        Raises:
            PhotoError: the photo shows no face (``no-face``), and the options do not want it converted as a whole.
        """
        scale = picture.shape[1] / size[0]
        faces = self.find(picture, self._narrowest(size) * scale)
        if not faces and self.no_face != "convert":
            raise PhotoError("no-face", "no face was found in it", "--no-face convert converts it as a whole")
        frames = [frame_of(face, self.rule) for face in faces]
        largest = sorted(frames, key=lambda frame: -frame.side)[: self.most]
        return tuple(sorted((_enlarged(frame, scale) for frame in largest), key=lambda frame: frame.x))

    def _narrowest(self, size: tuple[int, int]) -> float:
        return usual_smallest(size) if self.smallest is None else self.smallest


def _enlarged(frame: Frame, scale: float) -> Frame:
    """Return a square of a copy in the pixels of the photo; `scale` is the copy's share of the photo's size."""
    return replace(frame, x=frame.x / scale, y=frame.y / scale, side=frame.side / scale)


def search_of(options: Options, find: Find, rule: FaceRule) -> Search | None:
    """Return how the options want faces looked for; None where they want no faces."""
    if options.faces == "off":
        return None
    paste = options.faces == "paste"
    return Search(find, rule, options.min_face, options.max_faces, options.no_face, not paste, paste)
