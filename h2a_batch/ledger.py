"""The ledger: an SQLite file in OUT that knows what became of every input, so that a run can be taken up again.

An output's name is written down before the output is made, and its state after it is safely on disk: whatever
moment a run is killed at, the next one knows which files in OUT are its own and which of them are complete.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from h2a_batch.errors import LedgerError, StorageError
from h2a_batch.files import hold, replacing, sha256_of, temporary_path
from h2a_batch.image import is_complete
from h2a_batch.names import variants
from h2a_batch.options import settings_key
from h2a_batch.source import LEDGER_FOLDER, Source

_VERSION = 1
_SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE files (
    source TEXT PRIMARY KEY,            -- absolute path of the input
    size INTEGER NOT NULL,              -- bytes of the input
    mtime_ns INTEGER NOT NULL,          -- time of the input's last change
    sha256 TEXT,                        -- of the input's content, once it was read
    settings TEXT NOT NULL,             -- key of the settings its output was made with
    natural TEXT NOT NULL,              -- the output's name if nothing else had it, relative to OUT
    output TEXT UNIQUE,                 -- the output's name, relative to OUT; NULL where none was planned
    output_size INTEGER,                -- bytes of the output
    state TEXT NOT NULL,                -- started, done, failed
    error TEXT,                         -- what was wrong, where it failed
    seconds REAL,                       -- from the first byte read to the last byte written
    updated REAL NOT NULL               -- seconds since 1970
) WITHOUT ROWID;
CREATE TABLE outputs (                  -- every file this program made in OUT, or was about to
    name TEXT PRIMARY KEY,              -- relative to OUT
    size INTEGER                        -- bytes; NULL until it is complete
) WITHOUT ROWID;
"""
_INSERT = """INSERT OR REPLACE INTO files
    (source, size, mtime_ns, settings, natural, output, state, updated)
    VALUES (CAST(? AS TEXT), ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), 'started', ?)"""
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


_COLUMNS = ", ".join(Row.__dataclass_fields__)


