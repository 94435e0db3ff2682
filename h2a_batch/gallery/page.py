"""Pages of a contact sheet: how they look. The grid decides what is drawn where."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from h2a_batch.gallery.layout import MARGIN, Grid, Look, Size, title_size
from h2a_batch.gallery.pdf import Words
from h2a_batch.gallery.pictures import Picture, by_photo, draw
from h2a_batch.gallery.results import Facts, Item, Items
from h2a_batch.gallery.text.typeset import Colour, Line, line, paragraph
from h2a_batch.ledger import DONE, FAILED, NOBODY
from h2a_batch.machine import available_cores

DEFAULT_LOOK = Look()
_SMALLEST = 9  # pixels: the size of letters that one can just read


@dataclass(frozen=True)
class Theme:
    """The colours of a sheet."""

    paper: Colour
    cell: Colour
    ink: Colour
    faint: Colour
    alarm: Colour
    alarm_cell: Colour


THEMES = {
    "light": Theme((251, 251, 249), (240, 240, 236), (28, 28, 30), (108, 108, 105), (188, 56, 44), (251, 236, 232)),
    "dark": Theme((20, 20, 22), (36, 36, 39), (238, 238, 235), (148, 148, 150), (255, 128, 112), (50, 31, 31)),
}


@dataclass(frozen=True)
class Sheet:
    """What a sheet shows, and where it goes.

    Args:
        path: its first or only page; the suffix names the format.
        facts: of each OUT, one for each column beside the photo's.
        count: the number of rows, each of a photo or a face.
        title: the title, where the look has none of its own.
        look: the user's wishes.
        photos: the number of all photos, where ``facts`` count only those that are shown.
    """

    path: Path
    facts: Sequence[Facts]
    count: int
    title: str
    look: Look = DEFAULT_LOOK
    photos: int | None = None

    @property
    def heading(self) -> str:
        """The title at the top; empty for none."""
        return self.title if self.look.title is None else self.look.title


@dataclass(frozen=True)
class Page:
    """A page of a sheet.

    Args:
        image: the page as a picture.
        words: the text on it.
        rows: how many rows it shows.
    """

    image: Image.Image
    words: list[Words]
    rows: int


def draw_pages(sheet: Sheet, grid: Grid, rows: Iterator[Items]) -> Iterator[Page]:
    """Draw the pages; only the pictures of one page are in memory at a time."""
    theme = THEMES[sheet.look.theme]
    many = ceil(sheet.count / grid.on_page)
    number = 0
    with ThreadPoolExecutor(available_cores(), thread_name_prefix="sheet") as pool:
        while shown := list(islice(rows, grid.on_page)):
            number += 1
            canvas = _Canvas(Image.new("RGB", grid.size(len(shown)), theme.paper))
            if sheet.heading:
                _draw_header(canvas, sheet, grid, theme, f"{number} / {max(many, number)}" if many > 1 else "")
            if grid.headings:
                _draw_headings(canvas, sheet, grid, theme, min(grid.columns, len(shown)))
            photos = pool.map(lambda rows: draw(rows, grid.cell), by_photo(shown))
            drawn = (pictures for photo in photos for pictures in photo.rows)
            for place, (row, pictures) in enumerate(zip(shown, drawn, strict=True)):
                cells = [_fitted(picture, grid.cell, theme.cell) if picture else None for picture in pictures]
                _draw_group(canvas, row, cells, grid, grid.place(place), theme)
                _draw_label(canvas, row[0], sheet.look.labels, grid, grid.place(place), theme)
            yield Page(canvas.image, canvas.words, len(shown))


class _Canvas:
    """A picture of a page, and the words on it."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.words: list[Words] = []

    def write(self, made: Line, x: float, baseline: float, colour: Colour) -> None:
        """Draw a line; `x` is its left end, `baseline` its height, both in pixels."""
        made.draw(self.draw, x, baseline, colour)
        self.words.append(Words(made.text, x, baseline, made.size, made.width))


