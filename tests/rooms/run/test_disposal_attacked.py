"""Photos are deleted and moved while others replace them and swap their folders for links: nobody loses a photo."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, leftovers, tree
from watch_support import Watch, drop, picture

from h2a_batch import Event, FileResult, Options, convert_folder
from h2a_batch.ledger import Entry
from h2a_batch.ledger.claims import claim
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import Output
from h2a_batch.places import sha256_of
from h2a_batch.run.aside import restore, set_aside
from h2a_batch.run.disposal import Disposal
from h2a_batch.sources import Source

CALLS = ("open", "rename", "unlink", "link", "fsync", "scandir")  # system calls that an attack may come right before
RULES = ["delete", "archive=DIR"]


class Attacked:
    """A converted photo whose disposal is due, and somebody who strikes right before the n-th system call of it."""

    def __init__(self, folder: Path, rule: str) -> None:
        self.top = folder.resolve()
        self.photo = drop(self.top / "in" / "sub" / "a.jpg", 1)
        self.out, self.archive = self.top / "out", self.top / "archive"
        self.archive.mkdir()
        self.options = Options(on_success=rule.replace("DIR", str(self.archive)))
        self.events: list[Event] = []

    def dispose(self, patch: pytest.MonkeyPatch, strike: Callable[[], None], number: int) -> bool:
        """Dispose of the photo, with a strike before call `number`; tell whether there were so many calls."""
        done = 0

        def attacked(name: str) -> Callable[..., Any]:
            real = getattr(os, name)

            def call(*arguments: Any, **keywords: Any) -> Any:
                nonlocal done
                if armed:
                    done += 1
                    if done == number:
                        armed.clear()
                        strike()
                return real(*arguments, **keywords)

            return call

        armed: list[bool] = []
        with Ledger(self.out, "{}") as ledger:
            status = self.photo.stat()
            source = Source(self.photo, str(self.photo), "sub/a.png", status.st_size, status.st_mtime_ns)
            task = claim(ledger, source, False, [])
            assert task is not None
            (self.out / "sub").mkdir(exist_ok=True)
            task.output.write_bytes(b"painted")  # type: ignore[union-attr]
            ledger.done(task, sha256_of(self.photo), [Output(task.name, 7)], 0.1)
            disposal = Disposal(ledger, self.options, [self.top / "in"], self.events.append)
            disposal.plan(task, None)
            ledger.commit()
            with patch.context() as context:
                for name in CALLS:
                    context.setattr(os, name, attacked(name))
                armed.append(True)
                disposal.carry_out()
            return done >= number


def strikes(tmp_path: Path, rule: str, patch: pytest.MonkeyPatch, strike: Callable[[Attacked], None]) -> list[Attacked]:
    """Strike before each system call of a disposal, one after the other, each time in a new scene."""
    scenes: list[Attacked] = []
    for number in range(1, 200):
        scene = Attacked(tmp_path / str(number), rule)
        if not scene.dispose(patch, lambda scene=scene: strike(scene), number):  # type: ignore[misc]
            break
        scenes.append(scene)
    assert 5 < len(scenes) < 199
    return scenes


@pytest.mark.parametrize("rule", RULES)
def test_a_photo_that_takes_the_place_of_another_is_never_lost(
    tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(scene: Attacked) -> None:
        (scene.top / "new.jpg").write_bytes(picture(2))
        os.replace(scene.top / "new.jpg", scene.photo)

    for scene in strikes(tmp_path, rule, monkeypatch, replace):
        assert picture(2) in tree(scene.top / "in").values(), "the new photo is still in IN"
        assert picture(2) not in tree(scene.archive).values(), "and was not archived unconverted"
        assert not list((scene.top / "in").rglob(".*.h2a-aside"))


@pytest.mark.parametrize("rule", RULES)
def test_a_photo_of_the_same_size_and_time_is_never_lost(
    tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bytes([*picture(1)[:-3], 1, 2, 3])

    def replace(scene: Attacked) -> None:
        status = scene.photo.stat() if scene.photo.exists() else scene.out.stat()
        (scene.top / "new.jpg").write_bytes(other)
        os.utime(scene.top / "new.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(scene.top / "new.jpg", scene.photo)

    for scene in strikes(tmp_path, rule, monkeypatch, replace):
        assert other in tree(scene.top / "in").values() and other not in tree(scene.archive).values()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("swapped", ["in/sub", "in"])
def test_nothing_outside_is_touched_when_a_folder_becomes_a_link(
    tmp_path: Path, rule: str, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(scene: Attacked) -> None:
        folder = scene.top / swapped
        outside = scene.top / "outside" / ("sub" if swapped == "in" else "")
        outside.mkdir(parents=True, exist_ok=True)
        # the very same photo, size and time: only the way to it tells the two apart
        original = next(path for path in folder.rglob("*") if path.is_file())
        shutil.copy2(original, outside / "a.jpg")
        folder.rename(scene.top / "elsewhere")
        folder.symlink_to(scene.top / "outside")

    def strike(scene: Attacked) -> None:
        if any(path.is_file() for path in (scene.top / swapped).rglob("*")):
            swap(scene)

    for scene in strikes(tmp_path, rule, monkeypatch, strike):
        if (scene.top / "outside").exists():
            assert list(tree(scene.top / "outside").values()) == [picture(1)]


@pytest.mark.parametrize("place", ["pipe", "folder", "link"])
def test_what_is_no_photo_any_more_keeps_its_place(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(scene: Attacked) -> None:
        scene.photo.unlink(missing_ok=True)
        if place == "pipe":
            os.mkfifo(scene.photo)
        elif place == "link":
            scene.photo.symlink_to(scene.out)
        else:
            drop(scene.photo / "inner.jpg", 3)

    for scene in strikes(tmp_path, "delete", monkeypatch, replace):
        assert os.path.lexists(scene.photo) or scene.photo.with_name("a~2.jpg").exists()
        if place == "folder":
            assert picture(3) in tree(scene.top / "in").values()


def test_a_photo_that_a_killed_run_left_hidden_gets_its_name_back(tmp_path: Path) -> None:
    scene = Attacked(tmp_path, "delete")
    convert_folder(scene.top / "in", scene.out)
    with Ledger(scene.out, "{}") as ledger:
        row = ledger.row(str(scene.photo))
        assert row is not None
        with set_aside(str(scene.photo), row) as aside:
            assert aside is not None and not scene.photo.exists()
            os.link(scene.photo.parent / aside.name, scene.photo.parent / ".kept")
        scene.photo.unlink()
        (scene.photo.parent / ".kept").rename(scene.photo.parent / aside.name)  # as a kill in the middle leaves it
        ledger.disposals.add(Entry(str(scene.photo), "done", "", scene.out.stat().st_dev))
    assert convert_folder(scene.top / "in", scene.out).skipped == 1, "found again, and known"
    assert tree(scene.top / "in") == {"sub/a.jpg": picture(1)}


def test_a_hidden_photo_gets_another_name_where_its_own_was_taken(tmp_path: Path) -> None:
    photo = drop(tmp_path.resolve() / "a.jpg", 1)
    photo.rename(photo.with_name(_hidden(photo.name)))
    drop(photo, 2)
    restore(str(photo))
    assert tree(tmp_path) == {"a.jpg": picture(2), "a~2.jpg": picture(1)}


@pytest.mark.parametrize("name", ["a.jpg", "\u00e9" * 125 + ".jpg", os.fsdecode(b"latin-\xe9.jpg")])
def test_hidden_names_lead_back_whatever_the_name(tmp_path: Path, name: str) -> None:
    photo = drop(tmp_path.resolve() / name, 1)
    photo.rename(photo.with_name(_hidden(name)))
    drop(tmp_path / "b.jpg", 2).rename(tmp_path / _hidden("b.jpg"))
    restore(str(photo))
    assert photo.exists() and len(list(tmp_path.glob(".*.h2a-aside"))) == 1, "the other one is left alone"


def test_a_kill_between_two_steps_of_giving_a_name_back_doubles_nothing(tmp_path: Path) -> None:
    photo = drop(tmp_path.resolve() / "a.jpg", 1)
    os.link(photo, photo.with_name(_hidden("a.jpg")))
    restore(str(photo))
    assert tree(tmp_path) == {"a.jpg": picture(1)}


def test_a_hidden_photo_waits_for_the_run_that_knows_it(tmp_path: Path, h2a: Command) -> None:
    scene = Attacked(tmp_path, "archive=DIR")
    convert_folder(scene.top / "in", scene.out)
    with Ledger(scene.out, "{}") as ledger:
        target = str(scene.archive / "sub" / "a.jpg")
        ledger.disposals.add(Entry(str(scene.photo), "done", target, scene.out.stat().st_dev))
    hidden = scene.photo.with_name(_hidden("a.jpg"))
    scene.photo.rename(hidden)
    drop(scene.top / "in" / "b.jpg", 2)
    rules = ("--faces", "off", "--on-success", f"archive={scene.archive}")
    assert h2a(scene.top / "in" / "b.jpg", scene.out, *rules).returncode == 0, "a run of other photos leaves it alone"
    assert hidden.exists()
    assert h2a(scene.top / "in", scene.out, *rules).returncode == 0
    assert not hidden.exists() and picture(1) in tree(scene.archive).values()


def test_a_hidden_photo_of_another_run_is_named(tmp_path: Path, h2a: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = drop(tmp_path / "in" / "a.jpg", 1)
    drop(tmp_path / "in" / "b.jpg", 2)
    photo.rename(photo.with_name(_hidden("a.jpg")))
    assert h2a("in", "out").returncode == 0, "a run may be at it just now"
    monkeypatch.setattr("h2a_batch.sources.walk._HIDDEN_SECONDS", -1.0)
    results: list[FileResult] = []
    assert convert_folder(tmp_path / "in", tmp_path / "out", on_file=results.append).failed == 1
    assert "as a.jpg; run again with that run's OUT" in next(r.message for r in results if r.state == "failed")


def _hidden(name: str) -> str:
    from h2a_batch.run import aside

    return aside._hidden(name)


@pytest.mark.skipif(os.getuid() != 0, reason="needs another owner's file and two volumes")
def test_privileges_stay_behind_when_a_photo_is_copied_to_another_volume(tmp_path: Path, h2a: Command) -> None:
    volume = Path("/dev/shm") / f"h2a-{os.getpid()}"
    if not volume.parent.is_dir() or volume.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second volume")
    program = tmp_path / "in" / "x.jpg"
    program.parent.mkdir()
    shutil.copy("/bin/true", program)
    os.chown(program, 12345, 12345)
    program.chmod(0o6755)
    try:
        assert h2a("in", "out", "--on-failure", f"move={volume}").returncode == 1
        status = (volume / "x.jpg").stat()
        assert stat.S_IMODE(status.st_mode) == 0o755 and status.st_uid == 12345 and not program.exists()
    finally:
        shutil.rmtree(volume, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["keep", *RULES])
@pytest.mark.parametrize("way", ["moved", "exchanged", "renamed over", "parent", "later"])
def test_a_watch_follows_no_link_that_takes_a_folders_place(tmp_path: Path, rule: str, way: str) -> None:
    top = tmp_path.resolve()
    drop(top / "home" / "in" / "sub" / "old.jpg", 1)
    outside = {f"family{number}.jpg": picture(number + 2) for number in range(3)}
    for name, data in outside.items():
        for folder in ("outside", "outside/sub", "outside/in/sub"):
            (top / folder).mkdir(parents=True, exist_ok=True)
            (top / folder / name).write_bytes(data)
    before = tree(top / "outside")
    rules = rule.replace("DIR", str(top / "archive"))
    watch = Watch(top / "home" / "in", top / "out", "--on-success", rules, "--faces", "off").ready()
    try:
        watch.wait(lambda: [line for line in list(watch.lines) if line.get("state") == "converted"])
        swapped = top / "home" / ("in" if way == "later" else "in/sub") if way != "parent" else top / "home"
        link = top / "link"
        link.symlink_to(top / "outside")
        if way == "exchanged":
            subprocess.run(["mv", "--exchange", link, swapped], check=False, capture_output=True)
        if not swapped.is_symlink():
            swapped.rename(top / "elsewhere")
            link.rename(swapped)
        (top / "elsewhere" if (top / "elsewhere").exists() else link).joinpath("note.txt").write_text("x")
        here = drop(top / "home" / "in" / "here.jpg", 1) if way not in ("parent", "later") else None
        if here:
            watch.until(here, "converted")  # the watch goes on beside it
        else:
            watch.wait(lambda: watch.events("gone"))
    finally:
        watch.end()
    assert tree(top / "outside") == before
    assert not [line for line in watch.lines if "family" in str(line.get("input"))]
    assert not [name for name in tree(top / "out") if "family" in name]
    assert not leftovers(top / "home") if way != "parent" else True


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_a_run_follows_no_link_that_takes_a_folders_place(tmp_path: Path, rule: str) -> None:
    top = tmp_path.resolve()
    for number in range(12):
        drop(top / "in" / f"p{number}.jpg", number % 4)
    drop(top / "in" / "zoo" / "old.jpg", 5)
    drop(top / "outside" / "old.jpg", 5)
    before = tree(top / "outside")

    def swap(result: object) -> None:
        if not (top / "in" / "zoo").is_symlink():
            (top / "in" / "zoo").rename(top / "elsewhere")
            (top / "in" / "zoo").symlink_to(top / "outside")

    rules = rule.replace("DIR", str(top / "archive"))
    summary = convert_folder(top / "in", top / "out", on_success=rules, faces="off", on_file=swap)
    assert tree(top / "outside") == before and summary.converted + summary.failed >= 12
    assert tree(top / "elsewhere") == {"old.jpg": picture(5)}
