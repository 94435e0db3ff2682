"""The ledger of an OUT in an object store: worked on here, kept there.

The database lies in a folder of the user's own and is copied to OUT's ``.h2a-batch/`` about once a minute and at the
end, so that the next run may be on another machine. What OUT holds is listed once, when a run starts. While it lasts,
a mark lies beside the ledger: objects that are newer than the mark of a run that died, and that no ledger knows,
are that run's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from h2a_batch.errors import BusyError, StorageError, UsageError
from h2a_batch.files import replacing
from h2a_batch.source import LEDGER_FOLDER
from h2a_batch.store import Item, Remote, check_reachable, delete, download, find, get, listing, put, upload

_EVERY, _SHARE = 60.0, 50  # seconds between two copies, or times what the last one took
_ALIVE = 180.0  # seconds after its last sign of life in which a run on another machine is taken to be going on
_ROWS = 1000
# names as bytes, since they need not be UTF-8; `ours` are objects that a run left behind which died
_PRESENT = "CREATE TEMP TABLE present (name BLOB PRIMARY KEY, size INTEGER, ours INTEGER) WITHOUT ROWID"


def state_folder(out: Remote) -> Path:
    """The folder in which this user's copy of an OUT's ledger lies."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    name = hashlib.sha256(f"{out.url} {out.endpoint}".encode()).hexdigest()[:16]
    return Path(os.path.abspath(os.path.expanduser(base)), "h2a-batch", name)


