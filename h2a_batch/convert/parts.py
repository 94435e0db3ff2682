"""Parts: reads a photo and cuts it into pieces in the model's size, each a whole photo or a face."""

from __future__ import annotations

import hashlib
import io
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.convert.apart import decode_apart
from h2a_batch.convert.photo import Part, Photo, Wish
from h2a_batch.errors import PhotoError
from h2a_batch.faces import Search
from h2a_batch.machine import lacks_memory
from h2a_batch.photos import (
    AGAIN,
    HAVE_HEIF,
    HEIF,
    Box,
    Frame,
    Limits,
    Look,
    Placement,
    Reader,
    Scaled,
    Size,
    cut_alpha,
    cut_out,
    explained,
    extent,
    fit_photo,
    inspect,
    sniff,
    step_back,
    to_srgb,
)
from h2a_batch.places import LINKED, open_file

Stamp = tuple[int, int]  # size in bytes, and the time of the last change in nanoseconds
_USUAL = Limits()


def decode(
    path: Path | bytes,
    frame: Size,
    fit: str,
    size: str,
    keep_metadata: bool = False,
    search: Search | None = None,
    met: Stamp | None = None,
    links: bool = True,
    limits: Limits = _USUAL,
) -> Photo:
    """Read a photo upright, in sRGB, and cut it into parts in the model's size.

    Args:
        path: a file, or the bytes of one.
        frame: the width and height of the model's input in pixels.
        fit: how to lay a whole photo into the frame, a key of `FITS`.
        size: the size of the output as in `Options`: ``model``, ``source`` or a number of pixels.
        keep_metadata: whether the outputs keep the EXIF metadata.
        search: finds the faces, each of which becomes a part of its own; without it the photo is one part.
        met: the size and time of change that the file must have; by default those at the start of reading.
        links: whether to follow links to the file.
        limits: the time and memory that reading it may take.

    Raises:
        PhotoError: the file cannot be read as a photo; ``kind`` says why.
        MemoryError: the machine lacks the memory for a photo within its limits.
    """
    wish = Wish(frame, fit, size, keep_metadata, search)
    if isinstance(path, bytes):
        return _decode_open(io.BytesIO(path), wish, limits)
    try:
        with open(path, "rb") if links else open_file(path) as file:
            before = met or _stamp(file)
            photo = _decode_open(file, wish, limits)
            after = _stamp(file)
    except OSError as error:
        raise _unreadable(error, links) from error
    if before != after:
        raise PhotoError("changed", "the file changed while it was read", "run again when it is complete")
    return photo


