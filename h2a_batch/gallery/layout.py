"""The layout of a contact sheet: columns, rows and sizes that suit the number and the shape of the pictures.

A photo's pictures, before and after, stand side by side as one group; a grid of groups makes a page. All
lengths are in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from h2a_batch.errors import UsageError

THEMES = ("light", "dark")
LABELS = ("name", "path", "none")
MARGIN = 72  # around a page
_SEAM = 4  # between the pictures of a group
_ACROSS, _DOWN = 40, 30  # between groups
_SMALLEST = 48  # the least longest side of a picture
_SHAPE = 1.5  # the width of a pleasing page over its height

Size = tuple[int, int]


@dataclass(frozen=True)
class Look:
    """The user's wishes for a sheet; None leaves the choice to the program.

    Args:
        columns: groups side by side.
        cell: a picture's longest side.
        labels: the text under each group: the photo's ``name``, its ``path`` below IN, or ``none``.
        title: the text at the top; empty for no header at all.
        theme: ``light`` or ``dark``.
        pairs_per_page: groups on a full page.

    Raises:
        UsageError: a value is out of range or unknown.
    """

    columns: int | None = None
    cell: int | None = None
    labels: str = "name"
    title: str | None = None
    theme: str = "light"
    pairs_per_page: int | None = None

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("--columns", self.columns, 1, 100),
            ("--cell", self.cell, _SMALLEST, 4096),
            ("--pairs-per-page", self.pairs_per_page, 1, 10_000),
        ):
            if value is not None and not least <= value <= most:
                raise UsageError(f"{name} {value}: choose {least} to {most}")
        for name, text, known in (("--labels", self.labels, LABELS), ("--theme", self.theme, THEMES)):
            if text not in known:
                raise UsageError(f"{name} {text}: choose one of {', '.join(known)}")


@dataclass(frozen=True)
class Paper:
    """A kind of page.

    Args:
        width: the largest width.
        height: the largest height.
        fixed: whether all pages have just this size.
        usual: the side of a picture where there are many.
        largest: the side of a picture where there are few.
        type: the smallest size of letters.
    """

    width: int
    height: int
    fixed: bool
    usual: int
    largest: int
    type: int


SCREEN = Paper(2560, 1920, fixed=False, usual=190, largest=480, type=16)
A4 = Paper(2480, 1754, fixed=True, usual=200, largest=1100, type=20)  # landscape, 212 pixels an inch


@dataclass(frozen=True)
class Grid:
    """The geometry of a page.

    Args:
        columns: groups side by side.
        rows: groups one below the other on a full page.
        pictures: the pictures of a group.
        cell: the width and height of a picture's place.
        header: the height of the title above it all.
        headings: the height of the columns' names.
        label: the height of a group's label.
        type: the size of the letters of labels.
        page: the size of the page, where it is fixed.
    """

    columns: int
    rows: int
    pictures: int
    cell: Size
    header: int
    headings: int
    label: int
    type: int
    page: Size | None = None

    @property
    def on_page(self) -> int:
        """The number of groups on a full page."""
        return self.columns * self.rows

    @property
    def side(self) -> int:
        """The longest side of a picture."""
        return max(self.cell)

    @property
    def group(self) -> Size:
        """The size of a group's pictures, without its label."""
        return self.pictures * self.cell[0] + (self.pictures - 1) * _SEAM, self.cell[1]

    @property
    def width(self) -> int:
        """The width from the left edge of the first group to the right edge of the last."""
        return self.columns * (self.group[0] + _ACROSS) - _ACROSS

    @property
    def left(self) -> int:
        """The left edge of the first group: a page of a fixed size has the groups in its middle."""
        return (self.page[0] - self.width) // 2 if self.page else MARGIN

    def size(self, count: int) -> Size:
        """Return the width and height of a page with `count` groups; later pages are as wide as the first."""
        if self.page:
            return self.page
        rows = max(1, math.ceil(count / self.columns))
        return self.width + 2 * MARGIN, 2 * MARGIN + self.header + self.headings + rows * self._pitch - _DOWN

    def place(self, number: int) -> Size:
        """Return the upper left corner of a group on its page; numbers start at 0."""
        row, column = divmod(number, self.columns)
        top = MARGIN + self.header + self.headings
        return self.left + column * (self.group[0] + _ACROSS), top + row * self._pitch

    def offset(self, picture: int) -> int:
        """Return the distance of a picture from the left edge of its group."""
        return picture * (self.cell[0] + _SEAM)

    @property
    def _pitch(self) -> int:
        return self.cell[1] + self.label + _DOWN


