"""The ledger: an SQLite file in OUT that knows what became of every photo, so that a later run can continue.

An output's name is on record before the output is made, and its state after it is safely on disk: whatever moment a
run is killed at, the next one knows which files in OUT are its own and which of them are complete. `claims` decides
which photo may have which name.
"""

from __future__ import annotations

import contextlib
import hashlib
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
from h2a_batch.places import Address, at, hold, remove_own, replacing, sweep
from h2a_batch.sources import Source

_BATCH_SECONDS = 0.5  # the results of this time may be lost by a kill: the next run makes them again
_PROBE = "probe"  # a file in the ledger's folder
_PROBE_BYTES = 1 << 18  # a test of whether a full disk has room again; larger than most outputs


_ROW = ", ".join(Row.__dataclass_fields__)
_MADE = ", ".join(Made.__dataclass_fields__)


class Ledger:
    """The ledger of one OUT. It is a context manager, and threads may share it.

    The ledger of an OUT in an object store lies among this user's own files, see `mirror`.

    Args:
        out: OUT; it is made if it is missing.
        settings: canonical text of all that decides an output's bytes.
        read_only: whether to work on a private copy, without the lock, and change nothing, not even make OUT.

    Raises:
        BusyError: another run holds this folder.
        LedgerError: the ledger cannot be opened, is damaged, or is of a newer version.
        UsageError: OUT is in an object store that cannot be used.
        OSError: OUT cannot be made or written.
    """

    def __init__(self, out: Address, settings: str, read_only: bool = False) -> None:
        self.out = out
        self.real_out = at(out).real
        self.folder = ledger_folder(out)
        self.top = at(out).path or self.folder  # no link below is followed
        self.key = settings_key(settings)
        self.read_only = read_only
        self._lock = threading.RLock()
        self._guard = None if read_only else hold(self.folder, out, self.top)
        self._committed = time.monotonic()
        self._holding = holding_of(out, self.folder, read_only)
        try:
            path = self._holding.begin()
            connection = connect(path, read_only, self.top if path.parent == self.folder else path.parent)
            self._db = Database(connection, self.folder, self._lock)
            self.disposals = Disposals(self._db)
            self._db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", self.key, settings)
            self.commit()
            self._holding.attach(connection, self._lock)
        except StorageError as error:  # nothing was made yet: this is no half-done run
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
        """Return what is known of a photo, by its real path; None where nothing is."""
        values: Any = self._db.one(f"SELECT {_ROW} FROM files WHERE source = CAST(? AS TEXT)", source)
        return self._db.reading.row(values) if values else None

    def made(self, name: str) -> Made | None:
        """Return what is known of a file in OUT, by its name relative to OUT; None where nothing is."""
        values: Any = self._db.one(f"SELECT {_MADE} FROM outputs WHERE name = CAST(? AS TEXT)", name)
        return self._db.reading.made(values) if values else None

    def start(self, source: Source, name: str) -> Task:
        """Record that a photo's output of this name is about to be made, and return the task."""
        task = Task(source, self.out, name, fresh=self.size(name) is None)
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
        """Record that one more output of a task is about to be made, by this name relative to OUT."""
        query = (
            "INSERT INTO outputs (name, source, before) VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?)"
            " ON CONFLICT (name) DO UPDATE"
            " SET before = coalesce(size, before), size = NULL, sha256 = NULL, source = excluded.source"
        )
        self._db.execute(query, name, task.source.real, None if self.size(name) is None else KEPT)

    def done(
        self, task: Task, sha256: str, outputs: Sequence[Output], seconds: float, faces: Sequence[Frame] = ()
    ) -> None:
        """Record that a task's outputs are complete and on disk: one of the whole photo, or one of each face.

        Args:
            task: the task.
            sha256: of the photo's bytes, in hex.
            outputs: the files that were made.
            seconds: the time from the first byte read to the last byte written.
            faces: the faces that were converted, from left to right; empty where the photo was converted as a whole.
        """
        source = task.source.real
        portraits = [output.name for output in outputs] != [task.name]
        self._close(source, "done", sha256, sum(output.size for output in outputs), None, seconds)
        for output in outputs:
            query = "UPDATE outputs SET sha256 = ?, size = ?, before = NULL WHERE name = CAST(? AS TEXT)"
            self._db.execute(query, sha256, output.size, output.name)
        if portraits:  # keep the photo's own name for it, whether an older output has it or nothing
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
        """Record that a photo was skipped because it shows no face."""
        self._close(task.source.real, NOBODY, None, None, None, seconds)
        self._tidy(task.source.real)

    def faces(self, source: str) -> list[FaceRow]:
        """Return the faces of a photo that were converted, left to right; none where it was converted as a whole."""
        query = (
            "SELECT x, y, side, angle, output, outputs.size FROM faces LEFT JOIN outputs ON output = name"
            " WHERE faces.source = CAST(? AS TEXT) ORDER BY number"
        )
        rows: Any = self._db.select(query, source)
        return [self._db.reading.face(values) for values in rows]

    def rename(self, source: str, new: str) -> None:
        """Move the record of a photo to its new path."""
        for query in (
            "DELETE FROM faces WHERE source = CAST(? AS TEXT) AND source != CAST(? AS TEXT)",
            "UPDATE OR REPLACE files SET source = CAST(? AS TEXT) WHERE source = CAST(? AS TEXT)",
            "UPDATE OR REPLACE faces SET source = CAST(? AS TEXT) WHERE source = CAST(? AS TEXT)",
        ):
            self._db.execute(query, new, source)

    def rename_outputs(self, source: str, new: str) -> None:
        """Assign the outputs of a photo to its new path."""
        self._db.execute("UPDATE outputs SET source = CAST(? AS TEXT) WHERE source = CAST(? AS TEXT)", new, source)

    def failed(self, task: Task, error: str, seconds: float) -> None:
        """Record why a task has no output, or kept its old one; the next run tries again."""
        self._close(task.source.real, "failed", None, None, error, seconds)
        if task.fresh:  # whatever has the name now is somebody else's
            self._db.execute("DELETE FROM outputs WHERE name = CAST(? AS TEXT) AND size IS NULL", task.name)
        self._tidy(task.source.real)

    def unusable(self, path: Address, error: str) -> None:
        """Record a photo that cannot even be reached."""
        self._db.execute(
            "INSERT OR REPLACE INTO files (source, size, mtime_ns, settings, natural, state, error, updated)"
            " VALUES (CAST(? AS TEXT), 0, 0, ?, '', 'failed', ?, ?)",
            str(path),
            self.key,
            error,
            time.time(),
        )

    def size(self, name: str) -> int | None:
        """Return the bytes of whatever has a name in OUT; None where nothing has."""
        return self._holding.size(name)

    def output_of(self, source: Source) -> Address | None:
        """Return the address of a photo's output, the first of several; None where it has no complete one."""
        row = self.row(source.real)
        if row is None or row.output is None or row.state != "done":
            return None
        names = [face.output.name for face in self.faces(source.real) if face.output] or [row.output]
        return self.out / names[0] if self.size(names[0]) is not None else None

    def is_output(self, path: Address) -> bool:
        """Tell whether a path is the name of an output, made or about to be made; a link counts as its target, too."""
        names = at(path).names_below(self.out)
        return any(self._is_made(name) or self._holding.is_left_behind(name) for name in names)

    def sheets(self) -> frozenset[Path]:
        """Return the paths of the contact sheets of this and of earlier runs."""
        return frozenset(Path(str(path)) for (path,) in self._db.select("SELECT path FROM sheets"))

    def add_sheet(self, sheet: Path, name: str | None) -> None:
        """Record that a file is a contact sheet, with its name relative to OUT where it lies in OUT."""
        self._db.execute("INSERT OR IGNORE INTO sheets VALUES (CAST(? AS TEXT))", str(sheet))
        if name is not None:
            self._db.execute("INSERT OR IGNORE INTO outputs (name, source) VALUES (CAST(? AS TEXT), '')", name)

    def commit(self, at_once: bool = True) -> bool:
        """Make the records durable.

        Args:
            at_once: False means only if the last commit is a while ago.

        Returns:
            whether the records were made durable.

        Raises:
            StorageError: the volume is full or gone, or another run has taken over.
        """
        with self._lock:
            due = at_once or time.monotonic() - self._committed > _BATCH_SECONDS
            if due:
                self.flush()
                self._committed = time.monotonic()
            return due

    def flush(self) -> None:
        """Make the records durable from any thread; `commit` is for the run's own thread.

        Raises:
            StorageError: the volume is full or gone, or another run has taken over.
        """
        self._db.commit()
        self._holding.check()

    def survive_power_cuts(self) -> None:
        """Make each later commit survive a power cut right behind it, as it must before a photo is deleted."""
        self.commit()
        self._db.execute("PRAGMA synchronous = EXTRA")

    def check_place(self) -> None:
        """Check that OUT is still the same folder; one that cannot be reached for now counts as the same.

        Raises:
            StorageError: OUT was removed or replaced.
        """
        try:
            if self._guard is not None and not os.path.samestat(os.fstat(self._guard), os.stat(self.folder / "lock")):
                raise FileNotFoundError
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StorageError(f"{self.out}: OUT was removed while it was in use", "start again") from error
        except OSError:
            pass

    def can_write(self) -> bool:
        """Drop the records that could not be made durable, and tell whether OUT can be written again.

        Raises:
            StorageError: as `check_place`.
        """
        self.check_place()
        probe = self.folder / _PROBE
        try:
            with self._lock, replacing(probe, self.top) as file:
                self._db.rollback()
                file.write(bytes(_PROBE_BYTES))
            probe.unlink()
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            return self.commit()
        except (OSError, sqlite3.Error, StorageError):
            return False

    def rows(self, size: int | None = None) -> Iterator[Row]:
        """Yield all photos on record, or those of `size` bytes, in the order of their paths."""
        which, sizes = ("", ()) if size is None else ("WHERE size = ?", (size,))
        before = b""
        values: Any
        for values in self._db.each(f"SELECT {_ROW} FROM files {which} ORDER BY source", *sizes):
            row = self._db.reading.row(values)
            if (place := os.fsencode(row.source)) < before:  # a made-up tree of pages may never end
                raise LedgerError(f"{self.folder}: the ledger is damaged (its photos are out of order)", "move it away")
            before = place
            yield row

    def rows_of_size(self, size: int) -> Iterator[Row]:
        """Yield the photos of `size` bytes; for a private copy, which gets an index for this."""
        self._db.execute("CREATE INDEX IF NOT EXISTS sizes ON files (size)")
        return self.rows(size)

    def touch(self, source: Source) -> None:
        """Record that a photo has another time of change and still the same content."""
        query = "UPDATE files SET mtime_ns = ? WHERE source = CAST(? AS TEXT)"
        self._db.execute(query, source.mtime_ns, source.real)

    def name_model(self, sha256: str, name: str) -> None:
        """Record the name of a model, for the headings of sheets and reports."""
        query = "INSERT INTO models VALUES (?, ?) ON CONFLICT (sha256) DO UPDATE SET name = excluded.name"
        self._db.execute(f"{query} WHERE name != excluded.name", sha256, name)  # no change needs no copy to a store

    def model_name(self, sha256: str) -> str | None:
        """Return the name that a model had when it was last used here; None where no name is known."""
        found = self._db.one("SELECT name FROM models WHERE sha256 = ?", sha256)
        return str(found[0]) if found else None

    def settings(self, key: str) -> dict[str, Any]:
        """Return the settings of a key, as `Options.settings` writes them; empty where the key is unknown."""
        found = self._db.one("SELECT json FROM settings WHERE key = ?", key)
        return self._db.reading.settings(found[0]) if found else {}

    def clean(self) -> None:
        """Remove the temporary files that a killed run left in OUT; call it before the first `start`."""
        query = "SELECT name FROM outputs JOIN files USING (source) WHERE outputs.size IS NULL AND state = 'started'"
        self._holding.clean(map(self._db.reading.name, (name for (name,) in self._db.select(query))))
        sweep(self.folder)
        remove_own(self.folder, [_PROBE], self.top)

    def together(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which no other thread writes or commits."""
        return self._lock

    def _tidy(self, source: str) -> None:
        """Release the unused names of a photo: an older output keeps its name, any other file there is not ours."""
        unused = "source = CAST(? AS TEXT) AND size IS NULL"
        self._db.execute(f"UPDATE outputs SET size = before, before = NULL WHERE {unused}", source)
        for (name,) in self._db.select(f"SELECT name FROM outputs WHERE {unused}", source):
            size = self.size(self._db.reading.name(name))
            if size is not None:  # nothing had this name when it was claimed: a killed run made the file
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
    """Return a short name for the settings of a run: 16 hex digits of their sha256."""
    return hashlib.sha256(settings.encode()).hexdigest()[:16]
