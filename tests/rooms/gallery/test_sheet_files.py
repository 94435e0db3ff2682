"""What a sheet or report may replace, and what a run says when it cannot write one: real runs, the real commands."""

from __future__ import annotations

import os
import re
import shutil
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PHOTOS, Command, leftovers, tree
from PIL import Image
from report_support import crowd
from test_sheet import Sheets, h2a_sheet

from h2a_batch import convert_folder
from h2a_batch.errors import UsageError
from h2a_batch.events import Summary
from h2a_batch.gallery.results import Item, look, open_ledger
from h2a_batch.gallery.sheet import is_sheet
from h2a_batch.ledger.records import Row
from h2a_batch.options import Options
from h2a_batch.run.present import Presenter
from h2a_batch.sources import Scan, Source, scan

__all__ = ["crowd", "h2a_sheet"]  # fixtures


@pytest.mark.slow
def test_no_photo_or_output_is_ever_replaced(photos: Path, tmp_path: Path, h2a: Command, h2a_sheet: Sheets) -> None:
    for out in ("one", "other"):
        convert_folder(photos, tmp_path / out)
    (tmp_path / "mine.pdf").write_bytes(b"%PDF-1.5 somebody's")
    os.mkfifo(tmp_path / "pipe.png")
    before = tree(tmp_path)
    for place in (
        photos / "A000210.jpg",  # known to the ledger, but not among the photos that are named
        tmp_path / "other" / "A000210.png",  # of a run that is not named
        tmp_path / "one" / "A000210.png",
        tmp_path / "mine.pdf",
        tmp_path / "pipe.png",
    ):
        for done in (
            h2a_sheet(photos / "sub", tmp_path / "one", place, "--overwrite"),
            h2a(photos / "sub", tmp_path / "new", "--contact-sheet", place, "--overwrite"),
        ):
            assert done.returncode == 2 and "choose another name" in done.stderr, place
            assert len(done.stderr.splitlines()) == 1
    assert tree(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "pdf"])
def test_a_sheet_bears_a_mark_and_may_be_replaced(
    photos: Path, tmp_path: Path, h2a: Command, h2a_sheet: Sheets, suffix: str
) -> None:
    sheet, run = tmp_path / f"sheet.{suffix}", (photos / "sub", tmp_path / "out")
    for _ in range(2):
        assert h2a(*run, "--contact-sheet", sheet).returncode == 0, "a run replaces its own sheet"
    assert is_sheet(sheet)
    first = sheet.read_bytes()
    assert h2a_sheet(*run, sheet, "--theme", "dark").returncode == 2 and sheet.read_bytes() == first
    assert h2a_sheet(*run, sheet, "--theme", "dark", "--overwrite").returncode == 0
    assert is_sheet(sheet) and sheet.read_bytes() != first
    shutil.copyfile(PHOTOS / "A000210.jpg", sheet)
    done = h2a(*run, "--contact-sheet", sheet)
    assert done.returncode == 2 and "is no sheet of h2a-batch" in done.stderr
    assert sheet.read_bytes() == (PHOTOS / "A000210.jpg").read_bytes(), "a photo came to lie there"


@pytest.mark.slow
def test_a_page_without_a_place_is_told_after_the_summary(many: Path, tmp_path: Path, h2a: Command) -> None:
    for number in range(10):
        shutil.copyfile(many / "001.jpg", many / f"more-{number}.jpg")
    (tmp_path / "sheet-2.png").write_bytes(b"somebody's")
    wanted = ("--contact-sheet", tmp_path / "sheet.png", "--report", tmp_path / "pages")
    done = h2a(many, tmp_path / "out", *wanted)
    assert done.returncode == 1 and "70 converted" in done.stderr
    assert "sheet-2.png: the file exists and is no sheet" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "sheet-2.png").read_bytes() == b"somebody's" and not (tmp_path / "sheet.png").exists()
    assert (tmp_path / "pages" / "report.html").exists() and "report.html" in done.stderr, "the rest is made"
    assert "sheet-2.png" in h2a(many, tmp_path / "out", *wanted, "-q").stderr
    (tmp_path / "sheet-2.png").unlink()
    assert "sheet.png and 1 more page\n" in h2a(many, tmp_path / "out", *wanted).stderr
    for path in sorted(many.iterdir())[20:]:
        path.unlink()
    assert h2a(many, tmp_path / "out", *wanted).returncode == 0
    assert not (tmp_path / "sheet-2.png").exists(), "its own page of an earlier time, now one too many"


def test_a_place_is_checked_before_anything_is_converted(photos: Path, tmp_path: Path, h2a: Command) -> None:
    (tmp_path / "folder.jpg").mkdir()
    for words in (("--contact-sheet", tmp_path / "folder.jpg", "--overwrite"), ("--report", tmp_path / "pages.pdf")):
        done = h2a(photos, tmp_path / "out", *words)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert not tree(tmp_path / "out") and not (tmp_path / "pages.pdf").exists()
    done = h2a(tmp_path / "folder.jpg", tmp_path / "none", "--report", tmp_path / "pages")
    assert done.returncode == 0 and "no photos found" in done.stderr and not (tmp_path / "pages").exists()


