"""Contact sheets: before and after, side by side, a page at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from h2a_batch.errors import PhotoError, StorageError, UsageError
from h2a_batch.files import replacing
from h2a_batch.image import thumbnail

PAIRS_ON_PAGE = 63  # nine rows of seven
_SIDE = 224  # pixels of one picture's longest side
_GAP, _MARGIN, _LABEL = 20, 36, 30
_PAPER, _CELL, _INK, _ALARM = (250, 250, 248), (238, 238, 235), (70, 70, 72), (190, 60, 50)
_FONT_SIZE = 15
# the first that is installed draws the names that Pillow's own Latin font cannot
_WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "DejaVuSans.ttf",
)
_FORMATS = {".png": "PNG", ".webp": "WEBP"}

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Pair:
    """A photo and its output; without an output it is shown as not converted."""

    before: Path
    after: Path | None


def check_writable(path: Path) -> None:
    """Make the folder of a contact sheet.

    Raises:
        UsageError: it cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: the contact sheet cannot be written ({error.strerror})") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: the contact sheet cannot be written (no permission)")


def write_sheet(pairs: Sequence[Pair], path: Path) -> None:
    """Write one page; callers give it at most `PAIRS_ON_PAGE` pairs.

    Raises:
        StorageError: the page cannot be written.
    """
    with ThreadPoolExecutor(thread_name_prefix="sheet") as pool:
        _save(_draw(pairs, pool), path)


def _draw(pairs: Sequence[Pair], pool: ThreadPoolExecutor) -> Image.Image:
    """One page; its columns make it about as wide as a screen is."""
    wide, high = 2 * _SIDE + _GAP, _SIDE + _LABEL + _GAP
    columns = min(len(pairs), max(1, round(sqrt(1.5 * len(pairs) * high / wide))))
    rows = ceil(len(pairs) / columns)
    page = Image.new("RGB", (2 * _MARGIN + columns * wide - _GAP, 2 * _MARGIN + rows * high - _GAP), _PAPER)
    files = [file for pair in pairs for file in (pair.before, pair.after)]
    pictures = pool.map(_picture, files)
    for number, pair in enumerate(pairs):
        x, y = _MARGIN + number % columns * wide, _MARGIN + number // columns * high
        for offset in (0, _SIDE):
            picture = next(pictures)
            corner = (x + offset + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2)
            page.paste(picture, corner)
        _label(page, pair.before.name, x, y + _SIDE + 6)
    return page


def _picture(path: Path | None) -> Image.Image:
    if path is not None:
        try:
            return thumbnail(path, _SIDE)
        except PhotoError:
            pass
    failed = Image.new("RGB", (_SIDE, _SIDE), _CELL)
    ImageDraw.Draw(failed).text((_SIDE / 2, _SIDE / 2), "not converted", _ALARM, _font(""), anchor="mm")
    return failed


def _label(page: Image.Image, name: str, x: int, y: int) -> None:
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    font, draw, room = _font(text), ImageDraw.Draw(page), 2 * _SIDE
    while draw.textlength(text, font) > room and len(text) > 3:
        middle = len(text) // 2
        text = text[: middle - 1] + "\u2026" + text[middle + 1 :]
    draw.text((x, y), text, _INK, font)


def _font(text: str) -> Font:
    return _wide_font() if any(ord(letter) > 0x24F and letter != "\u2026" for letter in text) else _latin_font()


@lru_cache
def _latin_font() -> Font:
    return ImageFont.load_default(_FONT_SIZE)


@lru_cache
def _wide_font() -> Font:
    for name in _WIDE_FONTS:
        try:
            return ImageFont.truetype(name, _FONT_SIZE)
        except OSError:
            continue
    return _latin_font()


def _save(page: Image.Image, path: Path) -> None:
    try:
        with replacing(path) as file:
            page.save(file, _FORMATS.get(path.suffix.lower(), "JPEG"), quality=90)
    except OSError as error:
        raise StorageError(
            f"{path}: the contact sheet cannot be written ({error.strerror or error})", "choose another file"
        ) from error
