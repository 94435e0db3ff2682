"""Contact sheets: their layout, their letters, and the real command on real results."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS, Command, leftovers, tree
from PIL import Image
from report_support import crowd, group
from test_typeset import NAMES

from h2a_batch import convert_folder
from h2a_batch.errors import UsageError
from h2a_batch.gallery.layout import A4, Look
from h2a_batch.gallery.page import THEMES, Page, Sheet, draw_pages
from h2a_batch.gallery.results import Facts, Item, Items, read_columns, summarise
from h2a_batch.gallery.sheet import check_writable, files_of, plan_sheet, write_sheet
from h2a_batch.photos.frame import cut

__all__ = ["crowd"]  # a fixture

PORTRAITS = sorted(PHOTOS.glob("*.jpg"))

Sheets = Callable[..., "subprocess.CompletedProcess[str]"]


def sheet_command(*arguments: object) -> list[str]:
    """The real command, as this interpreter starts it."""
    return [sys.executable, "-m", "h2a_batch.command.sheet", *map(str, arguments)]


@pytest.fixture
def h2a_sheet(tmp_path: Path) -> Sheets:
    """Run ``h2a-sheet`` in a folder outside the checkout."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = sheet_command(*arguments)
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, errors="replace")

    return run


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos `in`, one of them broken and one not converted, and the results `out` of a real run."""
    folder = tmp_path_factory.mktemp("sheet")
    for number, (name, portrait) in enumerate(zip(NAMES.values(), [*PORTRAITS, *PORTRAITS], strict=True)):
        target = folder / "in" / ("sub" if number > 8 else "") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(portrait, target)
    (folder / "in" / "cut off.jpg").write_bytes(PORTRAITS[0].read_bytes()[:3000])
    assert convert_folder(folder / "in", folder / "out").failed == 1
    shutil.copyfile(PORTRAITS[0], folder / "in" / "zz new.jpg")
    return folder


def _pages(results: Path, look: Look = Look(), name: str = "sheet.jpg") -> Iterator[Page]:  # noqa: B008
    inputs, outs = [results / "in"], [results / "out"]
    facts = summarise(inputs, outs)
    sheet = Sheet(results / name, facts, facts[0].photos, "Our photos", look)
    return draw_pages(sheet, plan_sheet(sheet, read_columns(inputs, outs)), read_columns(inputs, outs))


def _state(folder: Path) -> dict[Path, tuple[int, ...]]:
    about = {path: path.stat() for path in folder.rglob("*")}
    return {path: (status.st_ino, status.st_size, status.st_mtime_ns) for path, status in about.items()}


def _one(tmp_path: Path, item: Item, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """The two cells of a sheet of one photo."""
    state = {item.state: 1}
    sheet = Sheet(tmp_path / "one.png", [Facts(tmp_path, **state)], 1, "One", look)
    rows: list[Items] = [(item,)]
    grid = plan_sheet(sheet, rows)
    assert [path for path, _ in write_sheet(sheet, grid, rows)] == [tmp_path / "one.png"]
    with Image.open(tmp_path / "one.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    (x, y), (wide, high) = grid.place(0), grid.cell
    left, right = (x + grid.offset(number) for number in (0, 1))
    return pixels[y : y + high, left : left + wide], pixels[y : y + high, right : right + wide]


def test_before_is_left_and_after_right(tmp_path: Path) -> None:
    Image.new("RGB", (205, 256), (200, 10, 20)).save(tmp_path / "red.png")
    item = Item(PORTRAITS[0], "a.jpg", tmp_path / "red.png", "done")
    for theme in THEMES:
        before, after = _one(tmp_path, item, Look(theme=theme))
        assert np.abs(after[40:-40, 40:-40] - (200, 10, 20)).max() < 4
        with Image.open(PORTRAITS[0]) as image:
            portrait = np.asarray(image.convert("RGB").resize(before.shape[1::-1])).astype(int)
        assert np.abs(before[40:-40, 40:-40] - portrait[40:-40, 40:-40]).mean() < 6


def test_transparent_parts_show_the_sheet(tmp_path: Path) -> None:
    image = Image.new("RGBA", (200, 250), (200, 10, 20, 255))
    image.paste((0, 0, 0, 0), (0, 0, 200, 125))
    image.save(tmp_path / "cut-out.png")
    item = Item(PORTRAITS[0], "a.jpg", tmp_path / "cut-out.png", "done")
    for theme, colours in THEMES.items():
        _, after = _one(tmp_path, item, Look(theme=theme))
        assert np.abs(after[30:150, 40:-40] - colours.cell).max() < 4
        assert np.abs(after[-150:-40, 40:-40] - (200, 10, 20)).max() < 4


def test_failed_and_open_photos_are_shown_as_such(results: Path, tmp_path: Path) -> None:
    (page,) = _pages(results)
    words = [word.text for word in page.words]
    assert page.rows == len(NAMES) + 2
    assert words.count("failed") == 1 and "the file ends too early" in words and "not converted yet" in words
    assert {"Our photos", "14 photos", "1 failed", "1 not converted yet", "anime-256"} <= set(words)
    broken = Item(
        results / "in" / "cut off.jpg", "cut off.jpg", None, "failed", "the file ends too early; copy it again"
    )
    for theme, colours in THEMES.items():
        cells = _one(tmp_path, broken, Look(theme=theme))
        assert all((np.abs(cell - colours.alarm_cell).max(axis=2) < 4).mean() > 0.8 for cell in cells)
        alarm = (np.abs(cells[0] - colours.alarm).max(axis=2) < 40).sum()
        assert alarm > 100, "a word in the colour of alarm"


@pytest.mark.slow
def test_a_face_is_shown_as_it_was_cut_out(crowd: Path) -> None:
    rows = list(read_columns([crowd / "in"], [crowd / "crop", crowd / "paste"]))
    sheet = Sheet(crowd / "s.png", summarise([crowd / "in"], [crowd / "crop", crowd / "paste"]), len(rows), "Crowd")
    grid = plan_sheet(sheet, rows)
    (page,) = draw_pages(sheet, grid, iter(rows))
    pixels, size = np.asarray(page.image).astype(int), grid.cell
    assert size[0] == size[1], "faces are squares"
    for number, row in enumerate(rows[1:4], 1):
        face, whole = row
        assert face.frame and face.output and whole.output and whole.output.name == "group.png"
        x, y = grid.place(number)
        for place, file, frame in ((0, None, face.frame), (1, face.output, None), (2, whole.output, face.frame)):
            with Image.open(file) if file else group()[0] as image:
                upright = image.convert("RGB")
            wanted = cut(upright, frame, size) if frame else np.asarray(upright.resize(size, Image.Resampling.LANCZOS))
            left = x + grid.offset(place)
            cell = pixels[y : y + size[1], left : left + size[0]]
            assert np.abs(cell - wanted)[20:-20, 20:-20].mean() < 5, (row[0].label, place)
    words = [word.text for word in page.words]
    assert "group.jpg, face 3" in words and words.count("no face found") == 2 and "not converted yet" not in words


def test_labels_are_names_paths_or_none(results: Path) -> None:
    for labels, wanted, unwanted in (
        ("name", NAMES["decomposed"], "sub"),
        ("path", f"sub/{NAMES['decomposed']}", None),
        ("none", None, "cut off.jpg"),
    ):
        (page,) = _pages(results, Look(labels=labels, title=""))
        words = {word.text for word in page.words}
        assert wanted is None or unicodedata.normalize("NFC", wanted) in words
        assert unwanted is None or not any(unwanted in word for word in words)
        assert "Our photos" not in words, "an empty title leaves the header out"


def test_a_pdf_is_whole_and_can_be_searched(results: Path, tmp_path: Path, h2a_sheet: Sheets) -> None:
    path = tmp_path / "sheet.pdf"
    done = h2a_sheet(results / "in", results / "out", path, "--pairs-per-page", "4", "--title", "Ein Titel: \u5c71")
    assert done.returncode == 0 and done.stdout == "" and "14 photos" in done.stderr
    data = path.read_bytes()
    start = int(re.findall(rb"startxref\n(\d+)\n%%EOF\n$", data)[0])
    places = [int(place) for place in re.findall(rb"^(\d{10}) 00000 n $", data[start:], re.M)]
    for number, place in enumerate(places, 1):
        assert data[place:].startswith(b"%d 0 obj\n" % number)
    assert b"/Size %d " % (len(places) + 1) in data[start:]
    assert data.count(b"/Type /Page /Parent") == 4 and b"/Count 4 " in data
    sizes = set()
    for found in re.finditer(rb"/DCTDecode /Width (\d+) /Height (\d+) /Length (\d+) >>\nstream\n", data):
        width, height, length = map(int, found.groups())
        with Image.open(BytesIO(data[found.end() : found.end() + length])) as image:
            image.load()
            sizes.add(image.size)
            assert image.size == (width, height)
    assert sizes == {(A4.width, A4.height)}
    texts = [
        zlib.decompress(part)
        for part in re.findall(rb"/FlateDecode /Length \d+ >>\nstream\n(.*?)\nendstream", data, re.S)
    ]
    codes = b" ".join(re.findall(rb"<([0-9a-f]+)> Tj", b" ".join(texts)))
    assert NAMES["chinese"].encode("utf-16-be").hex().encode() in codes
    if shutil.which("pdftotext"):
        text = subprocess.run(["pdftotext", path, "-"], capture_output=True, check=True).stdout.decode()
        for script in ("latin", "chinese", "korean", "cyrillic"):
            assert NAMES[script] in text
        assert "Ein Titel: \u5c71" in text and "3 / 4" in text


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_pages_are_files_in_the_format_of_their_name(
    results: Path, tmp_path: Path, h2a_sheet: Sheets, suffix: str
) -> None:
    path = tmp_path / "new folder" / f"sheet.{suffix}"
    done = h2a_sheet(results / "in", results / "out", path, "--pairs-per-page", "6", "--columns", "3", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(tree(path.parent)) == [f"sheet-2.{suffix}", f"sheet-3.{suffix}", f"sheet.{suffix}"]
    shapes = []
    for page in ("sheet", "sheet-2", "sheet-3"):
        with Image.open(path.with_name(f"{page}.{suffix}")) as image:
            assert image.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[suffix]
            shapes.append(image.size)
    assert shapes[0] == shapes[1] and shapes[2][0] == shapes[0][0] and shapes[2][1] < shapes[0][1]


@pytest.mark.slow
def test_only_some_photos(results: Path, tmp_path: Path, h2a_sheet: Sheets) -> None:
    where = (results / "in", results / "out")
    assert "1 photo\n" in h2a_sheet(*where, tmp_path / "failed.png", "--only", "failed").stderr
    assert "12 photos\n" in h2a_sheet(*where, tmp_path / "done.png", "--only", "done").stderr
    assert "3 photos\n" in h2a_sheet(*where, tmp_path / "few.png", "--limit", "3").stderr
    none = h2a_sheet(results / "in" / "sub", results / "out", tmp_path / "none.png", "--only", "failed")
    assert none.returncode == 0 and "no photo failed" in none.stderr and not (tmp_path / "none.png").exists()


@pytest.mark.slow
def test_nothing_but_the_file_is_written_and_no_file_replaced_unasked(
    results: Path, tmp_path: Path, h2a_sheet: Sheets
) -> None:
    where, path = (results / "in", results / "out"), tmp_path / "sheet.png"
    before = _state(results)
    (tmp_path / "sheet-2.png").write_bytes(b"somebody's")
    assert h2a_sheet(*where, path).returncode == 0
    first = path.read_bytes()
    done = h2a_sheet(*where, path, "--theme", "dark")
    assert done.returncode == 2 and "sheet.png: the file exists" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and path.read_bytes() == first
    path.unlink()
    done = h2a_sheet(*where, path, "--pairs-per-page", "7")
    assert "sheet-2.png: the file exists" in done.stderr and not path.exists(), "found out before the first page"
    assert (tmp_path / "sheet-2.png").read_bytes() == b"somebody's"
    assert h2a_sheet(*where, path, "--pairs-per-page", "7", "--overwrite").returncode == 2, "it is no sheet"
    assert (tmp_path / "sheet-2.png").read_bytes() == b"somebody's" and not path.exists()
    (tmp_path / "sheet-2.png").unlink()
    assert h2a_sheet(*where, path, "--pairs-per-page", "5").returncode == 0
    done = h2a_sheet(*where, path, "--pairs-per-page", "7", "--overwrite")
    assert done.returncode == 0 and "sheet-3.png is left of an earlier sheet" in done.stderr
    for forbidden in (
        results / "out" / f"{NAMES['greek'][:-4]}.png",
        results / "in" / NAMES["greek"],
        results / "in" / "sub" / "new.jpg",
        results / "out",
    ):
        done = h2a_sheet(*where, forbidden, "--overwrite")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    beside = results / "in" / NAMES["latin"]
    assert h2a_sheet(beside, results / "out", results / "in" / NAMES["greek"], "--overwrite").returncode == 2
    assert _state(results) == before


@pytest.mark.slow
def test_a_sheet_among_the_photos_is_refused_and_beside_the_outputs_made(photos: Path, h2a_sheet: Sheets) -> None:
    convert_folder(photos, photos / "anime", limit=2)
    assert h2a_sheet(photos, photos / "anime", photos / "sheet.jpg").returncode == 2
    assert h2a_sheet(photos, photos / "anime", photos / "anime" / "sheet.jpg").returncode == 0
    assert h2a_sheet(photos, photos / "anime", photos / "anime" / "sheet.jpg", "--overwrite").returncode == 0
    assert convert_folder(photos, photos / "anime", overwrite=True).converted == 6
    with Image.open(photos / "anime" / "sheet.jpg") as image:
        assert image.width > 1000, "and the next run leaves it alone"
    convert_folder(photos, photos, limit=1)
    done = h2a_sheet(photos, photos, photos / "sheet.jpg")
    assert done.returncode == 2 and "outside of IN" in done.stderr
    assert h2a_sheet(photos, photos, photos / "sheet.pdf").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in", "out", "sheet.doc"], "that of the file to make"),
        (["in", "sheet.jpg"], "too few names"),
        (["none", "out", "sheet.jpg"], "no such file or folder"),
        (["in", "empty", "sheet.jpg"], "no run of h2a-batch has written here"),
        (["empty", "out", "sheet.jpg"], "no photos found"),
        (["in", "out", "sheet.jpg", "--columns", "0"], "--columns 0"),
        (["in", "out", "sheet.jpg", "--cell", "9"], "--cell 9"),
        (["in", "out", "sheet.jpg", "--limit", "0"], "--limit 0"),
        (["in", "out", "sheet.webp", "--cell", "4096", "--columns", "9"], "a page would be"),
        (["in", "out", "/proc/none/sheet.jpg"], "cannot be written"),
        (["in", "out", "sheet.html", "--columns", "3"], "--columns"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    results: Path, h2a_sheet: Sheets, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("in", "out"):
        (tmp_path / name).symlink_to(results / name)
    done = h2a_sheet(*arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.startswith("h2a-sheet: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "in", "out"]


@pytest.mark.slow
def test_ended_early_it_leaves_no_half_written_file(many: Path, tmp_path: Path) -> None:
    convert_folder(many, tmp_path / "out")
    command = sheet_command(many, tmp_path / "out", tmp_path / "sheet.pdf", "--pairs-per-page", 1)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not leftovers(tmp_path):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert not (tmp_path / "sheet.pdf").exists() and not leftovers(tmp_path)


@pytest.mark.slow
def test_a_run_can_write_both_at_its_end(h2a: Command, photos: Path, tmp_path: Path) -> None:
    (photos / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    files = ("--contact-sheet", tmp_path / "sheet.pdf", "--report", tmp_path / "pages")
    for _ in range(2):
        done = h2a(photos, tmp_path / "out", *files)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "sheet.pdf" in done.stderr and "report.html" in done.stderr
    assert (tmp_path / "sheet.pdf").read_bytes().endswith(b"%%EOF\n")
    assert "A000210.jpg" in (tmp_path / "pages" / "report.html").read_text()
    (tmp_path / "mine.html").write_text("<p>mine")
    done = h2a(photos, tmp_path / "new", "--report", tmp_path / "mine.html")
    assert done.returncode == 2 and (tmp_path / "mine.html").read_text() == "<p>mine"
    assert not tree(tmp_path / "new"), "found out before anything is converted"


@pytest.mark.slow
def test_what_a_run_shows_of_faces_is_shown_later_too(
    h2a: Command, h2a_sheet: Sheets, crowd: Path, tmp_path: Path
) -> None:
    run, later = tmp_path / "run", tmp_path / "later"
    files = ("--contact-sheet", run / "sheet.png", "--report", run / "sheet.html")
    done = h2a(crowd / "in", tmp_path / "out", "--no-face", "skip", *files)
    assert done.returncode == 1 and "3 converted (4 faces), 1 skipped, 1 failed" in done.stderr, done.stderr
    for name in ("sheet.png", "sheet.html"):
        done = h2a_sheet(crowd / "in", tmp_path / "out", later / name)
        assert done.returncode == 0 and done.stderr.endswith(": 5 photos, 7 pairs\n"), done.stderr
    with Image.open(run / "sheet.png") as first, Image.open(later / "sheet.png") as second:
        assert first.size == second.size and first.tobytes() == second.tobytes()
    counts = [re.findall("<ul class.*?</ul>", (at / "sheet.html").read_text())[0] for at in (run, later)]
    assert counts[0] == counts[1] and "<b>4</b> faces" in counts[0] and "<b>1</b> without a face" in counts[0]
    assert "1 photo\n" in h2a_sheet(crowd / "in", tmp_path / "out", tmp_path / "n.png", "--only", "no-face").stderr
    assert "2 photos, 4 pairs\n" in h2a_sheet(crowd / "in", tmp_path / "out", tmp_path / "l.pdf", "--limit", "2").stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sheet.jpg", "sheet.pdf"])
def test_memory_does_not_grow_with_the_number_of_pages(results: Path, tmp_path: Path, name: str) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from itertools import cycle, islice;"
        "from h2a_batch.gallery.page import Sheet; from h2a_batch.gallery.results import *;"
        "from h2a_batch.gallery.sheet import *;"
        "folder, file, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]);"
        "photos = list(read_columns([folder / 'in'], [folder / 'out'])); rows = lambda: islice(cycle(photos), count);"
        "sheet = Sheet(file, [Facts(folder, count)], count, 'many'); grid = plan_sheet(sheet, rows());"
        "[None for _ in write_sheet(sheet, grid, rows())];"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )

    def peak(count: int) -> int:
        command = [sys.executable, "-c", script, results, tmp_path / name, str(count)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    peak(60)
    assert peak(900) < peak(90) + 15_000, "kilobytes"


def test_files_are_known_before_they_are_written(results: Path, tmp_path: Path) -> None:
    facts = summarise([results / "in"], [results / "out"])
    rows = list(read_columns([results / "in"], [results / "out"]))
    sheet = Sheet(tmp_path / "s.jpg", facts, len(rows), "Title", Look(pairs_per_page=5))
    grid = plan_sheet(sheet, rows)
    assert files_of(sheet, grid) == [path for path, _ in write_sheet(sheet, grid, rows)]


def test_a_sheet_that_cannot_be_written_is_found_out_first(tmp_path: Path) -> None:
    check_writable(tmp_path / "new folder" / "sheet.jpg")
    with pytest.raises(UsageError, match="contact sheet"):
        check_writable(Path("/proc/none/sheet.jpg"))
