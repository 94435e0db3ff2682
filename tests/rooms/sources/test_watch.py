"""Watch mode: the real command and the real model on folders into which photos are dropped in every way."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Command, leftovers, tree
from PIL import Image
from watch_support import PORTRAITS, SETTLE, Start, Watch, drop, picture, start

__all__ = ["start"]  # a fixture


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """One watcher for the tests that need nothing but a folder of their own in IN."""
    source = tmp_path_factory.mktemp("watch") / "in"
    (source / "start").mkdir(parents=True)
    shutil.copyfile(PORTRAITS[0], source / "start" / "a.jpg")
    (source / "start" / "corrupt.jpg").write_bytes(PORTRAITS[1].read_bytes()[:9000])
    (source / "start" / "notes.txt").write_text("not a picture")
    watch = Watch(source, source.parent / "out")
    yield watch.ready()
    watch.kill()


def _rest() -> None:
    """As long as a photo would need at the most to be taken, had it been taken."""
    time.sleep(4 * SETTLE + 1)


def _writers(path: Path, data: bytes) -> Iterator[None]:
    """Write a file in ten pieces, open all the while."""
    with open(path, "wb") as file:
        for number in range(10):
            file.write(data[len(data) * number // 10 : len(data) * (number + 1) // 10])
            file.flush()
            yield


def test_what_lies_there_at_the_start_is_converted_first(shared: Watch) -> None:
    shared.until(shared.source / "start" / "a.jpg", "converted")
    assert (shared.out / "start" / "a.png").exists()
    assert shared.events("ready")[0]["target"] == str(shared.out)


def test_renames_and_moves_into_place_are_taken_once(shared: Watch, tmp_path: Path) -> None:
    folder = shared.source / "renames"
    whole = drop(folder / "download.jpg.part", 1)
    drop(folder / "browser.jpg.crdownload", 2)
    drop(folder / ".hidden.jpg", 3)
    moved = drop(tmp_path / "elsewhere" / "moved.jpg", 4)
    tree_moved = drop(tmp_path / "elsewhere" / "deep" / "er" / "b.jpg", 5)
    _rest()
    assert not any(str(line.get("input", "")).startswith(str(folder)) for line in shared.lines), "not yet photos"
    whole.rename(folder / "download.jpg")
    moved.rename(folder / "moved.jpg")
    tree_moved.parent.parent.rename(folder / "deep")
    for name in ("download.jpg", "moved.jpg", "deep/er/b.jpg"):
        shared.until(folder / name, "converted")
    assert set(tree(shared.out / "renames")) == {"download.png", "moved.png", "deep/er/b.png"}


@pytest.mark.slow
def test_an_overwritten_photo_is_converted_again_and_a_touched_one_is_not(shared: Watch) -> None:
    photo = drop(shared.source / "again" / "a.jpg", 6)
    shared.until(photo, "converted")
    output = shared.out / "again" / "a.png"
    before = output.read_bytes()
    for number in range(100):
        os.utime(photo, ns=(number, number)) if number % 2 else photo.touch()
    _rest()
    assert set(shared.states(photo)) <= {"converted", "skipped"} and shared.states(photo).count("converted") == 1
    photo.write_bytes(picture(7))
    shared.wait(lambda: shared.states(photo).count("converted") == 2)
    assert output.read_bytes() != before and len(tree(shared.out / "again")) == 1
    replacement = drop(shared.source / "again" / "new.tmp", 8)
    replacement.rename(photo)
    shared.wait(lambda: shared.states(photo).count("converted") == 3)


@pytest.mark.slow
def test_half_a_copy_waits_and_does_not_fail(shared: Watch) -> None:
    folder = shared.source / "slow"
    folder.mkdir()
    data = PORTRAITS[2].read_bytes()
    for _ in _writers(folder / "steady.jpg", data):
        time.sleep(SETTLE / 3)
    with open(folder / "stalled.jpg", "wb") as file:  # open for writing, and nothing happens
        file.write(data[:7000])
        file.flush()
        _rest()
        assert shared.states(folder / "stalled.jpg") == []
        file.write(data[7000:])
    (folder / "closed.jpg").write_bytes(data[:7000])  # each piece is written by another program
    _rest()
    assert shared.states(folder / "closed.jpg") == []
    with open(folder / "closed.jpg", "ab") as file:
        file.write(data[7000:])
    for name in ("steady.jpg", "stalled.jpg", "closed.jpg"):
        shared.until(folder / name, "converted")
    assert len({(shared.out / "slow" / f"{name}.png").read_bytes() for name in ("steady", "stalled", "closed")}) == 1


@pytest.mark.slow
def test_photos_that_are_completed_just_as_they_are_taken_are_converted_once(shared: Watch) -> None:
    data = PORTRAITS[2].read_bytes()
    photos = [shared.source / "taken" / f"{number:03d}.jpg" for number in range(90)]
    photos[0].parent.mkdir()
    for photo in photos:
        photo.write_bytes(data[: len(data) // 2])
    time.sleep(SETTLE)
    for number in range(len(photos)):  # not in the order in which they are taken
        with open(photos[number * 37 % len(photos)], "ab") as file:
            file.write(data[len(data) // 2 :])
        time.sleep(0.01)
    shared.wait(lambda: all(shared.states(photo) for photo in photos))
    _rest()
    assert [shared.states(photo) for photo in photos] == [["converted"]] * len(photos)


def test_new_folders_are_watched_also_when_removed_and_made_again(shared: Watch) -> None:
    folder = shared.source / "new"
    for number in range(3):
        photo = drop(folder / "a" / "b" / "c" / f"{number}.jpg", 10 + number)
        shared.until(photo, "converted")
        shutil.rmtree(folder)
    assert len(tree(shared.out / "new")) == 3, "outputs of photos that are gone are kept"


def _memory(watch: Watch) -> int:
    """What the watcher has in memory, in kilobytes."""
    lines = Path(f"/proc/{watch.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.slow
def test_a_burst_is_converted_completely(shared: Watch) -> None:
    folder = shared.source / "burst"
    for number in range(300):
        drop(folder / f"{number % 7}" / f"{number:03d}.jpg", number)
    made = shared.out / "burst"
    shared.wait(lambda: len(list(made.rglob("*.png"))) > 100, 300)
    before = _memory(shared)
    shared.wait(lambda: len(list(made.rglob("*.png"))) == 300, 300)
    # In kilobytes: 200 photos, if kept, would be 150,000 as floats; a further face detector, loaded late, is 49,000.
    assert _memory(shared) < before + 120_000
    _rest()
    told = [line for line in shared.lines if str(line.get("input", "")).startswith(str(folder))]
    assert len(told) == 300 and {line["state"] for line in told} == {"converted"}


def test_links_are_not_followed_out_of_the_input(shared: Watch, tmp_path: Path) -> None:
    folder = shared.source / "links"
    inside = drop(folder / "inside.jpg", 20)
    outside = drop(tmp_path / "private" / "outside.jpg", 21)
    (folder / "file.jpg").symlink_to(outside)
    (folder / "folder").symlink_to(outside.parent)
    (folder / "other.jpg").symlink_to(inside)
    shared.until(folder / "other.jpg", "converted")
    drop(folder / "more.jpg", 22)
    shared.until(folder / "more.jpg", "converted")
    assert set(tree(shared.out / "links")) == {"inside.png", "other.png", "more.png"}
    told = [event["path"] for event in shared.events("ignored")]
    assert sorted(told) == [str(folder / "file.jpg"), str(folder / "folder")], "one line for each"


def test_a_namesake_that_comes_later_disturbs_nothing(shared: Watch) -> None:
    folder = shared.source / "namesakes"
    first = drop(folder / "a.jpg", 30)
    shared.until(first, "converted")
    with Image.open(first) as image:
        image.rotate(90).save(folder / "a.png")
    shared.until(folder / "a.png", "converted")
    _rest()
    assert shared.states(first) == ["converted"]
    assert set(tree(shared.out / "namesakes")) == {"a.png", "a.png.png"}


def test_a_file_of_somebody_else_in_out_is_told_of_once(shared: Watch) -> None:
    theirs = shared.out / "foreign" / "a.png"
    theirs.parent.mkdir()
    theirs.write_bytes(b"somebody's")
    photo = drop(shared.source / "foreign" / "a.jpg", 31)
    shared.until(photo, "skipped")
    shared.until(drop(photo.with_name("b.jpg"), 32), "converted")
    assert shared.states(photo) == ["skipped"] and theirs.read_bytes() == b"somebody's"


@pytest.mark.slow
def test_a_corrupt_photo_fails_once_and_only_when_it_was_waited_for(shared: Watch) -> None:
    """The last test of the shared watcher: the photo was there from the start, and is given half a minute."""
    corrupt = shared.source / "start" / "corrupt.jpg"
    shared.until(corrupt, "failed")
    failed = next(line for line in shared.lines if line.get("input") == str(corrupt))
    assert failed["kind"] == "truncated"
    shutil.copyfile(PORTRAITS[1], corrupt)
    shared.until(corrupt, "failed", "converted")
    empty = shared.source / "start" / "empty.jpg"
    empty.touch()
    assert shared.end() == 0, "how a service is ended, whatever failed in it"
    lines = "".join(shared.errors)
    assert lines.count(f"{corrupt}: the file ends too early") == 1 and "interrupted" not in lines
    assert not leftovers(shared.source.parent) and shared.states(empty) == []
    with sqlite3.connect(shared.out / ".h2a-batch" / "ledger.sqlite") as db:
        query = "SELECT count(*) FROM files WHERE state != 'done' AND source != ?"
        assert db.execute(query, [str(empty)]).fetchone() == (0,)


def _done(out: Path) -> int:
    """Photos that the ledger knows to be done."""
    with sqlite3.connect(f"file:{out}/.h2a-batch/ledger.sqlite?mode=ro", uri=True) as db:
        return int(db.execute("SELECT count(*) FROM files WHERE state = 'done'").fetchone()[0])


@pytest.mark.slow
def test_a_restart_goes_on_where_a_kill_ended_the_watch(start: Start, tmp_path: Path, h2a: Command) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(60):
        drop(source / f"{number:02d}.jpg", number)
    watch = start(source, out).ready()
    watch.wait(lambda: _done(out) > 5)
    watch.kill()
    drop(source / "late.jpg", 50)
    again = start(source, out, "--max-idle", 1)
    assert again.ended() == 0
    summary = next(line for line in again.errors if "converted," in line)
    assert summary.endswith("0 failed\n") and " 0 skipped" not in summary
    assert len(again.lines) - 1 == 61 == len(tree(out)) and not leftovers(tmp_path)
    assert h2a(source, tmp_path / "fresh").returncode == 0
    assert tree(out) == tree(tmp_path / "fresh")


@pytest.mark.slow
def test_ctrl_c_is_an_interruption_and_max_idle_an_end(start: Start, tmp_path: Path) -> None:
    photo = drop(tmp_path / "in" / "a.jpg", 1)
    watch = start(tmp_path / "in", tmp_path / "out").ready()
    watch.until(photo, "converted")
    assert watch.end(signal.SIGINT) == 130
    broken = tmp_path / "in" / "sub" / "b.jpg"
    broken.parent.mkdir()
    broken.write_text("not a picture")
    ended = start(tmp_path / "in", tmp_path / "out", "--max-idle", 1, "--on-failure", f"move={tmp_path / 'broken'}")
    assert ended.ended() == 1, "it is not idle before the broken photo was given up"
    assert ended.states(photo) == ["skipped"] and ended.states(broken) == ["failed"]
    assert set(tree(tmp_path / "broken")) == {"sub/b.jpg"} and not broken.exists() and photo.exists()
