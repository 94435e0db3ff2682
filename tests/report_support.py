"""Results of real runs: with names of every awkward kind, and of photos with several people and with nobody."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from chromium import Page
from composites import Known, landscape, own_portraits, put
from conftest import PHOTOS
from PIL import Image

from h2a_batch import convert_folder
from h2a_batch.gallery.report import write_report
from h2a_batch.gallery.results import read_results

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


GROUP = (2400, 1200)  # pixels
HOW = {"crop": {"no_face": "skip"}, "paste": {"faces": "paste", "no_face": "skip"}, "off": {"faces": "off"}}


@cache
def group() -> tuple[Image.Image, list[Known]]:
    """Three people, the first of them at the border, the second turned; and where their faces are."""
    photo, people = landscape(GROUP, np.random.default_rng(7)), own_portraits()
    places = (((170.0, 520.0), 560.0, 0.0), ((1150.0, 610.0), 700.0, 20.0), ((2000.0, 500.0), 400.0, -12.0))
    return photo, [put(photo, person, *place) for person, place in zip(people, places, strict=False)]


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos `in`, and what the ways of converting faces made of them, see HOW.

    The group lies on its side in its file; of the others one has a single face, one nobody, and one is a portrait.
    """
    folder = tmp_path_factory.mktemp("crowd")
    (folder / "in").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    group()[0].transpose(Image.Transpose.ROTATE_90).save(folder / "in" / "group.jpg", quality=92, exif=turned)
    shutil.copyfile(PORTRAITS[3], folder / "in" / "portrait.jpg")
    landscape((900, 600), np.random.default_rng(3)).save(folder / "in" / "nobody.png")
    one = landscape((1400, 700), np.random.default_rng(5))
    put(one, own_portraits()[4], (400, 350), 420, 0)
    one.save(folder / "in" / "one.jpg")
    (folder / "in" / "cut off.jpg").write_bytes(PORTRAITS[0].read_bytes()[:3000])
    for name, how in HOW.items():
        assert convert_folder(folder / "in", folder / name, **how).failed == 1
    return folder


def framed(tab: Page, path: Path) -> np.ndarray:
    """What is in the frame of the open pair, without its lower edge, where the names of the sides are."""
    tab.picture(path)
    left, top, width, height = tab.evaluate(
        "(({ left, top, width, height }) => [left, top, width, height])(frame.getBoundingClientRect())"
    )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").crop((left, top, left + width, top + height))).astype(int)
