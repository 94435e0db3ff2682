"""`python -m train prepare`, on portraits, their copies, and files that are no pictures."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from composites import group, scenery
from conftest import PHOTOS, SHARED, leftovers, tree
from PIL import Image, ImageOps

from h2a_batch.convert.parts import decode
from h2a_batch.faces.detector import Detector
from h2a_batch.faces.search import Search
from h2a_batch.inference.card import FaceRule
from train.__main__ import main
from train.prepare import FOLDERS, NEAR, SIZE, difference_hash

PORTRAITS = sorted(PHOTOS.glob("*.jpg"))
HUMAN2ANIME = SHARED / "data" / "human2anime"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Six portraits as `humans`, the same upside down as `anime`."""
    for folder in ("humans", "anime"):
        (tmp_path / folder).mkdir()
    for path in PORTRAITS:
        shutil.copyfile(path, tmp_path / "humans" / path.name)
        with Image.open(path) as image:
            ImageOps.flip(image).save(tmp_path / "anime" / path.name, quality=90)
    return tmp_path


def prepare(base: Path, out: str, *more: object) -> int:
    numbers = () if "--train" in more else ("--train", 4, "--test", 2)
    folders = () if "--humans" in more else ("--humans", base / "humans", "--anime", base / "anime")
    return main(["prepare", "--out", str(base / out), *map(str, (*folders, *numbers, *more))])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_four_folders_of_square_pictures_and_where_they_came_from(sources: Path) -> None:
    assert prepare(sources, "out") == 0
    out = sources / "out"
    assert {f.name: len(list(f.iterdir())) for f in out.iterdir() if f.is_dir()} == dict.fromkeys(
        FOLDERS[:2], 4
    ) | dict.fromkeys(FOLDERS[2:], 2)
    for path in out.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.size, image.mode, image.format) == ((SIZE, SIZE), "RGB", "JPEG")
    origin = rows(out / "pictures.csv")
    assert sorted(r["source"] for r in origin if r["folder"].endswith("A")) == [f"humans/{p.name}" for p in PORTRAITS]
    first = next(r for r in origin if r["folder"] == "testA")
    with Image.open(sources / first["source"]) as image, Image.open(out / "testA" / first["file"]) as made:
        expected = ImageOps.fit(image.convert("RGB"), (SIZE, SIZE), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(made).astype(int) - np.asarray(expected)).mean() < 2
    assert rows(out / "left_out.csv") == [] and not leftovers(sources)


