"""Ledgers that came with a folder from somebody else: nothing outside of OUT is touched, and each gets one line."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from h2a_batch.errors import LedgerError
from h2a_batch.gallery import open_ledger
from h2a_batch.ledger import Ledger
from h2a_batch.ledger.strangers import is_name

PRECIOUS = b"precious " * 300


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An OUT with a ledger that knows one photo with a face, and nothing else in it."""
    folder = tmp_path / "home" / "out"
    with Ledger(folder, "{}"):
        pass
    (folder / ".h2a-batch" / "lock").unlink()
    with database(folder) as db:
        row = ("/in/a.jpg", 10, 1, "aa", "key", "a.png", "a.png", 5, "done", None, 0.1, 1.0)
        db.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("INSERT INTO outputs VALUES ('a-1.png', '/in/a.jpg', 'aa', 5, NULL)")
        db.execute("INSERT INTO faces VALUES ('/in/a.jpg', 1, 10.0, 10.0, 5.0, 0.0, 'a-1.png')")
    return folder


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file of the user's outside of OUT."""
    path = tmp_path / "home" / "precious"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(PRECIOUS)
    return path


def database(out: Path) -> sqlite3.Connection:
    return sqlite3.connect(out / ".h2a-batch" / "ledger.sqlite")


def refusal(out: Path, read_only: bool = False) -> str:
    """The one line with which a ledger is refused; all that a run or a sheet reads of it is read."""
    with pytest.raises(LedgerError) as caught, Ledger(out, "{}", read_only=read_only) as ledger:
        read_all(ledger)
    text = str(caught.value)
    assert "\n" not in text and "; " in text
    return text


def read_all(ledger: Ledger) -> None:
    for row in ledger.rows():
        ledger.faces(row.source)
        ledger.settings(row.settings)
    ledger.made("a-1.png")
    ledger.row("/in/a.jpg")
    ledger.disposals.all()
    ledger.clean()


NAMES = ["lock", "ledger.sqlite", "ledger.sqlite-journal", "ledger.sqlite-wal", "ledger.sqlite-shm"]


