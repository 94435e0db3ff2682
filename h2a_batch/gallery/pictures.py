"""Pictures: small copies for sheets and reports, of a whole photo or of a face. Each file is read once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from h2a_batch.convert import decode
from h2a_batch.errors import PhotoError
from h2a_batch.gallery.results import Items
from h2a_batch.photos import (
    Frame,
    Limits,
    Look,
    Reader,
    cut_alpha,
    cut_out,
    explained,
    extent_of,
    inspect,
    read_apart,
)

Size = tuple[int, int]
Piece = tuple[Path | None, Frame | None]
"""A file, and the square of it to show; None shows the whole file."""
_ONE_AT_A_TIME = threading.Lock()  # photos that take much memory


@dataclass(frozen=True)
class Picture:
    """A small copy of a picture.

    Args:
        image: upright, RGB in sRGB; transparent parts are blended with white.
        alpha: the transparency, of the same size; None for an opaque picture.
    """

    image: Image.Image
    alpha: Image.Image | None


@dataclass(frozen=True)
class Pictures:
    """The pictures of a photo's rows.

    Args:
        rows: for each row the photo's own picture first, then the outputs'; None for a missing or unreadable picture.
        extent: the width and height of the upright photo, where the rows show faces of it; else None.
    """

    rows: list[list[Picture | None]]
    extent: Size | None


def by_photo(rows: Iterable[Items]) -> Iterator[list[Items]]:
    """Yield the rows of each photo together, in their order."""
    return (list(group) for _, group in groupby(rows, key=lambda row: (row[0].source, row[0].name)))


def pieces(row: Items) -> list[Piece]:
    """Return what a row shows: the photo and each output; for a row about a face, only this face of each."""
    face = next((item.frame for item in row if item.frame), None)
    return [(row[0].source, face), *((item.output, None if item.frame else face) for item in row)]


def draw(rows: Sequence[Items], room: Size) -> Pictures:
    """Draw the pictures of one photo's rows, each as large as `room` allows."""
    wanted = [pieces(row) for row in rows]
    drawn: dict[Piece, Picture] = {}
    extent: Size | None = None
    for path in dict.fromkeys(path for path, _ in chain.from_iterable(wanted)):  # the photo comes first
        if path is None or not path.is_file():  # reading a pipe, for example, may never end
            continue
        sizes: dict[Frame, Size] = {}
        for row, shown in zip(rows, wanted, strict=True):
            sizes |= {face: _size_of_cut(row, room) for one, face in shown if face and one == path}
        with contextlib.suppress(PhotoError, MemoryError):
            if any(piece == (path, None) for piece in chain.from_iterable(wanted)):
                drawn[path, None] = _whole(path, room)
            if sizes and (extent or path == rows[0][0].source):
                cuts, extent = _cut_out(path, sizes, extent)
                drawn |= {(path, face): picture for face, picture in cuts.items()}
    return Pictures([[drawn.get(piece) for piece in row] for row in wanted], extent)


def _size_of_cut(row: Items, room: Size) -> Size:
    """Return the largest size that fits `room` and has the proportions of the face's own output."""
    width, height = next(filter(None, (extent_of(item.output) for item in row if item.frame and item.output)), (1, 1))
    scale = min(room[0] / width, room[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    with _ONE_AT_A_TIME:
        yield


def _limits() -> Limits:
    """Return what a suspicious photo may take: it was converted, but it may have been replaced since."""
    return Limits(turn=_turn)


def _whole(path: Path, room: Size) -> Picture:
    photo = decode(path, room, "pad", "model", limits=_limits())
    left, top, right, bottom = photo.placement.content
    return Picture(Image.fromarray(photo.pixels[top:bottom, left:right]), photo.alpha)


def _cut_out(path: Path, sizes: Mapping[Frame, Size], extent: Size | None) -> tuple[dict[Frame, Picture], Size]:
    """Cut squares out of a photo or an output.

    Args:
        path: the file.
        sizes: the size of the result for each square.
        extent: where `path` is an output, the width and height of its photo; the output shows all of it or its middle.

    Returns:
        a picture for each square, and the extent of the photo.

    Raises:
        PhotoError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            look = inspect(file)
            if look.why:
                drawn: tuple[dict[Frame, Picture], Size] = read_apart(
                    _cuts_there, (look, sizes, extent), file, _limits(), look
                )
                return drawn
            return _cuts(Reader(file, look), sizes, extent)
    except PhotoError:
        raise
    except Exception as error:
        raise explained(error) from error


def _cuts(reader: Reader, sizes: Mapping[Frame, Size], extent: Size | None) -> tuple[dict[Frame, Picture], Size]:
    """Do the work of `_cut_out` on an open file."""
    width, height = extent or reader.upright
    scale = max(reader.upright[0] / width, reader.upright[1] / height)
    photo = reader.load(max(min(size) / (frame.side * scale) for frame, size in sizes.items()))
    across, down = photo.image.size
    scale *= photo.x
    cuts = {}
    for frame, size in sizes.items():
        x, y = (frame.x - width / 2) * scale + across / 2, (frame.y - height / 2) * scale + down / 2
        square = replace(frame, x=x, y=y, side=frame.side * scale)
        cuts[frame] = Picture(cut_out(photo, reader.profile, square, size), cut_alpha(photo, square, size))
    return cuts, (width, height)


def _cuts_there(
    file: BinaryIO, ask: object, look: Look, sizes: Mapping[Frame, Size], extent: Size | None
) -> tuple[dict[Frame, Picture], Size]:
    """Do the same in the other process."""
    return _cuts(Reader(file, look), sizes, extent)
