"""The geometry of contact sheets."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from h2a_batch.gallery.layout import A4, SCREEN, Look, Paper, Planner, common_aspect


@pytest.mark.slow
@pytest.mark.parametrize("paper", [SCREEN, A4], ids=["screen", "a4"])
@pytest.mark.parametrize("pictures", [2, 3, 7])
def test_nothing_overlaps_or_leaves_the_page(paper: Paper, pictures: int) -> None:
    looks = (
        Look(),
        Look(labels="none", title=""),
        Look(columns=1),
        Look(columns=9),
        Look(cell=64),
        Look(cell=700),
        Look(pairs_per_page=1),
        Look(pairs_per_page=150),
        Look(columns=3, cell=100, pairs_per_page=7),
    )
    for look, aspect, count in product(looks, (0.6, 1.0, 1.8), (1, 2, 3, 12, 200, 5000)):
        titled, headed = look.title is None, pictures > 2
        grid = Planner(count, pictures, aspect, look, paper, titled, headed).plan()
        here = (look, aspect, count)
        shown = min(count, grid.on_page)
        width, height = grid.size(shown)
        places = [grid.place(number) for number in range(shown)]
        assert all(x > 0 and x + grid.group[0] < width for x, _ in places), here
        assert all(grid.header < y and y + grid.group[1] + grid.label < height for _, y in places), here
        assert len(set(places)) == shown, here
        across = sorted({x for x, _ in places})
        assert all(b - a > grid.group[0] for a, b in pairwise(across)), here
        most = min(count, look.pairs_per_page or count)  # a column for what is not there would be empty
        assert grid.columns == min(look.columns or grid.columns, most) and look.cell in (None, grid.side), here
        assert look.pairs_per_page is None or grid.on_page >= min(count, look.pairs_per_page), here
        if not (look.columns or look.cell or look.pairs_per_page):
            assert width <= paper.width and height <= paper.height, here
            assert grid.side >= 0.8 * paper.usual or pictures == 7, here
            assert count > 20 or grid.on_page >= count or pictures == 7, f"{here}: few photos go on one page"


def test_one_photo_fills_its_page() -> None:
    for aspect in (0.7, 0.8, 1.0):
        grid = Planner(1, 2, aspect, Look(), A4, titled=True, headed=False).plan()
        assert grid.place(0)[1] + grid.group[1] > 0.7 * A4.height, aspect


def test_cells_take_the_shape_of_the_pictures() -> None:
    assert common_aspect([(800, 1000)] * 9 + [(1000, 800)]) == 0.8
    assert common_aspect([(3000, 2000)] * 5) == 1.5
    assert common_aspect([(2, 3), (3, 2)] * 4) == 1.0
    assert common_aspect([(1, 9)]) == 0.6 and common_aspect([]) == 1.0
