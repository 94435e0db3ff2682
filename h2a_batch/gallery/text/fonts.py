"""Typefaces: finds the font for each letter, in this package or, for what these lack, among the installed fonts.

The package's fonts cover European scripts, Chinese, Japanese, Korean, Arabic, Hebrew, Devanagari, Thai and emoji.
"""

from __future__ import annotations

import io
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import BinaryIO

from PIL import ImageFont

try:
    import lzma
except ImportError:  # such a Python makes do with Pillow's own font and the installed ones
    lzma = None  # type: ignore[assignment]

EMOJI = "NotoEmoji.ttf"
_REGULAR, _BOLD = "Inter-Regular.otf", "Inter-SemiBold.otf"
_OTHERS = (
    "NotoSansHebrew.ttf",
    "NotoSansArabic.ttf",
    "NotoSansDevanagari.ttf",
    "NotoSansThai.ttf",
    EMOJI,
    "DroidSansFallback.ttf",
)
_SUFFIXES = (".ttf", ".otf", ".ttc")
_UNWANTED = ("bold", "italic", "oblique", "black", "light", "thin", "mono", "condensed", "narrow", "math", "serif")
_OUTLINES = {b"glyf", b"CFF ", b"CFF2"}
_MOST_INSTALLED = 4000  # installed files that are looked at

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Typeface:
    """A font file, and the letters for which it has glyphs.

    Args:
        name: the file's name or path.
        file: the path, or the bytes, of the file.
        starts: the first letters of the ranges, as numbers, in order.
        ends: the last letters of the ranges.
    """

    name: str
    file: Path | bytes = field(repr=False, hash=False, compare=False)
    starts: tuple[int, ...] = field(repr=False, hash=False, compare=False)
    ends: tuple[int, ...] = field(repr=False, hash=False, compare=False)

    def covers(self, letter: str) -> bool:
        """Tell whether the font has a glyph for a letter."""
        place = bisect_right(self.starts, ord(letter)) - 1
        return place >= 0 and ord(letter) <= self.ends[place]

    def at(self, size: int) -> Font:
        """Return the font at a size in pixels."""
        return _sized(self, size)


def face_for(letters: str, bold: bool) -> Typeface | None:
    """Return the first typeface that has all of some letters; None where there is none."""
    for face in _faces(letters, bold):
        if all(face.covers(letter) for letter in letters):
            return face
    return None


@lru_cache(maxsize=2)
def base_face(bold: bool) -> Typeface:
    """Return the typeface for European scripts."""
    return _packed(_BOLD if bold else _REGULAR) or _pillows()


def _faces(letters: str, bold: bool) -> Iterator[Typeface]:
    """Yield all typefaces, the most likely first; read an installed one only when it is needed."""
    if "\ufe0f" in letters:  # asks for the emoji form of a sign that other fonts have, too
        yield from _known((EMOJI,))
    yield base_face(bold)
    yield from _known(_OTHERS)
    for path in _installed_files():
        face = _installed(path)
        if face is not None:
            yield face


def _known(names: tuple[str, ...]) -> Iterator[Typeface]:
    for name in names:
        face = _packed(name)
        if face is not None:
            yield face


@lru_cache(maxsize=64)
def _sized(face: Typeface, size: int) -> Font:
    file = io.BytesIO(face.file) if isinstance(face.file, bytes) else face.file
    return ImageFont.truetype(file, size)


@lru_cache(maxsize=16)
def _packed(name: str) -> Typeface | None:
    """Return a typeface of this package; None where Python cannot unpack it."""
    if lzma is None:
        return None
    data = lzma.decompress((resources.files("h2a_batch.gallery.text") / "fonts" / f"{name}.xz").read_bytes())
    return Typeface(name, data, *_coverage(io.BytesIO(data)))


def _pillows() -> Typeface:
    """Return Pillow's own font, for want of any other: it has Latin letters alone."""
    font = ImageFont.load_default(16)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow without FreeType draws no text at any size
    data = font.font_bytes
    return Typeface("Pillow", data, *_coverage(io.BytesIO(data)))