class Ledger:
    """The ledger of one output folder. Use it as a context manager; safe to share between threads.

    Args:
        out: the output folder; made if it is not there.
        settings: canonical text of what decides an output's bytes.
        protected: real paths of the inputs: files below them are never replaced unless they are outputs.
        read_only: work on a copy in memory; make and change nothing, not even OUT.

    Raises:
        BusyError: another run holds this folder.
        LedgerError: the ledger is damaged or of a newer version.
        OSError: OUT cannot be made or written.
    """

    def __init__(self, out: Path, settings: str, protected: list[str], read_only: bool = False) -> None:
        self.out = out
        self.folder = out / LEDGER_FOLDER
        self.key = settings_key(settings)
        self.protected = protected
        self._lock = threading.RLock()
        self._guard = None if read_only else hold(self.folder)
        self._committed = time.monotonic()
        try:
            self._db = _connect(self.folder / "ledger.sqlite", read_only)
            self._db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (self.key, settings))
            self._db.commit()
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.commit()
        self._db.close()
        self._release()

    def is_current(self, source: Source) -> bool:
        """Whether a source's output exists, complete, made from this content with these settings."""
        row = self._row_of(source)
        if row is None or row.state != "done" or row.settings != self.key or row.natural != source.output:
            return False
        try:
            status = os.lstat(self.out / str(row.output))
        except OSError:
            return False
        if status.st_size != row.output_size or row.size != source.size:
            return False
        if row.mtime_ns == source.mtime_ns:
            return True
        try:
            if sha256_of(source.path) != row.sha256:
                return False
        except OSError:  # the pipeline will meet it again and say so
            return False
        self._execute(
            "UPDATE files SET mtime_ns = ? WHERE source = CAST(? AS TEXT)",
            (source.mtime_ns, os.fsencode(source.path)),
        )
        return True

    def claim(self, source: Source, overwrite: bool) -> Task | None:
        """Give a source the name of its output and write that down; None where another's file lies in the way.

        A name that belongs to another input that still exists, or to an original, is passed over for the next
        of `names.variants`. A file that this program did not make, or that was edited since (its size is not
        the recorded one, and it is a complete image), is replaced only by ``overwrite``.
        """
        row = self._row_of(source)
        folder, wanted = os.path.split(source.output)
        names: Iterator[str] = (os.path.join(folder, name) for name in variants(wanted))
        if row is not None and row.natural == source.output:
            names = iter([str(row.output)])
        for name in names:
            owner = self._find("output", name)
            if owner is not None and owner.source != str(source.path) and os.path.lexists(owner.source):
                continue
            if os.path.lexists(self.out / name) and not self._is_own(name):
                if self._is_protected(self.out / name):
                    continue
                if not overwrite:
                    return None
            break
        self._execute("INSERT OR IGNORE INTO outputs (name) VALUES (CAST(? AS TEXT))", (os.fsencode(name),))
        values = (
            os.fsencode(source.path),
            source.size,
            source.mtime_ns,
            self.key,
            os.fsencode(source.output),
            os.fsencode(name),
            time.time(),
        )
        self._execute(_INSERT, values)
        return Task(source, self.out / name, name)

    def done(self, task: Task, sha256: str, output_size: int, seconds: float) -> None:
        """Record that a task's output is complete and on disk."""
        self._close(task.source.path, "done", sha256, output_size, None, seconds)
        self._execute("UPDATE outputs SET size = ? WHERE name = CAST(? AS TEXT)", (output_size, os.fsencode(task.name)))

    def failed(self, task: Task, error: str, seconds: float) -> None:
        """Record why a task has no output; the next run tries again."""
        self._close(task.source.path, "failed", None, None, error, seconds)

    def output_of(self, source: Source) -> Path | None:
        """A source's output where it has a complete one."""
        row = self._find("source", str(source.path))
        if row is None or row.state != "done" or not (self.out / str(row.output)).exists():
            return None
        return self.out / str(row.output)

    def unusable(self, path: Path, error: str) -> None:
        """Record an input that cannot even be reached."""
        values = (os.fsencode(path), self.key, error, time.time())
        self._execute(
            """INSERT OR REPLACE INTO files (source, size, mtime_ns, settings, natural, state, error, updated)
            VALUES (CAST(? AS TEXT), 0, 0, ?, '', 'failed', ?, ?)""",
            values,
        )

    def is_output(self, path: Path) -> bool:
        """Whether a path below OUT (links resolved) is the name of an output, made or about to be made."""
        name = os.path.relpath(path, os.path.realpath(self.out))
        return self._made(name) is not None

    def commit(self, at_once: bool = True) -> None:
        """Make what was recorded durable; unless ``at_once``, only when the last time is a while ago.

        Raises:
            StorageError: the volume is full or gone.
        """
        with self._lock:
            if at_once or time.monotonic() - self._committed > _BATCH_SECONDS:
                with _storage(self.folder):
                    self._db.commit()
                self._committed = time.monotonic()

    def rows(self, state: str | None = None) -> Iterator[Row]:
        """All inputs on record in the order of their paths, or those in one state."""
        query = f"SELECT {_COLUMNS} FROM files WHERE ? IS NULL OR state = ? ORDER BY source"
        for values in self._db.execute(query, (state, state)):
            yield Row(*values)

    def write_report(self) -> Path:
        """Write the ledger as CSV for people and spreadsheets, and return its path."""
        path = self.folder / "report.csv"
        with _storage(self.folder), replacing(path) as file:
            text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
            writer = csv.writer(text)
            writer.writerow(
                [
                    "input",
                    "state",
                    "output",
                    "error",
                    "seconds",
                    "input_bytes",
                    "output_bytes",
                    "input_sha256",
                ]
            )
            for row in self.rows():
                output = row.output if row.state == "done" else ""
                writer.writerow(
                    [
                        row.source,
                        row.state,
                        output,
                        row.error or "",
                        row.seconds,
                        row.size,
                        row.output_size,
                        row.sha256,
                    ]
                )
            text.flush()
            text.detach()
        return path

    def clean(self) -> None:
        """Remove the temporary files that a killed run left behind."""
        for row in self.rows("started"):
            with contextlib.suppress(OSError):
                temporary_path(self.out / str(row.output)).unlink()

    def _row_of(self, source: Source) -> Row | None:
        """The source's row; where it has none, that of the same output whose input was moved away to here."""
        row = self._find("source", str(source.path))
        if row is None:
            row = self._find("output", source.output)
            if row is None or row.size != source.size or os.path.lexists(row.source):
                return None
            self._execute(
                "UPDATE files SET source = CAST(? AS TEXT) WHERE source = CAST(? AS TEXT)",
                (os.fsencode(source.path), os.fsencode(row.source)),
            )
        return row

    def _find(self, column: str, value: str) -> Row | None:
        query = f"SELECT {_COLUMNS} FROM files WHERE {column} = CAST(? AS TEXT)"
        with self._lock, _storage(self.folder):
            values = self._db.execute(query, (os.fsencode(value),)).fetchone()
        return Row(*values) if values else None

    def _made(self, name: str) -> tuple[int | None] | None:
        """The size, if known, of a file that this program made in OUT; None for any other name."""
        with self._lock, _storage(self.folder):
            row: tuple[int | None] | None = self._db.execute(
                "SELECT size FROM outputs WHERE name = CAST(? AS TEXT)", (os.fsencode(name),)
            ).fetchone()
        return row

    def _is_own(self, name: str) -> bool:
        made, path = self._made(name), self.out / name
        if made is None or path.is_symlink() or not path.is_file():
            return False
        return made[0] is None or made[0] == path.stat().st_size or not is_complete(path)

    def _close(
        self,
        source: Path,
        state: str,
        sha256: str | None,
        size: int | None,
        error: str | None,
        seconds: float,
    ) -> None:
        self._execute(
            """UPDATE files SET state = ?, sha256 = ?, output_size = ?, error = ?, seconds = ?, updated = ?
                      WHERE source = CAST(? AS TEXT)""",
            (state, sha256, size, error, round(seconds, 4), time.time(), os.fsencode(source)),
        )

    def _execute(self, query: str, values: tuple[object, ...]) -> None:
        with self._lock, _storage(self.folder):
            self._db.execute(query, values)

    def _is_protected(self, path: Path) -> bool:
        real = os.path.join(os.path.realpath(path.parent), path.name)
        return any(real == root or real.startswith(root + os.sep) for root in self.protected)

    def _release(self) -> None:
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(":memory:" if read_only else path, check_same_thread=False)
        if read_only and path.exists():
            with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as original:
                original.backup(db)
        db.text_factory = os.fsdecode  # names that are not UTF-8 come back as they were
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise LedgerError(f"{path}: made by a newer h2a-batch", "update this one, or choose another OUT")
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        return db
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) from error


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
        return StorageError(f"{path}: the ledger cannot be written ({error})", "check the disk and its free space")
    return LedgerError(
        f"{path}: the ledger is damaged ({error})",
        "move it away: outputs stay, and --overwrite makes them anew",
    )
