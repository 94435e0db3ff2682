"""Folders that came from somebody else, and words that an unset variable leaves: nothing of the user's is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PHOTOS, Command, command_line, leftovers, tree
from watch_support import drop

from h2a_batch import UsageError, convert_folder
from h2a_batch.ledger import Ledger
from h2a_batch.places import temporary_path

PORTRAITS = sorted(PHOTOS.glob("*.jpg"))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["", "out"], "IN"),
        (["in", "", "out"], "IN"),
        (["in", ""], "OUT"),
        (["", ""], "IN"),
        (["in", "out", "--report", ""], "--report"),
        (["in", "out", "--contact-sheet", ""], "--contact-sheet"),
    ],
)
def test_an_empty_word_is_one_line_and_touches_nothing(
    h2a: Command, photos: Path, tmp_path: Path, arguments: list[str], what: str
) -> None:
    before = tree(tmp_path)
    done = h2a(*arguments, *([] if "--" in str(arguments) else ["--on-success", "delete"]), cwd=photos.parent)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and f"{what} is an empty name" in done.stderr
    assert tree(tmp_path) == before and not (tmp_path / "out").exists() and not (tmp_path / ".h2a-batch").exists()


@pytest.mark.parametrize("arguments", [["", "out", "x.pdf"], ["in", "", "x.pdf"], ["in", "out", ""]])
def test_an_empty_word_of_a_sheet_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    done = _sheet(tmp_path, *arguments)
    assert done.returncode == 2 and "empty name" in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_empty_name_from_python_is_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    for inputs, out in (("", tmp_path / "out"), ([""], "out"), ([photos, ""], "out"), (photos, "")):
        with pytest.raises(UsageError, match="empty name"):
            convert_folder(inputs, out, on_success="delete")
    assert len(tree(photos)) == 6 and sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "what"),
    [
        (["--on-success", "delete"], "will be deleted once they are converted"),
        (["--on-success", "archive=done"], "done once they are converted"),
        (["--on-failure", "move=bad"], "bad if they fail"),
        (["--on-success", "delete", "--dry-run"], "would be deleted"),
    ],
)
def test_the_first_line_names_the_folders_that_a_run_empties(
    h2a: Command, tmp_path: Path, rules: list[str], what: str
) -> None:
    for place, name in enumerate(("one/a.jpg", "two/b.jpg")):
        drop(tmp_path / name, place)
    done = h2a("one", "two", "out", *rules, "--json")
    first = done.stderr.splitlines()[0]
    assert done.returncode == 0 and what in first and str(tmp_path / "one") in first and str(tmp_path / "two") in first
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all("state" in line or line["event"] in ("deleted", "archived") for line in lines)
    drop(tmp_path / "one" / "c.jpg", 3)
    assert h2a("one", "two", "out", *rules, "-q").stderr == ""
    assert "one" not in h2a("one", "two", "out").stderr.splitlines()[0], "where all photos stay there is no such line"


class Home:
    """A user's folder with private files, and an unpacked archive in it that is IN and OUT at once."""

    def __init__(self, top: Path) -> None:
        self.top = top / "home"
        self.photos = self.top / "downloads" / "photos"
        self.photos.mkdir(parents=True)
        shutil.copyfile(PORTRAITS[0], self.photos / "a.jpg")
        shutil.copyfile(PORTRAITS[1], self.top / "private.jpg")
        shutil.copyfile(PORTRAITS[1], self.top / "copy.jpg")
        (self.top / "empty").touch()
        self.before = self.private()
        with Ledger(self.photos, "{}"):
            pass

    def private(self) -> dict[str, bytes]:
        """All that does not belong to the archive."""
        return {name: data for name, data in tree(self.top).items() if not name.startswith("downloads")}

    def insert(self, table: str, *values: object) -> None:
        """Add a row to the ledger."""
        with sqlite3.connect(self.photos / ".h2a-batch" / "ledger.sqlite") as db:
            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)

    def know(self, path: Path, output: str = "p.png", state: str = "done", sha256: bool = True) -> None:
        """Have the ledger know a photo as it lies there."""
        status = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if sha256 else None
        row = (str(path), status.st_size, status.st_mtime_ns, digest, "x", output, output, 5, state, None, 0.1, 1.0)
        self.insert("files", *row)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


