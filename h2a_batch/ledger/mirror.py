"""The ledger of an OUT in an object store: the program works on it here, and keeps it there.

The database lies in a folder of the user's own. The program copies it to OUT's ``.h2a-batch/`` about once a minute and
at the end, so that the next run may be on another machine. It lists what OUT holds once, when a run starts. While a
run lasts, it renews a mark beside the ledger each minute: a run that no longer does so has died. Such a run has left
behind the objects that are newer than its mark, that no ledger knows, and whose metadata say that this program wrote
them under this very name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
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
    Scratch,
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

_EVERY, _SHARE = 60.0, 50  # seconds between two signs of life or copies; for copies also times what the last one took
_ALIVE = 180.0  # seconds after its last sign of life in which a run on another machine counts as alive
_ROWS = 1000  # objects that are listed into the database together
_AT_ONCE = 16  # requests to the store at the same time
# names are bytes, since they need not be UTF-8; a run that died left the objects with `ours` behind
_PRESENT = "CREATE TEMP TABLE present (name BLOB PRIMARY KEY, size INTEGER, ours INTEGER) WITHOUT ROWID"


def state_folder(out: Remote) -> Path:
    """Return the folder of this user's copy of an OUT's ledger."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    name = hashlib.sha256(f"{out.url} {out.endpoint}".encode()).hexdigest()[:16]
    return Path(os.path.abspath(os.path.expanduser(base)), "h2a-batch", name)