@pytest.mark.parametrize("kind", ["link", "dead link", "hard link", "pipe", "folder"])
@pytest.mark.parametrize("name", NAMES)
def test_lock_and_ledger_are_not_opened_where_something_else_has_their_name(
    out: Path, theirs: Path, name: str, kind: str
) -> None:
    path = out / ".h2a-batch" / name
    path.unlink(missing_ok=True)
    make: dict[str, Callable[[], Any]] = {
        "link": lambda: path.symlink_to("../../precious"),
        "dead link": lambda: path.symlink_to("../../new"),
        "hard link": lambda: os.link(theirs, path),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    if (name, kind) == ("lock", "hard link"):  # made anew
        with Ledger(out, "{}"):
            pass
    else:
        assert str(path) in refusal(out)
    if name != "lock":
        assert str(path) in refusal(out, read_only=True)
    assert theirs.read_bytes() == PRECIOUS
    assert not (theirs.parent / "new").exists()


def test_a_link_in_place_of_the_ledgers_folder_is_not_followed(tmp_path: Path, out: Path, theirs: Path) -> None:
    (out / ".h2a-batch").rename(tmp_path / "elsewhere")
    (out / ".h2a-batch").symlink_to(tmp_path / "elsewhere")
    before = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    for read_only in (False, True):
        assert f"a link is in the place of folder {out / '.h2a-batch'}" in refusal(out, read_only)
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == before


def test_a_link_that_the_user_gives_as_out_is_followed(tmp_path: Path, out: Path) -> None:
    (tmp_path / "link").symlink_to(out)
    for read_only in (False, True):
        with Ledger(tmp_path / "link", "{}", read_only=read_only) as ledger:
            read_all(ledger)


def test_a_journal_does_not_have_sqlite_delete_a_file(out: Path, theirs: Path, tmp_path: Path) -> None:
    """A journal may name a second one, by any path; once SQLite has rolled back, it deletes that file."""
    path = out / ".h2a-batch" / "ledger.sqlite"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.executemany("INSERT INTO settings VALUES (?, ?)", ((str(number), "x" * 900) for number in range(500)))
    copies = tmp_path / "copies"
    shutil.copytree(out, copies / "out")  # as a kill would leave it
    shutil.copytree(out, copies / "again")
    db.close()
    name = os.fsencode(theirs)
    tail = name + struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
    journals = [copies / kind / ".h2a-batch" / "ledger.sqlite-journal" for kind in ("out", "again")]
    for journal in journals:
        with open(journal, "ab") as file:
            file.write(struct.pack(">I", 1) + tail)
    for read_only in (False, True):
        assert "names another file" in refusal(copies / "out", read_only)
    assert theirs.read_bytes() == PRECIOUS
    with sqlite3.connect(journals[1].with_name("ledger.sqlite")) as unguarded:
        unguarded.execute("SELECT count(*) FROM files").fetchone()
    assert not theirs.exists(), "this is what SQLite does when nobody looks"


def test_a_journal_of_our_own_is_still_rolled_back(out: Path, tmp_path: Path) -> None:
    path = out / ".h2a-batch" / "ledger.sqlite"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.executemany("INSERT INTO settings VALUES (?, ?)", ((str(number), "x" * 900) for number in range(500)))
    shutil.copytree(out, tmp_path / "killed")
    db.close()
    assert (tmp_path / "killed" / ".h2a-batch" / "ledger.sqlite-journal").stat().st_size
    for read_only in (True, False):
        with Ledger(tmp_path / "killed", "{}", read_only=read_only) as ledger:
            assert [row.source for row in ledger.rows()] == ["/in/a.jpg"] and ledger.settings("7") == {}


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON settings BEGIN DELETE FROM files; END",
        "CREATE VIEW v AS SELECT 1 AS a; CREATE TRIGGER t INSTEAD OF INSERT ON v BEGIN SELECT 1; END",
        "CREATE VIEW v AS SELECT * FROM files",
        "CREATE TABLE bookmarks (a)",
        "CREATE INDEX i ON files (abs(size))",
        "CREATE INDEX i ON files (size) WHERE size > 1",
        "DROP TABLE models; CREATE VIEW models AS SELECT 1 AS sha256, 2 AS name",
        "DROP TABLE sheets; CREATE TABLE sheets (path TEXT PRIMARY KEY CHECK (length(path) > 1)) WITHOUT ROWID",
        "DROP TABLE sheets; CREATE TABLE sheets (path TEXT PRIMARY KEY, b AS (length(path))) WITHOUT ROWID",
        "DROP TABLE sheets; CREATE TABLE sheets (path TEXT PRIMARY KEY DEFAULT (hex(1))) WITHOUT ROWID",
        "DROP TABLE sheets; CREATE VIRTUAL TABLE sheets USING fts5(path)",
        "DROP TABLE sheets; CREATE TABLE sheets (path TEXT PRIMARY KEY /* -- */) WITHOUT ROWID",
        "DROP TABLE sheets",
        "PRAGMA journal_mode = WAL",
        "PRAGMA user_version = 0",
    ],
)
def test_nothing_runs_that_the_tables_of_a_ledger_do_not_have(out: Path, statement: str) -> None:
    db = database(out)
    db.executescript(statement)
    db.close()
    path = out / ".h2a-batch" / "ledger.sqlite"
    before = path.read_bytes()
    for read_only in (False, True):
        refusal(out, read_only)
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} <= {"ledger.sqlite", "lock"}


def test_another_programs_database_is_left_as_it_is(out: Path) -> None:
    path = out / ".h2a-batch" / "ledger.sqlite"
    path.unlink()
    with database(out) as db:
        db.execute("CREATE TABLE bookmarks (a)")
    before = path.read_bytes()
    for read_only in (False, True):
        refusal(out, read_only)
    assert path.read_bytes() == before


def test_a_ledger_in_another_encoding_is_refused(out: Path) -> None:
    path = out / ".h2a-batch" / "ledger.sqlite"
    with database(out) as db:
        script = "\n".join(db.iterdump())
    path.unlink()
    with database(out) as db:
        db.executescript(f"PRAGMA encoding = 'UTF-16le'; {script} PRAGMA user_version = 1;")
    assert "UTF-8" in refusal(out)


BAD_NAMES = ["/etc/passwd", "../x.png", "sub/../../x.png", "..", ".", "", "sub//x.png", ".h2a-batch/lock", "a\0.png"]