@lru_cache(maxsize=1)
def _installed_files() -> tuple[Path, ...]:
    """Return the font files of this machine and user: upright ones of usual weight, and Noto, come first."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    folders = [home / "fonts", Path.home() / ".fonts", *(Path(folder, "fonts") for folder in shared.split(":"))]
    files = {
        Path(base, name)
        for folder in folders
        for base, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(_SUFFIXES)
    }
    return tuple(sorted(files, key=_rank)[:_MOST_INSTALLED])


def _rank(path: Path) -> tuple[int, bool, str]:
    name = path.name.lower()
    return sum(word in name for word in _UNWANTED), "notosans" not in name, str(path)


@lru_cache(maxsize=_MOST_INSTALLED)
def _installed(path: Path) -> Typeface | None:
    """Return an installed typeface; None where it is broken or has pictures instead of outlines."""
    try:
        with open(path, "rb") as file:
            face = Typeface(str(path), path, *_coverage(file))
        face.at(16)
    except (OSError, ValueError, struct.error, IndexError):
        return None
    return face


def _coverage(file: BinaryIO) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the first and the last letters of the ranges that a font covers, in order, from its table `cmap`.

    Raises:
        ValueError, struct.error, IndexError: this is no font of outlines, or a broken one.
    """
    start = 0
    if file.read(4) == b"ttcf":  # a collection: take its first font
        file.seek(12)
        (start,) = struct.unpack(">I", file.read(4))
    file.seek(start + 4)
    (count,) = struct.unpack(">H6x", file.read(8))
    tables = {}
    for _ in range(count):
        tag, offset, length = struct.unpack(">4s4xII", file.read(16))
        tables[tag] = (offset, length)
    if not _OUTLINES & set(tables) or b"cmap" not in tables:
        raise ValueError("not a font of outlines")
    file.seek(tables[b"cmap"][0])
    ranges = sorted(_ranges(file.read(tables[b"cmap"][1])))
    return tuple(first for first, _ in ranges), tuple(last for _, last in ranges)


def _ranges(cmap: bytes) -> Iterator[tuple[int, int]]:
    """Yield the ranges of the richest Unicode subtable; the formats are those of OpenType's chapter on `cmap`."""
    (count,) = struct.unpack_from(">2xH", cmap)
    best = (0, 0)
    for number in range(count):
        platform, encoding, offset = struct.unpack_from(">HHI", cmap, 4 + 8 * number)
        (form,) = struct.unpack_from(">H", cmap, offset)
        if form in (4, 12) and (platform == 0 or (platform == 3 and encoding in (1, 10))):
            best = max(best, (form, offset))
    form, offset = best
    if form == 0:
        raise ValueError("no table of Unicode letters")
    return _segments(cmap, offset) if form == 4 else _groups(cmap, offset)


def _groups(cmap: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a subtable of format 12."""
    (count,) = struct.unpack_from(">I", cmap, offset + 12)
    for number in range(count):
        first, last, glyph = struct.unpack_from(">III", cmap, offset + 16 + 12 * number)
        if glyph == 0:
            first += 1
        if first <= last:
            yield first, last


def _segments(cmap: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a subtable of format 4."""
    count = struct.unpack_from(">H", cmap, offset + 6)[0] // 2
    ends, starts = offset + 14, offset + 16 + 2 * count
    for number in range(count):
        (last,) = struct.unpack_from(">H", cmap, ends + 2 * number)
        (first,) = struct.unpack_from(">H", cmap, starts + 2 * number)
        (delta,) = struct.unpack_from(">H", cmap, starts + 2 * count + 2 * number)
        place = starts + 4 * count + 2 * number
        (shift,) = struct.unpack_from(">H", cmap, place)
        if not shift:
            hole = -delta & 0xFFFF  # this letter maps to glyph 0, which means no glyph
            pieces = [(first, hole - 1), (hole + 1, last)] if first <= hole <= last else [(first, last)]
            yield from ((one, other) for one, other in pieces if one <= other and one != 0xFFFF)
            continue
        for letter in range(first, last + 1):
            index = place + shift + 2 * (letter - first)
            if letter != 0xFFFF and index + 2 <= len(cmap) and struct.unpack_from(">H", cmap, index)[0]:
                yield letter, letter
