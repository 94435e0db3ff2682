"""Files that come to OUT while a run is at work are nobody's to replace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Command, leftovers, tree
from watch_support import drop, picture

from h2a_batch import FileResult, convert_folder
from h2a_batch.places import Address, at
from h2a_batch.places.local import Local


def test_a_file_that_takes_an_outputs_name_during_the_run_stays(
    tmp_path: Path, h2a: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        drop(tmp_path / "in" / f"{number}.jpg", number)
    mine = tmp_path / "out" / "2.png"
    write = Local.write

    def arrive(place: Local, data: bytes, top: Address | None = None, fresh: bool = False) -> None:
        if place.path == mine:
            mine.write_bytes(b"my own")
        write(place, data, top, fresh)

    results: list[FileResult] = []
    with monkeypatch.context() as patch:
        patch.setattr(Local, "write", arrive)
        convert_folder(tmp_path / "in", tmp_path / "out", faces="off", on_file=results.append)
    assert mine.read_bytes() == b"my own" and not leftovers(tmp_path / "out")
    (failed,) = [result for result in results if result.state == "failed"]
    assert failed.kind == "output" and "of other origin came there meanwhile" in failed.message
    again = h2a("in", "out", "--faces", "off")
    assert again.returncode == 0 and "of other origin has the output's name" in again.stderr
    assert mine.read_bytes() == b"my own", "nor is it taken for an output afterwards"


@pytest.mark.parametrize("linked", [True, False])
def test_a_fresh_file_replaces_nothing(tmp_path: Path, linked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not linked:  # as on a volume without hard links

        def refuse(*arguments: object, **keywords: object) -> None:
            raise PermissionError(1, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    at(tmp_path / "new.png").write(picture(1), tmp_path, fresh=True)
    with pytest.raises(Exception, match="came there meanwhile"):
        at(tmp_path / "new.png").write(picture(2), tmp_path, fresh=True)
    assert tree(tmp_path) == {"new.png": picture(1)} and not leftovers(tmp_path)
    at(tmp_path / "new.png").write(picture(2), tmp_path)
    assert tree(tmp_path) == {"new.png": picture(2)}
