"""Results of a real run, with names of every awkward kind, for the tests of the report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import PHOTOS

from h2a_batch import convert_folder
from h2a_batch.report import write_report
from h2a_batch.results import read_results

PORTRAITS = sorted(PHOTOS.glob("*.jpg"))
HOSTILE = (
    "<script>hacked=1<\x7fscript>.jpg",
    "<img src=x onerror=hacked=1>.jpg",
    "<title>--><!-- ]].jpg",
    "\"quotes' & amp;.jpg",
    "new\nline.jpg",
    os.fsdecode(b"latin-\xe9.jpg"),
    "javascript:hacked=1.jpg",
    "a?b#c%20d.jpg",
    "\u5c71\u7530 \u592a\u90ce.jpg",
    "Zoe\u0308 M\u00dcLLER.jpg",
    "\u202egpj.exe.jpg",
    "x" * 240 + ".jpg",
    "</script>.jpg",  # a file in a folder that is named <
)
NAMES = {*HOSTILE, *(path.name for path in PORTRAITS), "cut off.jpg", "empty.jpg"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos `in`, and what two ways of converting made of them, `a` and `b`."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "in").mkdir()
    for path in PORTRAITS:
        shutil.copyfile(path, folder / "in" / path.name)
    (folder / "in" / "<").mkdir()
    for name in HOSTILE:
        shutil.copyfile(PORTRAITS[0], folder / "in" / name)
    (folder / "in" / "cut off.jpg").write_bytes(PORTRAITS[0].read_bytes()[:2000])
    (folder / "in" / "empty.jpg").write_bytes(b"")
    assert convert_folder(folder / "in", folder / "a").failed == 2
    assert convert_folder(folder / "in", folder / "b", fit="crop", format="jpg", limit=9).converted == 9
    return folder


def write(folder: Path, name: str = "report.html", **more: object) -> Path:
    path = folder / name
    rows = ((item,) for item in read_results([folder / "in"], folder / "a"))
    write_report(rows, path, **{"headings": ["Anime"], "title": "Our <b>portraits</b>", **more})  # type: ignore[arg-type]
    return path