def _draw_header(canvas: _Canvas, sheet: Sheet, grid: Grid, theme: Theme, number: str) -> None:
    """Draw title and counts on the left, page number and model on the right."""
    size = title_size(grid)
    small = round(size * 0.46)
    left, right, room = grid.left, grid.left + grid.width, grid.width
    first, second = MARGIN + round(size * 0.78), MARGIN + round(size * 1.62)
    page = line(number, small, room / 3)
    canvas.write(page, right - page.width, first, theme.faint)
    for title in paragraph(sheet.heading, size, room - page.width - size, 1, bold=True):
        canvas.write(title, left, first, theme.ink)
    made = line(_how(sheet.facts), small, room * 0.55)
    canvas.write(made, right - made.width, second, theme.faint)
    x = float(left)
    for text, alarm in _counts(sheet):
        part = line(text, small, max(0.0, right - made.width - size - x))
        canvas.write(part, x, second, theme.alarm if alarm else theme.faint)
        x += part.width + small * 1.1


def _counts(sheet: Sheet) -> Iterator[tuple[str, bool]]:
    """Yield the counts below the title, each with whether it is bad news."""
    shown = sheet.facts[0].photos
    photos = sheet.photos or shown
    part = f"{shown:,} of " if shown < photos else ""
    yield f"{part}{photos:,} photo{'s' * (photos != 1)}", False
    names = [f"{name}: " for name in column_names(sheet.facts)] if len(sheet.facts) > 1 else [""]
    for name, facts in zip(names, sheet.facts, strict=True):
        if facts.faces and not name:
            yield f"{facts.faces:,} face{'s' * (facts.faces != 1)}", False
        if facts.failed:
            yield f"{name}{facts.failed:,} failed", True
        if facts.nobody:
            yield f"{name}{facts.nobody:,} without a face", False
        if facts.pending:
            yield f"{name}{facts.pending:,} not converted yet", False


def _how(facts: Sequence[Facts]) -> str:
    """Return how the outputs were made, where a few words can say it."""
    models = {fact.model for fact in facts}
    if len(facts) > 1:
        return f"{len(models)} models" if len(models) == len(facts) else f"{', '.join(models)}: {len(facts)} runs"
    sizes = {str(setting.fields.get("size", "")) for setting in facts[0].settings}
    size = sizes.pop() if len(sizes) == 1 else ""
    return f"{facts[0].model}, {size} px" if size.isdigit() else facts[0].model


def _draw_headings(canvas: _Canvas, sheet: Sheet, grid: Grid, theme: Theme, columns: int) -> None:
    """Draw the models' names above their columns."""
    names = ["Photo", *column_names(sheet.facts)]
    for column in range(columns):
        x, y = grid.place(column)
        for number, name in enumerate(names):
            made = line(name, grid.type, grid.cell[0] - grid.type / 2, bold=True)
            canvas.write(made, x + grid.offset(number), y - grid.type * 0.8, theme.ink if number else theme.faint)


def column_names(facts: Sequence[Facts]) -> list[str]:
    """Return a name for each OUT: its model's name, or its folder's where several OUTs have the same model."""
    models = [fact.model for fact in facts]
    around = os.path.commonpath([fact.out.parent for fact in facts])
    return [
        model if model and models.count(model) == 1 else os.path.relpath(fact.out, around)
        for model, fact in zip(models, facts, strict=True)
    ]


def _fitted(picture: Picture, cell: Size, ground: Colour) -> Image.Image:
    """Return a picture for its cell; its transparent parts show the cell's colour."""
    image = picture.image
    if picture.alpha is not None:  # the picture is blended with white
        seen_through = 1 - np.asarray(picture.alpha, np.float32)[..., None] / 255
        pixels = np.asarray(image) - seen_through * (255 - np.array(ground, np.float32))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if all(abs(side - room) <= 0.02 * room for side, room in zip(image.size, cell, strict=True)):
        return image.resize(cell, Image.Resampling.LANCZOS)  # avoids a hairline beside a picture that nearly fills it
    return image


