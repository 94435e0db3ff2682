"""Watching where something is in the way: limits, inputs and volumes that come and go, services, wrong usage."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, Command, leftovers, tree
from watch_support import Start, Watch, drop, picture, start

from h2a_batch.command.convert import build_parser

__all__ = ["start"]  # a fixture


def test_systemd_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(90)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        watch = start(tmp_path / "in", tmp_path / "out", env=environment)
        assert manager.recv(100) == b"READY=1"
        assert watch.end() == 0
        assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.slow
def test_polling_finds_the_same(start: Start, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    drop(source / "a.jpg", 1)
    watch = start(source, out, "--poll").ready()
    watch.until(drop(source / "b" / "b.jpg", 2), "converted")
    (source / "a.jpg").write_bytes(picture(3))
    watch.until(source / "a.jpg", "converted", "converted")
    assert set(tree(out)) == {"a.png", "b/b.png"} and watch.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["watches", "instances"])
def test_where_the_limit_of_inotify_is_reached_it_polls(start: Start, tmp_path: Path, limit: str) -> None:
    lower = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if subprocess.run([*lower, "echo 9 > /proc/sys/user/max_inotify_watches"], capture_output=True).returncode:
        pytest.skip("limits of its own need a user namespace, which this system does not give")
    source = tmp_path / "in"
    source.mkdir()
    number = 5 if limit == "watches" else 0
    script = f'echo {number} > /proc/sys/user/max_inotify_{limit} && exec "$@"'
    watch = start(source, tmp_path / "out", before=[*lower, script, "sh"]).ready()
    photos = [drop(source / f"{place}" / "a.jpg", place) for place in range(8)]  # with each folder one watch more
    for photo in [*photos, drop(source / "7" / "b.jpg", 8)]:
        watch.until(photo, "converted")
    told = watch.events("polling")
    assert len(told) == 1 and f"sysctl fs.inotify.max_user_{limit}=" in told[0]["message"]
    assert sum("fs.inotify" in line for line in watch.errors) == 1
    watch.wait(lambda: _taken(watch, 2) < 0.5)  # it rests between its looks, once all generators are loaded
    assert watch.end() == 0


def _taken(watch: Watch, seconds: float) -> float:
    """Processor time that the watcher takes in the next seconds."""
    before = _seconds(watch)
    time.sleep(seconds)
    return _seconds(watch) - before


def _seconds(watch: Watch) -> float:
    """Processor time that the watcher has taken."""
    fields = Path(f"/proc/{watch.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_a_limit_waits_for_a_photo_that_is_not_complete(start: Start, tmp_path: Path) -> None:
    photo = tmp_path / "in" / "a.jpg"
    photo.parent.mkdir()
    photo.write_bytes(picture(1)[:900])
    watch = start(tmp_path / "in", tmp_path / "out", "--limit", 1).ready()
    time.sleep(2)
    photo.write_bytes(picture(1))
    watch.until(photo, "converted")
    assert watch.ended() == 0


@pytest.mark.slow
def test_an_input_that_goes_away_and_comes_back(start: Start, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    watch = start(source, out).ready()
    watch.until(drop(source / "sub" / "a.jpg", 1), "converted")
    source.rename(tmp_path / "moved")
    watch.wait(lambda: watch.events("gone"))
    drop(source / "b.jpg", 2)
    watch.until(source / "b.jpg", "converted")
    shutil.rmtree(source)
    drop(source / "sub" / "a.jpg", 3)  # at once: it may not even be seen that the folder was gone
    watch.until(source / "sub" / "a.jpg", "converted", "converted")
    watch.until(drop(source / "sub" / "c.jpg", 4), "converted")
    assert watch.end() == 0
    told = watch.events("gone", "back")
    assert [event["event"] for event in told][:2] == ["gone", "back"] and len(told) <= 4
    assert sum(str(source) in line and "->" not in line for line in watch.errors) == len(told) + 1, "a line for each"


def _mount(place: Path, size: str) -> None:
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this container may not mount")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_card_that_is_unmounted_and_mounted_again(start: Start, tmp_path: Path) -> None:
    card = tmp_path / "card"
    _mount(card, "4m")
    mounted = True
    try:
        watch = start(card, tmp_path / "out").ready()
        watch.until(drop(card / "a.jpg", 1), "converted")
        subprocess.run(["umount", "--lazy", card], check=True)
        mounted = False
        watch.wait(lambda: len(watch.events("gone")) == 1)
        time.sleep(2)
        assert not watch.events("back"), "the empty folder below the card is not the card"
        _mount(card, "4m")
        mounted = True
        watch.until(drop(card / "b.jpg", 2), "converted")
        assert len(watch.events("back")) == 1 and watch.end() == 0
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", card], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_waited_for_and_nothing_is_lost(start: Start, tmp_path: Path) -> None:
    source, disk = tmp_path / "in", tmp_path / "disk"
    source.mkdir()
    _mount(disk, "1m")
    try:
        watch = start(source, disk / "out").ready()
        for number in range(40):
            drop(source / f"{number:02d}.jpg", number)
        watch.wait(lambda: watch.events("full"))
        drop(source / "late.jpg", 50)
        time.sleep(4)
        assert len(watch.events("full")) == 1 and not watch.events("free"), "one line, however often it is tried"
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        watch.wait(lambda: len(tree(disk / "out")) == 41, 150)
        watch.wait(lambda: watch.events("free"))
        assert watch.end() == 0 and not leftovers(disk)
        told = [line["input"] for line in watch.lines if line.get("state") == "converted"]
        assert len(told) == len(set(told)) == 41 and not any(line.get("state") == "failed" for line in watch.lines)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_the_sample_unit_and_compose_file_give_arguments_that_there_are() -> None:
    unit = (ROOT / "scripts" / "systemd" / "h2a-batch.service").read_text()
    compose = (ROOT / "scripts" / "compose" / "compose.yaml").read_text()
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).split()[1:]
    listed = json.loads(next(line for line in compose.splitlines() if "command:" in line).partition(":")[2])
    for arguments in (command, listed, [*listed, "--poll"]):
        assert build_parser().parse_args(arguments).watch
    assert "Type=notify" in unit and "h2a-batch" in unit


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in/A000210.jpg", "out", "--watch"], "--watch is for folders"),
        (["in", "out", "--watch", "--overwrite"], "choose one"),
        (["in", "out", "--watch", "--dry-run"], "choose one"),
        (["in", "out", "--settle", "2"], "this is for --watch"),
        (["in", "out", "--watch", "--settle", "-1"], "0 or more"),
        (["in", "out", "--poll"], "this is for --watch"),
        (["in", "out", "--watch", "--contact-sheet", "sheet.jpg"], "h2a-sheet"),
        (["in", "out", "--on-success", "archive"], "archive=FOLDER"),
        (["in", "out", "--on-failure", "delete"], "move=FOLDER"),
        (["in", "out", "--on-success", "archive=in"], "choose a folder of its own"),
        (["in", "out", "--on-failure", "move=/proc/none"], "cannot be moved there"),
    ],
)
def test_wrong_usage_is_one_line(h2a: Command, photos: Path, arguments: list[str], words: str) -> None:
    done = h2a(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
