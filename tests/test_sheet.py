from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image

from h2a_batch.errors import UsageError
from h2a_batch.sheet import Pair, check_writable, write_sheet

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
    page = tmp_path / "sheet.png"
    write_sheet([Pair(PORTRAIT, red)], page)
    before, after = _cell(page, 0, 0, 0), _cell(page, 0, 0, 1)
    assert np.abs(after - (200, 10, 20)).max() < 4
    with Image.open(PORTRAIT) as image:
        portrait = np.asarray(image.convert("RGB").resize((179, 224))).astype(int)
    assert np.abs(before[:, 22:201] - portrait).mean() < 6


def test_a_failed_photo_is_shown_as_such(tmp_path: Path, red: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    page = tmp_path / "sheet.png"
    write_sheet([Pair(tmp_path / "broken.jpg", None), Pair(PORTRAIT, red)], page)
    for half in (0, 1):
        cell = _cell(page, 0, 0, half)
        alarm = (cell[..., 0] > 150) & (cell[..., 1] < 110)
        assert 50 < alarm.sum() < 2000, "a word in red on gray"


def test_labels_are_drawn_in_any_script(tmp_path: Path, red: Path) -> None:
    for number, name in enumerate(("plain.png", "\u5c71\u7530\u592a\u90ce.png", "x" * 240 + ".png", "new\nline.png")):
        shutil.copyfile(red, tmp_path / name)
        page = tmp_path / f"sheet-{number}.png"
        write_sheet([Pair(tmp_path / name, red)], page)
        with Image.open(page) as image:
            strip = np.asarray(image.convert("L").crop((0, MARGIN + SIDE, image.width, image.height)))
            assert image.width == 2 * MARGIN + 2 * SIDE, "a long name does not widen the page"
        assert strip.min() < 140


def test_a_sheet_that_cannot_be_written_is_found_out_first(tmp_path: Path) -> None:
    check_writable(tmp_path / "new folder" / "sheet.jpg")
    with pytest.raises(UsageError, match="contact sheet"):
        check_writable(Path("/proc/none/sheet.jpg"))
