"""The ledger: an SQLite file in OUT that knows what became of every input, so that a run can be taken up again.

An output's name is written down before the output is made, and its state after it is safely on disk: whatever
moment a run is killed at, the next one knows which files in OUT are its own and which of them are complete.
Who may have which name is decided in `claims`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from h2a_batch.errors import LedgerError, StorageError
from h2a_batch.files import hold, replacing, temporary_path
from h2a_batch.options import settings_key
from h2a_batch.source import LEDGER_FOLDER, Source

_VERSION = 1
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
    state TEXT NOT NULL,                -- started, done, failed
    error TEXT,                         -- what was wrong, where it failed
    seconds REAL,                       -- from the first byte read to the last byte written
    updated REAL NOT NULL               -- seconds since 1970
) WITHOUT ROWID;
CREATE TABLE outputs (                  -- every file this program made in OUT, or is about to make
    name TEXT PRIMARY KEY,              -- relative to OUT
    source TEXT NOT NULL,               -- real path of the input it belongs to; empty for a contact sheet
    sha256 TEXT,                        -- of that input's content
    size INTEGER                        -- bytes; NULL while it is being made
) WITHOUT ROWID;
CREATE TABLE sheets (path TEXT PRIMARY KEY) WITHOUT ROWID;  -- contact sheets, wherever they lie
"""
_MODELS = "CREATE TABLE IF NOT EXISTS models (sha256 TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID"
DELETED = "//deleted-"  # behind the path of a photo that was deleted on success; no real path has two slashes
_PROBE_BYTES = 1 << 18  # to see whether a full disk has room again; more than most outputs need
_BATCH_SECONDS = 0.5  # results that a kill may cost: they are made again


@dataclass(frozen=True)
class Task:
    """A photo to convert, and the file to make of it (``output`` absolute, ``name`` relative to OUT)."""

    source: Source
    output: Path
    name: str


@dataclass(frozen=True)
class Row:
    """What the ledger knows of one input."""

    source: str
    size: int
    mtime_ns: int
    sha256: str | None
    settings: str
    natural: str
    output: str | None
    output_size: int | None
    state: str
    error: str | None
    seconds: float | None


@dataclass(frozen=True)
class Made:
    """A file that this program made in OUT: whose it is, and its size once it is complete."""

    name: str
    source: str
    sha256: str | None
    size: int | None


_ROW, _MADE = ", ".join(Row.__dataclass_fields__), ", ".join(Made.__dataclass_fields__)


