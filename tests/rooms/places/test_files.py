"""Files that are written whole or not at all, below links that are not followed; what killed processes left goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h2a_batch.errors import PhotoError, UsageError
from h2a_batch.places import address, at, hold, replacing, sweep, sweep_scratch, temporary_path

_PARTS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3)


@pytest.mark.parametrize("linked", ["sub", "sub/inner"])
def test_an_output_below_a_linked_folder_is_refused_in_one_line(tmp_path: Path, linked: str) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (elsewhere / "inner").mkdir(parents=True)
    (out / linked).parent.mkdir(parents=True)
    (out / linked).symlink_to(elsewhere)
    with pytest.raises(PhotoError) as caught:
        at(out / "sub" / "inner" / "new" / "a.png").write(b"data", out)
    assert caught.value.kind == "output"
    assert str(caught.value) == f"a link is in the place of folder {out / linked}; remove it or choose another OUT"
    assert [path for path in elsewhere.rglob("*") if path.name != "inner"] == []


def test_out_itself_may_be_a_link_and_missing_folders_are_made(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    at(tmp_path / "out" / "x" / "y" / "a.png").write(b"data", tmp_path / "out")
    assert (tmp_path / "real" / "x" / "y" / "a.png").read_bytes() == b"data"
    at(tmp_path / "none" / "yet" / "x" / "a.png").write(b"data", tmp_path / "none" / "yet")
    assert (tmp_path / "none" / "yet" / "x" / "a.png").read_bytes() == b"data"


@settings(deadline=None, max_examples=40)
@given(path=_PARTS, link=_PARTS)
def test_wherever_a_link_is_nothing_is_written_through_it(
    tmp_path_factory: pytest.TempPathFactory, path: list[str], link: list[str]
) -> None:
    top = tmp_path_factory.mktemp("top")
    out, elsewhere = top / "out", top / "elsewhere"
    for folder in (elsewhere, out.joinpath(*link).parent):
        folder.mkdir(parents=True)
    out.joinpath(*link).symlink_to(elsewhere)
    crosses = len(path) > len(link) and path[: len(link)] == link
    try:
        at(out.joinpath(*path)).write(b"data", out)
        assert not crosses
        assert out.joinpath(*path).read_bytes() == b"data" and not out.joinpath(*path).is_symlink()
    except PhotoError:  # as where a folder has the name
        assert crosses or out.joinpath(*path).is_dir()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("text", ["", "file://", "local://", "a\0b"])
def test_an_empty_name_is_not_the_current_folder(text: str) -> None:
    with pytest.raises(UsageError):
        address(text)


def test_a_lock_that_has_another_name_is_made_anew_and_the_other_keeps_its_content(tmp_path: Path) -> None:
    """Snapshots by hard links give it one; a stranger may give it that of the user's own file."""
    (tmp_path / "theirs").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    os.link(tmp_path / "theirs", tmp_path / "out" / "lock")
    os.close(hold(tmp_path / "out", tmp_path))
    assert (tmp_path / "out" / "lock").stat().st_nlink == 1
    assert (tmp_path / "theirs").read_bytes() == b"precious"


def _left(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - 60, time.time() - 60))


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    ours = temporary_path(tmp_path / "sheet.pdf").name
    others = ["a.part", ".h2a-short.part", f"{ours}.png", ".h2a-0123456789ABCDEF.part", "0123456789abcdef.part"]
    node = temporary_path(tmp_path / "a.png", "-01234567").name  # its machine may be another one
    _left(tmp_path, ours, node, *others)
    (tmp_path / "theirs").write_bytes(b"precious")
    linked, pipe, folder, hard = (temporary_path(tmp_path / name).name for name in ("link", "pipe", "folder", "hard"))
    (tmp_path / linked).symlink_to("theirs")
    os.mkfifo(tmp_path / pipe)
    (tmp_path / folder).mkdir()
    os.link(tmp_path / "theirs", tmp_path / hard)
    with replacing(tmp_path / "alive.pdf") as alive:
        alive.write(b"x")
        alive.flush()
        os.utime(temporary_path(tmp_path / "alive.pdf"), (1, 1))
        sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, node, "theirs", linked, pipe, folder, hard, "alive.pdf"}
    os.utime(tmp_path / node, (1, 1))
    sweep(tmp_path)
    assert node not in {path.name for path in tmp_path.iterdir()}


_SCRATCH = """
import sys, time
from pathlib import Path
from h2a_batch.places import Scratch
with Scratch() as folder:
    Path(folder, "file").write_bytes(b"data")
    print(folder, flush=True)
    time.sleep(120)
"""


def test_temporary_folders_of_killed_processes_go_and_those_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", _SCRATCH], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, alive = (Path((process.stdout or sys.stdin).readline().strip()) for process in started)
        for name in ("h2a-batch-12345678", "h2a-batch-tmp-", "tmpabcdefgh", "h2a-batch-tmp-abcdefgh.txt"):
            (tmp_path / name).mkdir()
        (tmp_path / "h2a-batch-tmp-abcdefgh").symlink_to(tmp_path / "tmpabcdefgh")
        started[0].send_signal(signal.SIGKILL)
        started[0].wait()
        for folder in (killed, alive):
            os.utime(folder, (1, 1))
        before = {path.name for path in tmp_path.iterdir()}
        sweep_scratch()
        assert before - {path.name for path in tmp_path.iterdir()} == {killed.name} and (alive / "file").exists()
    finally:
        for process in started:
            process.kill()
            process.communicate()
