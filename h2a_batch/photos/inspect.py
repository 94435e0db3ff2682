"""Inspection: tells from a file's structure, without decoding it, whether it may take much time or memory.

A usual photo costs some ten microseconds here. A suspicious one is read in a process of its own, see `apart`: this may
be a good photo, so a check that is too strict costs half a second, and one that is too lax may cost the run.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

from h2a_batch.photos.kinds import HEIF, sniff
from h2a_batch.photos.patched import Patch
from h2a_batch.photos.png_chunks import look_at_chunks
from h2a_batch.photos.tags import METADATA_BYTES, PROFILE_BYTES, look_at_tags

_USUAL_BYTES = 600_000_000  # of memory: a JPEG of 120 megapixels, a HEIC of 50
_SCANS = 100  # of a JPEG; cameras and programs make 10
_SCANNED = 1_000_000_000  # pixels of all scans together
_SEGMENTS = 1024  # before the pixels of a JPEG
_HEADER_BYTES = 16 << 20  # before the pixels of a JPEG
_PIXELS_A_BYTE, _MANY_PIXELS = 100, 25_000_000  # photos do not shrink so far, but bombs do
_SLOW_PIXELS = 4_000_000  # of a BMP that Pillow unpacks in Python
_STRIPS_BYTES = 1 << 16  # of the places of a TIFF's strips: they may all be the same large one
_TILES = {b"av01": 8, b"hvc1": 200}  # pictures in an AVIF, and in a HEIC, whose photos are in tiles
_BLOCKS = 4096  # of texts before the picture of a GIF
_BOXES, _TOP_BOXES = 1 << 20, 64  # bytes of a HEIF's description; boxes on its top level
_RARE = "a structure of a rare kind"
_PLAIN = frozenset({0, 1, 5, 8, 32773, 32946})  # TIFF: none, LZW, deflate, PackBits; others may hide a bomb in a bomb


@dataclass(frozen=True)
class Look:
    """What inspection found.

    Args:
        pixels: their number as the file claims it; 0 where it does not say.
        least: the bytes of memory that reading it takes at least.
        most: the bytes that it usually takes in full size.
        why: why it is suspicious, in words that go on from "it has"; empty for a usual photo.
        patches: with these a reader does not meet metadata that are too large.
        left_out: the bytes of these metadata.
        profile: the ICC profile that a reader would refuse for its size; None for most photos.
    """

    pixels: int = 0
    least: int = 0
    most: int = 0
    why: str = ""
    patches: tuple[Patch, ...] = ()
    left_out: int = 0
    profile: bytes | None = None


def inspect(file: BinaryIO) -> Look:
    """Inspect an open file; it ends at any place. A broken file may look usual: the decoder finds what is wrong."""
    file.seek(0)
    kind = sniff(file.read(32)) or ""
    look = _LOOKS.get(kind, _nothing)(file)
    if kind in _HELD:
        size = file.seek(0, 2)
        look = replace(look, least=look.least + size, most=look.most + size)
    if look.why:
        return look
    if look.most > _USUAL_BYTES:
        return replace(look, why=f"{_millions(look.pixels)} pixels")
    if look.pixels > _MANY_PIXELS and look.pixels > _PIXELS_A_BYTE * file.seek(0, 2):
        return replace(look, why=f"{_millions(look.pixels)} pixels in few bytes")
    return look


def _millions(pixels: int) -> str:
    return f"{pixels / 1e6:,.0f} million"


def _sized(pixels: int, least: int, most: int) -> Look:
    """Return the look of a file with so many pixels, and so many bytes of memory for each."""
    return Look(pixels, pixels * least, pixels * most)


def _nothing(file: BinaryIO) -> Look:
    return Look()


def _jpeg(file: BinaryIO) -> Look:
    """Walk through the segments before the pixels; count the scans where the decoder reads more than one."""
    place, pixels, parts, progressive = 2, 0, 0, False
    for _ in range(_SEGMENTS):
        file.seek(place)
        head = file.read(10)
        if len(head) < 4 or place > _HEADER_BYTES:
            break
        marker = head[1]
        if head[0] != 0xFF or marker == 0xFF:  # decoders skip what is no marker
            place += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 2
        elif marker in (0xD9, 0xDA):
            break
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(head) == 10:
                height, width, parts = struct.unpack(">HHB", head[5:10])
                pixels, progressive = max(pixels, height * width), progressive or marker not in (0xC0, 0xC1, 0xC3)
            place += 2 + max(2, int.from_bytes(head[2:4], "big"))
    else:
        return replace(_sized(pixels, 0, 10), why=f"{_SEGMENTS:,} segments of metadata or more")
    if place > _HEADER_BYTES:
        return replace(_sized(pixels, 0, 10), why="much metadata")
    if not progressive and (len(head) < 5 or head[4] >= parts):  # the first scan has it all
        return _sized(pixels, 0, 5)
    scans = _count(file, place, b"\xff\xda")
    return replace(_sized(pixels, 3, 10), why=f"{scans:,} scans" if scans > _SCANS or scans * pixels > _SCANNED else "")


def _count(file: BinaryIO, place: int, mark: bytes) -> int:
    """Return how often some bytes occur from a place to the end."""
    file.seek(place)
    count, last = 0, b""
    while block := file.read(1 << 20):
        count += (last + block).count(mark)
        last = block[-1:]
    return count


def _png(file: BinaryIO) -> Look:
    file.seek(16)
    head = file.read(10)
    if len(head) < 10:
        return Look()
    width, height, depth, colours = struct.unpack(">IIBB", head)
    least, most = {0: (1, 2), 2: (4, 5), 3: (4, 9)}.get(colours, (8, 13))
    look = _sized(width * height, *((5, 9) if (depth, colours) == (16, 0) else (least, most)))
    chunks = look_at_chunks(file)
    patches = tuple(chunks.patches)
    return replace(look, why=chunks.why, patches=patches, left_out=chunks.left_out, profile=chunks.profile)


def _tiff(file: BinaryIO) -> Look:
    tags = look_at_tags(file)
    known = {tag: tags.values.get(tag, 0) for tag in (256, 257, 258, 259, 277, 322, 323)}
    samples = max(1, known[277])
    pixels = max(known[256] * known[257], known[322] * known[323])  # a tile may be larger than the picture
    least, most = (4, 10) if samples == 3 else (1, 9) if samples < 3 else (4, 10 + 2 * samples)
    look = _sized(pixels, least, max(most, samples * max(8, known[258]) // 8 + most // 2))
    why = "" if pixels else _RARE
    if known[259] not in _PLAIN:
        why = f"a compression of a rare kind ({known[259]})"
    elif tags.needed > _STRIPS_BYTES:
        why = "very many strips"
    return replace(look, why=why, patches=tuple(tags.patches), left_out=tags.left_out)


def _webp(file: BinaryIO) -> Look:
    """Read the size of the canvas, and rename chunks of metadata that are too large, so that no reader knows them."""
    file.seek(12)
    first = file.read(18)
    pixels = 0
    if first[:4] == b"VP8X" and len(first) >= 18:
        pixels = (1 + int.from_bytes(first[12:15], "little")) * (1 + int.from_bytes(first[15:18], "little"))
    elif first[:4] == b"VP8L" and len(first) >= 13:
        bits = int.from_bytes(first[9:13], "little")
        pixels = (1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF))
    elif first[:4] == b"VP8 " and len(first) >= 18:
        width, height = struct.unpack("<HH", first[14:18])
        pixels = (width & 0x3FFF) * (height & 0x3FFF)
    look = _sized(pixels, 14, 16)
    patches: list[Patch] = []
    left_out, place = 0, 12
    for _ in range(_SEGMENTS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return replace(look, why="" if pixels else _RARE, patches=tuple(patches), left_out=left_out)
        size = int.from_bytes(head[4:8], "little")
        if size > {b"EXIF": METADATA_BYTES, b"XMP ": METADATA_BYTES, b"ICCP": PROFILE_BYTES}.get(head[:4], size):
            patches.append(Patch(place, place + 4, b"junk"))
            left_out += size
        place += 8 + size + size % 2
    return replace(look, why=f"{_SEGMENTS:,} frames or more")


def _gif(file: BinaryIO) -> Look:
    """Read the size of the screen and of the first picture, and count the blocks before it."""
    file.seek(6)
    screen = file.read(7)
    if len(screen) < 7:
        return Look()
    width, height, flags = struct.unpack("<HHB", screen[:5])
    place, inside = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0), False
    for _ in range(_BLOCKS):
        file.seek(place)
        head = file.read(9)
        if not head or (not inside and head[0] not in b"!,"):
            return _sized(width * height, 1, 9)
        if not inside and head[0] == 0x2C and len(head) == 9:
            left, top, wide, high = struct.unpack("<HHHH", head[1:])
            return _sized(max(width, left + wide) * max(height, top + high), 1, 9)
        place += 1 + head[0] if inside else 2  # a block is as long as it says, and an empty one is an extension's last
        inside = head[0] != 0 if inside else True
    return replace(_sized(width * height, 1, 9), why=f"{_BLOCKS:,} blocks of text or more")


def _bmp(file: BinaryIO) -> Look:
    file.seek(14)
    head = file.read(40)
    if len(head) < 40:
        return Look()
    size, width, height = struct.unpack("<Iii", head[:12])
    if size == 12:
        width, height = struct.unpack("<HH", head[4:8])
    look = _sized(abs(width) * abs(height), 1, 5)
    packed = size > 12 and head[16:20] in (b"\1\0\0\0", b"\2\0\0\0")
    return replace(look, why="a compression of a slow kind" if packed and look.pixels > _SLOW_PIXELS else "")


def _heif(file: BinaryIO) -> Look:
    """Find the sizes of all pictures in it; the largest is the photo's, or that of its tiles together."""
    place, boxes = 0, b""
    for _ in range(_TOP_BOXES):
        file.seek(place)
        head = file.read(8)
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"meta" and size <= _BOXES:
            boxes += file.read(size)
        elif size < 8 or head[4:] == b"meta":
            break
        place += size
    sizes = [struct.unpack(">II", found[1]) for found in re.finditer(rb"ispe\0\0\0\0(.{8})", boxes, re.DOTALL)]
    pixels = max((width * height for width, height in sizes), default=0)
    why = "" if pixels else _RARE
    if any(boxes.count(kind) > most for kind, most in _TILES.items()):
        why = "very many tiles"
    return replace(_sized(pixels, 7, 12), why=why)


_HELD = frozenset({"WEBP", "AVIF", HEIF})  # their files are held in memory as a whole
_LOOKS: dict[str, Callable[[BinaryIO], Look]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "TIFF": _tiff,
    "WEBP": _webp,
    "GIF": _gif,
    "BMP": _bmp,
    "AVIF": _heif,
    HEIF: _heif,
}
