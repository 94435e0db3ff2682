"""Chunks of a PNG: finds texts, profiles and EXIF blocks that are too large to be read."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import BinaryIO

from h2a_batch.photos.patched import Patch
from h2a_batch.photos.tags import METADATA_BYTES, PROFILE_BYTES

_CHUNKS, _OTHERS = 20_000, 1000  # of a PNG; of them, those that are not pixels
_TOTAL_BYTES = 8 * METADATA_BYTES  # of all texts, unpacked
_BOMBS = 16  # texts that are too large; no further one is unpacked to see
_RATIO = 1032  # deflate shrinks nothing further
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


@dataclass
class Chunks:
    """What the chunks of a PNG are.

    Args:
        why: why they are suspicious; empty where they are not.
        patches: these cut out the chunks that are too large.
        left_out: the bytes of what is in them, as far as known.
        profile: the ICC profile, where it is among them and no bomb.
        total: the bytes of texts, unpacked.
        profiles: the number of ICC profiles.
    """

    why: str = ""
    patches: list[Patch] = field(default_factory=list)
    left_out: int = 0
    profile: bytes | None = None
    total: int = 0
    profiles: int = 0


def look_at_chunks(file: BinaryIO) -> Chunks:
    """Walk through the chunks of a PNG up to its end."""
    found = Chunks()
    place, others = 8, 0
    for _ in range(_CHUNKS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return found
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        end = place + 12 + size
        if name != b"IDAT":
            others += 1
            if others > _OTHERS:
                break
            if name in _TEXTS:
                _text(file, place, end, name, found)
            elif name == b"iCCP":
                _profile(file, place, end, found)
            elif name == b"IEND":
                return found
            elif name == b"IHDR" and place > 8:
                return Chunks(why="two headers")
            elif size > METADATA_BYTES and name not in (b"IHDR", b"PLTE", b"fdAT"):
                _leave_out(found, place, end, size)
        place = end
    return Chunks(why="very many chunks")


def _text(file: BinaryIO, place: int, end: int, name: bytes, found: Chunks) -> None:
    """Leave out a text that is too large, or that makes all of them too large."""
    size = end - place - 12
    if len(found.patches) > _BOMBS:
        size = METADATA_BYTES + 1
    elif name != b"tEXt" and size * _RATIO > METADATA_BYTES and size <= METADATA_BYTES:
        packed = _packed_text(file.read(size), name)
        size = max(size, _unpacked_size(packed)) if packed else size
    if size > METADATA_BYTES or found.total + size > _TOTAL_BYTES:
        _leave_out(found, place, end, size)
    else:
        found.total += size


def _packed_text(data: bytes, name: bytes) -> bytes:
    """Return the packed part of a text; nothing where it is not packed."""
    _, _, rest = data.partition(b"\0")
    if name == b"zTXt":
        return rest[1:]
    if rest[:1] != b"\1":  # PNG specification, third edition, section 11.3.3.4
        return b""
    return rest[2:].partition(b"\0")[2].partition(b"\0")[2]


def _profile(file: BinaryIO, place: int, end: int, found: Chunks) -> None:
    """Cut out a profile that Pillow refuses for its size; keep it, unless it is a bomb."""
    size = end - place - 12
    found.profiles += 1
    if found.profiles > 1:  # no PNG may have a second one, and each would cost the time to unpack it
        found.patches.append(Patch(place, end))
        return
    if size * _RATIO <= METADATA_BYTES:
        return
    packed = file.read(min(size, PROFILE_BYTES)).partition(b"\0")[2][1:]
    if size <= PROFILE_BYTES and _unpacked_size(packed) <= METADATA_BYTES:
        return
    try:
        profile = zlib.decompressobj().decompress(packed, PROFILE_BYTES + 1)
    except zlib.error:
        return
    if size > PROFILE_BYTES or len(profile) > PROFILE_BYTES:
        _leave_out(found, place, end, max(size, len(profile)))
    else:
        found.patches.append(Patch(place, end))
        found.profile = profile


def _unpacked_size(packed: bytes) -> int:
    """Return the size of packed bytes, up to the first byte that is too much."""
    try:
        return len(zlib.decompressobj().decompress(packed, METADATA_BYTES + 1))
    except zlib.error:
        return 0


def _leave_out(found: Chunks, place: int, end: int, size: int) -> None:
    found.patches.append(Patch(place, end))
    found.left_out += size
