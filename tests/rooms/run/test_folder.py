"""Whole runs with the real model, through the Python interface."""

from __future__ import annotations

import csv
import os
import shutil
import threading
from pathlib import Path

import pytest
from conftest import PHOTOS, ROOT, leftovers, tree
from PIL import Image
from watch_support import drop

from h2a_batch import FileResult, Options, convert_folder
from h2a_batch.errors import ModelError, UsageError
from h2a_batch.photos import FORMATS


def test_a_tree_of_photos_becomes_a_tree_of_pictures(photos: Path, tmp_path: Path) -> None:
    before = tree(photos)
    seen: list[FileResult] = []
    totals: list[int] = []
    summary = convert_folder(photos, tmp_path / "out", on_file=seen.append, on_total=totals.append)
    assert (summary.converted, summary.failed, summary.exit_code) == (6, 0, 0)
    assert totals == [6] and {result.state for result in seen} == {"converted"}
    assert set(tree(tmp_path / "out")) == {name.replace(".jpg", ".png") for name in before}
    assert tree(photos) == before, "originals are never touched"
    for name in tree(tmp_path / "out"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == (205, 256), "a 200x250 portrait keeps its proportions"
    assert summary.table is not None
    rows = list(csv.DictReader(summary.table.open()))
    assert len(rows) == 6 and {row["state"] for row in rows} == {"done"}


def test_only_what_is_missing_changed_or_set_otherwise_is_done_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run(**settings: object) -> int:
        return convert_folder(photos, out, **settings).converted

    assert run() == 6
    first = tree(out)
    assert run() == 0
    (out / "A000210.png").unlink()
    (out / "A000365.png").write_bytes(b"\x89PNG\r\n\x1a\n half a picture")
    shutil.copyfile(photos / "A000210.jpg", photos / "new.jpg")
    assert run() == 3
    assert {name: data for name, data in tree(out).items() if name != "new.png"} == first
    with Image.open(photos / "new.jpg") as image:
        image.rotate(90).save(photos / "new.jpg")
    assert run() == 1
    assert run(size="128") == 7
    assert run(size="128", overwrite=True) == 7
    assert run(size="128", limit=2, overwrite=True) == 2


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_formats_sizes_and_fits(photos: Path, tmp_path: Path, format: str) -> None:
    for size, fit, wanted in (
        ("source", "pad", (200, 250)),
        ("512", "pad", (410, 512)),
        ("model", "crop", (256, 256)),
        ("source", "crop", (200, 200)),
        ("model", "stretch", (256, 256)),
    ):
        out = tmp_path / f"{size}-{fit}"
        convert_folder(photos / "A000210.jpg", out, format=format, size=size, fit=fit, suffix="_x")
        with Image.open(out / f"A000210_x.{format}") as image:
            assert image.size == wanted
            assert image.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "avif": "AVIF"}[format]


def test_in_and_out_may_be_the_same_folder(photos: Path) -> None:
    with Image.open(photos / "A000210.jpg") as image:
        image.save(photos / "A000210_anime.png")  # an original that has the output's name
    before = tree(photos)
    for _ in range(3):
        convert_folder(photos, photos)
    convert_folder(photos, photos, overwrite=True)
    convert_folder(photos, photos, format="webp")
    after = tree(photos)
    assert {name: after[name] for name in before} == before
    made = set(after) - set(before)
    assert made == {
        name
        for format in ("png", "webp")
        for name in (
            f"A000210_anime{'~2' if format == 'png' else ''}.{format}",
            f"A000210_anime_anime.{format}",
            *(f"{stem}_anime.{format}" for stem in ("A000365", "A000366", "A000368", "sub/B000589", "sub/B000711")),
        )
    }


def test_out_may_lie_inside_in_and_in_inside_out(photos: Path, tmp_path: Path) -> None:
    assert convert_folder(photos, photos / "anime").converted == 6
    assert convert_folder(photos, photos / "anime").converted == 0
    assert convert_folder(photos / "sub", photos).converted == 2
    assert convert_folder(photos / "sub", photos).converted == 0


def test_a_file_of_somebody_else_in_out_is_kept(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "A000210.png").write_bytes(b"somebody's")
    summary = convert_folder(photos, out)
    assert (summary.converted, summary.exist, summary.exit_code) == (5, 1, 0)
    assert (out / "A000210.png").read_bytes() == b"somebody's"
    assert convert_folder(photos, out, overwrite=True).converted == 6


