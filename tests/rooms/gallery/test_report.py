"""The report as a file: what is in it, and what is not. The results in it are those of a real run."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from conftest import leftovers
from PIL import Image
from report_support import NAMES, folder, write

from h2a_batch.errors import StorageError, UsageError
from h2a_batch.gallery.report import check_report, write_report
from h2a_batch.gallery.results import Item, read_columns, read_results

__all__ = ["folder"]  # a fixture


class _Elements(HTMLParser):
    """All elements of a page with their attributes, and the text of its scripts and styles."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:  # inside a script or style
            self.texts[-1] += data

    def text(self, tag: str, name: str | None = None) -> str:
        every = zip(self.tags, self.texts, strict=True)
        return next(text for (one, about), text in every if one == tag and about.get("id") == name)


@pytest.mark.slow
def test_nothing_in_a_name_or_a_fact_becomes_markup(folder: Path) -> None:
    plain = _Elements(write(folder, "plain.html", title="plain"))
    facts = {"<i onclick=x>Model</i>": '"><script>hacked=1</script>', "Photos": os.fsdecode(b"\xff/in")}
    page = _Elements(write(folder, facts=facts, headings=["</script><script>hacked=1</script>"]))
    tags = [tag for tag, _ in page.tags if tag not in ("div", "dt", "dd")]
    assert tags == [tag for tag, _ in plain.tags if tag not in ("div", "dt", "dd")]
    assert not [name for _, about in page.tags for name in about if name.startswith("on")]
    index = json.loads(page.text("script", "index"))
    escapes = str.maketrans({letter: repr(letter)[1:-1] for letter in "\n\x7f\u202e"})
    names = [name.translate(escapes) for name in NAMES]
    assert {row[0] for row in index} == {re.sub("[\udc80-\udcff]", r"\\xe9", name) for name in names}


def test_the_page_asks_for_nothing_and_allows_nothing_else(folder: Path) -> None:
    path = write(folder)
    page = _Elements(path)
    policy = next(about["content"] for _, about in page.tags if about.get("http-equiv") == "Content-Security-Policy")
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.text(tag).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy) and "unsafe" not in str(policy)
    assert not [about for tag, about in page.tags if "src" in about]
    assert all(str(about["href"]).startswith(("#", "data:")) for _, about in page.tags if "href" in about)
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text


def test_every_photo_has_its_pictures_and_the_way_to_its_files(folder: Path) -> None:
    (folder / "pages").mkdir(exist_ok=True)
    path = write(folder, "pages/report.html")
    page = _Elements(path)
    index, chunk = json.loads(page.text("script", "index")), json.loads(page.text("script", "chunk0"))
    items = list(read_results([folder / "in"], folder / "a"))
    assert len(index) == len(chunk) == len(items) == len(NAMES)
    for row, pictures, item in zip(index, chunk, items, strict=True):
        (small, url), (small_out, url_out) = pictures
        assert Path(os.fsdecode(unquote_to_bytes(url))).name == item.source.name
        assert os.path.samefile(path.parent / os.fsdecode(unquote_to_bytes(url)), item.source)
        assert not re.search(r"[^\w./%~-]", url), url
        if item.state == "failed":
            assert isinstance(row[3], str) and row[3] == item.error and not small_out and not url_out
            continue
        assert row[1:] == [0, item.source_size, [item.output_size, 0]]
        assert item.output and os.path.samefile(path.parent / os.fsdecode(unquote_to_bytes(url_out)), item.output)
        for data in (small, small_out):
            assert base64.b64decode(data)[8:12] == b"WEBP" and len(data) < 12_000


@pytest.mark.slow
def test_no_time_is_told_that_a_photo_did_not_take(folder: Path) -> None:
    """The ledger's seconds hold the wait in queues too: many photos are on their way at once."""
    items = [replace(item, seconds=7.77) for item in read_results([folder / "in"], folder / "a")]
    for name, headings in (("one.html", ["Anime"]), ("two.html", ["One", "Two"])):
        write_report(([item] * len(headings) for item in items), folder / name, headings=headings)
        text = (folder / name).read_text(encoding="utf-8")
        assert "7.77" not in text and "took" not in text and "average" not in text


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_photos(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    item = Item(tmp_path / "a.png", "a.png", None, "failed", "the file ends too early")
    held: list[int] = []

    def rows() -> Iterator[tuple[Item]]:
        for number in range(1500):
            held.append(tracemalloc.get_traced_memory()[0])
            yield (replace(item, name=f"{number}.png"),)

    tracemalloc.start()
    try:
        write_report(rows(), tmp_path / "report.html")
    finally:
        tracemalloc.stop()
    assert (tmp_path / "report.html").stat().st_size > 400_000
    assert min(held[-200:]) < min(held[100:300]) + 200_000  # the least of some: a file that is read is in memory


def test_only_a_report_is_ever_replaced(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "my site.html"
    own.write_text("<html>mine</html>")
    for path, words in (
        (own, "the file exists"),
        (tmp_path / "report.jpg", "end in .html"),
        (tmp_path, "not the name of a page"),
        (Path("/proc/none/report.html"), "cannot be written"),
    ):
        with pytest.raises(UsageError, match=words):
            check_report(path)
        with pytest.raises(UsageError, match=words):
            write_report([], path)
    assert own.read_text() == "<html>mine</html>"
    page = tmp_path / "new" / "report.html"
    write_report([], page)
    first = page.read_bytes()
    rows = ((item,) for item in read_results([folder / "in"], folder / "a"))
    write_report(rows, page)
    assert len(page.read_bytes()) > 2 * len(first)


def test_a_page_that_cannot_be_finished_leaves_the_earlier_one(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report([], page)
    before = page.read_bytes()

    def stopped() -> Iterator[tuple[Item]]:
        yield from ((item,) for item in read_results([folder / "in"], folder / "a"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(stopped(), page)
    with pytest.raises(ValueError):
        write_report(read_columns([folder / "in"], [folder / "a"]), page, headings=["one", "two"])
    assert page.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["report.html"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this container may not mount")
    try:
        rows = ((item,) for item in read_results([folder / "in"], folder / "a"))
        with pytest.raises(StorageError, match="No space left"):
            write_report(rows, disk / "report.html")
        assert os.listdir(disk) == [] and not leftovers(disk)
    finally:
        subprocess.run(["umount", disk], check=True)