@dataclass(frozen=True)
class Planner:
    """Plans a grid.

    Args:
        count: groups in all.
        pictures: pictures in each group.
        aspect: the width of a picture over its height.
        look: the user's wishes.
        paper: the kind of page.
        titled: whether there is a title.
        headed: whether there are names above the columns.
    """

    count: int
    pictures: int
    aspect: float
    look: Look
    paper: Paper
    titled: bool
    headed: bool

    def plan(self) -> Grid:
        """Return the grid.

        Raises:
            UsageError: the user's wishes do not fit a page.
        """
        look, count = self.look, max(1, self.count)
        wanted = min(count, look.pairs_per_page or count)
        if look.columns and look.columns > wanted:
            return replace(self, look=replace(look, columns=wanted)).plan()
        if look.cell:
            grid = self._of_cell(look.cell, wanted)
        else:
            across = [look.columns] if look.columns else range(1, min(wanted, 60) + 1)
            grid = max(
                (self._one_page(columns, wanted) for columns in across), key=lambda grid: self._merit(grid, wanted)
            )
            least = _SMALLEST if self.paper.fixed and look.pairs_per_page else self.paper.usual * 0.9
            if grid.side < least:
                grid = self._many_pages(wanted)
        if not self.paper.fixed:
            return grid
        width, height = self.paper.width, self.paper.height
        needed = grid.size(grid.on_page)
        scale = max(1.0, needed[0] / width, needed[1] / height)
        return replace(grid, page=(math.ceil(width * scale), math.ceil(height * scale)))

    def _of_cell(self, side: int, wanted: int) -> Grid:
        """Return a grid of pictures with a given side."""
        columns = self.look.columns or self._most_columns(side, min(wanted, 100))
        if not self.look.columns:
            across = (self._grid(n, math.ceil(wanted / n), side) for n in range(1, columns + 1))
            fitting = [grid for grid in across if self._fits(grid)]
            if fitting:
                return max(fitting, key=lambda grid: self._merit(grid, wanted))
        return self._grid(columns, self._rows(columns, side, wanted), side)

    def _many_pages(self, wanted: int) -> Grid:
        """Return a grid of pictures of the usual size or a bit larger, which fill their pages."""
        usual = self.paper.usual
        columns = self.look.columns or self._most_columns(usual, 100)
        side = max(self._one_page(columns, columns).side, _SMALLEST)
        return self._grid(columns, self._rows(columns, side, wanted), side)

    def _rows(self, columns: int, side: int, wanted: int) -> int:
        """Return the rows of a full page: as many as asked for, else as many as fit a page of this width."""
        needed = math.ceil(wanted / columns)
        if self.look.pairs_per_page:
            return needed
        width, height = self.paper.width, self.paper.height
        room = height * max(1.0, self._grid(columns, 1, side).size(columns)[0] / width)
        return next((n for n in range(needed, 1, -1) if self._grid(columns, n, side).size(n * columns)[1] <= room), 1)

    def _one_page(self, columns: int, count: int) -> Grid:
        """Return a grid with everything on one page, as large as it fits."""
        rows = math.ceil(count / columns)
        sides = range(_SMALLEST, self.paper.largest + 1)
        low, high = 0, len(sides) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(self._grid(columns, rows, sides[middle])):
                low = middle
            else:
                high = middle - 1
        grid = self._grid(columns, rows, sides[low])
        return grid if self._fits(grid) else self._grid(columns, rows, 1)

    def _most_columns(self, side: int, most: int) -> int:
        """Return the largest number of columns that fits the paper, at least 1."""
        return next((n for n in range(most, 1, -1) if self._fits(self._grid(n, 1, side))), 1)

    def _fits(self, grid: Grid) -> bool:
        """Tell whether a full page of a grid fits the paper."""
        width, height = grid.size(grid.on_page)
        return width <= self.paper.width and height <= self.paper.height

    def _merit(self, grid: Grid, count: int) -> float:
        """Return how good a grid is: large pictures, a pleasing page, few empty places."""
        width, height = grid.size(grid.on_page)
        shape = abs(math.log(width / height / _SHAPE))
        return grid.side * (1 - 0.15 * shape) * (1 - 0.3 * (grid.on_page - count) / grid.on_page)

    def _grid(self, columns: int, rows: int, side: int) -> Grid:
        """Return a grid whose cells have this longest side, with letters and heights to match."""
        cell = (max(1, round(side * min(1.0, self.aspect))), max(1, round(side * min(1.0, 1 / self.aspect))))
        grid = Grid(columns, rows, self.pictures, cell, 0, 0, 0, 0)
        type = max(self.paper.type, min(round(side * 0.065), 26, round(title_size(grid) * 0.55)))
        grid = replace(grid, type=type)
        if self.look.labels != "none":
            grid = replace(grid, label=round(1.9 * type))
        if self.headed:
            grid = replace(grid, headings=round(2.4 * type))
        if self.titled:
            grid = replace(grid, header=round(3.0 * title_size(grid)))
        return grid


def title_size(grid: Grid) -> int:
    """Return the size of a title's letters, for a page as wide as the grid's."""
    return min(max(round(grid.width * 0.028), 30), 56)


def common_aspect(sizes: Iterable[Size]) -> float:
    """Return the width over the height of a cell for pictures of these sizes: theirs where they agree, else 1."""
    shapes = sorted(width / height for width, height in sizes if width and height)
    if not shapes:
        return 1.0
    low, middle, high = (shapes[round(part * (len(shapes) - 1))] for part in (0.15, 0.5, 0.85))
    if low < 0.95 and high > 1.05:
        return 1.0
    return min(max(middle, 0.6), 1.8)
