"""Photos that take much time or memory, and a machine that lacks memory: the run goes on, or stops in good order."""

from __future__ import annotations

import errno
import json
import os
import resource
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import PHOTOS, Command, command_line, tree
from hostile_support import scans, tiff_with, webp_of
from watch_support import drop

from h2a_batch import Options, ShortageError, UsageError, convert_folder
from h2a_batch.convert import pipeline
from h2a_batch.errors import ModelError, PhotoError
from h2a_batch.gallery.pictures import draw
from h2a_batch.gallery.results import Item
from h2a_batch.photos import Frame, parse_memory

SLOW = scans(25_000, 2000)  # takes ten seconds
HUGE = webp_of(13363, 13363)


def results(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The JSON lines by the photos' names, in their order."""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(line["input"]).name: line for line in lines if "input" in line}


@pytest.mark.slow
def test_each_hostile_photo_has_its_line_and_the_others_are_converted(
    h2a: Command, photos: Path, tmp_path: Path
) -> None:
    (photos / "0scans.jpg").write_bytes(SLOW)
    (photos / "0huge.webp").write_bytes(HUGE)
    (photos / "tags.tif").write_bytes(tiff_with([(39321, 5, 500_000, 8)], 5 << 20))
    rules = ["--on-failure", "move=failed", "--timeout-per-photo", "1.5"]
    done = h2a(photos, tmp_path / "out", "--json", *rules)
    lines = results(done)
    assert done.returncode == 1 and len(lines) == 9 and "unexpected" not in done.stderr
    assert (lines["0scans.jpg"]["state"], lines["0scans.jpg"]["kind"]) == ("failed", "hostile")
    assert "longer than 1.5 s" in lines["0scans.jpg"]["message"] and "scans" in lines["0scans.jpg"]["message"]
    assert (lines["0huge.webp"]["state"], lines["0huge.webp"]["kind"]) == ("failed", "too-large")
    assert "179 million pixels" in lines["0huge.webp"]["message"]
    assert lines["tags.tif"]["state"] == "converted" and "left out" in lines["tags.tif"]["message"]
    assert sum(line["state"] == "converted" for line in lines.values()) == 7
    assert set(tree(tmp_path / "failed")) == {"0scans.jpg", "0huge.webp"}


@pytest.mark.slow
def test_usual_photos_go_on_while_a_hostile_one_takes_its_time(h2a: Command, photos: Path, tmp_path: Path) -> None:
    for number in range(2):
        (photos / f"0scans{number}.jpg").write_bytes(SLOW)
    done = h2a(photos, tmp_path / "out", "--json", "--workers", "1:1:1", "--timeout-per-photo", "4")
    names = list(results(done))
    assert len(names) == 8 and not names[0].startswith("0scans"), "the only thread that decodes did not wait for them"
    assert names.index("0scans0.jpg") > 2


def test_what_was_left_out_is_said_with_v(h2a: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "tags.tif").write_bytes(tiff_with([(39321, 5, 500_000, 8)], 5 << 20))
    done = h2a(tmp_path / "in", tmp_path / "out", "-v", "--keep-metadata")
    assert done.returncode == 0 and "left out" in done.stderr, done.stderr


@pytest.mark.slow
def test_a_large_photo_within_its_limits_is_converted(h2a: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    bitmap(tmp_path / "in" / "large.bmp", 11_200)
    small = h2a(tmp_path / "in", tmp_path / "out", "--faces", "off", "--memory-per-photo", "300", "--json")
    assert results(small)["large.bmp"]["kind"] == "hostile" and "300 MB" in results(small)["large.bmp"]["message"]
    done = h2a(tmp_path / "in", tmp_path / "out", "--faces", "off")
    assert done.returncode == 0, done.stderr


def bitmap(path: Path, side: int) -> None:
    """A black BMP of three bytes a pixel, in a file with a hole."""
    size = 54 + side * side * 3 + side * (-side * 3 % 4)
    with open(path, "wb") as file:
        file.write(b"BM" + struct.pack("<IHHI", size, 0, 0, 54))
        file.write(struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, size - 54, 0, 0, 0, 0))
        file.truncate(size)


@pytest.mark.slow
def test_a_machine_without_memory_stops_the_run_and_moves_nothing(h2a: Command, photos: Path, tmp_path: Path) -> None:
    bitmap(photos / "large.bmp", 10_500)  # usual, as it is
    rules = ["--on-failure", "move=failed", "--workers", "1:1:1"]
    most = 700 << 20

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    done = h2a(photos, tmp_path / "out", *rules, preexec_fn=little, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert done.returncode == 1 and "memory ran short" in done.stderr, done.stderr
    assert "goes on from here" in done.stderr and "Traceback" not in done.stderr and "unexpected" not in done.stderr
    assert tree(tmp_path / "failed") == {} and (photos / "large.bmp").exists()
    assert len(tree(tmp_path / "out")) == 6, "the others were done first"
    done = h2a(photos, tmp_path / "out", *rules)
    assert done.returncode == 0 and "1 converted" in done.stderr and "6 skipped" in done.stderr, done.stderr


def shortages() -> list[Exception]:
    lite, again = ModelError("MindSpore Lite failed"), ModelError("MindSpore Lite failed")
    lite.__cause__, again.__cause__ = RuntimeError("predict failed! Malloc failed."), MemoryError()
    of_faces = PhotoError("model", "MindSpore Lite failed")
    of_faces.__cause__ = lite
    return [MemoryError(), OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), lite, again, of_faces]


@pytest.mark.parametrize("error", shortages(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("times", [1, 99])
def test_a_shortage_is_tried_again_alone(
    error: Exception, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        drop(tmp_path / "in" / f"{number}.jpg", number)
    lock, busy, failed, company = threading.Lock(), 0, 0, []

    def short(path: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal busy, failed
        with lock:
            busy += 1
        try:
            if str(path).endswith("1.jpg"):
                company.append(busy)
                if failed < times:
                    failed += 1
                    raise error
            return decode(path, *arguments, **more)
        finally:
            with lock:
                busy -= 1

    decode = pipeline.decode
    monkeypatch.setattr(pipeline, "decode", short)
    rules = {"on_failure": f"move={tmp_path / 'failed'}"}
    if times == 1:
        summary = convert_folder(tmp_path / "in", tmp_path / "out", **rules)
        assert (summary.converted, summary.failed) == (4, 0)
    else:
        with pytest.raises(ShortageError, match=r"1\.jpg: memory ran short.*goes on from here") as caught:
            convert_folder(tmp_path / "in", tmp_path / "out", **rules)
        assert caught.value.exit_code == 1
    assert company[-1] == 1 and len(company) == 2, "the second time alone, and no third time"
    assert tree(tmp_path / "failed") == {} and len(tree(tmp_path / "in")) == 4
    assert len(tree(tmp_path / "out")) == 4 - (times > 1)


def test_an_error_that_only_sounds_like_it_is_the_photos(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out of memory.jpg").write_bytes(sorted(PHOTOS.glob("*.jpg"))[0].read_bytes()[:900])
    assert convert_folder(tmp_path / "in", tmp_path / "out").failed == 1


def test_nothing_is_left_when_a_run_is_killed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "scans.jpg").write_bytes(SLOW)
    run = subprocess.Popen(command_line(tmp_path / "in", tmp_path / "out"), stderr=subprocess.DEVNULL)
    children: list[int] = []
    until = threading.Event()
    for _ in range(2000):
        children = children_of(run.pid)
        if children or run.poll() is not None:
            break
        until.wait(0.05)
    assert children
    run.kill()
    run.wait()
    for _ in range(400):
        if not any(Path(f"/proc/{child}/cmdline").exists() and _args(child) for child in children):
            break
        until.wait(0.05)
    assert not any(_args(child) for child in children)


def children_of(process: int) -> list[int]:
    """The processes that read photos apart for a process."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return [child for child in found if "photos.worker" in _args(child)]


def _args(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def test_sheets_and_reports_do_not_unpack_them(tmp_path: Path) -> None:
    (tmp_path / "huge.webp").write_bytes(HUGE)
    whole = Item(tmp_path / "huge.webp", "huge.webp", None, "pending")
    face = Item(tmp_path / "huge.webp", "huge.webp", tmp_path / "huge.webp", "done", frame=Frame(50, 50, 40, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert draw([(whole,)], (64, 64)).rows == [[None, None]]
    assert draw([(face,)], (64, 64)).rows == [[None, None]]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kilobytes"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1500", 1500 << 20), ("1500M", 1500 << 20), ("2G", 2 << 30), ("1.5 GB", 3 << 29), ("2gib", 2 << 30),
     ("", None), ("-1", None), ("much", None), ("2X", None), ("1e3", None)],
)  # fmt: skip
def test_memory_is_given_as_a_number_or_with_a_unit(text: str, size: int | None) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "given", [{"timeout_per_photo": 0}, {"timeout_per_photo": float("nan")}, {"timeout_per_photo": 1e9},
              {"memory_per_photo": "1M"}, {"memory_per_photo": "lots"}],
)  # fmt: skip
def test_limits_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"--(timeout|memory)-per-photo"):
        Options(**given)


def test_limits_do_not_make_outputs_stale(photos: Path, tmp_path: Path) -> None:
    assert convert_folder(photos, tmp_path / "out").converted == 6
    again = convert_folder(photos, tmp_path / "out", timeout_per_photo=5, memory_per_photo=900)
    assert again.skipped == 6
