"""What becomes of photos after their conversion: ``--on-success``, ``--on-failure``, and kills at the worst moment."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Command, leftovers, tree
from watch_support import PORTRAITS, Watch, drop, picture

from h2a_batch import Event, Options, convert_folder
from h2a_batch.ledger.claims import claim
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import Output
from h2a_batch.places import sha256_of, temporary_path
from h2a_batch.run.disposal import Disposal
from h2a_batch.sources.source import Source


def test_an_archive_keeps_sub_folders_and_what_is_in_it(h2a: Command, photos: Path, tmp_path: Path) -> None:
    originals = tree(photos)
    (photos / "broken.jpg").write_bytes(b"")
    theirs = tmp_path / "archive" / "A000210.jpg"
    theirs.parent.mkdir()
    theirs.write_bytes(b"somebody's")
    rules = ["--on-success", "archive=archive", "--on-failure", "move=failed"]
    done = h2a(photos, tmp_path / "out", *rules, "-v")
    assert done.returncode == 1 and "6 converted, 0 skipped, 1 failed" in done.stderr
    archived = {name.replace("A000210", "A000210~2"): data for name, data in originals.items()}
    assert tree(tmp_path / "archive") == {**archived, "A000210.jpg": b"somebody's"}
    assert tree(tmp_path / "failed") == {"broken.jpg": b""} and tree(photos) == {}
    assert len(tree(tmp_path / "out")) == 6 and done.stderr.count(": archived") == 6
    rows = {row["input"]: row["state"] for row in csv.DictReader((tmp_path / "out/.h2a-batch/report.csv").open())}
    assert rows == {
        **{str(tmp_path / "archive" / name): "done" for name in archived},
        str(tmp_path / "failed" / "broken.jpg"): "failed",
    }, "the report tells where the photos are now"


def test_the_next_photo_of_a_name_gets_an_output_of_its_own(tmp_path: Path) -> None:
    for rule in ("delete", f"archive={tmp_path / 'archive'}"):
        out = tmp_path / f"out-{rule.partition('=')[0]}"
        for number in range(3):
            drop(tmp_path / "in" / "IMG_0001.jpg", number)
            assert convert_folder(tmp_path / "in", out, on_success=rule).converted == 1
        assert set(tree(out)) == {"IMG_0001.png", "IMG_0001~2.png", "IMG_0001~3.png"} and tree(tmp_path / "in") == {}
        assert len(set(tree(out).values())) == 3
        report = out / ".h2a-batch" / "report.csv"
        assert len(list(csv.DictReader(report.open()))) == 3 and "//" not in report.read_text()
    assert set(tree(tmp_path / "archive")) == {"IMG_0001.jpg", "IMG_0001~2.jpg", "IMG_0001~3.jpg"}


def test_what_was_skipped_linked_or_set_otherwise_before_stays(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    drop(source / "before.jpg", 1)
    convert_folder(source, out)
    drop(source / "foreign.jpg", 2)
    (out / "foreign.png").write_bytes(b"somebody's")
    outside = drop(tmp_path / "outside.jpg", 3)
    (source / "link.jpg").symlink_to(outside)
    drop(source / "new.jpg", 4)
    summary = convert_folder(source, out, on_success="delete")
    assert (summary.converted, summary.skipped) == (2, 2)
    assert set(tree(source)) == {"before.jpg", "foreign.jpg", "link.jpg"} and outside.exists()


def test_a_photo_that_a_program_has_open_stays_until_it_is_closed(tmp_path: Path) -> None:
    photo, out, told = drop(tmp_path / "in" / "a.jpg", 1), tmp_path / "out", list[Event]()
    with open(photo, "ab"):
        summary = convert_folder(tmp_path / "in", out, on_success="delete", on_event=told.append)
        assert (summary.converted, summary.kept, summary.exit_code) == (1, 1, 1) and photo.exists()
        assert [event.kind for event in told] == ["kept"] and "open for writing" in told[0].message
    summary = convert_folder(tmp_path / "in", out, on_success="delete")
    assert (summary.converted, summary.kept) == (0, 0) and not photo.exists()


@pytest.mark.slow
def test_out_and_archive_inside_the_input_do_not_loop(tmp_path: Path) -> None:
    source = tmp_path / "in"
    drop(source / "sub" / "a.jpg", 1)
    rules = ["--on-success", f"archive={source / 'done'}", "--max-idle", 2]
    watch = Watch(source, source / "anime", *rules).ready()
    watch.until(source / "sub" / "a.jpg", "converted")
    watch.wait(lambda: watch.events("archived"))
    drop(source / "sub" / "a.jpg", 2)
    assert watch.ended() == 0
    assert watch.states(source / "sub" / "a.jpg") == ["converted"] * 2 and len(watch.events("archived")) == 2
    names = {"done/sub/a.jpg", "done/sub/a~2.jpg", "anime/sub/a.png", "anime/sub/a~2.png"}
    assert set(tree(source)) == names
    in_place = Watch(source / "done", source / "done", "--on-success", "delete", "--max-idle", 2)
    assert in_place.ended() == 0
    assert set(tree(source / "done")) == {"sub/a_anime.png", "sub/a~2_anime.png"}


@pytest.mark.parametrize("rule", ["delete", "archive=archive"])
def test_what_a_link_leads_to_outside_of_the_input_stays(tmp_path: Path, h2a: Command, rule: str) -> None:
    theirs = drop(tmp_path / "theirs" / "a.jpg", 1)
    drop(tmp_path / "in" / "b.jpg", 2)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "theirs")
    done = h2a("in", "out", "--on-success", rule)
    assert "2 converted" in done.stderr and theirs.exists() and not (tmp_path / "in" / "b.jpg").exists()


def test_photos_are_not_moved_to_where_outputs_have_their_names(tmp_path: Path, h2a: Command) -> None:
    drop(tmp_path / "all" / "in" / "a.jpg", 1)
    for folder, why in (("all/out/done", "it lies in OUT"), ("all", "IN or OUT is there"), ("all/in", "IN or OUT is")):
        done = h2a("all/in", "all/out", "--on-success", f"archive={folder}")
        assert done.returncode == 2 and why in done.stderr and done.stderr.count("\n") == 1
    assert set(tree(tmp_path / "all")) == {"in/a.jpg"}


def test_one_photo_that_stays_does_not_keep_the_others(tmp_path: Path) -> None:
    photos = [drop(tmp_path / "in" / f"{name}.jpg", place) for place, name in enumerate("ab")]
    with open(photos[0], "ab"):
        with open(photos[1], "ab"):
            convert_folder(tmp_path / "in", tmp_path / "out", on_success="delete")
        with Ledger(tmp_path / "out", "{}") as ledger:
            disposal = Disposal(ledger, Options(on_success="delete"), [tmp_path / "in"], lambda event: None)
            disposal.refused.update(map(str, photos))
            disposal.retry()
    assert photos[0].exists() and not photos[1].exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk needs root")
def test_photos_that_are_away_with_their_volume_are_not_gone(tmp_path: Path) -> None:
    card, out = tmp_path / "card", tmp_path / "out"
    card.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", card]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this container may not mount")
    photo = drop(card / "a.jpg", 1)
    data, times = photo.read_bytes(), photo.stat()
    with open(photo, "ab"):
        assert convert_folder(card, out, on_success="delete").kept == 1
    subprocess.run(["umount", card], check=True)
    convert_folder(card, out, on_success="delete")
    subprocess.run(mount, check=True)
    try:
        photo.write_bytes(data)
        os.utime(photo, ns=(times.st_atime_ns, times.st_mtime_ns))
        convert_folder(card, out, on_success="delete")
        assert set(tree(out)) == {"a.png"}, "it is the photo that it was"
    finally:
        subprocess.run(["umount", "--lazy", card], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_another_volume_that_is_full_keeps_the_photo_until_there_is_room(tmp_path: Path, h2a: Command) -> None:
    source, disk = tmp_path / "in", tmp_path / "disk"
    source.mkdir()
    shutil.copyfile(PORTRAITS[0], source / "a.jpg")
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this container may not mount")
    try:
        rule = ["--on-success", f"archive={disk}"]
        full = h2a(source, tmp_path / "out", *rule)
        assert full.returncode == 1 and "1 converted" in full.stderr and (source / "a.jpg").exists()
        assert f"{source / 'a.jpg'}: it stays where it is: it cannot be archived (No space left" in full.stderr
        assert "1 of the photos stayed in IN" in full.stderr and not any(disk.iterdir())
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        done = h2a(source, tmp_path / "out", *rule)
        assert done.returncode == 0 and "0 converted, 1 skipped" in done.stderr
        assert tree(source) == {} and tree(disk) == {"a.jpg": PORTRAITS[0].read_bytes()}
        assert (disk / "a.jpg").stat().st_mtime_ns and not leftovers(tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


class Scene:
    """A photo that was converted, with what is to become of it written down, as a kill would leave it."""

    def __init__(self, folder: Path, rule: str) -> None:
        self.photo, self.out, self.archive = drop(folder / "in" / "a.jpg", 1), folder / "out", folder / "archive"
        self.options = Options(on_success=rule.replace("DIR", str(self.archive)))
        self.events: list[Event] = []
        self.archive.mkdir()
        convert_folder(self.photo, self.out)
        with Ledger(self.out, "{}") as ledger:
            self.key = next(ledger.rows()).settings

    def planned(self, ledger: Ledger) -> Disposal:
        """The state right after the commit of the result."""
        status = self.photo.stat()
        source = Source(self.photo, str(self.photo), "a.png", status.st_size, status.st_mtime_ns)
        ledger.key = self.key
        task = claim(ledger, source, False, [])
        assert task is not None
        ledger.done(task, sha256_of(self.photo), [Output(task.name, task.output.stat().st_size)], 0.1)
        disposal = Disposal(ledger, self.options, [self.photo.parent], self.events.append)
        disposal.plan(task, None)
        ledger.commit()
        return disposal

    def run_again(self) -> None:
        convert_folder(self.photo.parent, self.out, self.options)


@pytest.fixture(params=["delete", "archive=DIR"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    return Scene(tmp_path, request.param)


def test_a_photo_that_changed_meanwhile_is_kept(scene: Scene) -> None:
    with Ledger(scene.out, "{}") as ledger:
        disposal = scene.planned(ledger)
        same_size = bytearray(scene.photo.read_bytes())
        same_size[-3] ^= 1
        before = scene.photo.stat()
        scene.photo.write_bytes(same_size)
        os.utime(scene.photo, ns=(before.st_atime_ns, before.st_mtime_ns))
        disposal.carry_out()
    assert scene.photo.read_bytes() == same_size and not any(scene.archive.iterdir()) and not scene.events


def test_a_photo_that_was_only_touched_goes_when_it_is_met_again(scene: Scene) -> None:
    with Ledger(scene.out, "{}") as ledger:
        disposal = scene.planned(ledger)
        scene.photo.touch()
        disposal.carry_out()
    assert scene.photo.exists()
    scene.run_again()
    assert not scene.photo.exists() and len(tree(scene.out)) == 1


def test_killed_before_anything_was_moved(scene: Scene) -> None:
    with Ledger(scene.out, "{}") as ledger:
        scene.planned(ledger)
    if scene.options.archive:
        (scene.archive / "a.jpg").touch()  # held the name
        temporary_path(scene.archive / "a.jpg").write_bytes(b"half a copy")
    scene.run_again()
    assert not scene.photo.exists() and set(tree(scene.out)) == {"a.png"} and not leftovers(scene.archive)
    assert tree(scene.archive) == ({"a.jpg": picture(1)} if scene.options.archive else {})


def test_killed_after_the_move_before_it_was_recorded(scene: Scene) -> None:
    with Ledger(scene.out, "{}") as ledger:
        scene.planned(ledger)
    if scene.options.archive:
        scene.photo.rename(scene.archive / "a.jpg")
    drop(scene.photo, 2)  # another photo of this name, dropped while nothing ran
    scene.run_again()
    assert set(tree(scene.out)) == {"a.png", "a~2.png"} and not scene.photo.exists(), "the first output is safe"
    if scene.options.archive:
        assert tree(scene.archive) == {"a.jpg": picture(1), "a~2.jpg": picture(2)}


def test_killed_between_copy_and_removal(scene: Scene) -> None:
    if not scene.options.archive:
        pytest.skip("nothing is copied")
    with Ledger(scene.out, "{}") as ledger:
        scene.planned(ledger)
    shutil.copyfile(scene.photo, scene.archive / "a.jpg")
    scene.run_again()
    assert tree(scene.archive) == {"a.jpg": picture(1)} and not scene.photo.exists()


def test_a_rule_that_is_not_given_any_more_is_not_followed(scene: Scene) -> None:
    with Ledger(scene.out, "{}") as ledger:
        scene.planned(ledger)
    assert convert_folder(scene.photo.parent, scene.out).skipped == 1
    assert scene.photo.exists() and not any(scene.archive.iterdir())


def test_output_and_ledger_are_on_disk_before_a_photo_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(tmp_path / "in" / "sub" / "a.jpg", 1)
    out = tmp_path / "out"
    done: list[str] = []
    sync, unlink = os.fsync, os.unlink

    def note_sync(file: int) -> None:
        sync(file)
        done.append(os.readlink(f"/proc/self/fd/{file}"))

    def note_unlink(path: str, **keywords: int) -> None:
        unlink(path, **keywords)
        if str(path).endswith(".h2a-aside"):
            with Ledger(out, "{}", read_only=True) as ledger:
                assert [row.state for row in ledger.rows()] == ["done"]
            done.append("deleted")

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "unlink", note_unlink)
    convert_folder(tmp_path / "in", out, on_success="delete")
    before = done[: done.index("deleted")]
    assert {str(tmp_path), str(out), str(out / "sub")} <= set(before), "the folders that name the output"
    assert any(name.startswith(str(out / "sub" / ".h2a-")) for name in before), "the output itself"
