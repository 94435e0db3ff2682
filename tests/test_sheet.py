from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image

from h2a_batch.errors import StorageError
from h2a_batch.sheet import PAIRS_ON_PAGE, Pair, write_sheets

PORTRAIT = sorted(PHOTOS.glob("*.jpg"))[0]
MARGIN, SIDE, LABEL = 36, 224, 50


@pytest.fixture
def red(tmp_path: Path) -> Path:
    Image.new("RGB", (256, 256), (200, 10, 20)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


def _cell(page: Path, column: int, row: int, half: int) -> np.ndarray:
    x, y = MARGIN + column * (2 * SIDE + 20) + half * SIDE, MARGIN + row * (SIDE + LABEL)
    with Image.open(page) as image:
        return np.asarray(image.convert("RGB").crop((x, y, x + SIDE, y + SIDE))).astype(int)


def test_before_is_left_and_after_right(tmp_path: Path, red: Path) -> None:
    (page,) = write_sheets([Pair(PORTRAIT, red)], tmp_path / "new folder" / "sheet.png")
    before, after = _cell(page, 0, 0, 0), _cell(page, 0, 0, 1)
    assert np.abs(after - (200, 10, 20)).max() < 4
    with Image.open(PORTRAIT) as image:
        portrait = np.asarray(image.convert("RGB").resize((179, 224))).astype(int)
    assert np.abs(before[:, 22:201] - portrait).mean() < 6


def test_a_failed_photo_is_shown_as_such(tmp_path: Path, red: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (page,) = write_sheets([Pair(tmp_path / "broken.jpg", None), Pair(PORTRAIT, red)], tmp_path / "sheet.png")
    for half in (0, 1):
        cell = _cell(page, 0, 0, half)
        alarm = (cell[..., 0] > 150) & (cell[..., 1] < 110)
        assert 50 < alarm.sum() < 2000, "a word in red on gray"


def test_labels_are_drawn_in_any_script(tmp_path: Path, red: Path) -> None:
    for number, name in enumerate(("plain.png", "\u5c71\u7530\u592a\u90ce.png", "x" * 240 + ".png", "new\nline.png")):
        shutil.copyfile(red, tmp_path / name)
        (page,) = write_sheets([Pair(tmp_path / name, red)], tmp_path / f"sheet-{number}.png")
        with Image.open(page) as image:
            strip = np.asarray(image.convert("L").crop((0, MARGIN + SIDE, image.width, image.height)))
            assert image.width == 2 * MARGIN + 2 * SIDE, "a long name does not widen the page"
        assert strip.min() < 140


def test_pages_of_a_long_run(tmp_path: Path, red: Path) -> None:
    pages = list(write_sheets((Pair(red, red) for _ in range(PAIRS_ON_PAGE + 1)), tmp_path / "sheet.jpg"))
    assert [page.name for page in pages] == ["sheet.jpg", "sheet-2.jpg"]
    assert list(write_sheets([], tmp_path / "none.jpg")) == [] and not (tmp_path / "none.jpg").exists()


def test_a_sheet_that_cannot_be_written_is_explained(red: Path) -> None:
    with pytest.raises(StorageError, match="contact sheet"):
        list(write_sheets([Pair(red, red)], Path("/proc/none/sheet.jpg")))
