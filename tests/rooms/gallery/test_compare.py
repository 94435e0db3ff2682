"""Several models on the same photos, side by side: real runs, the real command."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS, ROOT, Command
from PIL import Image
from test_sheet import Sheets, h2a_sheet

from h2a_batch import convert_folder
from h2a_batch.gallery.page import Sheet, column_names, draw_pages
from h2a_batch.gallery.results import Facts, Setting, read_columns, summarise
from h2a_batch.gallery.sheet import plan_sheet

__all__ = ["h2a_sheet"]  # a fixture


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos `in` and two models' results, `early` and `late`; one photo is broken."""
    folder = tmp_path_factory.mktemp("compare")
    shutil.copytree(PHOTOS, folder / "in", ignore=shutil.ignore_patterns("B*", "*.md", "*.txt"))
    (folder / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    shutil.copyfile(ROOT / "models" / "anime-256.mindir", folder / "epoch-120.mindir")
    assert convert_folder(folder / "in", folder / "early", size="64").failed == 1
    convert_folder(folder / "in", folder / "late", model=folder / "epoch-120.mindir", limit=3, suffix="_late")
    return folder


def test_each_model_has_its_column_and_its_name(runs: Path) -> None:
    outs = [runs / "early", runs / "late"]
    facts = summarise([runs / "in"], outs)
    rows = list(read_columns([runs / "in"], outs))
    assert [fact.model for fact in facts] == ["anime-256", "epoch-120"]
    assert all(row[0].source == row[1].source for row in rows)
    done = next(row for row in rows if all(item.state == "done" for item in row))
    assert done[1].output == runs / "late" / f"{done[0].source.stem}_late.png"
    sheet = Sheet(runs / "sheet.png", facts, len(rows), "Which one?")
    grid = plan_sheet(sheet, rows)
    (page,) = draw_pages(sheet, grid, iter(rows))
    words = [word.text for word in page.words]
    assert {"Photo", "anime-256", "epoch-120", "failed", "not converted yet", "2 models"} <= set(words)
    assert {"anime-256: 1 failed", "epoch-120: 2 not converted yet"} <= set(words), words
    pixels = np.asarray(page.image).astype(int)
    x, y = grid.place(rows.index(done))
    for number, file in enumerate((done[0].source, done[0].output, done[1].output)):
        assert file is not None
        left = x + grid.offset(number)
        cell = pixels[y : y + grid.cell[1], left : left + grid.cell[0]][30:-30, 30:-30]
        with Image.open(file) as image:
            wanted = np.asarray(image.convert("RGB").resize(grid.cell)).astype(int)[30:-30, 30:-30]
        assert np.abs(cell - wanted).mean() < 8, file
    heading = next(word for word in page.words if word.text == "epoch-120")
    assert heading.x == grid.place(0)[0] + grid.offset(2) and heading.baseline < grid.place(0)[1]


def test_models_of_one_name_are_told_apart_by_their_folders() -> None:
    one, other = (Setting(model, {}, 9) for model in ("anime-256", "epoch-9"))
    facts = [Facts(Path(f"/x/{out}"), 9, settings=(one,)) for out in ("a/out", "b/out")]
    assert column_names(facts) == ["a/out", "b/out"]
    assert column_names([facts[0], Facts(Path("/x/c"), 9, settings=(other,))]) == ["anime-256", "epoch-9"]
    assert column_names([Facts(Path("/x/new")), facts[0]]) == ["new", "anime-256"], "nothing was made in the first yet"


@pytest.mark.slow
def test_one_command_compares(runs: Path, tmp_path: Path, h2a_sheet: Sheets) -> None:
    for name in ("sheet.jpg", "sheet.pdf", "sheet.html"):
        done = h2a_sheet(runs / "in", runs / "early", runs / "late", tmp_path / name)
        assert done.returncode == 0, done.stderr
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "anime-256" in page and "epoch-120" in page
    done = h2a_sheet(runs / "in", runs / "early", runs / "late", runs / "late" / "A000210_late.png", "--overwrite")
    assert done.returncode == 2 and "a photo's output" in done.stderr
    only = h2a_sheet(runs / "in", runs / "early", runs / "late", tmp_path / "both.png", "--only", "done")
    assert "3 photos\n" in only.stderr, "those that both have"


@pytest.mark.slow
def test_compare_is_a_word_of_the_other_command_too(runs: Path, tmp_path: Path, h2a: Command) -> None:
    arguments = (runs / "in", runs / "early", runs / "late", tmp_path / "sheet.png")
    assert h2a("compare", *arguments).returncode == 0
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 1000
    done = h2a("compare", runs / "in", tmp_path / "sheet.png")
    assert done.returncode == 2 and done.stderr.startswith("h2a-batch compare: ")
    (tmp_path / "compare").mkdir()
    shutil.copyfile(PHOTOS / "A000210.jpg", tmp_path / "compare" / "a.jpg")
    done = h2a("compare", tmp_path / "out")
    assert done.returncode == 0 and (tmp_path / "out" / "a.png").exists(), "a folder of that name is an input"
    assert h2a("compare", *arguments, "--overwrite").returncode == 2, "and nothing tells that it is not"
    for name in ("other.png", "other.html"):
        done = h2a("compare", *arguments[:-1], "--overwrite", tmp_path / name)
        assert done.returncode == 0 and (tmp_path / name).exists(), "but the file to make"
    done = h2a("compare", tmp_path / "more", "--contact-sheet", tmp_path / "more.jpg")
    assert done.returncode == 0 and (tmp_path / "more" / "a.png").exists() and (tmp_path / "more.jpg").exists()
    assert "h2a-batch compare" in h2a("--help").stdout
