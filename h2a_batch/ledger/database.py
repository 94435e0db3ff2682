"""The database of a ledger: its tables, how it is opened, and its statements, with its errors as this program's.

Only modules of this room speak SQL.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from h2a_batch.errors import LedgerError, StorageError
from h2a_batch.ledger.strangers import Reading, check_files, check_schema, guard
from h2a_batch.places import Scratch

VERSION = 1
_SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE files (
    source TEXT PRIMARY KEY,            -- real path of the input
    size INTEGER NOT NULL,              -- bytes of the input
    mtime_ns INTEGER NOT NULL,          -- time of the input's last change
    sha256 TEXT,                        -- of the input's content, once it was read
    settings TEXT NOT NULL,             -- key of the settings its output was made with
    natural TEXT NOT NULL,              -- the output's name if nothing else had it, relative to OUT
    output TEXT,                        -- the output's name, relative to OUT; NULL where none was planned
    output_size INTEGER,                -- bytes of the output
    state TEXT NOT NULL,                -- started, done, failed, no-face
    error TEXT,                         -- what was wrong, where it failed
    seconds REAL,                       -- from the first byte read to the last byte written
    updated REAL NOT NULL               -- seconds since 1970
) WITHOUT ROWID;
CREATE TABLE outputs (                  -- every file this program made in OUT, or is about to make
    name TEXT PRIMARY KEY,              -- relative to OUT
    source TEXT NOT NULL,               -- real path of the input it belongs to; empty for a contact sheet
    sha256 TEXT,                        -- of that input's content
    size INTEGER,                       -- bytes; NULL while it is being made; -1 where the name is only kept for it
    before INTEGER                      -- the size before that, while it is being made anew
) WITHOUT ROWID;
CREATE TABLE sheets (path TEXT PRIMARY KEY) WITHOUT ROWID;  -- contact sheets, wherever they lie
"""
_LATER = (
    "CREATE TABLE IF NOT EXISTS models (sha256 TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS made_of ON outputs (source)",  # or each photo would cost a look at all outputs
    """
CREATE TABLE IF NOT EXISTS faces (      -- those that were found in a photo and converted
    source TEXT NOT NULL,               -- real path of the photo
    number INTEGER NOT NULL,            -- from 1, left to right
    x REAL NOT NULL, y REAL NOT NULL,   -- middle of the square that was cut out, in pixels of the upright photo
    side REAL NOT NULL,                 -- of the square, in pixels
    angle REAL NOT NULL,                -- by which it is turned, in degrees
    output TEXT,                        -- name of its file, relative to OUT; NULL where it was put back into the photo
    PRIMARY KEY (source, number)
) WITHOUT ROWID""",
    """
CREATE TABLE IF NOT EXISTS disposals (  -- what is still to be done with photos in IN
    source TEXT PRIMARY KEY,            -- real path of the photo
    state TEXT NOT NULL,                -- done, failed: what it has to be in `files`
    target TEXT NOT NULL,               -- where it is to go; empty where it is to be deleted
    device INTEGER NOT NULL             -- number of the volume that it is on
) WITHOUT ROWID""",
)

_ADVICE = "check its permissions, the disk and its free space"
_FIRST = ("settings", "files", "outputs", "sheets")  # the tables of every version