def _unreadable(error: OSError, links: bool) -> PhotoError | MemoryError:
    """Return the error of a photo that the system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return PhotoError("vanished", "the file is no longer there", "run again when it is back")
    if isinstance(error, PermissionError):
        return PhotoError("unreadable", "no permission to read the file", "change its permissions")
    if not links and error.errno in LINKED:
        return PhotoError("changed", "a link took its place, or its folder's; it is not followed")
    if lacks_memory(error):
        return MemoryError(str(error))
    return PhotoError("unreadable", f"the file cannot be read: {error.strerror or error}", "check the disk")


def _stamp(file: BinaryIO) -> Stamp:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _decode_open(file: BinaryIO, wish: Wish, limits: Limits) -> Photo:
    """Decode an open file; turn all errors of the decoders into PhotoError."""
    digest = hashlib.sha256()
    head = file.read(64)
    if not head:
        raise PhotoError("empty", "the file is empty (0 bytes)", AGAIN)
    kind = sniff(head)
    if kind is None:
        raise PhotoError("not-an-image", "its content is no image of a known kind", "check where it came from")
    if kind == HEIF and not HAVE_HEIF:
        raise PhotoError(
            "unsupported", "HEIC photos need the extra heif", f"{sys.executable} -m pip install pillow-heif"
        )
    digest.update(head)
    while block := file.read(1 << 20):
        digest.update(block)
    look = _inspected(file)
    if look.why or limits.apart:
        return decode_apart(decode_here, file, wish, look, digest.hexdigest(), limits)
    return decode_here(file, wish, look, digest.hexdigest())


def _inspected(file: BinaryIO) -> Look:
    """Inspect an open file; what inspection cannot make sense of is broken."""
    try:
        return inspect(file)
    except (OSError, MemoryError, PhotoError):
        raise
    except Exception as error:
        raise explained(error) from error


def decode_here(file: BinaryIO, wish: Wish, look: Look, sha256: str) -> Photo:
    """Decode a photo that inspection passed, in this thread; raise as `decode` does."""
    try:
        return _read(Reader(file, look), wish, sha256)
    except (PhotoError, MemoryError):
        raise
    except Exception as error:
        raise explained(error) from error


def _read(reader: Reader, wish: Wish, sha256: str) -> Photo:
    """Read a photo and cut it into parts: the whole, stepped back from a close-up, or its faces."""
    exif = reader.exif if wish.keep_metadata else None
    placement = fit_photo(reader.upright, wish.frame, wish.fit, wish.size)
    used, wanted = extent(placement.crop), extent(placement.content)
    scale = max(wanted[0] / used[0], wanted[1] / used[1])  # the model cannot see finer pixels
    if wish.search:
        if portrait := _find_portrait(reader, wish.search, scale):
            placement = step_back(placement, portrait, wish.frame)
        elif faces := _find(reader, wish.search, scale):
            canvas = _canvas(reader, wish.size) if wish.search.paste else None
            return Photo(tuple(_face(reader, face, wish) for face in faces), exif, sha256, faces, canvas, reader.note)
    return Photo((_whole(reader, wish.frame, placement, scale),), exif, sha256, note=reader.note)


def _find_portrait(reader: Reader, search: Search, scale: float) -> Frame | None:
    """Return the square around the face of a portrait; None for other photos.

    Args:
        reader: the photo.
        search: how to look for faces.
        scale: the share of its size at which the model needs the whole photo; 1 is all of it.
    """
    if not search.whole:
        return None
    first = search.first_scale(reader.upright)
    return search.portrait(_small(reader.load(max(scale, first)), first), reader.upright)


def _find(reader: Reader, search: Search, scale: float) -> tuple[Frame, ...]:
    """Return the faces to convert one by one; `scale` is as for `_find_portrait`."""
    size = reader.upright
    wanted = search.scale(size)
    return search.frames(_small(reader.load(1.0 if search.paste else max(scale, wanted)), wanted), size)


def _small(photo: Scaled, scale: float) -> NDArray[np.uint8]:
    """Return a photo as uint8 RGB, shrunk as far as `scale` allows before it is copied, since it may be very large."""
    factor = int(photo.x / scale)
    return np.asarray((photo.image.reduce(factor) if factor > 1 else photo.image).convert("RGB"))


def _whole(reader: Reader, frame: Size, placement: Placement, scale: float) -> Part:
    """Return a photo as one part."""
    photo = reader.load(scale)
    left, top, right, bottom = placement.crop
    crop = (left * photo.x, top * photo.y, right * photo.x, bottom * photo.y)
    left, top, right, bottom = placement.content
    small = photo.image.resize((right - left, bottom - top), Image.Resampling.LANCZOS, box=crop)
    alpha = photo.alpha and photo.alpha.resize(placement.output, Image.Resampling.LANCZOS, box=crop)
    content = np.asarray(to_srgb(small, reader.profile))
    margins = ((top, frame[1] - bottom), (left, frame[0] - right), (0, 0))
    # mirrored, not black: instance norm would spread the bars' darkness over the face
    pixels = np.pad(content, margins, mode="symmetric") if any(map(any, margins)) else content
    return Part(pixels, placement, alpha)


def _face(reader: Reader, face: Frame, wish: Wish) -> Part:
    """Return a face as a part."""
    photo = reader.load(max(wish.frame) / face.side)
    scaled = replace(face, x=face.x * photo.x, y=face.y * photo.y, side=face.side * photo.x)
    pixels = np.asarray(cut_out(photo, reader.profile, scaled, wish.frame))
    longest = {"model": max(wish.frame), "source": face.side}.get(wish.size) or int(wish.size)
    width, height = (max(1, round(side * longest / max(wish.frame))) for side in wish.frame)
    alpha = cut_alpha(photo, scaled, (width, height))
    return Part(pixels, Placement(_bounds(face), (0, 0, *wish.frame), (width, height)), alpha)


def _canvas(reader: Reader, size: str) -> Part:
    """Return the whole photo in its own size, as the canvas for painted faces."""
    photo = reader.load(1.0)
    width, height = photo.image.size
    scale = int(size) / max(width, height) if size.isdigit() else 1.0
    output = (max(1, round(width * scale)), max(1, round(height * scale)))
    alpha = photo.alpha if photo.alpha is None or scale == 1 else photo.alpha.resize(output, Image.Resampling.LANCZOS)
    box = (0, 0, width, height)
    return Part(np.asarray(to_srgb(photo.colours, reader.profile)), Placement(box, box, output), alpha)


def _bounds(face: Frame) -> Box:
    """Return the upright box around a face's square; it may reach beyond the photo."""
    turn = math.radians(face.angle)
    reach = face.side / 2 * (abs(math.cos(turn)) + abs(math.sin(turn)))
    return round(face.x - reach), round(face.y - reach), round(face.x + reach), round(face.y + reach)
