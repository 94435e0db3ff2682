"""Contact sheets: photos and their results side by side, a page at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import count, islice, takewhile
from math import ceil
from pathlib import Path

from PIL import Image

from h2a_batch.errors import StorageError, UsageError
from h2a_batch.gallery.layout import A4, SCREEN, Grid, Planner, common_aspect
from h2a_batch.gallery.page import Page, Sheet, draw_pages
from h2a_batch.gallery.pdf import PdfWriter
from h2a_batch.gallery.pictures import pieces
from h2a_batch.gallery.results import Items
from h2a_batch.photos import extent_of
from h2a_batch.places import in_its_place, replacing, sweep

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
_LONGEST = {"JPEG": 65_000, "WEBP": 16_383, "PNG": 65_000}  # pixels of a side
_MOST_PIXELS = 150_000_000  # of a page: it is drawn in memory
_SAMPLED = 64  # rows: the pictures of the first ones decide the proportions of the cells
_POINTS = 842  # the width of an A4 page in landscape, in points
_MARK = "h2a-batch sheet"  # the EXIF tag "software" of pages
_SOFTWARE = 0x0131
_PDF_MARK, _PDF_MARK_WITHIN = b"/Producer (h2a-batch)", 1 << 16  # bytes; a title comes before it


def top_of(path: Path, outs: Iterable[Path]) -> Path:
    """Return the OUT that a page lies in, below which no link is followed; the page's own folder if it lies in none."""
    real = {os.path.realpath(out) for out in outs}
    inside = [level for level in path.parents if os.path.realpath(level) in real]
    return inside[-1] if inside else path.parent


def check_writable(path: Path, outs: Iterable[Path] = (), kind: str = "contact sheet") -> None:
    """Make the folder of a page, check that it can be written, and remove what killed processes left there.

    Args:
        path: the page, from the root.
        outs: the OUTs: below these no link is followed.
        kind: what the page is, for messages.

    Raises:
        UsageError: the folder cannot be made or written, or a link is in its place.
    """
    if what := in_its_place(path.parent, top_of(path, outs)):
        raise UsageError(f"{path}: {what}", "remove it or choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: the {kind} cannot be written ({error.strerror})") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: the {kind} cannot be written (no permission)")
    sweep(path.parent)


def is_sheet(path: Path) -> bool:
    """Tell whether this program wrote a file as a page of a sheet: no photo and no output has its mark."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            head = file.read(_PDF_MARK_WITHIN)
        if head.startswith(b"%PDF-"):
            return _PDF_MARK in head
        with Image.open(path, formats=sorted(set(_FORMATS.values()))) as image:
            return bool(image.getexif().get(_SOFTWARE) == _MARK)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def stale_pages(sheet: Path, pages: int) -> list[Path]:
    """Return the further pages that an earlier and longer sheet of this name has left."""
    if sheet.suffix.lower() not in _FORMATS:
        return []
    return list(takewhile(is_sheet, (page_path(sheet, number) for number in count(pages + 1))))


def title_of(inputs: Sequence[Path]) -> str:
    """Return a title for a sheet of these inputs: the folders' names."""
    names = [path.name or str(path) for path in inputs if path.is_dir()]
    return " + ".join(names) if 0 < len(names) < 4 else f"{len(names)} folders" if names else "Photos"


def page_path(sheet: Path, number: int) -> Path:
    """Return the file of a page: ``sheet.jpg``, ``sheet-2.jpg``, ..."""
    return sheet if number == 1 else sheet.with_name(f"{sheet.stem}-{number}{sheet.suffix}")


def plan_sheet(sheet: Sheet, rows: Iterable[Items]) -> Grid:
    """Return the layout of a sheet's pages.

    Args:
        sheet: what to show.
        rows: all rows; the first ones decide the shape of the cells.

    Raises:
        UsageError: a page would be too large.
    """
    shown = (piece for row in islice(rows, _SAMPLED) for piece in pieces(row))
    sizes = [size for file, face in shown if file and not face and (size := extent_of(file))]
    planner = Planner(
        count=sheet.count,
        pictures=1 + len(sheet.facts),
        aspect=common_aspect(sizes),
        look=sheet.look,
        paper=A4 if _is_pdf(sheet) else SCREEN,
        titled=bool(sheet.heading),
        headed=len(sheet.facts) > 1,
    )
    grid = planner.plan()
    width, height = grid.size(min(grid.on_page, max(1, sheet.count)))
    most = _LONGEST[_FORMATS.get(sheet.path.suffix.lower(), "JPEG")]
    if max(width, height) > most or width * height > _MOST_PIXELS:
        raise UsageError(
            f"{sheet.path}: a page would be {width}x{height} pixels", "lower --cell, --columns or --pairs-per-page"
        )
    return grid


def files_of(sheet: Sheet, grid: Grid) -> list[Path]:
    """Return the files of a sheet."""
    pages = 1 if _is_pdf(sheet) else max(1, ceil(sheet.count / grid.on_page))
    return [page_path(sheet.path, number) for number in range(1, pages + 1)]


def write_sheet(sheet: Sheet, grid: Grid, rows: Iterable[Items]) -> Iterator[tuple[Path | None, int]]:
    """Write a sheet page by page; yield for each page the file that is now complete, and the rows on it.

    A picture format gives a file for each page (`page_path`). A PDF is one file, which is complete at the end: its
    pages yield None before that. A caller who stops in between leaves only whole files.

    Args:
        sheet: what to show.
        grid: as `plan_sheet` returns it.
        rows: pulled as the pages grow, but no more of them than ``sheet.count``.

    Raises:
        StorageError: a page cannot be written; an earlier file of its name is still there.
    """
    drawn = draw_pages(sheet, grid, islice(rows, sheet.count))
    try:
        if _is_pdf(sheet):
            yield from _write_pdf(sheet, drawn)
            return
        top = top_of(sheet.path, (facts.out for facts in sheet.facts))
        for number, page in enumerate(drawn, 1):
            path = page_path(sheet.path, number)
            with replacing(path, top) as file:
                page.image.save(file, _FORMATS[path.suffix.lower()], quality=90, exif=_marked())
            yield path, page.rows
    except OSError as error:
        raise StorageError(
            f"{sheet.path}: the contact sheet cannot be written ({error.strerror or error})", "choose another file"
        ) from error


def _write_pdf(sheet: Sheet, pages: Iterator[Page]) -> Iterator[tuple[Path | None, int]]:
    """Write a sheet as one PDF; yield its path last, after the pages."""
    with replacing(sheet.path, top_of(sheet.path, (facts.out for facts in sheet.facts))) as file:
        pdf = PdfWriter(file, sheet.heading or sheet.title)
        for page in pages:
            data = BytesIO()
            page.image.save(data, "JPEG", quality=88)
            width, height = page.image.size
            pdf.page(data.getvalue(), (width, height), (_POINTS, _POINTS * height / width), page.words)
            yield None, page.rows
        pdf.close()
    yield sheet.path, 0


def _marked() -> Image.Exif:
    exif = Image.Exif()
    exif[_SOFTWARE] = _MARK
    return exif


def _is_pdf(sheet: Sheet) -> bool:
    return sheet.path.suffix.lower() == ".pdf"
