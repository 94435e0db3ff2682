"""Searching: which parts of a photo go to the generator, the whole of it or the portraits of those who are in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from h2a_batch.errors import PhotoError
from h2a_batch.faces.detector import NARROWEST, usual_smallest
from h2a_batch.faces.framing import COMPANY, Face, frame_of, is_portrait
from h2a_batch.inference import FaceRule
from h2a_batch.options import Options
from h2a_batch.photos import Frame, Pixels

_LARGE = 8  # the face of a portrait is wider than this part of the photo's longer side
_USUAL = 4  # that of most portraits is even wider than this part

Find = Callable[[Pixels, float], list[Face]]


@dataclass(frozen=True)
class Search:
    """How the faces of a photo are looked for.

    Args:
        find: a detector's; faces of a picture, uint8 RGB, no narrower than so many pixels, surest first.
        rule: how the model wants a face framed.
        smallest: pixels across a face in the photo; None for `usual_smallest`.
        most: faces of one photo, the largest of them.
        no_face: what becomes of a photo without a face: ``convert`` (as a whole), ``skip`` or ``fail``.
        whole: a photo that is a portrait already is converted as a whole.
        paste: the painted faces are put back into the photo.
    """

    find: Find
    rule: FaceRule
    smallest: float | None
    most: int
    no_face: str
    whole: bool = True
    paste: bool = False

    def scale(self, size: tuple[int, int]) -> float:
        """How much smaller than this a photo may come, for the narrowest face that counts to be found."""
        return min(1.0, NARROWEST / self._narrowest(size))

    def first_scale(self, size: tuple[int, int]) -> float:
        """The same, for `portrait`."""
        return min(1.0, NARROWEST * _LARGE / max(size))

    def portrait(self, picture: Pixels, size: tuple[int, int]) -> Frame | None:
        """Returns the square around the face of a photo that is a portrait already, in the photo's pixels; else None.

        It takes a quick look for large faces alone.

        Args:
            picture: the photo, uint8 RGB, as small as `first_scale` allows or larger.
            size: the photo's own.
        """
        least, (usual, large) = self._narrowest(size), (max(size) / part for part in (_USUAL, _LARGE))
        seen = self._portrait(picture, size, max(least, usual))
        if seen is None or COMPANY * seen[0] < usual:  # company may have been too small to be seen
            seen = self._portrait(picture, size, max(least, large))
        return seen and seen[1]

    def _portrait(self, picture: Pixels, size: tuple[int, int], smallest: float) -> tuple[float, Frame] | None:
        """Returns the width of a portrait's face and its square, in the photo's pixels; it looks for none narrower."""
        scale, shown = picture.shape[1] / size[0], (picture.shape[1], picture.shape[0])
        faces = self.find(picture, smallest * scale)
        frames = [frame_of(face, self.rule) for face in faces]
        if not is_portrait(shown, faces, frames):
            return None
        face, frame = max(zip(faces, frames, strict=True), key=lambda pair: pair[0].width)
        return face.width / scale, _enlarged(frame, scale)

    def frames(self, picture: Pixels, size: tuple[int, int]) -> tuple[Frame, ...]:
        """The squares around the faces of a photo, in its own pixels, from left to right; none where nobody is in it.

        Args:
            picture: the photo, uint8 RGB, as small as `scale` allows or larger.
            size: the photo's own.

        Raises:
            PhotoError: nobody is in it, and that is to be told (``no-face``).
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
    """Returns a square of a copy that is smaller by `scale`, in the pixels of the photo."""
    return replace(frame, x=frame.x / scale, y=frame.y / scale, side=frame.side / scale)


def search_of(options: Options, find: Find, rule: FaceRule) -> Search | None:
    """Return how the options want faces looked for; None where they do not."""
    if options.faces == "off":
        return None
    paste = options.faces == "paste"
    return Search(find, rule, options.min_face, options.max_faces, options.no_face, not paste, paste)
