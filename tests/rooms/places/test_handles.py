"""Folders and files that are opened without following links."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from h2a_batch.places.handles import LINKED, folder_at, open_file, resolved


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder with a file two floors down, and a link out of it; its path holds no link."""
    top = tmp_path.resolve()
    (top / "in" / "sub").mkdir(parents=True)
    (top / "in" / "sub" / "a.jpg").write_bytes(b"inside")
    (top / "outside").mkdir()
    (top / "outside" / "a.jpg").write_bytes(b"outside")
    return top


def test_a_file_is_read_where_no_link_is(house: Path) -> None:
    with open_file(house / "in" / "sub" / "a.jpg") as file:
        assert file.read() == b"inside"


@pytest.mark.parametrize("swapped", ["in/sub/a.jpg", "in/sub", "in"])
def test_no_link_is_followed_wherever_it_is(house: Path, swapped: str) -> None:
    path = house / swapped
    path.rename(house / "elsewhere")
    path.symlink_to(house / "outside" / ("a.jpg" if swapped.endswith("jpg") else ""))
    if swapped == "in":
        (house / "outside" / "sub").mkdir()
        (house / "outside" / "a.jpg").rename(house / "outside" / "sub" / "a.jpg")
    assert (house / "in" / "sub" / "a.jpg").read_bytes() == b"outside"  # so the link works
    with pytest.raises(OSError) as caught:
        open_file(house / "in" / "sub" / "a.jpg")
    assert caught.value.errno in LINKED


def test_links_above_the_top_are_followed(house: Path) -> None:
    (house / "link").symlink_to("in")
    with open_file(house / "link" / "sub" / "a.jpg", house / "link") as file:
        assert file.read() == b"inside"


def test_a_handle_stays_with_its_folder(house: Path) -> None:
    with folder_at(house / "in" / "sub") as handle:
        (house / "in" / "sub").rename(house / "moved")
        (house / "in" / "sub").symlink_to(house / "outside")
        os.unlink("a.jpg", dir_fd=handle)
    assert not (house / "moved" / "a.jpg").exists() and (house / "outside" / "a.jpg").exists()


def test_folders_are_made_below_the_top_but_not_through_links(house: Path) -> None:
    with folder_at(house / "in" / "x" / "y", house / "in", make=True):
        assert (house / "in" / "x" / "y").is_dir()
    (house / "in" / "link").symlink_to(house / "outside")
    with pytest.raises(OSError), folder_at(house / "in" / "link" / "z", house / "in", make=True):
        pass
    assert not (house / "outside" / "z").exists()


@pytest.mark.parametrize("path", ["in/../outside/a.jpg", "outside/a.jpg"])
def test_nothing_outside_of_the_top_is_opened(house: Path, path: str) -> None:
    with pytest.raises(ValueError):
        open_file(house / path, house / "in")


def test_a_pipe_is_refused_at_once(house: Path) -> None:
    os.mkfifo(house / "pipe.jpg")
    with pytest.raises(OSError) as caught:
        open_file(house / "pipe.jpg")
    assert caught.value.errno == errno.EINVAL


def test_a_link_that_stops_being_one_while_it_is_resolved_is_no_error(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (house / "link").symlink_to("in")
    assert resolved(house / "link") == str(house / "in")
    read = os.readlink

    def too_late(path: str, **keywords: int) -> str:
        os.unlink(path)
        os.mkdir(path)
        return read(path, **keywords)

    monkeypatch.setattr(os, "readlink", too_late)
    assert resolved(house / "link") == str(house / "link")