@pytest.mark.parametrize("wanted", [{"report": Path("report.html")}, {"contact_sheet": Path("sheet.png")}])
def test_a_stop_while_results_are_written_leaves_what_was_there(
    photos: Path, tmp_path: Path, wanted: dict[str, Path]
) -> None:
    kind, name = next(iter(wanted.items()))
    options = Options(**{kind: tmp_path / name})  # type: ignore[arg-type]
    convert_folder(photos, tmp_path / "out", options)
    before = (tmp_path / name).read_bytes()
    stop, seen, last = threading.Event(), [0], 15 if "contact_sheet" in wanted else 9  # of 18, and of 12

    with open_ledger(tmp_path / "out") as ledger:

        def looks() -> Iterator[tuple[list[Item], Row | None]]:
            for found in scan([photos], Scan("", "", True, tmp_path / "out", lambda path: False)):
                assert isinstance(found, Source)
                seen[0] += 1
                if seen[0] == last:  # six are counted before; for a sheet, six more decide the layout
                    stop.set()
                yield look(found, [photos], ledger)

        summary = Summary()
        Presenter(ledger, options, [photos], stop).write(summary, looks)
    assert summary.interrupted and summary.exit_code == 130 and not summary.sheets and summary.page is None
    assert (tmp_path / name).read_bytes() == before and not leftovers(tmp_path)
    assert seen[0] == last, "it does not go through all of them"


def test_photos_that_are_gone_are_told_from_a_folder_without_any(
    photos: Path, tmp_path: Path, h2a_sheet: Sheets
) -> None:
    with pytest.raises(UsageError, match="--report needs the photos, and --on-success delete deletes them"):
        Options(report=tmp_path / "report.html", on_success="delete")
    with pytest.raises(UsageError, match="h2a-sheet later"):
        Options(report=tmp_path / "report.html", on_success=f"archive={tmp_path}")
    convert_folder(photos, tmp_path / "out", on_success="delete")
    done = h2a_sheet(photos, tmp_path / "out", tmp_path / "sheet.jpg")
    assert done.returncode == 2 and "its photos are gone; name the folder where they are now" in done.stderr
    (tmp_path / "empty").mkdir()
    assert "no photos found" in h2a_sheet(tmp_path / "empty", tmp_path / "out", tmp_path / "sheet.jpg").stderr


def test_the_header_counts_what_is_shown(photos: Path, tmp_path: Path, h2a_sheet: Sheets) -> None:
    (photos / "zz broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    convert_folder(photos, tmp_path / "out")
    for words, count, failed in ((("--limit", 4), "4 of 7 photos", False), ((), "7 photos", True)):
        path = tmp_path / f"{len(words)}.pdf"
        assert h2a_sheet(photos, tmp_path / "out", path, *words).returncode == 0
        text = _text(path)
        assert count in text and ("1 failed" in text) == failed, text


@pytest.mark.slow
def test_the_header_counts_the_faces_that_are_shown(crowd: Path, tmp_path: Path, h2a_sheet: Sheets) -> None:
    counts = {"5 photos", "4 faces", "1 failed", "1 without a face"}
    for words, outs, wanted in (
        ((), ["crop"], counts),
        (("--limit", 2), ["crop"], {"2 of 5 photos", "3 faces", "1 failed"}),
        (("--limit", 2), ["paste", "off"], {"2 of 5 photos", "paste: 1 failed", "off: 1 failed"}),
        (("--only", "no-face"), ["crop"], {"1 of 5 photos", "1 without a face"}),
        (("--only", "done"), ["crop", "paste"], {"3 of 5 photos"}),
        ((), ["crop", "off"], {"5 photos", "crop: 1 failed", "crop: 1 without a face", "off: 1 failed"}),
    ):
        path = tmp_path / f"{'-'.join(map(str, (*outs, *words)))}.pdf"
        assert h2a_sheet(crowd / "in", *(crowd / out for out in outs), path, *words).returncode == 0
        told = {
            line for line in _text(path).splitlines() if re.match(r"(\w+: )?\d+ (of|photo|face|failed|with|not)", line)
        }
        assert told == wanted, words


def _text(path: Path) -> str:
    streams = re.findall(rb"/FlateDecode /Length \d+ >>\nstream\n(.*?)\nendstream", path.read_bytes(), re.S)
    codes = re.findall(rb"<([0-9a-f]+)> Tj", b" ".join(map(zlib.decompress, streams)))
    return "\n".join(bytes.fromhex(code.decode()).decode("utf-16-be") for code in codes)


def test_more_columns_than_photos_leave_no_empty_page(photos: Path, tmp_path: Path, h2a_sheet: Sheets) -> None:
    convert_folder(photos, tmp_path / "out")
    assert h2a_sheet(photos, tmp_path / "out", tmp_path / "sheet.png", "--columns", "100").returncode == 0
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width < 5 * image.height and image.width <= 2560