def test_read_only_originals_and_awkward_names(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    names = [
        "\u5c71\u7530 \u592a\u90ce.jpg",
        "x" * 251 + ".jpg",
        "new\nline.jpg",
        os.fsdecode(b"latin-\xe9.jpg"),
        "a.jpg",
        "a.png",
    ]
    for name in names:
        shutil.copyfile(sorted(PHOTOS.glob("*.jpg"))[0], source / name)
        (source / name).chmod(0o400)
    summary = convert_folder(source, tmp_path / "out", suffix="_anime", contact_sheet=tmp_path / "sheet.jpg")
    assert (summary.converted, summary.failed) == (6, 0)
    assert len(tree(tmp_path / "out")) == 6
    assert convert_folder(source, tmp_path / "out", suffix="_anime").skipped == 6


@pytest.mark.slow
def test_stopping_leaves_a_state_to_go_on_from(many: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def note(result: FileResult) -> None:
        if result.state == "converted":
            stop.set()

    summary = convert_folder(many, tmp_path / "out", on_file=note, stop=stop)
    assert summary.interrupted and summary.exit_code == 130
    assert 0 < summary.converted < 60 and not leftovers(tmp_path)
    assert convert_folder(many, tmp_path / "out").converted == 60 - summary.converted


def test_fail_fast_stops_and_is_no_interruption(many: Path, tmp_path: Path) -> None:
    (many / "000.jpg").write_bytes(b"")
    summary = convert_folder(many, tmp_path / "out", fail_fast=True)
    assert summary.failed == 1 and summary.converted < 59 and summary.exit_code == 1


def test_transparent_pictures_stay_transparent(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    with Image.open(sorted(PHOTOS.glob("*.jpg"))[0]) as portrait:
        image = portrait.convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 60, 60))
    image.save(source / "cut-out.png")
    for format, mode in (("png", "RGBA"), ("webp", "RGBA"), ("avif", "RGBA"), ("jpg", "RGB")):
        convert_folder(source, tmp_path / format, format=format)
        with Image.open(tmp_path / format / f"cut-out.{format}") as result:
            assert result.mode == mode
            if mode == "RGBA":
                assert result.getpixel((5, 5))[3] == 0 and result.getpixel((100, 200))[3] == 255


@pytest.mark.slow
def test_a_contact_sheet_has_every_pair_and_pages(many: Path, tmp_path: Path) -> None:
    (many / "000.jpg").write_bytes(b"broken")
    for number in range(10):
        shutil.copyfile(many / "001.jpg", many / f"more-{number}.jpg")
    summary = convert_folder(many, tmp_path / "out", contact_sheet=tmp_path / "sheets" / "sheet.png")
    assert [path.name for path in summary.sheets] == ["sheet.png", "sheet-2.png"]
    with Image.open(summary.sheets[0]) as first, Image.open(summary.sheets[1]) as second:
        assert first.width > 2000 and second.height < first.height
    again = convert_folder(many, tmp_path / "out", contact_sheet=many / "sheet.jpg")
    assert again.converted == 0 and again.failed == 1 and (many / "sheet-2.jpg").exists()
    assert convert_folder(many, tmp_path / "out").ignored == 2, "sheets are no photos"
    few = convert_folder(many, tmp_path / "few", limit=2, contact_sheet=tmp_path / "few.png")
    with Image.open(few.sheets[0]) as page:
        assert len(few.sheets) == 1 and page.height < 900 and page.width < 1800


def test_linked_folders_do_not_loop_in_place(photos: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    shutil.copyfile(photos / "A000210.jpg", outside / "b.jpg")
    shutil.copyfile(photos / "A000210.jpg", outside / "b_anime.png")
    (photos / "link").symlink_to(outside)
    before = tree(outside)
    for overwrite, converted in ((False, 6), (False, 0), (True, 6)):
        summary = convert_folder(photos, photos, overwrite=overwrite)
        assert (summary.converted, summary.failed) == (converted, 2), "nothing is written through the link"
        assert tree(outside) == before
    assert convert_folder(photos, tmp_path / "out").failed == 0
    assert (tmp_path / "out" / "link" / "b.png").exists() and tree(outside) == before


def test_a_photo_beside_its_output_folder_is_safe(photos: Path) -> None:
    shutil.copyfile(photos / "A000365.jpg", photos / "A000210.png")
    before = tree(photos)
    convert_folder(photos / "A000210.jpg", photos, overwrite=True, suffix="")
    assert {name: tree(photos)[name] for name in before} == before


def test_what_cannot_run_is_refused_before_anything_is_made(photos: Path, tmp_path: Path) -> None:
    for inputs, out, options in (
        (tmp_path / "nothing", tmp_path / "out", Options()),
        (photos, photos / "A000210.jpg", Options()),
        (photos, tmp_path / "out.png", Options()),
    ):
        with pytest.raises(UsageError):
            convert_folder(inputs, out, options)
    with pytest.raises(ModelError):
        convert_folder(photos, tmp_path / "out", model="nobody")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_model_with_its_own_numbers_needs_only_its_card(photos: Path, tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "models" / "anime-256.mindir", tmp_path / "mine.mindir")
    summary = convert_folder(photos, tmp_path / "out", model=str(tmp_path / "mine.mindir"))
    assert summary.converted == 6
    convert_folder(photos, tmp_path / "same")
    assert tree(tmp_path / "out") == tree(tmp_path / "same")


def test_of_several_namesakes_one_may_go(tmp_path: Path) -> None:
    for name in ("IMG.JPG", "IMG.jpg", "img.jpg"):
        drop(tmp_path / "in" / name, ord(name[-1]) + ord(name[0]))
    assert convert_folder(tmp_path / "in", tmp_path / "out").converted == 3
    (tmp_path / "in" / "IMG.JPG").unlink()
    again = convert_folder(tmp_path / "in", tmp_path / "out")
    assert (again.converted, again.skipped) == (0, 2) and len(tree(tmp_path / "out")) == 3