RULES = [{}, {"on_success": "delete"}, {"on_success": "archive=DIR/archive"}, {"on_failure": "move=DIR/archive"}]


@pytest.mark.parametrize("rules", RULES, ids=["keep", "delete", "archive", "move"])
@pytest.mark.parametrize("detour", [False, True], ids=["plain", "detour"])
@pytest.mark.parametrize("state", ["done", "failed"])
@pytest.mark.parametrize("target", ["", "copy.jpg", "empty", "archive/private.jpg", "new/private.jpg"])
def test_a_row_does_not_dispose_of_a_file_outside_of_in(
    home: Home, rules: dict[str, str], detour: bool, state: str, target: str
) -> None:
    private = home.top / "private.jpg"
    (home.top / "archive").mkdir()
    shutil.copyfile(private, home.top / "archive" / "private.jpg")
    home.before = home.private()
    home.know(private, state=state)
    if detour:
        source = f"{home.photos}/../../private.jpg"
        with sqlite3.connect(home.photos / ".h2a-batch" / "ledger.sqlite") as db:
            db.execute("UPDATE files SET source = ?", (source,))
    else:
        source = str(private)
    device = private.stat().st_dev
    home.insert("disposals", source, state, str(home.top / target) if target else "", device)
    _recover(home, {name: rule.replace("DIR", str(home.top)) for name, rule in rules.items()})
    assert home.private() == home.before


def _recover(home: Home, rules: dict[str, str]) -> None:
    """What a run does with a ledger's entries when it starts, and when it meets the same photo."""
    from h2a_batch import Options
    from h2a_batch.run.disposal import Disposal

    with Ledger(home.photos, "{}") as ledger:
        disposal = Disposal(ledger, Options(**rules), [home.photos], lambda event: None)
        disposal.recover()
        disposal.resume()
        disposal.carry_out()
        disposal.retry()


@pytest.mark.parametrize("target", ["", "copy.jpg"])
def test_a_photo_in_in_goes_only_by_the_rule_of_this_run_and_by_its_hash(home: Home, target: str) -> None:
    photo = home.photos / "a.jpg"
    shutil.copyfile(photo, home.top / "copy.jpg")
    entry = (str(photo), "done", str(home.top / target) if target else "", photo.stat().st_dev)
    home.know(photo, sha256=False)
    home.insert("disposals", *entry)
    for rules in ({}, {"on_success": "delete"}, {"on_success": f"archive={home.top / 'archive'}"}):
        (home.top / "archive").mkdir(exist_ok=True)
        _recover(home, rules)
        assert photo.exists()


def test_a_link_in_in_does_not_lead_a_disposal_out_of_it(home: Home) -> None:
    (home.photos / "link").symlink_to(home.top)
    home.know(home.top / "private.jpg")
    with sqlite3.connect(home.photos / ".h2a-batch" / "ledger.sqlite") as db:
        db.execute("UPDATE files SET source = ?", (str(home.photos / "link" / "private.jpg"),))
    home.insert("disposals", str(home.photos / "link" / "private.jpg"), "done", "", home.top.stat().st_dev)
    _recover(home, {"on_success": "delete"})
    assert home.private() == home.before


def test_an_output_name_in_a_row_does_not_take_a_users_file_in_out(home: Home) -> None:
    shutil.copyfile(PORTRAITS[2], home.photos / "holiday.jpg")
    before = tree(home.photos)
    home.know(home.photos / "a.jpg", "holiday.jpg")
    with sqlite3.connect(home.photos / ".h2a-batch" / "ledger.sqlite") as db:
        db.execute("UPDATE files SET natural = 'a_anime.png'")
    home.insert("outputs", "holiday.jpg", str(home.photos / "a.jpg"), None, None, None)
    convert_folder(home.photos, home.photos)
    assert {name: tree(home.photos)[name] for name in before} == before


@pytest.mark.parametrize("output", ["../../private.jpg", "/etc/hostname", ".h2a-batch/lock"])
def test_a_shipped_ledger_is_refused_by_run_and_sheet(h2a: Command, home: Home, output: str) -> None:
    home.know(home.photos / "a.jpg", output)
    for done in (h2a(home.photos, home.photos), _sheet(home.top, home.photos, home.photos, home.top / "r.html")):
        assert done.returncode == 2 and "outside of OUT" in done.stderr and len(done.stderr.splitlines()) == 1
    assert home.private() == home.before and set(tree(home.photos)) == {"a.jpg"}


