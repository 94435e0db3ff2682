from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PHOTOS

from h2a_batch.errors import UsageError
from h2a_batch.sources import LEDGER_FOLDER, Found, Ignored, Scan, Source, Unusable, check_inputs, scan

PORTRAIT = sorted(PHOTOS.glob("*.jpg"))[0]


def _put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PORTRAIT, path)


def _scan(
    *inputs: Path,
    out: Path = Path("/nowhere/out"),
    recursive: bool = True,
    is_output: Callable[[Path], bool] | None = None,
) -> list[Found]:
    return list(scan(check_inputs(list(inputs)), Scan("", "png", recursive, out, is_output or (lambda path: False))))


def _outputs(found: list[Found]) -> list[str]:
    return [item.output for item in found if isinstance(item, Source)]


def test_a_tree_is_mirrored_in_order(tmp_path: Path) -> None:
    _put(tmp_path / "b.jpg", tmp_path / "a.jpg", tmp_path / "sub" / "deep" / "c.jpg", tmp_path / "sub" / "d.jpg")
    assert _outputs(_scan(tmp_path)) == ["a.png", "b.png", "sub/d.png", "sub/deep/c.png"]
    assert _outputs(_scan(tmp_path, recursive=False)) == ["a.png", "b.png"]


def test_what_is_no_photo_is_passed_over_and_counted(tmp_path: Path) -> None:
    _put(tmp_path / "a.jpg", tmp_path / ".hidden.jpg", tmp_path / ".folder" / "b.jpg", tmp_path / "picture.dat")
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "BMW list.txt", "empty.txt"):
        (tmp_path / name).write_bytes(b"BMW and others, a list that goes on" if name != "empty.txt" else b"")
    (tmp_path / "raw.CR2").write_bytes(b"II*\0" + b"\0" * 100)
    os.mkfifo(tmp_path / "pipe.jpg")
    found = _scan(tmp_path)
    assert _outputs(found) == ["a.png", "picture.dat.png"]
    assert len([item for item in found if isinstance(item, Ignored)]) == 8
    assert len(found) == 10


def test_a_sidecar_does_not_change_the_name_of_its_photo(tmp_path: Path) -> None:
    _put(tmp_path / "a.jpg")
    (tmp_path / "a.xmp").write_text("<xmp/>")
    (tmp_path / "a.NEF").write_bytes(b"MM\0*" + b"\0" * 100)
    assert _outputs(_scan(tmp_path)) == ["a.png"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    _put(tmp_path / "in" / "a.jpg", tmp_path / "in" / "sub" / "b.jpg", tmp_path / "outside" / "c.jpg")
    os.symlink(tmp_path / "in", tmp_path / "in" / "sub" / "up")
    os.symlink(tmp_path / "in" / "sub", tmp_path / "in" / "across")
    os.symlink(tmp_path / "outside", tmp_path / "in" / "linked")
    os.symlink(tmp_path / "outside", tmp_path / "outside" / "self")
    os.symlink("me.jpg", tmp_path / "in" / "me.jpg")
    os.symlink("gone.jpg", tmp_path / "in" / "broken.jpg")
    os.symlink("gone.txt", tmp_path / "in" / "broken.txt")
    found = _scan(tmp_path / "in")
    assert _outputs(found) == ["a.png", "linked/c.png", "sub/b.png"]
    assert [item.path.name for item in found if isinstance(item, Unusable)] == ["broken.jpg", "me.jpg"]


def test_out_inside_in_is_passed_over(tmp_path: Path) -> None:
    _put(tmp_path / "a.jpg", tmp_path / "out" / "a.png", tmp_path / "other" / "b.jpg")
    assert _outputs(_scan(tmp_path, out=tmp_path / "out")) == ["a.png", "other/b.png"]


def test_outputs_of_earlier_runs_are_no_sources(tmp_path: Path) -> None:
    _put(tmp_path / "a.jpg", tmp_path / "a_anime.png", tmp_path / "sub" / "b_anime.png")
    found = _scan(tmp_path, out=tmp_path, is_output=lambda path: path.stem.endswith("_anime"))
    assert _outputs(found) == ["a.png"]


def test_several_inputs_get_a_folder_each(tmp_path: Path) -> None:
    _put(tmp_path / "x" / "in" / "a.jpg", tmp_path / "y" / "in" / "a.jpg", tmp_path / "a.jpg", tmp_path / "z" / "a.jpg")
    found = _scan(tmp_path / "x" / "in", tmp_path / "y" / "in", tmp_path / "a.jpg", tmp_path / "z" / "a.jpg")
    assert sorted(_outputs(found)) == ["a.png", "a~2.png", "in/a.png", "in~2/a.png"]
    assert len(set(_outputs(found))) == 4


def test_an_input_given_twice_counts_once(tmp_path: Path) -> None:
    _put(tmp_path / "in" / "a.jpg")
    os.symlink(tmp_path / "in", tmp_path / "same")
    assert _outputs(_scan(tmp_path / "in", tmp_path / "same", tmp_path / "in" / ".")) == ["a.png"]


def test_an_input_inside_another_is_met_there(tmp_path: Path) -> None:
    _put(tmp_path / "in" / "a.jpg", tmp_path / "in" / "sub" / "b.jpg", tmp_path / "in" / ".hidden" / "c.jpg")
    inputs = [tmp_path / "in", tmp_path / "in" / "sub", tmp_path / "in" / "a.jpg", tmp_path / "in" / ".hidden"]
    assert check_inputs(inputs) == [inputs[0], inputs[3]]
    assert check_inputs(inputs[:3], recursive=False) == inputs[:2]


def test_the_output_folder_of_another_run_is_passed_over(tmp_path: Path) -> None:
    _put(tmp_path / "a.jpg", tmp_path / "anime" / "a.png")
    (tmp_path / "anime" / LEDGER_FOLDER).mkdir()
    assert _outputs(_scan(tmp_path)) == ["a.png"]


def test_names_in_any_script_and_no_script(tmp_path: Path) -> None:
    names = [
        "\u5c71\u7530 \u592a\u90ce.jpg",
        "\u0645\u0631\u062d\u0628\u0627.jpg",
        " lead.jpg",
        "new\nline.jpg",
        "-rf.jpg",
    ]
    names.append(os.fsdecode(b"latin-\xe9.jpg"))
    _put(*(tmp_path / name for name in names))
    assert len(set(_outputs(_scan(tmp_path)))) == len(names)


def test_deep_folders(tmp_path: Path) -> None:
    _put(tmp_path / "d" / "a.jpg")
    before = Path.cwd()
    try:
        os.chdir(tmp_path / "d")
        for _ in range(1200):  # deeper than Python's calls may nest
            os.mkdir("d")
            os.chdir("d")
        os.chdir(before)
        assert _outputs(_scan(tmp_path)) == ["d/a.png"]
    finally:
        os.chdir(before)
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # shutil nests its calls


def test_an_input_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        check_inputs([tmp_path / "nothing"])
    with pytest.raises(UsageError, match="no input"):
        check_inputs([])
