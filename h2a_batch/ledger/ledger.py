"""The ledger: an SQLite file in OUT that knows what became of every input, so that a run can be taken up again.

An output's name is written down before the output is made, and its state after it is safely on disk: whatever
moment a run is killed at, the next one knows which files in OUT are its own and which of them are complete.
Who may have which name is decided in `claims`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from h2a_batch.errors import LedgerError, StorageError
from h2a_batch.ledger.database import VERSION, Database, connect
from h2a_batch.ledger.disposals import Disposals
from h2a_batch.ledger.holding import holding_of, ledger_folder
from h2a_batch.ledger.records import KEPT, NOBODY, FaceRow, Made, Output, Row, Task
from h2a_batch.photos import Frame
from h2a_batch.places import Address, at, hold, replacing
from h2a_batch.sources import Source

_PROBE_BYTES = 1 << 18  # to see whether a full disk has room again; more than most outputs need


_ROW, _MADE = ", ".join(Row.__dataclass_fields__), ", ".join(Made.__dataclass_fields__)


class Ledger:
    """The ledger of one output folder. Use it as a context manager; safe to share between threads.

    That of an OUT in an object store is kept in this user's own files, see `mirror`.

    Args:
        out: the output folder; made if it is not there.
        settings: canonical text of what decides an output's bytes.
        read_only: work on a private copy, without the lock; make and change nothing, not even OUT.

    Raises:
        BusyError: another run holds this folder.
        LedgerError: the ledger cannot be opened, is damaged, or of a newer version.
        UsageError: OUT is in an object store that cannot be used.
        OSError: OUT cannot be made or written.
    """

    def __init__(self, out: Address, settings: str, read_only: bool = False) -> None:
        self.out = out
        self.real_out = at(out).real
        self.folder = ledger_folder(out)
        self.key = settings_key(settings)
        self.read_only = read_only
        self._lock = threading.RLock()
        self._guard = None if read_only else hold(self.folder, out)
        self._holding = holding_of(out, self.folder, read_only)
        try:
            connection = connect(self._holding.begin(), read_only)
            self._db = Database(connection, self.folder, self._lock)
            self.disposals = Disposals(self._db)
            self._db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", self.key, settings)
            self.commit()
            self._holding.attach(connection, self._lock)
        except StorageError as error:  # before anything was made it is no half-done run
            self._abandon()
            raise LedgerError(error.message, error.advice) from error
        except BaseException:
            self._abandon()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(StorageError, LedgerError):
                self._db.commit()
            self._holding.end(lost=isinstance(error, StorageError))
        finally:
            self._db.close()
            self._release()

    def row(self, source: str) -> Row | None:
        """What is known of an input, by its real path."""
        values: Any = self._db.one(f"SELECT {_ROW} FROM files WHERE source = CAST(? AS TEXT)", source)
        return Row(*values) if values else None

    def made(self, name: str) -> Made | None:
        """What is known of a file in OUT, by its name relative to OUT."""
        values: Any = self._db.one(f"SELECT {_MADE} FROM outputs WHERE name = CAST(? AS TEXT)", name)
        return Made(*values) if values else None

    def start(self, source: Source, name: str) -> Task:
        """Write down that a source's output of this name is about to be made."""
        task = Task(source, self.out, name)
        self.reserve(task, name)
        self._db.execute(
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
        return task

    def reserve(self, task: Task, name: str) -> None:
        """Write down that another output of a task is about to be made, by this name."""
        query = (
            "INSERT INTO outputs (name, source, before) VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?)"
            " ON CONFLICT (name) DO UPDATE"
            " SET before = coalesce(size, before), size = NULL, sha256 = NULL, source = excluded.source"
        )
        self._db.execute(query, name, task.source.real, None if self.size(name) is None else KEPT)

    def done(
        self, task: Task, sha256: str, outputs: Sequence[Output], seconds: float, faces: Sequence[Frame] = ()
    ) -> None:
        """Record that a task's outputs are complete and on disk: one of the whole photo, or one of each face."""
        source, portraits = task.source.real, [output.name for output in outputs] != [task.name]
        self._close(source, "done", sha256, sum(output.size for output in outputs), None, seconds)
        for output in outputs:
            query = "UPDATE outputs SET sha256 = ?, size = ?, before = NULL WHERE name = CAST(? AS TEXT)"
            self._db.execute(query, sha256, output.size, output.name)
        if portraits:  # the photo's own name is kept for it, whether an older output has it or nothing
            query = "UPDATE outputs SET sha256 = ?, size = coalesce(before, ?) WHERE name = CAST(? AS TEXT)"
            self._db.execute(query, sha256, KEPT, task.name)
        self._holding.wrote([(output.name, output.size) for output in outputs])
        self._tidy(source)
        self._db.execute("DELETE FROM faces WHERE source = CAST(? AS TEXT)", source)
        for number, face in enumerate(faces, 1):
            name = outputs[number - 1].name if portraits else None
            query = "INSERT INTO faces VALUES (CAST(? AS TEXT), ?, ?, ?, ?, ?, CAST(? AS TEXT))"
            self._db.execute(query, source, number, face.x, face.y, face.side, face.angle, name)

    def nobody(self, task: Task, seconds: float) -> None:
        """Record that a photo was passed over because no face was found in it."""
        self._close(task.source.real, NOBODY, None, None, None, seconds)
        self._tidy(task.source.real)

    def faces(self, source: str) -> list[FaceRow]:
        """The faces of a photo that were converted, left to right; none where it was converted as a whole."""
        query = (
            "SELECT x, y, side, angle, output, outputs.size FROM faces LEFT JOIN outputs ON output = name"
            " WHERE faces.source = CAST(? AS TEXT) ORDER BY number"
        )
        rows: Any = self._db.select(query, source)
        return [FaceRow(Frame(*row[:4]), Output(row[4], row[5] or 0) if row[4] else None) for row in rows]

    def rename(self, source: str, new: str) -> None:
        """Keep the record of a photo under another path."""
        for query in (
            "DELETE FROM faces WHERE source = CAST(? AS TEXT) AND source != CAST(? AS TEXT)",
            "UPDATE OR REPLACE files SET source = CAST(? AS TEXT) WHERE source = CAST(? AS TEXT)",
            "UPDATE OR REPLACE faces SET source = CAST(? AS TEXT) WHERE source = CAST(? AS TEXT)",
        ):
            self._db.execute(query, new, source)

    def rename_outputs(self, source: str, new: str) -> None:
        """Have the outputs of a photo belong to another path."""
        self._db.execute("UPDATE outputs SET source = CAST(? AS TEXT) WHERE source = CAST(? AS TEXT)", new, source)

    def failed(self, task: Task, error: str, seconds: float) -> None:
        """Record why a task has no output, or kept its old one; the next run tries again."""
        self._close(task.source.real, "failed", None, None, error, seconds)
        self._tidy(task.source.real)

    def unusable(self, path: Address, error: str) -> None:
        """Record an input that cannot even be reached."""
        self._db.execute(
            "INSERT OR REPLACE INTO files (source, size, mtime_ns, settings, natural, state, error, updated)"
            " VALUES (CAST(? AS TEXT), 0, 0, ?, '', 'failed', ?, ?)",
            str(path),
            self.key,
            error,
            time.time(),
        )

    def size(self, name: str) -> int | None:
        """Bytes of what has a name in OUT, whatever it is; None where nothing has."""
        return self._holding.size(name)

    def output_of(self, source: Source) -> Address | None:
        """A source's output, the first of several, where it has a complete one."""
        row = self.row(source.real)
        if row is None or row.output is None or row.state != "done":
            return None
        names = [face.output.name for face in self.faces(source.real) if face.output] or [row.output]
        return self.out / names[0] if self.size(names[0]) is not None else None

    def is_output(self, path: Address) -> bool:
        """Whether a path in OUT is the name of an output, made or about to be made; links count as what they name."""
        names = at(path).names_below(self.out)
        return any(self._is_made(name) or self._holding.is_left_behind(name) for name in names)

    def sheets(self) -> frozenset[Path]:
        """The contact sheets of this and of earlier runs."""
        return frozenset(Path(str(path)) for (path,) in self._db.select("SELECT path FROM sheets"))

    def add_sheet(self, sheet: Path, name: str | None) -> None:
        """Write down that a file is a contact sheet, and its name relative to OUT where it lies in OUT."""
        self._db.execute("INSERT OR IGNORE INTO sheets VALUES (CAST(? AS TEXT))", str(sheet))
        if name is not None:
            self._db.execute("INSERT OR IGNORE INTO outputs (name, source) VALUES (CAST(? AS TEXT), '')", name)

    def commit(self, at_once: bool = True) -> bool:
        """Make what was recorded durable; unless ``at_once``, only when the last time is a while ago.

        Returns:
            whether it was done.

        Raises:
            StorageError: the volume is full or gone.
        """
        with self._lock:
            due = at_once or self._db.is_due
            if due:
                self.flush()
            return due

    def flush(self) -> None:
        """Make what was recorded durable, for a thread that is not the run's own: when it commits is its own affair.

        Raises:
            StorageError: the volume is full or gone, or another run has taken over.
        """
        self._db.commit()
        self._holding.check()

    def survive_power_cuts(self) -> None:
        """Have each commit from now on survive a power cut right behind it, as it must before a photo is deleted."""
        self.commit()
        self._db.execute("PRAGMA synchronous = EXTRA")

    def check_place(self) -> None:
        """Make sure that OUT is still the folder it was; one that cannot be reached for now may well be.

        Raises:
            StorageError: it was removed or replaced.
        """
        try:
            if self._guard is not None and not os.path.samestat(os.fstat(self._guard), os.stat(self.folder / "lock")):
                raise FileNotFoundError
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StorageError(f"{self.out}: OUT was removed while it was in use", "start again") from error
        except OSError:
            pass

    def can_write(self) -> bool:
        """Drop what could not be made durable, and try whether there is room to write again.

        Raises:
            StorageError: as `check_place`.
        """
        self.check_place()
        probe = self.folder / "probe"
        try:
            with self._lock, replacing(probe) as file:
                self._db.rollback()
                file.write(bytes(_PROBE_BYTES))
            probe.unlink()
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            return self.commit()
        except (OSError, sqlite3.Error, StorageError):
            return False

    def rows(self, size: int | None = None) -> Iterator[Row]:
        """All inputs on record, or those of so many bytes, in the order of their paths."""
        which, sizes = ("", ()) if size is None else ("WHERE size = ?", (size,))
        values: Any
        for values in self._db.each(f"SELECT {_ROW} FROM files {which} ORDER BY source", *sizes):
            yield Row(*values)

    def rows_of_size(self, size: int) -> Iterator[Row]:
        """Yield the inputs of so many bytes; for a private copy, which gets an index for it."""
        self._db.execute("CREATE INDEX IF NOT EXISTS sizes ON files (size)")
        return self.rows(size)

    def touch(self, source: Source) -> None:
        """Record that a photo has another time of change, and the content that it had."""
        query = "UPDATE files SET mtime_ns = ? WHERE source = CAST(? AS TEXT)"
        self._db.execute(query, source.mtime_ns, source.real)

    def name_model(self, sha256: str, name: str) -> None:
        """Write down what a model is called, for the headings of sheets and reports."""
        query = "INSERT INTO models VALUES (?, ?) ON CONFLICT (sha256) DO UPDATE SET name = excluded.name"
        self._db.execute(f"{query} WHERE name != excluded.name", sha256, name)  # what stays needs no copying to a store

    def model_name(self, sha256: str) -> str | None:
        """What a model was called when it was last used here."""
        found = self._db.one("SELECT name FROM models WHERE sha256 = ?", sha256)
        return str(found[0]) if found else None

    def settings(self, key: str) -> dict[str, Any]:
        """What outputs of this settings key were made with, as `Options.settings` gives it."""
        found = self._db.one("SELECT json FROM settings WHERE key = ?", key)
        return dict(json.loads(str(found[0]))) if found else {}

    def clean(self) -> None:
        """Remove the temporary files that a killed run left behind; call it before the first `start`."""
        query = "SELECT name FROM outputs JOIN files USING (source) WHERE outputs.size IS NULL AND state = 'started'"
        self._holding.clean(str(name) for (name,) in self._db.select(query))

    def together(self) -> contextlib.AbstractContextManager[object]:
        """While it is held no other thread writes or commits."""
        return self._lock

    def _tidy(self, source: str) -> None:
        """Names that were not used in the end: an older output keeps its own, any other file there is not ours."""
        unused = "source = CAST(? AS TEXT) AND size IS NULL"
        self._db.execute(f"UPDATE outputs SET size = before, before = NULL WHERE {unused}", source)
        for (name,) in self._db.select(f"SELECT name FROM outputs WHERE {unused}", source):
            size = self.size(str(name))
            if size is not None:  # nothing had the name when it was taken, so it is of a run that was killed
                self._db.execute("UPDATE outputs SET size = ? WHERE name = CAST(? AS TEXT)", size, name)
            else:
                self._db.execute("DELETE FROM outputs WHERE name = CAST(? AS TEXT)", name)

    def _is_made(self, name: str) -> bool:
        made = self.made(name)
        return made is not None and made.size != KEPT

    def _close(
        self, source: str, state: str, sha256: str | None, size: int | None, error: str | None, seconds: float
    ) -> None:
        self._db.execute(
            "UPDATE files SET state = ?, sha256 = ?, output_size = ?, error = ?, seconds = ?, updated = ?"
            " WHERE source = CAST(? AS TEXT)",
            *(state, sha256, size, error, round(seconds, 4), time.time(), source),
        )

    def _abandon(self) -> None:
        with contextlib.suppress(AttributeError):  # not opened yet
            self._db.close()
        self._holding.abandon()
        self._release()

    def _release(self) -> None:
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None


def settings_key(settings: str) -> str:
    """A short name for a run's settings."""
    return hashlib.sha256(settings.encode()).hexdigest()[:16]
