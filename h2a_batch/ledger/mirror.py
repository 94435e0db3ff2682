"""The ledger of an OUT in an object store: worked on here, kept there.

The database lies in a folder of the user's own and is copied to OUT's ``.h2a-batch/`` about once a minute and at the
end, so that the next run may be on another machine. What OUT holds is listed once, when a run starts. While it lasts,
a mark lies beside the ledger and is renewed each minute: a run that no longer does so has died. Objects that are newer
than its mark, that no ledger knows, and whose metadata say that this program wrote them under this very name, are what
it left behind.
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
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from h2a_batch.errors import BusyError, StorageError, UsageError
from h2a_batch.places import (
    Item,
    Remote,
    check_reachable,
    delete,
    download,
    find,
    get,
    is_own,
    listing,
    put,
    replacing,
    upload,
)
from h2a_batch.sources import LEDGER_FOLDER

_EVERY, _SHARE = 60.0, 50  # seconds between two signs of life, and between two copies, or times what the last one took
_ALIVE = 180.0  # seconds after its last sign of life in which a run on another machine is taken to be going on
_ROWS, _AT_ONCE = 1000, 16
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
        self._borrowed: tempfile.TemporaryDirectory[str] | None = None  # holds a copy to read from
        self._fields: dict[str, Any] = {}  # of the mark
        self._was_marked = False  # by a run before this one
        self._taken = ""  # why this run has to end
        self._is_copy = False  # whether the ledger here is what OUT has
        self._first = self._copied = -1  # changes to the ledger: at the start, and up to the last copy
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
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
            self._is_copy = copy is not None and (found is None or bool(mark.get("ended")))
            path = self._here if own else self._fetched(copy)
            if not self._read_only:
                if find(self._mark) != found:  # another run began while the ledger was fetched
                    raise BusyError(f"{self._out}: another run has just begun to write here", "wait for it")
                self._leave_mark(since)
                self._was_marked = found is not None
                self._start(self._sign, 0)
            return path
        except (OSError, ValueError) as error:
            what = f"{self._out}: cannot be used as OUT ({getattr(error, 'strerror', None) or error})"
            raise UsageError(what, "check that its objects may be read and written") from error

    def attach(self, db: sqlite3.Connection, lock: threading.RLock) -> None:
        """List OUT into the database, and copy that from time to time.

        Raises:
            UsageError: OUT cannot be listed.
            StorageError: as `check`.
        """
        self._db, self._lock = db, lock
        if self._borrowed:
            self._borrowed.cleanup()
        try:
            self._list()
            self._first = self._copied = db.total_changes if self._is_copy else -1
            if not self._read_only:
                self._sign()
        except (OSError, ValueError) as error:
            what = f"{self._out}: cannot be listed ({getattr(error, 'strerror', None) or error})"
            raise UsageError(what, "run again") from error
        self.check()
        if not self._read_only:
            self._start(self._copy, _SHARE)

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

    def clean(self, names: Iterable[str]) -> None:
        """Do nothing: objects are written in one go."""

    def end(self, lost: bool) -> None:
        """Copy the ledger for the last time and take the mark away.

        Args:
            lost: OUT cannot be written any more: the mark stays, and the next run knows what is its own.

        Raises:
            StorageError: the ledger cannot be copied to OUT.
        """
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if lost or not self._threads:
            return
        try:
            self._sign()
            self.check()
            self._copy()
            self.check()
            table = self._folder / "report.csv"
            if table.exists() and self._copied != self._first:
                upload(table, self._out / LEDGER_FOLDER / table.name)
            with self._lock:
                left = self._db.execute("SELECT 1 FROM present WHERE ours LIMIT 1").fetchone()
            if left:
                put(self._mark, json.dumps({"ended": True, "lost": self._lost}).encode())
            else:
                delete(self._mark)
        except (OSError, ValueError, sqlite3.Error) as error:
            what = f"{self._out}: the ledger cannot be copied there ({getattr(error, 'strerror', None) or error})"
            raise StorageError(what, f"run again from here; it is kept in {self._folder}") from error

    def abandon(self) -> None:
        """End before anything was begun: a mark of this run that stands for nothing is taken away."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if self._fields and not self._taken and not self._was_marked:
            with contextlib.suppress(OSError):
                delete(self._mark)

    def check(self) -> None:
        """Make sure that no other run has taken this one for dead, as when the machine slept.

        Raises:
            StorageError: one has, and works on OUT now.
        """
        if self._taken:
            raise StorageError(
                f"{self._out}: {self._taken}", "nothing is lost: run again when no other run writes here"
            )

    def _check_ended(self, mark: dict[str, Any], alive: float) -> None:
        """Make sure that the run which left a mark is not going on."""
        if self._read_only or mark.get("ended"):
            return
        age = self._now() - alive
        if age < _ALIVE:
            who = f"process {mark.get('process')} on {mark.get('host')}"
            left = _ALIVE - max(age, 0)
            advice = f"wait for it; if it was killed, run again in {left:.0f} seconds, or on that machine"
            raise BusyError(f"{self._out}: another run ({who}) is writing here", advice)

    def _fetched(self, copy: Item | None) -> Path:
        """The newer of the ledgers here and in OUT; what was deleted there is forgotten here."""
        known = _text(self._known)
        if self._read_only and copy and known != str(copy.stamp):
            self._borrowed = tempfile.TemporaryDirectory(prefix="h2a-")
            path = Path(self._borrowed.name, "ledger.sqlite")
            download(self._ledger, path)
            return path
        is_same = copy is not None and known == str(copy.stamp) and self._here.exists()
        if self._read_only or is_same or not (copy or known):
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
            since: start of the first of those before it that died and are not on record in OUT; 0 if none did, and it
                is this one's own start.
        """
        run = uuid.uuid4().hex
        with replacing(self._run) as file:
            file.write(run.encode())
        who = {"run": run, "host": socket.gethostname(), "process": os.getpid()}
        self._fields = {**who, "since": since, "lost": self._lost}
        put(self._mark, json.dumps(self._fields).encode())
        if not since and (found := find(self._mark)):
            self._fields["since"] = found.modified  # told by the next sign of life, which changes the mark's own time

    def _sign(self) -> None:
        """Give a sign of life, unless another run has taken OUT."""
        try:
            mark = json.loads(get(self._mark))
        except FileNotFoundError:
            mark = {}
        if mark.get("run") == self._fields["run"]:
            put(self._mark, json.dumps(self._fields).encode())
        else:
            who = f"process {mark.get('process')} on {mark.get('host')}" if mark.get("host") else "it has ended by now"
            self._taken = f"another run took over, since nothing was heard of this one ({who})"

    def _now(self) -> float:
        """The time by the store's clock, as its objects have it."""
        probe = self._out / LEDGER_FOLDER / f"clock-{uuid.uuid4().hex}"
        put(probe, b"")
        found = find(probe)
        delete(probe)
        return found.modified if found else time.time()

    def _list(self) -> None:
        """Take what OUT holds into the database."""
        items = (item for item in listing(self._out) if not item.key.startswith(f"{LEDGER_FOLDER}/"))
        with self._lock:
            self._db.execute(_PRESENT)
            while page := list(islice(items, _ROWS)):
                self._add(page)
            self._db.commit()

    def _add(self, page: list[Item]) -> None:
        """Take a page of the listing into the database."""
        news = [item for item in page if self._lost and item.modified >= self._lost and self._is_news(item)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            own = pool.map(lambda item: is_own(self._out / item.key), news)
            ours = {item.key for item, is_ours in zip(news, own, strict=True) if is_ours}
        rows = [(os.fsencode(item.key), item.size, item.key in ours) for item in page]
        self._db.executemany("INSERT OR REPLACE INTO present VALUES (?, ?, ?)", rows)

    def _is_news(self, item: Item) -> bool:
        """Whether an object is not on record, or not as it is now."""
        found = self._db.execute("SELECT size FROM outputs WHERE name = CAST(? AS TEXT)", (os.fsencode(item.key),))
        row = found.fetchone()
        return row is None or row[0] not in (None, item.size)

    def _one(self, name: str) -> tuple[Any, ...] | None:
        with self._lock:
            query = "SELECT size, ours FROM present WHERE name = ?"
            found: tuple[Any, ...] | None = self._db.execute(query, (os.fsencode(name),)).fetchone()
        return found

    def _start(self, work: Callable[[], None], share: float) -> None:
        self._threads.append(threading.Thread(target=self._often, args=(work, share), name="ledger", daemon=True))
        self._threads[-1].start()

    def _often(self, work: Callable[[], None], share: float) -> None:
        wait = _EVERY
        while not self._ended.wait(wait):
            started = time.monotonic()
            with contextlib.suppress(OSError, ValueError, sqlite3.Error):  # should it last, the end tells of it
                work()
            wait = max(_EVERY, share * (time.monotonic() - started))

    def _copy(self) -> None:
        """Copy the ledger to OUT, as it is now, unless that has been done."""
        snapshot = self._folder / "snapshot.sqlite"
        snapshot.unlink(missing_ok=True)
        with self._lock:
            self._db.commit()
            changes = self._db.total_changes
            if changes == self._copied or self._taken:
                return
            with contextlib.closing(sqlite3.connect(snapshot)) as target:
                self._db.backup(target)
        self._sign()
        if not self._taken:  # or the ledger of the run that took over would be lost
            upload(snapshot, self._ledger)
        snapshot.unlink()
        if self._taken:
            return
        if copy := find(self._ledger):
            self._remember(copy)
        self._copied = changes

    def _remember(self, copy: Item) -> None:
        """Note which copy in OUT the ledger here goes on from."""
        with replacing(self._known) as file:
            file.write(str(copy.stamp).encode())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