@pytest.mark.parametrize("name", [*BAD_NAMES, ".H2A-batch/ledger.sqlite", "sub/.h2a-batch/lock", b"x.png"])
@pytest.mark.parametrize("column", ["files.output", "files.natural", "faces.output", "outputs.name"])
def test_names_of_files_outside_of_out_are_refused(out: Path, column: str, name: object) -> None:
    table, _, field = column.partition(".")
    if (column, name) == ("files.natural", ""):  # of a photo that could not be reached
        return
    with database(out) as db:
        db.execute(f"UPDATE {table} SET {field} = ?", (name,))
        if column == "outputs.name":  # it counts where the file is to be made, or its traces removed
            db.execute("UPDATE outputs SET size = NULL")
            db.execute("UPDATE files SET state = 'started'")
    for read_only in (False, True):
        refusal(out, read_only)


_PIECES = ["/", ".", "..", "a", "\0", ".h2a-batch", ".H2A-BATCH", "\udcff", "~", "\\", "\u202e"]


@given(st.lists(st.sampled_from(_PIECES)).map("".join))
@example("a/b.png")
@example("...")
@example(".h2a-batch2/x")
def test_a_name_leads_to_a_file_in_out_and_not_to_the_ledger(name: str) -> None:
    if is_name(name):
        path = os.path.normpath(os.path.join("/out", name))
        assert path == f"/out/{name}" and ".h2a-batch" not in path.casefold().split("/")
    else:
        assert name in ("", ".", "..", ".h2a-batch") or set(name) & {"/", "\0"} or name.casefold() == ".h2a-batch"


_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_subnormal=False),  # MindSpore Lite, loaded by other tests, has none
    st.binary(max_size=8),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(["\0", "done", "/x", '{"faces": 5}', '{"size": {}}', "[]", "[" * 5000, "{", "1" * 5000]),
)
_COLUMNS = {
    "files": "source size mtime_ns sha256 settings natural output output_size state error seconds".split(),
    "outputs": "name source sha256 size".split(),
    "faces": "x y side angle output".split(),
    "settings": ["json"],
    "disposals": "source state target device".split(),
}


@settings(deadline=None, max_examples=60)
@given(column=st.sampled_from([(table, name) for table, names in _COLUMNS.items() for name in names]), value=_VALUES)
def test_whatever_a_cell_holds_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, column: tuple[str, str], value: object
) -> None:
    folder = tmp_path_factory.mktemp("out")
    with Ledger(folder, "{}"):
        pass
    with database(folder) as db:
        row = ("/in/a.jpg", 10, 1, "aa", "key", "a.png", "a.png", 5, "done", None, 0.1, 1.0)
        db.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("INSERT INTO outputs VALUES ('a-1.png', '/in/a.jpg', 'aa', 5, NULL)")
        db.execute("INSERT INTO faces VALUES ('/in/a.jpg', 1, 10.0, 10.0, 5.0, 0.0, 'a-1.png')")
        db.execute("INSERT INTO disposals VALUES ('/in/a.jpg', 'done', '', 1)")
        db.execute("INSERT INTO settings VALUES ('key', '{}')")
        try:
            db.execute(f"UPDATE {column[0]} SET {column[1]} = ?", (value,))
        except sqlite3.IntegrityError:  # nobody can write NULL there
            return
    for read_only in (True, False):
        try:
            with Ledger(folder, "{}", read_only=read_only) as ledger:
                read_all(ledger)
                for row in ledger.rows():
                    assert isinstance(row.size, int) and math.isfinite(row.seconds or 0.0)
        except LedgerError as error:
            assert str(error)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot set SQLite's limits")
def test_a_huge_cell_is_not_read_into_memory(out: Path) -> None:
    with database(out) as db:
        db.execute("UPDATE files SET error = CAST(zeroblob(50000000) AS TEXT)")
    for read_only in (False, True):
        assert "too big" in refusal(out, read_only)


def test_a_sheet_of_a_strangers_ledger_gets_the_same_line(out: Path) -> None:
    with database(out) as db:
        db.execute("UPDATE files SET output = '../precious'")
    with pytest.raises(LedgerError, match="outside of OUT"), open_ledger(out) as ledger:
        read_all(ledger)
