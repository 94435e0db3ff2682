"""Ordinary photos with the real command: a picture for each face, or the faces put back."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from composites import group, own_portraits, scenery
from conftest import PHOTOS, ROOT, Command, command_line, leftovers, tree
from PIL import Image

from h2a_batch import convert_folder
from h2a_batch.convert.finish import finish
from h2a_batch.convert.parts import decode
from h2a_batch.faces.detector import Detector
from h2a_batch.faces.framing import frame_of
from h2a_batch.faces.search import Search
from h2a_batch.inference.card import FaceRule
from h2a_batch.inference.generator import Generator
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.photos.frame import cut

pytestmark = pytest.mark.slow

PORTRAITS = sorted(PHOTOS.glob("*.jpg"))


def told(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    return {Path(line["input"]).name: line for line in map(json.loads, done.stdout.splitlines())}


def test_every_face_becomes_a_picture_and_a_portrait_one(tmp_path: Path, h2a: Command) -> None:
    group(tmp_path / "in" / "group.jpg", 0, 1, 2)
    (tmp_path / "in" / "one.jpg").write_bytes(PORTRAITS[3].read_bytes())
    done = h2a("in", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert set(tree(tmp_path / "out")) == {"group-1.png", "group-2.png", "group-3.png", "one.png"}
    lines = told(done)
    assert lines["group.jpg"]["faces"] == 3 and "faces" not in lines["one.jpg"]
    assert lines["group.jpg"]["outputs"] == [str(tmp_path / "out" / f"group-{n}.png") for n in (1, 2, 3)]
    assert "2 converted (3 faces)" in done.stderr
    with Ledger(tmp_path / "out", "{}", read_only=True) as ledger, Image.open(tmp_path / "in" / "group.jpg") as photo:
        generator = Generator()
        for place, face in enumerate(ledger.faces(str(tmp_path / "in" / "group.jpg"))):
            assert 0 < face.frame.x - 420 * place < 420, "from left to right"
            (expected,) = generator.paint([cut(photo, face.frame, (256, 256))])
            with Image.open(tmp_path / "out" / f"group-{place + 1}.png") as made:
                assert made.size == (256, 256)
                assert np.abs(np.asarray(made, float) - expected).mean() < 3, "the painted square, and not another's"
    again = h2a("in", "out")
    assert "0 converted, 2 skipped" in again.stderr
    with open(tmp_path / "out" / ".h2a-batch" / "report.csv", newline="") as file:
        rows = {Path(row["input"]).name: row for row in csv.DictReader(file)}
    assert rows["group.jpg"]["faces"] == "3" and rows["one.jpg"]["faces"] == "0"
    assert rows["group.jpg"]["output"] == "group-1.png | group-2.png | group-3.png"


def test_a_face_that_is_missing_is_made_again_and_an_edited_one_kept(tmp_path: Path, h2a: Command) -> None:
    group(tmp_path / "in" / "group.jpg", 0, 1)
    assert h2a("in", "out").returncode == 0
    before = tree(tmp_path / "out")
    (tmp_path / "out" / "group-2.png").unlink()
    assert "1 converted" in h2a("in", "out").stderr and tree(tmp_path / "out") == before
    Image.new("RGB", (9, 9)).save(tmp_path / "out" / "group-1.png")
    edited = tree(tmp_path / "out")
    assert "1 of the skipped" in h2a("in", "out").stderr and tree(tmp_path / "out") == edited
    assert "1 converted" in h2a("in", "out", "--overwrite").stderr and tree(tmp_path / "out") == before


def test_names_that_others_have_are_left_to_them(tmp_path: Path, h2a: Command) -> None:
    group(tmp_path / "in" / "a.jpg", 0, 1)
    (tmp_path / "in" / "a-1.jpg").write_bytes(PORTRAITS[3].read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a-2.png").write_bytes(b"mine")
    assert h2a("in", "out").returncode == 0
    made = tree(tmp_path / "out")
    assert set(made) == {"a-1.png", "a-1~2.png", "a-2.png", "a-2~2.png"} and made["a-2.png"] == b"mine"
    with Image.open(tmp_path / "out" / "a-1.png") as whole:
        assert whole.size != (256, 256), "the portrait's own"
    assert "0 converted, 2 skipped" in h2a("in", "out").stderr and tree(tmp_path / "out") == made


def test_without_a_face_it_is_as_one_says(tmp_path: Path, h2a: Command) -> None:
    (tmp_path / "in").mkdir()
    scenery(900, 600).save(tmp_path / "in" / "hills.jpg")
    assert h2a("in", "whole").returncode == 0 and set(tree(tmp_path / "whole")) == {"hills.png"}
    skipped = h2a("in", "skip", "--no-face", "skip", "--json", "--on-success", f"archive={tmp_path / 'archive'}")
    assert skipped.returncode == 0 and told(skipped)["hills.jpg"]["kind"] == "no-face"
    assert "1 of the skipped: no face was found" in skipped.stderr
    again = h2a("in", "skip", "--no-face", "skip", "--json")
    assert told(again)["hills.jpg"]["kind"] == "unchanged", "it is not looked at again"
    assert tree(tmp_path / "skip") == {} and (tmp_path / "in" / "hills.jpg").exists()
    failed = h2a("in", "fail", "--no-face", "fail")
    assert failed.returncode == 1 and "hills.jpg: no face was found in it; --no-face convert" in failed.stderr
    assert "1 converted" in h2a("in", "skip").stderr and set(tree(tmp_path / "skip")) == {"hills.png"}


def test_which_faces_count(tmp_path: Path, h2a: Command) -> None:
    group(tmp_path / "in" / "group.jpg", 0, 1, 2)
    assert h2a("in", "two", "--max-faces", 2).returncode == 0 and len(tree(tmp_path / "two")) == 2
    assert h2a("in", "none", "--min-face", 400).returncode == 0 and set(tree(tmp_path / "none")) == {"group.png"}
    assert h2a("in", "off", "--faces", "off").returncode == 0
    assert tree(tmp_path / "off") == tree(tmp_path / "none")
    assert h2a("in", "large", "--size", 512, "--format", "jpg").returncode == 0
    for path in (tmp_path / "large").glob("*.jpg"):
        with Image.open(path) as image:
            assert image.size == (512, 512)


def test_faces_are_put_back_and_all_else_is_untouched(tmp_path: Path, h2a: Command) -> None:
    photo = group(tmp_path / "in" / "group.png", 0, 1)
    assert h2a("in", "out", "--faces", "paste").returncode == 0
    assert set(tree(tmp_path / "out")) == {"group.png"}
    with Image.open(photo) as first, Image.open(tmp_path / "out" / "group.png") as second:
        before, after = np.asarray(first.convert("RGB")), np.asarray(second)
    assert before.shape == after.shape
    changed = (before != after).any(-1)
    assert 0.05 < changed.mean() < 0.6 and not changed[:, 860:].any(), "only around the two faces"
    assert changed[:, :420].mean() > 0.1 and changed[:, 420:840].mean() > 0.1
    half = convert_folder(tmp_path / "in", tmp_path / "half", faces="paste", size=750)
    assert half.faces == 2
    with Image.open(tmp_path / "half" / "group.png") as image:
        assert image.size == (750, 250)


def test_a_photo_that_moved_keeps_its_faces(tmp_path: Path, h2a: Command) -> None:
    photo = group(tmp_path / "in" / "a.jpg", 0, 1)
    assert h2a("in", "out").returncode == 0
    before = tree(tmp_path / "out")
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    assert "0 converted, 1 skipped" in h2a("elsewhere", "out").stderr
    assert tree(tmp_path / "out") == before and not photo.exists()


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    for number in range(12):
        group(tmp_path / "in" / f"{number}.jpg", number % 6, (number + 1) % 6)
    convert_folder(tmp_path / "in", tmp_path / "whole")
    chance = random.Random(1)
    for _ in range(5):
        process = subprocess.Popen(command_line(tmp_path / "in", tmp_path / "out", "-q"))
        time.sleep(1.0 + 3 * chance.random())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert convert_folder(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole") and leftovers(tmp_path / "out") == []


def test_a_name_that_is_only_kept_is_nobodys_file(tmp_path: Path, h2a: Command) -> None:
    group(tmp_path / "in" / "a.jpg", 0, 1)
    theirs = tmp_path / "out" / "a.png"
    theirs.parent.mkdir()
    Image.new("RGB", (9, 9)).save(theirs)
    mine = theirs.read_bytes()
    assert h2a("in", "out", "--overwrite").returncode == 0 and theirs.read_bytes() == mine
    done = h2a("in", "out", "--faces", "off", "-v")
    assert "1 skipped" in done.stderr and theirs.read_bytes() == mine, done.stderr
    theirs.write_bytes(b"no picture")
    assert "1 skipped" in h2a("in", "out", "--faces", "off").stderr and theirs.read_bytes() == b"no picture"
    assert h2a("in", "out", "--faces", "off", "--overwrite").returncode == 0 and theirs.read_bytes() != b"no picture"


def test_in_place_a_new_photo_of_a_kept_name_is_a_photo(tmp_path: Path, h2a: Command) -> None:
    group(tmp_path / "in" / "a.jpg", 0, 1)
    assert h2a("in", "in").returncode == 0
    new = tmp_path / "in" / "a_anime.png"
    new.write_bytes(PORTRAITS[3].read_bytes())
    assert "1 converted" in h2a("in", "in").stderr
    assert h2a("in", "in", "--faces", "off", "--overwrite").returncode == 0
    assert new.read_bytes() == PORTRAITS[3].read_bytes()


def test_transparent_parts_keep_their_colours_when_faces_are_put_back(tmp_path: Path) -> None:
    photo = group(tmp_path / "in" / "a.png", 0)
    with Image.open(photo) as image:
        alpha = np.full((image.height, image.width), 255, np.uint8)
        alpha[:, 800:] = 128
        image.putalpha(Image.fromarray(alpha))
        image.save(photo)
        before = np.asarray(image)
    assert convert_folder(tmp_path / "in", tmp_path / "out", faces="paste").faces == 1
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert np.array_equal(np.asarray(image)[:, 800:], before[:, 800:])


def test_photos_are_archived_while_the_run_goes_on(tmp_path: Path) -> None:
    for number in range(24):
        group(tmp_path / "in" / f"{number}.jpg", number % 6)
    order: list[str] = []
    convert_folder(
        tmp_path / "in",
        tmp_path / "out",
        on_success=f"archive={tmp_path / 'archive'}",
        on_file=lambda result: order.append("converted"),
        on_event=lambda event: order.append(event.kind),
    )
    assert order.count("archived") == 24 and "archived" in order[:23]


def test_without_the_detector_nothing_runs_and_no_photo_is_blamed(tmp_path: Path) -> None:
    for name in ("h2a_batch", "models"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("centerface*", "__pycache__"))
    group(tmp_path / "in" / "a.jpg", 0)
    command = [sys.executable, "-m", "h2a_batch", "in", "out", "--on-failure", "move=failed"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "centerface" in done.stderr and done.stderr.count("\n") == 1
    assert (tmp_path / "in" / "a.jpg").exists() and not (tmp_path / "out").exists()
    done = subprocess.run([*command, "--faces", "off"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_close_up_is_shown_to_the_generator_from_further_away(tmp_path: Path) -> None:
    """The head has the size that the generator knows, and the output shows what the photo shows, as large as ever."""
    detector, rule = Detector(), FaceRule()
    search = Search(detector.find, rule, None, 50, "convert")
    for portrait in own_portraits():
        reach = 0.65 * portrait.width
        box = (portrait.x - reach, portrait.y - 1.1 * reach, portrait.x + reach, portrait.y + 1.1 * reach)
        portrait.image.crop(tuple(map(round, box))).resize((520, 572)).save(tmp_path / "near.png")
        photo, whole = (decode(tmp_path / "near.png", (256, 256), "pad", "model", search=s) for s in (search, None))
        (seen,) = detector.find(photo.pixels, 28)
        assert 0.8 < frame_of(seen, rule).side / 256 < 1.25
        assert frame_of(detector.find(whole.pixels, 28)[0], rule).side > 1.15 * 256, "it would have been too near"
        assert photo.placement.output == whole.placement.output and not photo.faces
        (made,) = finish(photo, [photo.pixels], keep_alpha=True)
        (plain,) = finish(whole, [whole.pixels], keep_alpha=True)
        assert made.size == plain.size
        assert np.abs(np.asarray(made, float) - np.asarray(plain, float)).mean() < 6, "the same part of the photo"