class Ledger:
    """The ledger of one output folder. Use it as a context manager; safe to share between threads.

    Args:
        out: the output folder; made if it is not there.
        settings: canonical text of what decides an output's bytes.
        read_only: work on a private copy, without the lock; make and change nothing, not even OUT.

    Raises:
        BusyError: another run holds this folder.
        LedgerError: the ledger cannot be opened, is damaged, or of a newer version.
        OSError: OUT cannot be made or written.
    """

    def __init__(self, out: Path, settings: str, read_only: bool = False) -> None:
        self.out = out
        self.real_out = os.path.realpath(out)
        self.folder = out / LEDGER_FOLDER
        self.key = settings_key(settings)
        self.read_only = read_only
        self._lock = threading.RLock()
        self._guard = None if read_only else hold(self.folder)
        self._committed = time.monotonic()
        try:
            self._db = _connect(self.folder / "ledger.sqlite", read_only)
            self.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", self.key, settings)
            self.commit()
        except StorageError as error:  # before anything was made it is no half-done run
            self._release()
            raise LedgerError(error.message, error.advice) from error
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._db.commit()
        self._db.close()
        self._release()

    def row(self, source: str) -> Row | None:
        """What is known of an input, by its real path."""
        values: Any = self._one(f"SELECT {_ROW} FROM files WHERE source = CAST(? AS TEXT)", source)
        return Row(*values) if values else None

    def made(self, name: str) -> Made | None:
        """What is known of a file in OUT, by its name relative to OUT."""
        values: Any = self._one(f"SELECT {_MADE} FROM outputs WHERE name = CAST(? AS TEXT)", name)
        return Made(*values) if values else None

    def start(self, source: Source, name: str) -> Task:
        """Write down that a source's output of this name is about to be made."""
        self.execute(
            "INSERT OR REPLACE INTO outputs (name, source) VALUES (CAST(? AS TEXT), CAST(? AS TEXT))",
            name,
            source.real,
        )
        self.execute(
            "INSERT OR REPLACE INTO files (source, size, mtime_ns, settings, natural, output, state, updated)"
            " VALUES (CAST(? AS TEXT), ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), 'started', ?)",
            source.real,
            source.size,
            source.mtime_ns,
            self.key,
            source.output,
            name,
            time.time(),
        )
        return Task(source, self.out / name, name)

    def done(self, task: Task, sha256: str, output_size: int, seconds: float) -> None:
        """Record that a task's output is complete and on disk."""
        self._close(task.source.real, "done", sha256, output_size, None, seconds)
        self.execute(
            "UPDATE outputs SET sha256 = ?, size = ? WHERE name = CAST(? AS TEXT)", sha256, output_size, task.name
        )

    def failed(self, task: Task, error: str, seconds: float) -> None:
        """Record why a task has no output, or kept its old one; the next run tries again."""
        self._close(task.source.real, "failed", None, None, error, seconds)
        try:
            self.execute(
                "UPDATE outputs SET size = ? WHERE name = CAST(? AS TEXT)", task.output.stat().st_size, task.name
            )
        except OSError:  # none was made: a file of that name that appears later is not ours
            self.execute("DELETE FROM outputs WHERE name = CAST(? AS TEXT)", task.name)

    def unusable(self, path: Path, error: str) -> None:
        """Record an input that cannot even be reached."""
        self.execute(
            "INSERT OR REPLACE INTO files (source, size, mtime_ns, settings, natural, state, error, updated)"
            " VALUES (CAST(? AS TEXT), 0, 0, ?, '', 'failed', ?, ?)",
            str(path),
            self.key,
            error,
            time.time(),
        )

    def output_of(self, source: Source) -> Path | None:
        """A source's output where it has a complete one."""
        row = self.row(source.real)
        path = self.out / row.output if row and row.output and row.state == "done" else None
        return path if path and path.exists() else None

    def is_output(self, path: Path) -> bool:
        """Whether a path in OUT is the name of an output, made or about to be made; links count as what they name."""
        names = {os.path.relpath(path, self.out), os.path.relpath(os.path.realpath(path), self.real_out)}
        return any(self.made(name) is not None for name in names)

    def sheets(self) -> frozenset[Path]:
        """The contact sheets of this and of earlier runs."""
        with self._lock, _storage(self.folder):
            return frozenset(Path(path) for (path,) in self._db.execute("SELECT path FROM sheets"))

    def commit(self, at_once: bool = True) -> bool:
        """Make what was recorded durable; unless ``at_once``, only when the last time is a while ago.

        Returns:
            whether it was done.

        Raises:
            StorageError: the volume is full or gone.
        """
        with self._lock:
            due = at_once or time.monotonic() - self._committed > _BATCH_SECONDS
            if due:
                with _storage(self.folder):
                    self._db.commit()
                self._committed = time.monotonic()
            return due

    def can_write(self) -> bool:
        """Drop what could not be made durable, and try whether there is room to write again.

        Raises:
            StorageError: the folder of this ledger was removed or replaced.
        """
        probe = self.folder / "probe"
        try:
            if self._guard is not None and not os.path.samestat(os.fstat(self._guard), os.stat(self.folder / "lock")):
                raise FileNotFoundError
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StorageError(f"{self.out}: OUT was removed while it was in use", "start again") from error
        except OSError:
            return False
        try:
            with self._lock, replacing(probe) as file:
                self._db.rollback()
                file.write(bytes(_PROBE_BYTES))
            probe.unlink()
            self.execute(f"PRAGMA user_version = {_VERSION}")
            return self.commit()
        except (OSError, sqlite3.Error, StorageError):
            return False

    def rows(self, size: int | None = None) -> Iterator[Row]:
        """All inputs on record, or those of so many bytes, in the order of their paths."""
        which, values = ("", ()) if size is None else ("WHERE size = ?", (size,))
        with _storage(self.folder):
            for row in self._db.execute(f"SELECT {_ROW} FROM files {which} ORDER BY source", values):
                yield Row(*row)

    def name_model(self, sha256: str, name: str) -> None:
        """Write down what a model is called, for the headings of sheets and reports."""
        self.execute("INSERT OR REPLACE INTO models VALUES (?, ?)", sha256, name)

    def model_name(self, sha256: str) -> str | None:
        """What a model was called when it was last used here."""
        found = self._one("SELECT name FROM models WHERE sha256 = ?", sha256)
        return str(found[0]) if found else None

    def settings(self, key: str) -> dict[str, Any]:
        """What outputs of this settings key were made with, as `Options.settings` gives it."""
        found = self._one("SELECT json FROM settings WHERE key = ?", key)
        return dict(json.loads(str(found[0]))) if found else {}

    def write_report(self) -> Path:
        """Write the ledger as CSV for people and spreadsheets, and return its path."""
        path = self.folder / "report.csv"
        with _storage(self.folder), replacing(path) as file:
            text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
            writer = csv.writer(text)
            writer.writerow("input state output error seconds input_bytes output_bytes input_sha256".split())
            for row in self.rows():
                output = row.output if row.state == "done" else ""
                known = [row.source.partition(DELETED)[0], row.state, output, row.error or "", row.seconds]
                writer.writerow([*known, row.size, row.output_size, row.sha256])
            text.flush()
            text.detach()
        return path

    def clean(self) -> None:
        """Remove the temporary files that a killed run left behind; call it before the first `start`."""
        for row in self.rows():
            if row.state == "started" and row.output:
                with contextlib.suppress(OSError):
                    temporary_path(self.out / row.output).unlink()

    def execute(self, query: str, *values: object) -> None:
        """Run one statement; text may hold any file name, ``CAST(? AS TEXT)`` takes it as it is."""
        with self._lock, _storage(self.folder):
            self._db.execute(query, _as_bytes(query, values))

    def select(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """All that a query finds, at once."""
        with self._lock, _storage(self.folder):
            return list(self._db.execute(query, _as_bytes(query, values)))

    def _one(self, query: str, *values: object) -> tuple[object, ...] | None:
        with self._lock, _storage(self.folder):
            found: tuple[object, ...] | None = self._db.execute(query, _as_bytes(query, values)).fetchone()
        return found

    def _close(
        self, source: str, state: str, sha256: str | None, size: int | None, error: str | None, seconds: float
    ) -> None:
        self.execute(
            "UPDATE files SET state = ?, sha256 = ?, output_size = ?, error = ?, seconds = ?, updated = ?"
            " WHERE source = CAST(? AS TEXT)",
            *(state, sha256, size, error, round(seconds, 4), time.time(), source),
        )

    def _release(self) -> None:
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None


def _as_bytes(query: str, values: tuple[object, ...]) -> tuple[object, ...]:
    """The values that the query casts to TEXT as bytes, so that names which are no UTF-8 survive."""
    places = re.findall(r"CAST\(\? AS TEXT\)|\?", query)
    return tuple(
        value if place == "?" else os.fsencode(str(value)) for place, value in zip(places, values, strict=True)
    )


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    try:
        db = sqlite3.connect("" if read_only else path, check_same_thread=False)  # "" is a file that nobody sees
        if read_only and path.exists():
            _copy(path, db)
        db.text_factory = os.fsdecode  # names that are not UTF-8 come back as they were
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise LedgerError(f"{path}: made by a newer h2a-batch", "update this one, or choose another OUT")
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        db.execute(_MODELS)
        return db
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) from error


def _copy(path: Path, db: sqlite3.Connection) -> None:
    """Read a ledger without touching it, also while a run writes it."""
    with contextlib.suppress(sqlite3.OperationalError):
        source = f"{Path(os.path.abspath(path)).as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(source, uri=True)) as original:
            original.backup(db)
            return
    with tempfile.TemporaryDirectory() as folder:
        for file in (path, path.with_name(f"{path.name}-journal")):
            if file.exists():
                shutil.copyfile(file, Path(folder, file.name))
        with contextlib.closing(sqlite3.connect(Path(folder, path.name))) as original:
            original.backup(db)  # what a kill left half committed is rolled back here


@contextlib.contextmanager
def _storage(folder: Path) -> Iterator[None]:
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
        advice = "check its permissions, the disk and its free space"
        return StorageError(f"{path}: the ledger cannot be used ({error})", advice)
    return LedgerError(
        f"{path}: the ledger is damaged ({error})", "move it away: outputs stay, and --overwrite makes them anew"
    )