class Mirror:
    """An OUT in an object store: what it holds, and the copies of its ledger.

    Args:
        folder: as `state_folder` gives it; held by this process unless `read_only`.
        read_only: change nothing, neither here nor there.
    """

    def __init__(self, out: Remote, folder: Path, read_only: bool) -> None:
        self._out, self._folder, self._read_only = out, folder, read_only
        self._ledger = out / LEDGER_FOLDER / "ledger.sqlite"
        self._mark = out / LEDGER_FOLDER / "running.json"
        self._here, self._known = folder / "ledger.sqlite", folder / "copied"
        self._run = folder / "run"
        self._lost = 0.0  # since when there may be objects of which no ledger is left that knew them
        self._borrowed: Path | None = None  # a copy to read from
        self._ended = threading.Event()
        self._copying: threading.Thread | None = None
        self._db: sqlite3.Connection
        self._lock: threading.RLock

    def begin(self) -> Path:
        """Bring this user's copy of the ledger up to date, leave a mark, and return the database to work on.

        Raises:
            BusyError: a run on another machine is writing to OUT.
            UsageError: OUT cannot be used.
        """
        check_reachable(self._out)
        try:
            found, copy = find(self._mark), find(self._ledger)
            mark: dict[str, Any] = json.loads(get(self._mark)) if found else {}
            own = found is not None and mark.get("run") == _text(self._run) and self._here.exists()
            if found and not own:
                self._check_ended(mark, max(found.modified, copy.modified if copy else 0.0))
            since = mark.get("since") or (found.modified if found else 0.0)
            self._lost = mark.get("lost") or (0.0 if own else since)
            path = self._here if own else self._fetched(copy)
            if not self._read_only:
                self._leave_mark(since)
            return path
        except (OSError, ValueError) as error:
            what = f"{self._out}: cannot be used as OUT ({getattr(error, 'strerror', None) or error})"
            raise UsageError(what, "check that its objects may be read and written") from error

    def attach(self, db: sqlite3.Connection, lock: threading.RLock) -> None:
        """List OUT into the database, and copy that from time to time.

        Raises:
            UsageError: OUT cannot be listed.
        """
        self._db, self._lock = db, lock
        if self._borrowed:
            self._borrowed.unlink()
        try:
            items = (item for item in listing(self._out) if not item.key.startswith(f"{LEDGER_FOLDER}/"))
            with lock:
                db.execute(_PRESENT)
                while page := list(islice(items, _ROWS)):
                    self._add(page)
                db.commit()
        except OSError as error:
            raise UsageError(f"{self._out}: cannot be listed ({error.strerror})", "run again") from error
        if not self._read_only:
            self._copying = threading.Thread(target=self._copy_often, name="ledger", daemon=True)
            self._copying.start()

    def size(self, name: str) -> int | None:
        """Bytes of an object of OUT that is there and was not left behind, by its key below OUT."""
        found = self._one(name)
        return int(found[0]) if found and not found[1] else None

    def is_left_behind(self, name: str) -> bool:
        """Whether an object was made by a run that died before it could be recorded."""
        found = self._one(name)
        return found is not None and bool(found[1])

    def wrote(self, outputs: Iterable[tuple[str, int]]) -> None:
        """Take note of objects that were made."""
        with self._lock:
            rows = [(os.fsencode(name), size) for name, size in outputs]
            self._db.executemany("INSERT OR REPLACE INTO present VALUES (?, ?, 0)", rows)

    def end(self, lost: bool) -> None:
        """Copy the ledger for the last time and take the mark away.

        Args:
            lost: OUT cannot be written any more: the mark stays, and the next run knows what is its own.

        Raises:
            StorageError: the ledger cannot be copied to OUT.
        """
        if self._copying is None:
            return
        self._ended.set()
        self._copying.join()
        if lost:
            return
        try:
            self._copy()
            table = self._folder / "report.csv"
            if table.exists():
                upload(table, self._out / LEDGER_FOLDER / table.name)
            with self._lock:
                left = self._db.execute("SELECT 1 FROM present WHERE ours LIMIT 1").fetchone()
            if left:
                put(self._mark, json.dumps({"ended": True, "lost": self._lost}).encode())
            else:
                delete(self._mark)
        except (OSError, sqlite3.Error) as error:
            what = f"{self._out}: the ledger cannot be copied there ({getattr(error, 'strerror', None) or error})"
            raise StorageError(what, f"run again from here; it is kept in {self._folder}") from error

    def _check_ended(self, mark: dict[str, Any], alive: float) -> None:
        """Make sure that the run which left a mark is not going on."""
        age = time.time() - alive
        if not self._read_only and not mark.get("ended") and age < _ALIVE:
            who = f"process {mark.get('process')} on {mark.get('host')}"
            left = _ALIVE - max(age, 0)
            advice = f"wait for it; if it was killed, run again in {left:.0f} seconds, or on that machine"
            raise BusyError(f"{self._out}: another run ({who}) is writing here", advice)

    def _fetched(self, copy: Item | None) -> Path:
        """The newer of the ledgers here and in OUT; what was deleted there is forgotten here."""
        known = _text(self._known)
        if self._read_only and copy and known != str(copy.stamp):
            with tempfile.NamedTemporaryFile(prefix="h2a-", suffix=".sqlite", delete=False) as file:
                path = Path(file.name)
            download(self._ledger, path)
            self._borrowed = path
            return path
        if self._read_only or (copy and known == str(copy.stamp)) or not (copy or known):
            return self._here
        for path in (self._here, self._folder / "ledger.sqlite-journal", self._known):
            path.unlink(missing_ok=True)
        if copy:
            fetched = self._folder / "fetched.sqlite"
            download(self._ledger, fetched)
            os.replace(fetched, self._here)
            self._remember(copy)
        return self._here

    def _leave_mark(self, since: float) -> None:
        """Mark OUT as written to by this run.

        Args:
            since: start of the first of those before it that died and are not on record in OUT; 0 if none did.
        """
        run = uuid.uuid4().hex
        with replacing(self._run) as file:
            file.write(run.encode())
        fields = {"run": run, "host": socket.gethostname(), "process": os.getpid()}
        put(self._mark, json.dumps({**fields, "since": since, "lost": self._lost}).encode())

    def _add(self, page: list[Item]) -> None:
        """Take a page of the listing into the database."""
        rows = []
        for item in page:
            query = "SELECT 1 FROM outputs WHERE name = CAST(? AS TEXT)"
            new = self._lost and item.modified >= self._lost
            ours = new and self._db.execute(query, (os.fsencode(item.key),)).fetchone() is None
            rows.append((os.fsencode(item.key), item.size, bool(ours)))
        self._db.executemany("INSERT OR REPLACE INTO present VALUES (?, ?, ?)", rows)

    def _one(self, name: str) -> tuple[Any, ...] | None:
        with self._lock:
            query = "SELECT size, ours FROM present WHERE name = ?"
            found: tuple[Any, ...] | None = self._db.execute(query, (os.fsencode(name),)).fetchone()
        return found

    def _copy_often(self) -> None:
        wait = _EVERY
        while not self._ended.wait(wait):
            started = time.monotonic()
            with contextlib.suppress(OSError, sqlite3.Error):  # the last copy tells of it
                self._copy()
            wait = max(_EVERY, _SHARE * (time.monotonic() - started))

    def _copy(self) -> None:
        """Copy the ledger to OUT, as it is now."""
        snapshot = self._folder / "snapshot.sqlite"
        snapshot.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(snapshot)) as target, self._lock:
            self._db.commit()
            self._db.backup(target)
        upload(snapshot, self._ledger)
        snapshot.unlink()
        if copy := find(self._ledger):
            self._remember(copy)

    def _remember(self, copy: Item) -> None:
        """Note which copy in OUT the ledger here goes on from."""
        with replacing(self._known) as file:
            file.write(str(copy.stamp).encode())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