class Mirror:
    """An OUT in an object store: what it holds, and the copies of its ledger.

    Args:
        out: OUT.
        folder: as `state_folder` returns it; this process holds it unless `read_only`.
        read_only: whether to change nothing, neither here nor there.
    """

    def __init__(self, out: Remote, folder: Path, read_only: bool) -> None:
        self._out, self._folder, self._read_only = out, folder, read_only
        self._ledger = out / LEDGER_FOLDER / "ledger.sqlite"
        self._mark = out / LEDGER_FOLDER / "running.json"
        self._here = folder / "ledger.sqlite"
        self._known = folder / "copied"
        self._run = folder / "run"
        self._lost = 0.0  # since when there may be objects that a lost ledger knew
        self._borrowed: Scratch | None = None  # a copy of the ledger, to read from
        self._fields: dict[str, Any] = {}  # of the mark
        self._was_marked = False  # a run before this one left a mark
        self._taken = ""  # why this run has to end
        self._is_copy = False  # OUT has the ledger just as it is here
        self._first = self._copied = -1  # the number of changes to the ledger, at the start and at the last copy
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._db: sqlite3.Connection
        self._lock: threading.RLock

    def begin(self) -> Path:
        """Bring this user's copy of the ledger up to date, leave a mark, and return the database to work on.

        Raises:
            BusyError: a run on another machine writes to OUT.
            UsageError: OUT cannot be used.
        """
        check_reachable(self._out)
        try:
            found = find(self._mark)
            copy = find(self._ledger)
            mark = _mark_of(get(self._mark)) if found else {}
            own = found is not None and mark.get("run") == _text(self._run) and self._here.exists()
            if found and not own:
                self._check_ended(mark, max(found.modified, copy.modified if copy else 0.0))
            since = mark.get("since") or (found.modified if found else 0.0)
            self._lost = mark.get("lost") or (0.0 if own else since)
            self._is_copy = copy is not None and (found is None or bool(mark.get("ended")))
            path = self._here if own else self._fetched(copy)
            if not self._read_only:
                if find(self._mark) != found:  # another run began meanwhile
                    raise BusyError(f"{self._out}: another run has just begun to write here", "wait for it")
                self._leave_mark(since)
                self._was_marked = found is not None
                self._start(self._sign, 0)
            return path
        except (OSError, ValueError) as error:
            what = f"{self._out}: cannot be used as OUT ({getattr(error, 'strerror', None) or error})"
            raise UsageError(what, "check that its objects may be read and written") from error

    def attach(self, db: sqlite3.Connection, lock: threading.RLock) -> None:
        """List OUT into the database, and copy the database to OUT from time to time.

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
        """Return the bytes of an object of OUT by its key below OUT; None where it is absent or left behind."""
        found = self._one(name)
        return int(found[0]) if found and not found[1] else None

    def is_left_behind(self, name: str) -> bool:
        """Tell whether a run made an object and died before it could record it."""
        found = self._one(name)
        return found is not None and bool(found[1])

    def wrote(self, outputs: Iterable[tuple[str, int]]) -> None:
        """Note objects that the run made, by their names and bytes."""
        with self._lock:
            rows = [(os.fsencode(name), size) for name, size in outputs]
            self._db.executemany("INSERT OR REPLACE INTO present VALUES (?, ?, 0)", rows)

    def clean(self, names: Iterable[str]) -> None:
        """Do nothing: a store writes an object in one go."""

    def end(self, lost: bool) -> None:
        """Copy the ledger for the last time, and remove the mark.

        Args:
            lost: whether OUT cannot be written any more: the mark then stays, and the next run knows its own objects.

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
        """End before anything has begun, and remove a mark of this run that stands for nothing."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if self._fields and not self._taken and not self._was_marked:
            with contextlib.suppress(OSError):
                delete(self._mark)

    def check(self) -> None:
        """Check that no other run has taken this one for dead, as when the machine slept.

        Raises:
            StorageError: another run has, and works on OUT now.
        """
        if self._taken:
            raise StorageError(
                f"{self._out}: {self._taken}", "nothing is lost: run again when no other run writes here"
            )

    def _check_ended(self, mark: dict[str, Any], alive: float) -> None:
        """Check that the run which left a mark has ended or died.

        Raises:
            BusyError: it may still be alive.
        """
        if self._read_only or mark.get("ended"):
            return
        age = self._now() - alive
        if age < _ALIVE:
            who = f"process {mark.get('process')} on {mark.get('host')}"
            left = _ALIVE - max(age, 0)
            advice = f"wait for it; if it was killed, run again in {left:.0f} seconds, or on that machine"
            raise BusyError(f"{self._out}: another run ({who}) is writing here", advice)

    def _fetched(self, copy: Item | None) -> Path:
        """Return the newer of the ledgers here and in OUT; forget the one here if OUT's was deleted."""
        known = _text(self._known)
        if self._read_only and copy and known != str(copy.stamp):
            self._borrowed = Scratch()
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
            since: the start of the first earlier run that died and is not on record in OUT, in seconds since 1970;
                0 if none did, which makes it the start of this run.
        """
        run = uuid.uuid4().hex
        with replacing(self._run) as file:
            file.write(run.encode())
        who = {"run": run, "host": socket.gethostname(), "process": os.getpid()}
        self._fields = {**who, "since": since, "lost": self._lost}
        put(self._mark, json.dumps(self._fields).encode())
        if not since and (found := find(self._mark)):
            self._fields["since"] = found.modified  # the next sign of life changes the mark's own time

    def _sign(self) -> None:
        """Give a sign of life, unless another run has taken OUT."""
        try:
            mark = _mark_of(get(self._mark))
        except FileNotFoundError:
            mark = {}
        if mark.get("run") == self._fields["run"]:
            put(self._mark, json.dumps(self._fields).encode())
        else:
            who = f"process {mark.get('process')} on {mark.get('host')}" if mark.get("host") else "it has ended by now"
            self._taken = f"another run took over, since nothing was heard of this one ({who})"

    def _now(self) -> float:
        """Return the time by the store's clock, in seconds since 1970, as its objects have it."""
        probe = self._out / LEDGER_FOLDER / f"clock-{uuid.uuid4().hex}"
        put(probe, b"")
        found = find(probe)
        delete(probe)
        return found.modified if found else time.time()

    def _list(self) -> None:
        """Add what OUT holds to the database."""
        items = (item for item in listing(self._out) if not item.key.startswith(f"{LEDGER_FOLDER}/"))
        with self._lock:
            self._db.execute(_PRESENT)
            while page := list(islice(items, _ROWS)):
                self._add(page)
            self._db.commit()

    def _add(self, page: list[Item]) -> None:
        """Add a page of the listing to the database."""
        news = [item for item in page if self._lost and item.modified >= self._lost and self._is_news(item)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            own = pool.map(lambda item: is_own(self._out / item.key), news)
            ours = {item.key for item, is_ours in zip(news, own, strict=True) if is_ours}
        rows = [(os.fsencode(item.key), item.size, item.key in ours) for item in page]
        self._db.executemany("INSERT OR REPLACE INTO present VALUES (?, ?, ?)", rows)

    def _is_news(self, item: Item) -> bool:
        """Tell whether an object is not on record, or not as it is now."""
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
            with contextlib.suppress(OSError, ValueError, sqlite3.Error):  # if the error lasts, `end` reports it
                work()
            wait = max(_EVERY, share * (time.monotonic() - started))

    def _copy(self) -> None:
        """Copy the ledger to OUT as it is now, unless OUT has it already."""
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
        if not self._taken:  # or this would overwrite the ledger of the run that took over
            upload(snapshot, self._ledger)
        snapshot.unlink()
        if self._taken:
            return
        if copy := find(self._ledger):
            self._remember(copy)
        self._copied = changes

    def _remember(self, copy: Item) -> None:
        """Note from which copy in OUT the ledger here continues."""
        with replacing(self._known) as file:
            file.write(str(copy.stamp).encode())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _mark_of(data: bytes) -> dict[str, Any]:
    """Return the fields of a mark; raise ValueError where no run of this program left it."""
    try:
        fields = json.loads(data)
    except RecursionError:
        fields = None
    if isinstance(fields, dict) and all(isinstance(fields.get(name, 0), (int, float)) for name in ("since", "lost")):
        return fields
    raise ValueError(f"{LEDGER_FOLDER}/running.json is not of h2a-batch")