class Database:
    """The statements of a ledger; threads may share it.

    A statement may hold any file name: ``CAST(? AS TEXT)`` takes it as it is, UTF-8 or not.

    Args:
        db: as `connect` opens it.
        folder: the ledger's folder, for messages.
        lock: held while a statement runs.

    Raises:
        LedgerError: the database is damaged; any method may raise this.
        StorageError: the database cannot be read or written; any method may raise this.
    """

    def __init__(self, db: sqlite3.Connection, folder: Path, lock: threading.RLock) -> None:
        self._db, self._folder, self._lock = db, folder, lock
        self.reading = Reading(folder)  # for what callers read

    def execute(self, query: str, *values: object) -> None:
        """Run one statement."""
        with self._lock, storage(self._folder):
            self._db.execute(query, as_bytes(query, values))

    def select(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Return all rows that a query finds, at once."""
        with self._lock, storage(self._folder):
            return list(self._db.execute(query, as_bytes(query, values)))

    def one(self, query: str, *values: object) -> tuple[object, ...] | None:
        """Return the first row that a query finds; None where it finds none."""
        with self._lock, storage(self._folder):
            found: tuple[object, ...] | None = self._db.execute(query, as_bytes(query, values)).fetchone()
        return found

    def each(self, query: str, *values: object) -> Iterator[tuple[object, ...]]:
        """Yield the rows that a query finds, one by one: they may be many."""
        with storage(self._folder):
            yield from self._db.execute(query, as_bytes(query, values))

    def commit(self) -> None:
        """Make the written rows durable."""
        with self._lock, storage(self._folder):
            self._db.commit()

    def rollback(self) -> None:
        """Drop the rows that are not durable."""
        with self._lock:
            self._db.rollback()

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


def as_bytes(query: str, values: tuple[object, ...]) -> tuple[object, ...]:
    """Return as bytes the values that the query casts to TEXT, so that names which are no UTF-8 survive."""
    return tuple(
        os.fsencode(str(value)) if is_text and value is not None else value
        for is_text, value in zip(_casts(query), values, strict=True)
    )


@cache
def _casts(query: str) -> tuple[bool, ...]:
    """Tell for each value of a query whether it is cast to TEXT."""
    return tuple(place != "?" for place in re.findall(r"CAST\(\? AS TEXT\)|\?", query))


def connect(path: Path, read_only: bool, top: Path) -> sqlite3.Connection:
    """Open a database; make it if it is new, and bring it up to date if it is old.

    Args:
        path: the database file.
        read_only: whether to work on a copy that nobody sees.
        top: as for `check_files`.

    Raises:
        LedgerError: the database is damaged, a newer version made it, or it is none that this program makes.
        StorageError: the database cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        try:
            check_files(path, top)
            db = sqlite3.connect("" if read_only else path, check_same_thread=False)  # "" is a file that nobody sees
            stack.callback(db.close)
            if read_only and path.exists():
                _copy(path, db)
            _prepare(db, path)
        except sqlite3.DatabaseError as error:
            raise _explained(error, path) from error
        except OSError as error:
            what = f"{path}: the ledger cannot be used ({error.strerror or error})"
            raise StorageError(what, _ADVICE) from error
        stack.pop_all()
        return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Check the tables of a database, and make those that it lacks; raise as `connect` does."""
    guard(db)
    db.text_factory = os.fsdecode  # names that are not UTF-8 come back as they were
    known = db.execute("PRAGMA user_version").fetchone()[0]
    if known > VERSION:
        raise LedgerError(f"{path}: made by a newer h2a-batch", "update this one, or choose another OUT")
    is_made = check_schema(db, path, ";".join((_SCHEMA, *_LATER)), _FIRST)
    if is_made != (known == VERSION):
        raise LedgerError(f"{path}: not a ledger of h2a-batch", "move it away, or choose another OUT")
    if not is_made:
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    for statement in _LATER:
        db.execute(statement)


def _copy(path: Path, db: sqlite3.Connection) -> None:
    """Copy a ledger into `db` without touching it, also while a run writes it."""
    with contextlib.suppress(sqlite3.OperationalError):
        source = f"{Path(os.path.abspath(path)).as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(source, uri=True)) as original:
            original.backup(db)
            return
    with Scratch() as folder:
        for file in (path, path.with_name(f"{path.name}-journal")):
            if file.exists():
                shutil.copyfile(file, Path(folder, file.name))
        with contextlib.closing(sqlite3.connect(Path(folder, path.name))) as original:
            original.backup(db)  # this rolls back what a kill left half committed


@contextlib.contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Turn errors of the database or the disk into errors of this program.

    Raises:
        LedgerError: the database is damaged.
        StorageError: the database or the disk cannot be read or written.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _explained(error, folder) from error
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be written ({error.strerror})", "free space there and run again"
        ) from error


def _explained(error: sqlite3.DatabaseError, path: Path) -> StorageError | LedgerError:
    if isinstance(error, sqlite3.OperationalError):  # full disk, no permission, volume gone
        return StorageError(f"{path}: the ledger cannot be used ({error})", _ADVICE)
    return LedgerError(
        f"{path}: the ledger is damaged ({error})", "move it away: outputs stay, and --overwrite makes them anew"
    )