def test_a_sheet_shows_no_file_that_a_link_in_out_leads_to(home: Home) -> None:
    (home.photos / "a_anime.png").symlink_to("../../private.jpg")
    home.know(home.photos / "a.jpg", "a_anime.png")
    size = os.lstat(home.photos / "a_anime.png").st_size
    home.insert("outputs", "a_anime.png", str(home.photos / "a.jpg"), "x", size, None)
    with sqlite3.connect(home.photos / ".h2a-batch" / "ledger.sqlite") as db:
        db.execute("UPDATE files SET output_size = ?", (size,))
    from h2a_batch.gallery.results import read_results

    assert [item.output for item in read_results([home.photos], home.photos)] == [None]


@pytest.mark.slow
def test_outputs_and_pages_are_not_written_through_a_link_in_out(h2a: Command, photos: Path, tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    (out / "sub").symlink_to(elsewhere)
    done = h2a(photos, out, "--json")
    assert done.returncode == 1 and "4 converted, 0 skipped, 2 failed" in done.stderr
    failed = [line for line in map(json.loads, done.stdout.splitlines()) if line["state"] == "failed"]
    assert len(failed) == 2 and all(line["kind"] == "output" for line in failed)
    assert f"a link is in the place of folder {out / 'sub'}; remove it or choose another OUT" in failed[0]["message"]
    for option in (["--contact-sheet", out / "sub" / "s.pdf"], ["--report", out / "sub" / "new"]):
        page = h2a(photos, out, *option)
        assert page.returncode == 2 and "a link is in the place of folder" in page.stderr
    for name in ("s.jpg", "r.html", "new/r.html"):
        assert _sheet(tmp_path, photos, out, out / "sub" / name).returncode == 2
    assert not any(elsewhere.iterdir())


@pytest.mark.slow
def test_a_dry_run_writes_nothing(h2a: Command, home: Home) -> None:
    home.know(home.photos / "a.jpg", "a_anime.png", "started")
    home.insert("outputs", "a_anime.png", str(home.photos / "a.jpg"), None, None, None)
    left = [temporary_path(home.photos / "a_anime.png"), home.photos / ".h2a-batch" / "probe"]
    for path in left:
        path.write_bytes(b"left")
        os.utime(path, (1, 1))
    before = {path: path.lstat().st_mtime_ns for path in home.top.rglob("*")}
    done = h2a(
        home.photos, home.photos, "--dry-run", "--report", home.top / "new", "--on-success", f"archive={home.top / 'x'}"
    )
    assert done.returncode == 2  # a report needs its photos
    done = h2a(home.photos, home.photos, "--dry-run", "--on-success", f"archive={home.top / 'x'}")
    assert done.returncode == 0, done.stderr
    assert {path: path.lstat().st_mtime_ns for path in home.top.rglob("*")} == before
    assert h2a(home.photos, home.photos).returncode == 0 and not any(path.exists() for path in left)


@pytest.mark.slow
def test_what_a_killed_sheet_leaves_goes_at_the_next_start(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert subprocess.run(command_line(many, out, "-q")).returncode == 0
    pages = tmp_path / "pages"
    process = subprocess.Popen(_sheet_line(many, out, pages / "big.pdf", "--pairs-per-page", "2"), cwd=tmp_path)
    end = time.monotonic() + 120
    while not leftovers(tmp_path) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(leftovers(pages)) == 1
    (pages / "a.part").write_bytes(b"somebody's")
    time.sleep(0.6)
    done = _sheet(tmp_path, many, out, pages / "small.jpg", "--limit", "2")
    assert done.returncode == 0 and leftovers(tmp_path) == [pages / "a.part"]


def _sheet_line(*arguments: object) -> list[str]:
    code = "import sys; from h2a_batch.__main__ import sheet; sys.exit(sheet())"
    return [sys.executable, "-c", code, *map(str, arguments)]


def _sheet(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_sheet_line(*arguments), cwd=folder, capture_output=True, text=True, errors="replace")
