from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from conftest import PHOTOS
from PIL import Image

from h2a_batch.errors import BusyError, LedgerError
from h2a_batch.files import temporary_path
from h2a_batch.ledger import Ledger, Task
from h2a_batch.source import LEDGER_FOLDER, Source


def _source(path: Path, output: str = "a.png") -> Source:
    status = path.stat()
    return Source(path, output, status.st_size, status.st_mtime_ns)


def _make(ledger: Ledger, source: Source, overwrite: bool = False) -> Task:
    """Convert as the pipeline does, as far as the ledger sees it."""
    task = ledger.claim(source, overwrite)
    assert task is not None
    task.output.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), "red").save(task.output)
    import hashlib

    ledger.done(task, hashlib.sha256(source.path.read_bytes()).hexdigest(), task.output.stat().st_size, 0.1)
    return task


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(sorted(PHOTOS.glob("*.jpg"))[0].read_bytes())
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def _open(out: Path, settings: str = "{}", protected: list[str] | None = None) -> Ledger:
    return Ledger(out, settings, protected or [])


def test_an_output_is_current_until_anything_changes(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        assert not ledger.is_current(_source(photo))
        task = _make(ledger, _source(photo))
        assert ledger.is_current(_source(photo))
        assert not ledger.is_current(_source(photo, "b.png"))
    with _open(out) as ledger:
        assert ledger.is_current(_source(photo))
        os.utime(photo, ns=(1, 1))
        assert ledger.is_current(_source(photo)), "touched, but of the same content"
        photo.write_bytes(photo.read_bytes()[:-1] + b"x")
        assert not ledger.is_current(_source(photo))
        _make(ledger, _source(photo))
        task.output.unlink()
        assert not ledger.is_current(_source(photo))
    with _open(out, '{"other": 1}') as ledger:
        assert not ledger.is_current(_source(photo))


def test_an_output_cut_short_is_made_again_and_one_edited_by_hand_is_kept(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        task = _make(ledger, _source(photo))
        task.output.write_bytes(task.output.read_bytes()[:40])
        assert not ledger.is_current(_source(photo))
        assert ledger.claim(_source(photo), overwrite=False) is not None
        _make(ledger, _source(photo))
        Image.new("RGB", (300, 300), "blue").save(task.output)
        assert not ledger.is_current(_source(photo))
        assert ledger.claim(_source(photo), overwrite=False) is None
        assert ledger.claim(_source(photo), overwrite=True) is not None


def test_a_file_of_other_origin_is_replaced_only_when_told(out: Path, photo: Path) -> None:
    out.mkdir()
    (out / "a.png").write_bytes(b"somebody's")
    with _open(out) as ledger:
        assert ledger.claim(_source(photo), overwrite=False) is None
        task = ledger.claim(_source(photo), overwrite=True)
        assert task is not None and task.name == "a.png"


def test_an_original_is_never_the_output_even_with_overwrite(photo: Path) -> None:
    (photo.parent / "a.png").write_bytes(b"an original")
    with _open(photo.parent, protected=[str(photo.parent)]) as ledger:
        task = ledger.claim(_source(photo), overwrite=True)
        assert task is not None and task.name == "a~2.png"
        again = ledger.claim(_source(photo), overwrite=True)
        assert again is not None and again.name == "a~2.png"
        assert ledger.is_output(photo.parent / "a~2.png") and not ledger.is_output(photo.parent / "a.png")


def test_two_inputs_from_different_runs_never_share_an_output(tmp_path: Path, out: Path, photo: Path) -> None:
    other = tmp_path / "other" / "a.jpg"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes() + b"\0")
    with _open(out) as ledger:
        assert _make(ledger, _source(photo)).name == "a.png"
        assert _make(ledger, _source(other)).name == "a~2.png"
        assert ledger.is_current(_source(photo)) and ledger.is_current(_source(other))


def test_an_input_folder_that_was_moved_is_recognised(tmp_path: Path, out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        _make(ledger, _source(photo))
    moved = tmp_path / "elsewhere"
    photo.parent.rename(moved)
    with _open(out) as ledger:
        assert ledger.is_current(_source(moved / "a.jpg"))


def test_names_that_are_no_utf8_survive(tmp_path: Path, out: Path, photo: Path) -> None:
    name = os.fsdecode(b"latin-\xe9.jpg")
    odd = photo.rename(tmp_path / name)
    with _open(out) as ledger:
        _make(ledger, _source(odd, os.fsdecode(b"latin-\xe9.png")))
        assert ledger.is_current(_source(odd, os.fsdecode(b"latin-\xe9.png")))
        assert [row.source for row in ledger.rows()] == [str(odd)]
        assert b"latin-\xe9.png" in ledger.write_report().read_bytes()


def test_a_second_run_on_the_same_folder_is_told_so(out: Path) -> None:
    with _open(out), pytest.raises(BusyError, match=str(os.getpid())):
        _open(out)
    _open(out).__exit__(None, None, None)


def test_a_damaged_or_newer_ledger_is_refused(out: Path) -> None:
    _open(out).__exit__(None, None, None)
    path = out / LEDGER_FOLDER / "ledger.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="newer"):
        _open(out)
    path.write_bytes(b"this is not a database at all, whatever its name" * 100)
    with pytest.raises(LedgerError, match="damaged"):
        _open(out)


def test_leftovers_of_a_killed_run_are_removed(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        task = ledger.claim(_source(photo), overwrite=False)
        assert task is not None
        temporary_path(task.output).write_bytes(b"half")
    with _open(out) as ledger:
        ledger.clean()
        assert not temporary_path(task.output).exists()
        assert ledger.is_output(out / "a.png"), "a name on record is known as an output from before it was made"


def test_looking_changes_nothing(out: Path, photo: Path) -> None:
    with Ledger(out, "{}", [], read_only=True) as ledger:
        assert ledger.claim(_source(photo), overwrite=False) is not None
    assert not out.exists()