def _draw_group(
    canvas: _Canvas, row: Items, pictures: Sequence[Image.Image | None], grid: Grid, corner: Size, theme: Theme
) -> None:
    """Draw the pictures of one photo as one strip with round corners."""
    strip = _Canvas(Image.new("RGB", grid.group, theme.paper))
    wide, high = grid.cell
    nothing = all(picture is None for picture in pictures)
    for number, picture in enumerate(pictures):
        item, x, width = row[max(0, number - 1)], grid.offset(number), wide
        if nothing:  # one field takes the place of all
            item = next((item for item in row if item.state == FAILED), item)
            x = 0
            width = grid.group[0]
        failed = picture is None and item.state in (FAILED, DONE) and (number > 0 or nothing)
        strip.draw.rectangle((x, 0, x + width - 1, high), theme.alarm_cell if failed else theme.cell)
        if picture is not None:
            strip.image.paste(picture, (x + (wide - picture.width) // 2, (high - picture.height) // 2))
        else:
            _draw_reason(strip, item if number > 0 or nothing else None, (x, width, high), grid.type, theme)
        if nothing:
            break
    x, y = corner
    canvas.image.paste(strip.image, corner, _mask(grid.group, max(4, round(grid.side * 0.035))))
    canvas.words += [Words(word.text, word.x + x, word.baseline + y, word.size, word.width) for word in strip.words]


def _draw_reason(strip: _Canvas, item: Item | None, place: tuple[int, int, int], type: int, theme: Theme) -> None:
    """Draw why a picture is missing: a word, and the first words of the reason; for the photo itself `item` is None."""
    x, width, height = place
    pad = round(min(width * 0.1, type * 1.4))
    room = width - 2 * pad
    while type > _SMALLEST and line("converted", type, width, bold=True).width > room:
        type -= 1
    pitch = round(type * 1.36)
    lines: list[tuple[Line, Colour]] = []
    if item is None:
        lines += [(made, theme.faint) for made in paragraph("cannot be read", type, room, 2)]
    elif item.state == FAILED:
        lines.append((line("failed", type, room, bold=True), theme.alarm))
        most = max(0, min(4, (height - 2 * pad) // pitch - 1))
        reason = item.error.split(";")[0]
        lines += [(made, theme.ink) for made in (paragraph(reason, type, room, most) if most else [])]
    elif item.state == DONE:
        lines += [(made, theme.alarm) for made in paragraph("cannot be read", type, room, 2, bold=True)]
    else:
        text = "no face found" if item.state == NOBODY else "not converted yet"
        lines += [(made, theme.faint) for made in paragraph(text, type, room, 2)]
    baseline = (height - pitch * len(lines)) / 2 + type
    for made, colour in lines:
        strip.write(made, x + pad, baseline, colour)
        baseline += pitch


def _draw_label(canvas: _Canvas, item: Item, labels: str, grid: Grid, corner: Size, theme: Theme) -> None:
    """Draw the name of a photo below its pictures."""
    if labels == "none":
        return
    x, y = corner
    text = item.label if labels == "path" else os.path.basename(item.label)
    made = line(text, grid.type, grid.group[0], from_end=labels == "path")
    canvas.write(made, x, y + grid.cell[1] + round(grid.type * 1.45), theme.ink)


@lru_cache(maxsize=2)
def _mask(size: Size, radius: int) -> Image.Image:
    """Return a mask of a rectangle with round corners and smooth edges."""
    large = Image.new("L", (4 * size[0], 4 * size[1]))
    box = (0, 0, large.width - 1, large.height - 1)
    ImageDraw.Draw(large).rounded_rectangle(box, 4 * radius, fill=255)
    return large.resize(size, Image.Resampling.BOX)
