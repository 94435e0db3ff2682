"""Tags: finds those in a TIFF file or an EXIF block that are too large to be read, without reading them."""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from h2a_batch.photos.patched import Patch

METADATA_BYTES = 1 << 20  # of one item, such as a tag or a text; what is larger is left out
PROFILE_BYTES = 16 << 20  # of an ICC profile: some of printing presses have 3 MB
MOST_TAGS = 4096  # of one directory
_DIRECTORIES = 8  # of a file; photos have 4
_TOTAL_BYTES = 4 * METADATA_BYTES  # of all tags of a file
_TEXTS = frozenset({1, 2, 6, 7})  # types that are copied as they are; numbers become objects of Python one by one
_NUMBERS_WEIGH = 16
_SUB_DIRECTORIES = frozenset({34665, 34853, 40965})  # EXIF, GPS, interoperability
_PROFILE = 34675
# what a reader needs to find the pixels
_NEEDED = frozenset({*range(254, 260), 262, 266, 273, 274, *range(277, 280), 284, 317, *range(320, 326), 338, 339, 347})
_SHOWN = frozenset({256, 257, 258, 259, 277, 322, 323})  # those whose numbers `Tags.values` has
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}


@dataclass
class Tags:
    """What the directories of a TIFF file or EXIF block have.

    Args:
        values: the largest number of some tags about the pixels, by the tags' own numbers.
        needed: the bytes of the tags that a reader needs to find the pixels.
        patches: with these the file has no tag that is too large.
        left_out: the bytes of those tags.
        total: the bytes of the tags that stay, numbers counted `_NUMBERS_WEIGH` times.
    """

    values: dict[int, int] = field(default_factory=dict)
    needed: int = 0
    patches: list[Patch] = field(default_factory=list)
    left_out: int = 0
    total: int = 0


def look_at_tags(file: BinaryIO) -> Tags:
    """Return what a TIFF file, or an EXIF block without its ``Exif`` mark, has; of a broken one, what can be read."""
    tags = Tags()
    head = _at(file, 0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return tags
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    if big and len(head) < 16:
        return tags
    (first,) = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])
    waiting, met = [(first, -1)], [(0, 8)]
    while waiting:
        place, spot = waiting.pop()
        end = place + _extent(file, place, order, big)
        if len(met) < _DIRECTORIES and not any(place < last and start < end for start, last in met):
            met.append((place, end))
            waiting += _directory(file, place, order, big, tags)
        elif spot >= 0:  # it lies in another one: no program writes that
            tags.patches.append(_none_at(spot, big))
    return tags


def lighten_exif(block: bytes) -> tuple[bytes, int]:
    """Return an EXIF block without the tags that are too large, and the bytes that these claim."""
    mark = b"Exif\0\0"
    prefix = mark if block.startswith(mark) else b""
    data = block[len(prefix) :]
    tags = look_at_tags(io.BytesIO(data))
    for patch in tags.patches:
        data = data[: patch.start] + patch.data + data[patch.end :]
    return prefix + data, tags.left_out


def _extent(file: BinaryIO, place: int, order: str, big: bool) -> int:
    """Return the bytes of a directory, at least 1."""
    start = _at(file, place, 8 if big else 2)
    count = int.from_bytes(start, "little" if order == "<" else "big")
    return max(1, len(start) + min(count, MOST_TAGS) * (20 if big else 12))


def _none_at(spot: int, big: bool) -> Patch:
    """Return the patch that sets a number, such as the count of a tag, to 0."""
    size = 8 if big else 4
    return Patch(spot, spot + size, bytes(size))


def _directory(file: BinaryIO, place: int, order: str, big: bool, tags: Tags) -> list[tuple[int, int]]:
    """Look at one directory; return the places of those that it names, each with the place of its tag's count."""
    code, kind = ("Q", "HHQ8s") if big else ("H", "HHI4s")
    room, length = struct.calcsize(code), struct.calcsize(order + kind)
    start = _at(file, place, room)
    if len(start) < room:
        return []
    (count,) = struct.unpack(order + code, start)
    if count > MOST_TAGS:
        behind = place + room + MOST_TAGS * length  # where the place of the next directory stands
        tags.patches += [Patch(place, place + room, struct.pack(order + code, MOST_TAGS)), _none_at(behind, big)]
        tags.left_out += (count - MOST_TAGS) * length
        count = MOST_TAGS
    entries = _at(file, place + room, count * length)
    further = []
    for number, (tag, type_, many, data) in enumerate(
        struct.iter_unpack(order + kind, entries[: len(entries) // length * length])
    ):
        size = many * _SIZES.get(type_, 0)
        spot = place + room + number * length + 4
        if tag in _NEEDED:
            tags.needed += size
            if tag in _SHOWN and many:
                where = struct.unpack(order + ("Q" if big else "I"), data)[0]
                value = data[:size] if size <= len(data) else _at(file, where, min(size, 64))
                tags.values[tag] = max([tags.values.get(tag, 0), *_numbers(value, type_, min(many, 16), order)])
        elif size > (PROFILE_BYTES if tag == _PROFILE else METADATA_BYTES) or _too_much(tags, tag, type_, size):
            tags.patches.append(_none_at(spot, big))
            tags.left_out += size
        elif tag in _SUB_DIRECTORIES and size <= len(data):
            further.append((_numbers(data, type_, 1, order)[0], spot))
    return further


def _too_much(tags: Tags, tag: int, type_: int, size: int) -> bool:
    """Count a tag, and tell whether all tags together are now too large: many may have the same bytes."""
    if tag == _PROFILE:
        return False
    weight = size if type_ in _TEXTS else _NUMBERS_WEIGH * size
    if tags.total + weight > _TOTAL_BYTES:
        return True
    tags.total += weight
    return False


_HUGE = 1 << 32  # as large as any number that counts pixels or bytes


def _numbers(data: bytes, type_: int, most: int, order: str) -> list[int]:
    """Return the whole numbers in some bytes; 0 where their type is another."""
    code = _CODES.get(type_)
    if code is None:
        return [0]
    count = min(most, len(data) // struct.calcsize(code))
    numbers = struct.unpack_from(f"{order}{count}{code}", data)
    return [int(min(number, _HUGE)) if math.isfinite(number) else 0 for number in numbers] or [0]


def _at(file: BinaryIO, place: int, size: int) -> bytes:
    try:
        file.seek(place)
        return file.read(size)
    except (OSError, OverflowError, ValueError):  # no file has such a place
        return b""
