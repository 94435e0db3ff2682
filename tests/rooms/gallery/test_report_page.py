"""The report as people meet it: in a real browser, by keyboard, mouse and finger."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import Page, browser, find_browser
from conftest import Command
from PIL import Image
from report_support import PORTRAITS, crowd, folder, framed, group, write

from h2a_batch.gallery.report import write_report
from h2a_batch.gallery.results import read_columns, read_results, summarise
from h2a_batch.photos.frame import cut

__all__ = ["crowd", "folder"]  # fixtures

needs = pytest.mark.skipif(find_browser() is None, reason="no Chromium here; on Debian: apt-get install chromium")
pytestmark = [needs, pytest.mark.slow]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


def _open(tab: Page, path: Path) -> Page:
    tab.screen(1280, 900)
    tab.requests.clear()
    tab.errors.clear()
    tab.open(path.as_uri())
    tab.wait("document.title && !document.querySelector('[data-empty]')")
    return tab


def _names(tab: Page) -> list[str]:
    return list(tab.evaluate("[...document.querySelectorAll('.cell bdi')].map((name) => name.textContent)"))


def _silent(tab: Page) -> None:
    """Nothing went wrong, nothing was asked of a network, and no name was run as a program."""
    assert tab.errors == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
    assert tab.evaluate("typeof hacked") == "undefined"


def test_it_opens_with_all_pictures_and_no_complaint(tab: Page, folder: Path) -> None:
    _open(tab, write(folder))
    assert tab.evaluate("document.querySelector('h1').textContent") == "Our <b>portraits</b>"
    assert (
        tab.evaluate("document.querySelector('.counts').innerText").split() == "21 photos 19 converted 2 failed".split()
    )
    names = _names(tab)
    assert len(names) == 21 and "<img src=x onerror=hacked=1>.jpg" in names and "latin-\\xe9.jpg" in names
    tab.wait("[...document.querySelectorAll('.cell img')].every((image) => image.complete && image.naturalWidth)")
    assert tab.evaluate("document.querySelectorAll('.cell img').length") == 38
    assert tab.evaluate("[...document.images].filter((image) => image.alt).length") == 38
    tree = tab.send("Accessibility.getFullAXTree")["nodes"]
    for node in tree:
        if node["role"]["value"] in ("image", "button", "searchbox", "radio") and not node["ignored"]:
            assert node["name"]["value"], node
    _silent(tab)


def test_search_and_filter(tab: Page, folder: Path) -> None:
    _open(tab, write(folder))
    for words, found in (
        ("\u592a\u90ce", ["\u5c71\u7530 \u592a\u90ce.jpg"]),
        ("muller ZO\u00cb", ["Zoe\u0308 M\u00dcLLER.jpg"]),
        ("<img", ["<img src=x onerror=hacked=1>.jpg"]),
        ("a0003", [path.name for path in PORTRAITS if path.name.startswith("A0003")]),
        ("nobody", []),
    ):
        tab.press("/")
        assert tab.evaluate("document.activeElement.id") == "search"
        tab.type(words)
        assert _names(tab) == found, words
        assert tab.evaluate("document.getElementById('found').textContent") == f"{len(found)} of 21"
        assert tab.evaluate("document.getElementById('none').hidden") == bool(found)
        tab.press("Escape", "Escape")
        assert len(_names(tab)) == 21
    tab.click("#filters .failed")
    assert _names(tab) == ["cut off.jpg", "empty.jpg"]
    reasons = tab.evaluate("[...document.querySelectorAll('.cell .failed .reason')].map((cell) => cell.textContent)")
    assert "ends too early" in reasons[0] and "empty" in reasons[1]
    tab.click("#filters .done")
    assert len(_names(tab)) == 19
    tab.evaluate("document.querySelector('#failures summary').click()")
    failures = tab.evaluate("document.getElementById('failures').innerText")
    assert "2 photos failed" in failures and "ends too early" in failures and "cut off.jpg" in failures
    tab.evaluate("document.querySelector('#failures button').click()")
    assert len(_names(tab)) == 2 and tab.evaluate("document.activeElement.closest('.cell') !== null")
    _silent(tab)


def _line(tab: Page) -> float:
    return float(tab.evaluate("document.getElementById('slider').value"))


def _boundary(tab: Page) -> float:
    """Where the upper picture really begins, in per cent of the frame."""
    clip = tab.evaluate("getComputedStyle(document.querySelector('.side.over')).clipPath")
    return float(str(clip).rpartition(" ")[2].rstrip("%)"))


def test_a_pair_opens_and_its_line_moves_by_key_mouse_and_finger(tab: Page, folder: Path) -> None:
    _open(tab, write(folder))
    first = _names(tab)
    tab.evaluate("document.querySelector('.cell button').focus()")
    tab.press("ArrowRight", "ArrowRight", "ArrowLeft", "Enter")
    assert tab.evaluate("document.getElementById('pair').open")
    assert tab.evaluate("document.getElementById('name').textContent") == first[1]
    assert (_line(tab), _boundary(tab)) == (50, 50)
    tab.press("ArrowLeft", "ArrowLeft")
    assert (_line(tab), _boundary(tab)) == (46, 46)
    tab.press("ArrowRight", shift=True)
    assert _line(tab) == 56
    tab.press("Home")
    assert _boundary(tab) == 0
    tab.press(" ")
    assert _boundary(tab) == 100
    tab.wait("document.getElementById('over').src.startsWith('file:')")  # the full picture has come
    assert tab.evaluate(
        "[document.getElementById('over').naturalWidth, document.getElementById('over').naturalHeight]"
    ) == [205, 256]
    box = tab.evaluate("(({ left, top, width, height }) => [left, top, width, height])(frame.getBoundingClientRect())")
    across, down = (lambda part: box[0] + box[2] * part), box[1] + box[3] / 3
    tab.drag((across(0.9), down), (across(0.6), down), (across(0.25), down))
    assert abs(_line(tab) - 25) < 0.5 and abs(_boundary(tab) - 25) < 0.5
    tab.drag((across(0.5), down), (across(1.4), down))  # beyond the edge, still held
    assert _line(tab) == 100
    tab.press("ArrowDown", "ArrowDown", "ArrowUp")
    assert tab.evaluate("document.getElementById('name').textContent") == first[2]
    tab.press("Escape")
    assert not tab.evaluate("document.getElementById('pair').open")
    tab.wait(f"document.activeElement.querySelector('bdi')?.textContent === {json.dumps(first[2])}")
    tab.screen(390, 760, phone=True)
    tab.wait("innerWidth === 390")
    tab.evaluate("document.activeElement.click()")
    assert tab.evaluate("document.getElementById('name').textContent") == first[2]
    tab.wait("frame.clientWidth && frame.clientWidth < 390 && document.getElementById('over').src.startsWith('file:')")
    box = tab.evaluate("(({ left, top, width, height }) => [left, top, width, height])(frame.getBoundingClientRect())")
    tab.swipe((across(0.5), box[1] + 90), (across(0.6), box[1] + 90), (across(0.8), box[1] + 90))
    assert abs(_line(tab) - 80) < 1
    tab.press("Escape")
    _silent(tab)


def test_thousands_of_pairs_are_in_the_page_only_where_one_looks(tab: Page, folder: Path, tmp_path: Path) -> None:
    items = list(read_results([folder / "in"], folder / "a"))
    rows = ((replace(items[n % len(items)], name=f"{n:04d}.jpg"),) for n in range(1500))
    write_report(rows, tmp_path / "report.html")
    _open(tab, tmp_path / "report.html")
    assert len(_names(tab)) < 80 and _names(tab)[0] == "0000.jpg"
    assert tab.evaluate("document.querySelector('.cell').ariaSetSize") == "1500"
    for place in ("scrollTo(0, document.body.scrollHeight)", "scrollTo(0, document.body.scrollHeight / 2)"):
        tab.evaluate(place)
        tab.wait(
            "[...document.querySelectorAll('.cell img')].filter((image) => image.naturalWidth > 100"
            " && image.getBoundingClientRect().top > 100 && image.getBoundingClientRect().bottom < 900).length > 10"
        )
        assert len(_names(tab)) < 80
    assert "0750.jpg" in _names(tab)
    tab.screen(600, 900)
    seen = "[...document.querySelectorAll('.cell bdi')].some((name) => name.textContent === '0750.jpg')"
    tab.wait(f"innerWidth === 600 && {seen}")  # what one looked at stays in view when the window is made narrower
    tab.screen(1280, 900)
    tab.wait(f"innerWidth === 1280 && {seen}")
    tab.evaluate("document.querySelector('.cell button').focus()")
    tab.press("End")
    tab.wait("document.activeElement.innerText.includes('1499')")
    assert tab.evaluate("document.activeElement.innerText").endswith("1499.jpg")
    tab.press("ArrowUp", "ArrowUp", "ArrowLeft", "Enter")
    number = int(tab.evaluate("document.getElementById('name').textContent")[:4])
    assert 1480 < number < 1498
    tab.press("Escape")
    tab.press("/")
    tab.type("1234")
    assert _names(tab) == ["1234.jpg"]
    _silent(tab)


def test_models_are_compared_side_by_side_and_over_each_other(tab: Page, folder: Path, tmp_path: Path) -> None:
    outs = [folder / "a", folder / "b", folder / "a"]
    words = [facts.words for facts in summarise([folder / "in"], outs)]
    names = ["pad", "<crop>", "again"]
    write_report(read_columns([folder / "in"], outs), folder / "compare.html", headings=names, details=words)
    _open(tab, folder / "compare.html")
    tab.screen(1280, 4000)
    tab.wait("document.querySelectorAll('.cell img, .cell .reason').length === 84")
    table = tab.evaluate("document.querySelector('.comparison').innerText")
    assert "<crop>" in table and "Converted\t19\t9\t19" in table and "Not converted yet\t0\t12\t0" in table, table
    assert "Fit\tpad\tcrop\tpad" in table and "Format\tPNG\tJPG\tPNG" in table, "how each was made"
    strips = "[...document.querySelectorAll('.cell')].map((cell) => cell.clientWidth - cell.querySelector('.caption')"
    assert set(tab.evaluate(f"{strips}.clientWidth * grid.across)")) == {0}, "no line beside the captions"
    pictures = "document.querySelectorAll('.cell')[%d].querySelectorAll('img, .reason')"
    assert tab.evaluate(f"[...{pictures % 0}].map((one) => one.localName)") == ["img"] * 4
    assert tab.evaluate(f"[...{pictures % 20}][2].textContent") == "not converted yet"
    tab.screen(1280, 900)
    tab.evaluate("document.querySelector('.cell button').click()")
    assert tab.evaluate("document.getElementById('overtag').textContent") == "pad"
    tab.press("2")
    assert tab.evaluate("document.getElementById('overtag').textContent") == "<crop>"
    tab.wait("document.getElementById('over').src.endsWith('.jpg') && frame.clientWidth === frame.clientHeight")
    for left, right in ((2, 1), (1, 2), (2, 0), (0, 2)):  # whichever is cropped, the other is cut to its middle
        tab.evaluate(f"choose(0, {left}), choose(1, {right})")
        tab.wait("frame.clientWidth && frame.clientWidth === frame.clientHeight")
    for left, right in ((1, 0), (3, 1)):
        tab.evaluate(f"choose(0, {left}), choose(1, {right})")
        tab.wait("Math.abs(frame.clientWidth / frame.clientHeight - 205 / 256) < 0.02")
    tab.evaluate(
        "left.value = 3, left.dispatchEvent(new Event('change'))".replace("left", "document.getElementById('left')")
    )
    assert tab.evaluate("document.getElementById('undertag').textContent") == "again"
    tab.press("s")
    tab.wait("[...document.querySelectorAll('#row img')].filter((image) => image.naturalWidth >= 200).length === 4")
    tab.press("ArrowDown", "s", "ArrowRight")
    assert _line(tab) == 52
    tab.press("Escape")
    _silent(tab)


def test_each_face_is_a_pair_with_its_part_of_the_full_photo(tab: Page, crowd: Path, tmp_path: Path) -> None:
    rows = list(read_columns([crowd / "in"], [crowd / "crop"]))
    write_report(rows, crowd / "faces.html")
    _open(tab, crowd / "faces.html")
    counts = tab.evaluate("document.querySelector('.counts').innerText").split("\n")
    assert counts == ["5 photos", "4 faces", "3 converted", "1 failed", "1 without a face"]
    tab.click("#filters .no-face")
    assert _names(tab) == ["nobody.png"]
    assert tab.evaluate("document.querySelector('.cell .reason').textContent") == "no face found"
    tab.click("#filters .all")
    tab.press("/")
    tab.type("group")
    assert len(_names(tab)) == 3
    tab.type(" 2")
    assert tab.evaluate("[...document.querySelectorAll('.cell .label')].map((one) => one.innerText)") == [
        "3\ngroup.jpg\nface 2"
    ]
    tab.press("Escape", "Escape")
    tab.evaluate("document.querySelectorAll('.cell button')[1].click()")
    for number, row in enumerate(rows[1:4], 1):
        frame = row[0].frame
        assert frame
        assert tab.evaluate("document.getElementById('name').textContent") == f"group.jpg, face {number}"
        tab.wait("document.querySelector('.side canvas') && document.getElementById('over').src.startsWith('file:')")
        tab.press("End")
        before = framed(tab, tmp_path / "before.png")
        wanted = cut(group()[0], frame, before.shape[1::-1])
        assert np.abs(before - wanted)[50:-50, 50:-60].mean() < 5, number
        tab.press("Home")
        with Image.open(str(row[0].output)) as image:
            wanted = np.asarray(image.resize(before.shape[1::-1]))
        assert np.abs(framed(tab, tmp_path / "after.png") - wanted)[50:-50, 60:-50].mean() < 5, number
        tab.press("ArrowDown")
    assert tab.evaluate("document.getElementById('name').textContent") == "nobody.png"
    assert tab.evaluate("document.querySelectorAll('.side canvas').length") == 0
    assert tab.evaluate("document.getElementById('overnote').textContent") == "no face found"
    tab.press("Escape")
    _silent(tab)


def test_faces_are_cut_out_of_what_shows_the_whole_photo(tab: Page, crowd: Path) -> None:
    outs = [crowd / "paste", crowd / "crop"]
    words = [facts.words for facts in summarise([crowd / "in"], outs)]
    write_report(read_columns([crowd / "in"], outs), crowd / "c.html", headings=["paste", "crop"], details=words)
    _open(tab, crowd / "c.html")
    table = tab.evaluate("document.querySelector('.comparison').innerText")
    assert "Faces\tput back into the photo\teach on its own" in table and "Faces converted\t5\t4" in table, table
    assert "No face found\t1\t1" in table and "Converted\t3\t3" in table, table
    assert "1 photo failed" in tab.evaluate("document.querySelector('#failures summary').textContent")
    tab.evaluate("document.querySelectorAll('.cell button')[2].click()")
    tab.wait("document.querySelectorAll('.side canvas').length === 2")  # of the photo and of what was put back into it
    tab.press("s")
    tab.wait("document.querySelectorAll('#row canvas').length === 2 && document.querySelector('#row img').src !== ''")
    assert "3 faces" in tab.evaluate("document.getElementById('about').innerText")
    assert tab.evaluate("[...document.querySelectorAll('#row canvas')].map((one) => one.ariaLabel)") == [
        "group.jpg, face 2, Before",
        "group.jpg, face 2, paste",
    ]
    sides = "[...document.querySelectorAll('#row :is(img, canvas)')].map((one) => one.getBoundingClientRect())"
    assert tab.evaluate(f"{sides}.every((box) => Math.abs(box.width - box.height) < 1)")
    tab.press("s", "2")
    tab.wait("document.getElementById('over')?.src.endsWith('group-2.png') && frame.clientWidth === frame.clientHeight")
    tab.press("Escape")
    write_report(read_columns([crowd / "in"], [crowd / "paste"]), crowd / "paste.html")
    _open(tab, crowd / "paste.html")
    tab.evaluate("document.querySelectorAll('.cell button')[1].click()")
    tab.wait("document.getElementById('over').naturalWidth === 2400 && frame.clientWidth === 2 * frame.clientHeight")
    assert tab.evaluate("document.querySelector('.side canvas')") is None
    tab.press("Escape")
    _silent(tab)


def test_a_phone_shows_all_of_three_columns(tab: Page, folder: Path, tmp_path: Path) -> None:
    outs = [folder / "a", folder / "b", folder / "a"]
    words = [facts.words for facts in summarise([folder / "in"], outs)]
    names = ["epoch-120", "epoch-160", "epoch-200"]
    write_report(read_columns([folder / "in"], outs), folder / "phone.html", headings=names, details=words)
    _open(tab, folder / "phone.html")
    tab.screen(390, 760, phone=True)
    tab.wait("innerWidth === 390 && document.querySelectorAll('.cell').length")
    assert tab.evaluate("(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)($('cells').parentElement)") <= 0
    wide = tab.evaluate("document.querySelector('table').getBoundingClientRect().right")
    assert wide <= 390, "the last column is seen"
    tops = "[...document.querySelector('.strip').children].map((box) => box.offsetTop)"
    first, second, third, fourth = tab.evaluate(tops)
    assert first == second < third == fourth, "two and two"
    _open(tab, write(folder))
    tab.screen(390, 760, phone=True)
    tab.evaluate("document.querySelector('.cell button').click()")
    tab.evaluate("toggleApart()")
    tab.wait("[...document.querySelectorAll('#row img')].filter((image) => image.naturalWidth).length === 2")
    boxes = tab.evaluate(
        "[...document.querySelectorAll('#row figure')].map((one) => (({ left, top, width, height }) =>"
        " [left, top, width, height])(one.getBoundingClientRect()))"
    )
    assert boxes[0][0] == boxes[1][0] and boxes[1][1] >= boxes[0][1] + boxes[0][3], "one above the other"
    assert all(width > 350 and height > 190 for _, _, width, height in boxes)
    assert tab.evaluate("$('row').scrollHeight <= $('row').clientHeight"), "both at a glance"
    tab.press("s", "Escape")
    _silent(tab)


def test_mailed_alone_it_shows_the_small_pictures(tab: Page, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    shutil.copyfile(write(folder), tmp_path / "mail" / "report.html")
    _open(tab, tmp_path / "mail" / "report.html")
    tab.evaluate("document.querySelector('.cell button').click()")
    tab.wait("document.getElementById('over').naturalWidth === 128")
    assert all("ERR_FILE_NOT_FOUND" in error for error in tab.errors)
    assert all(url.startswith(("file:", "data:")) for url in tab.requests)


def test_a_page_that_was_cut_off_says_so(tab: Page, folder: Path, tmp_path: Path) -> None:
    data = write(folder).read_bytes()
    (tmp_path / "report.html").write_bytes(data[: len(data) * 2 // 3])
    _open(tab, tmp_path / "report.html")
    assert "ends too early" in tab.evaluate("document.querySelector('header').innerText")
    assert len(_names(tab)) == 21 and tab.errors == []
    _open(tab, write(folder))
    assert tab.evaluate("document.getElementById('incomplete').hidden")


def test_nothing_to_show_is_said(tab: Page, tmp_path: Path) -> None:
    write_report([], tmp_path / "report.html")
    _open(tab, tmp_path / "report.html")
    assert tab.evaluate("document.getElementById('none').innerText") == "There were no photos."
    tab.press("/", "Enter", "ArrowDown", "Escape")
    _silent(tab)


def test_all_is_printed_and_nothing_is_wider_than_a_phone(tab: Page, folder: Path) -> None:
    for page in (write(folder), folder / "compare.html"):
        _open(tab, page)
        tab.screen(1280, 300)
        tab.wait("innerHeight === 300 && live.size < 21")
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert len(_names(tab)) == 21 and tab.evaluate("$('failures').open")
        assert tab.evaluate("[...document.querySelectorAll('.cell img')].every((image) => image.complete)")
        tab.evaluate("dispatchEvent(new Event('afterprint'))")
        assert tab.evaluate("live.size") < 21 and not tab.evaluate("$('failures').open")
        assert tab.paper().startswith(b"%PDF")
        tab.screen(320, 600, phone=True)
        tab.wait("document.documentElement.scrollWidth <= 320")
        for cell in (0, 3):
            tab.evaluate(f"openPair({cell})")
            assert tab.evaluate("dialog.scrollWidth <= 320 && dialog.scrollHeight <= 600")
            tab.press("Escape")
        _silent(tab)


def test_the_commands_write_it(tab: Page, h2a: Command, photos: Path, tmp_path: Path) -> None:
    (photos / "sub" / "broken.jpg").write_bytes(b"")
    page, again = tmp_path / "out" / "look.html", tmp_path / "again.html"
    done = h2a(photos, tmp_path / "out", "--report", page)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    command = [sys.executable, "-m", "h2a_batch.command.sheet", photos, tmp_path / "out", again]
    assert subprocess.run(command, timeout=300).returncode == 0
    for path in (page, again):
        _open(tab, path)
        counts = tab.evaluate("document.querySelector('.counts').innerText").split()
        assert counts == "7 photos 6 converted 1 failed".split()
        assert "anime-256" in tab.evaluate("document.querySelector('.facts').innerText")
        assert "sub/broken.jpg" in _names(tab)
        tab.evaluate("document.querySelector('.cell button').click()")
        tab.wait("document.getElementById('over').naturalHeight === 256")
        tab.press("Escape")
        _silent(tab)