def test_same_bytes_whatever_the_order_place_and_time_of_the_files(sources: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    for folder in ("humans", "anime"):
        (other / folder).mkdir(parents=True)
        for path in sorted((sources / folder).iterdir(), reverse=True):
            shutil.copyfile(path, other / folder / path.name)
    for base in (sources, other):
        shutil.copytree(PHOTOS, base / "more")
        with Image.open(PORTRAITS[0]) as image:
            image.rotate(90, expand=True).save(base / "more" / "turned.png")
    assert prepare(sources, "out", "--humans", sources / "humans", sources / "more", "--anime", sources / "anime") == 0
    assert prepare(other, "out", "--humans", other / "more", other / "humans", "--anime", other / "anime") == 0
    assert tree(sources / "out") == tree(other / "out")
    assert len(rows(other / "out" / "left_out.csv")) == 6


def test_duplicates_and_broken_files_are_left_out_and_listed(sources: Path) -> None:
    humans, original = sources / "humans", PORTRAITS[0]
    shutil.copyfile(original, humans / "z-copy.jpg")
    with Image.open(original) as image:
        image.resize((150, 184)).save(humans / "z-small.jpg", quality=40)
        ImageOps.mirror(image).save(humans / "z-mirror.png")
    (humans / "z-cut.jpg").write_bytes(original.read_bytes()[:3000])
    (humans / "z-empty.jpg").touch()
    (humans / "notes.txt").write_text("not a picture, and not listed")
    assert prepare(sources, "out") == 0
    left = {r["source"].removeprefix("humans/"): (r["reason"], r["detail"]) for r in rows(sources / "out/left_out.csv")}
    assert left["z-copy.jpg"] == ("duplicate", f"humans/{original.name}")
    for name in ("z-small.jpg", "z-mirror.png"):
        assert left[name][0] == "near-duplicate" and original.name in left[name][1]
    assert {left[name][0] for name in ("z-cut.jpg", "z-empty.jpg")} <= {"truncated", "corrupt", "empty"}
    assert len(left) == 5


def test_an_orientation_is_applied(sources: Path) -> None:
    turned = sources / "humans" / PORTRAITS[0].name
    with Image.open(PORTRAITS[0]) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(turned, quality=95, exif=exif)
    assert prepare(sources, "out", "--format", "png") == 0
    entry = next(r for r in rows(sources / "out" / "pictures.csv") if r["source"] == f"humans/{turned.name}")
    with Image.open(sources / "out" / entry["folder"] / entry["file"]) as made, Image.open(PORTRAITS[0]) as image:
        upright = np.asarray(image.convert("RGB"))
        side = min(upright.shape[:2])
        top, left = ((length - side) // 2 for length in upright.shape[:2])
        middle = np.ascontiguousarray(upright[top : top + side, left : left + side])
        assert (difference_hash(np.asarray(made)) != difference_hash(middle)).sum() < NEAR


def test_an_output_folder_is_replaced_only_when_told_and_only_a_prepared_set(
    sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(sources, "out") == 0
    before = tree(sources / "out")
    assert prepare(sources, "out", "--train", 3, "--test", 1) == 2
    assert "not empty" in capsys.readouterr().err and tree(sources / "out") == before
    assert prepare(sources, "out", "--train", 3, "--test", 1, "--overwrite") == 0
    assert len(list((sources / "out" / "trainA").iterdir())) == 3
    (sources / "out" / "precious.txt").write_text("mine")
    assert prepare(sources, "out", "--overwrite") == 2
    assert "precious.txt" in capsys.readouterr().err and (sources / "out" / "precious.txt").exists()
    assert [name for name in os.listdir(sources) if name.startswith(".")] == []


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--train", 6, "--test", 2), "6 different usable pictures of 6, 8 are wanted"),
        (("--train", 0), "--train must be at least 1"),
        (("--humans", "missing", "--anime", "missing"), "no such folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    sources: Path, capsys: pytest.CaptureFixture[str], more: tuple[object, ...], text: str
) -> None:
    assert prepare(sources, "out", *more) == 2
    error = capsys.readouterr().err
    assert text in error and error.splitlines()[-1].startswith("train prepare: ") and "Traceback" not in error
    assert not (sources / "out").exists()


def test_an_input_inside_the_output_is_refused(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(sources, "out") == 0
    inner = sources / "out" / "trainA"
    assert prepare(sources, "out", "--humans", inner, "--anime", inner, "--overwrite") == 2
    assert "cannot lie in the output" in capsys.readouterr().err and inner.exists()


@pytest.mark.slow
@pytest.mark.skipif(not HUMAN2ANIME.is_dir(), reason="the data (../shared/data/human2anime) is not there")
def test_on_real_sets_no_picture_is_taken_for_another_and_test_stays_apart(tmp_path: Path) -> None:
    folders = ("--humans", HUMAN2ANIME / "testA", "--anime", HUMAN2ANIME / "testB")
    assert prepare(tmp_path, "out", *folders, "--train", 80, "--test", 20) == 0
    assert rows(tmp_path / "out" / "left_out.csv") == []
    for letter in "AB":
        hashes = [
            np.stack([difference_hash(np.asarray(Image.open(p))) for p in sorted((tmp_path / "out" / f).iterdir())])
            for f in (f"train{letter}", f"test{letter}")
        ]
        assert (hashes[0][:, None] != hashes[1][None]).sum(2).min() > NEAR // 2


def test_faces_are_framed_as_in_a_conversion(sources: Path) -> None:
    group(sources / "humans" / "group.jpg", 0, 1)
    for path in PORTRAITS:
        (sources / "humans" / path.name).unlink()
    (sources / "humans" / "one.jpg").write_bytes(PORTRAITS[4].read_bytes())
    scenery(900, 600).save(sources / "humans" / "hills.jpg")
    assert prepare(sources, "out", "--train", 2, "--test", 1, "--faces", "--min-face", 60, "--format", "png") == 0
    origin = {
        row["source"]: sources / "out" / row["folder"] / row["file"] for row in rows(sources / "out/pictures.csv")
    }
    assert {"humans/group.jpg#1", "humans/group.jpg#2", "humans/one.jpg"} <= set(origin)
    left_out = rows(sources / "out" / "left_out.csv")
    assert [(row["source"], row["reason"]) for row in left_out if row["domain"] == "A"] == [
        ("humans/hills.jpg", "no-face")
    ]
    search = Search(Detector().find, FaceRule(), 60, 50, "fail", whole=False)
    for name in ("group", "one"):  # also a portrait
        photo = decode(sources / "humans" / f"{name}.jpg", (SIZE, SIZE), "crop", "model", search=search)
        assert len(photo.faces) == len(photo.parts) == (2 if name == "group" else 1)
        for number, part in enumerate(photo.parts, 1):
            label = f"humans/{name}.jpg" + (f"#{number}" if name == "group" else "")
            with Image.open(origin[label]) as made:
                assert np.array_equal(np.asarray(made), part.pixels)
