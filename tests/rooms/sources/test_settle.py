from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from h2a_batch.sources.settle import Settling, is_open_for_writing
from h2a_batch.sources.source import Source

REST = 0.15


def _source(path: Path, output: str = "a.png") -> Source:
    status = path.stat()
    return Source(path, str(path), output, status.st_size, status.st_mtime_ns)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"photo")
    return path


def _paths(settling: Settling) -> list[Path]:
    return [source.path for source in settling.ready()]


def test_a_photo_is_given_out_once_when_it_has_come_to_rest(photo: Path) -> None:
    settling = Settling(REST)
    settling.see(_source(photo))
    assert _paths(settling) == [] and str(photo) in settling and settling.busy
    time.sleep(REST)
    assert _paths(settling) == [photo] and _paths(settling) == []
    settling.see(_source(photo))
    assert str(photo) not in settling, "it is on its way"
    assert not settling.close(_source(photo)) and not settling.busy


def test_each_change_starts_the_wait_anew_and_the_last_name_counts(photo: Path) -> None:
    settling = Settling(REST)
    settling.see(_source(photo))
    time.sleep(REST)
    photo.write_bytes(b"a longer photo")
    assert _paths(settling) == []
    settling.see(_source(photo, "a.jpg.png"))
    time.sleep(REST)
    (given,) = settling.ready()
    assert (given.size, given.output) == (14, "a.jpg.png")


def test_a_photo_that_goes_is_forgotten(photo: Path) -> None:
    settling = Settling(REST)
    settling.see(_source(photo))
    photo.unlink()
    time.sleep(REST)
    assert _paths(settling) == [] and not settling.busy


def test_what_a_program_writes_is_waited_for_until_patience_ends(photo: Path) -> None:
    settling = Settling(REST)
    settling.patience = 4 * REST
    with open(photo, "ab"):
        assert is_open_for_writing(str(photo))
        settling.see(_source(photo))
        time.sleep(2 * REST)
        assert _paths(settling) == []
        time.sleep(3 * REST)
        assert _paths(settling) == [photo], "a program that never closes it must not hold it back for ever"
    assert not is_open_for_writing(str(photo))
    with open(photo, "rb"):
        assert not is_open_for_writing(str(photo))


def test_half_a_photo_is_tried_again_until_patience_ends(photo: Path) -> None:
    settling = Settling(REST)
    settling.patience = 1.5
    settling.see(_source(photo))
    end, tries = time.monotonic() + 30, 0
    while time.monotonic() < end:
        for source in settling.ready():
            tries += 1
            if not settling.again(source):
                end = 0.0
        time.sleep(0.02)
    assert 2 <= tries <= 5 and not settling.busy


def test_what_is_left_alone_is_met_again_when_it_changed(photo: Path) -> None:
    settling = Settling(REST)
    settling.leave(str(photo))
    settling.see(_source(photo))
    assert not settling.busy
    photo.chmod(0o600)
    settling.see(_source(photo))
    assert settling.busy, "permissions may have been what was wrong"
    settling.leave(str(photo))
    photo.unlink()
    settling.forget_gone()
    assert not settling._left


def test_a_photo_that_changed_while_it_was_converted_is_told_of(photo: Path) -> None:
    settling = Settling(REST)
    source = settling.give(_source(photo))
    os.utime(photo, ns=(1, 1))
    assert settling.close(source)
