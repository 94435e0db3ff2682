"""Reading apart: a process of its own for a photo, which keeps to its limits and leaves nothing behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from conftest import PHOTOS, ROOT

from h2a_batch.convert import decode
from h2a_batch.errors import PhotoError
from h2a_batch.faces import Detectors, Search
from h2a_batch.inference import FaceRule
from h2a_batch.photos import Limits, Look, read_apart

PORTRAIT = sorted(PHOTOS.glob("*.jpg"))[0]
LOOK = Look(why="a rare structure")
MB = 1 << 20

Ask = Callable[[Any], Any]


def length(file: BinaryIO, ask: Ask) -> tuple[int, int]:
    return len(file.read()), os.getpid()


def endless(file: BinaryIO, ask: Ask) -> None:
    while True:
        time.sleep(0.01)


def hungry(file: BinaryIO, ask: Ask, step: int) -> None:
    held = []
    while True:
        held.append(np.ones(step, np.uint8))


def at_once(file: BinaryIO, ask: Ask, size: int) -> int:
    return int(np.ones(size, np.uint8)[0])


def killed(file: BinaryIO, ask: Ask, number: int) -> None:
    os.kill(os.getpid(), number)


def asks(file: BinaryIO, ask: Ask, count: int) -> int:
    return sum(ask(np.full(5, number)) for number in range(count))


def loads_what(file: BinaryIO, ask: Ask) -> list[str]:
    import h2a_batch.convert  # noqa: F401

    return [name for name in sys.modules if name.startswith("mindspore")]


def here(function: Callable[..., Any], *arguments: Any, answer: Ask | None = None, **limits: Any) -> Any:
    with open(PORTRAIT, "rb") as file:
        return read_apart(function, arguments, file, Limits(**limits), LOOK, answer)


@pytest.fixture(autouse=True)
def _findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process finds the functions of this file."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_the_process_has_the_file_and_is_another_one() -> None:
    size, process = here(length)
    assert size == PORTRAIT.stat().st_size and process != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert read_apart(length, (), io.BytesIO(b"abc"), Limits(), LOOK)[0] == 3, "an object in memory, too"


def test_it_loads_no_mindspore_lite() -> None:
    assert here(loads_what) == []


@pytest.mark.slow
def test_questions_are_answered_and_their_time_does_not_count() -> None:
    def slow(numbers: Any) -> int:
        time.sleep(1.5)
        return int(numbers.sum())

    assert here(asks, 3, answer=slow, seconds=4.0) == 15


def test_what_takes_too_long_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(PhotoError, match=r"longer than 1 s.*a rare structure.*--timeout-per-photo") as caught:
        here(endless, seconds=1.0)
    assert caught.value.kind == "hostile" and time.monotonic() - started < 60


@pytest.mark.parametrize("step", [MB, 50 * MB, 900 * MB])
def test_what_takes_too_much_memory_is_ended(step: int) -> None:
    with pytest.raises(PhotoError, match=r"more than 200 MB of memory.*--memory-per-photo") as caught:
        here(hungry, step, memory=200 * MB)
    assert caught.value.kind == "hostile"
    assert here(at_once, 100 * MB, memory=200 * MB) == 1


def test_a_claim_beyond_the_limit_is_refused_unread() -> None:
    look = Look(pixels=178_000_000, least=3 << 30, why="178 million pixels")
    with open(PORTRAIT, "rb") as file, pytest.raises(PhotoError, match=r"178 million pixels take 3.0 GB") as caught:
        read_apart(endless, (), file, Limits(), look)
    assert caught.value.kind == "too-large"


def test_a_crash_is_the_photos_fault_and_a_kill_by_the_system_is_not() -> None:
    with pytest.raises(PhotoError, match=r"crashed .SIGSEGV") as caught:
        here(killed, signal.SIGSEGV)
    assert caught.value.kind == "hostile"
    with pytest.raises(MemoryError):
        here(killed, signal.SIGKILL)


def test_a_limit_of_the_shell_is_not_the_photos_fault() -> None:
    code = (
        "import resource, test_apart as t\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (700 << 20, 700 << 20))\n"
        "try: t.here(t.at_once, 900 << 20)\n"
        "except MemoryError: print('shortage')\n"
    )
    folders = os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout == "shortage\n", done.stderr


def test_nobody_waits_for_a_photo_that_nobody_wants() -> None:
    until = time.monotonic() + 1
    with pytest.raises(InterruptedError):
        here(endless, ended=lambda: time.monotonic() > until)


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = f"import test_apart as t\nt.here(t.tells, {str(tmp_path / 'process')!r})\n"
    folders = os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent)))
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders})
    until = time.monotonic() + 100
    while not (tmp_path / "process").exists() and time.monotonic() < until:
        time.sleep(0.05)
    child = int((tmp_path / "process").read_text())
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    while time.monotonic() < until and _lives(child):
        time.sleep(0.05)
    assert not _lives(child)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tells(file: BinaryIO, ask: Ask, path: str) -> None:
    Path(f"{path}~").write_text(str(os.getpid()))
    os.rename(f"{path}~", path)
    endless(file, ask)


@pytest.mark.parametrize("paste", [False, True])
def test_a_photo_comes_out_the_same_apart(paste: bool) -> None:
    search = Search(Detectors().find, FaceRule(), None, 50, "convert", not paste, paste)
    one, other = (
        decode(PORTRAIT, (256, 256), "pad", "model", True, search, limits=Limits(apart=apart))
        for apart in (False, True)
    )
    assert one.sha256 == other.sha256 and one.exif == other.exif and one.faces == other.faces
    for mine, its in zip(
        [*one.parts, *filter(None, [one.canvas])], [*other.parts, *filter(None, [other.canvas])], strict=True
    ):
        assert np.array_equal(mine.pixels, its.pixels) and mine.placement == its.placement
