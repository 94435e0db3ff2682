"""The database file of a ledger: opened, copied for readers, and its errors told as this program's."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from h2a_batch.errors import LedgerError, StorageError


def as_bytes(query: str, values: tuple[object, ...]) -> tuple[object, ...]:
    """The values that the query casts to TEXT as bytes, so that names which are no UTF-8 survive."""
    places = re.findall(r"CAST\(\? AS TEXT\)|\?", query)
    return tuple(
        value if place == "?" or value is None else os.fsencode(str(value))
        for place, value in zip(places, values, strict=True)
    )


def connect(path: Path, version: int, schema: str, later: Sequence[str], read_only: bool) -> sqlite3.Connection:
    """Open a database, made by the schema where it is new.

    Args:
        version: of the schema; a file of a newer one is refused.
        later: statements that bring an older file up to date.
        read_only: work on a copy that nobody sees.

    Raises:
        LedgerError: it is damaged, or newer.
        StorageError: it cannot be read or written.
    """
    try:
        db = sqlite3.connect("" if read_only else path, check_same_thread=False)  # "" is a file that nobody sees
        if read_only and path.exists():
            _copy(path, db)
        db.text_factory = os.fsdecode  # names that are not UTF-8 come back as they were
        known = db.execute("PRAGMA user_version").fetchone()[0]
        if known > version:
            raise LedgerError(f"{path}: made by a newer h2a-batch", "update this one, or choose another OUT")
        if known == 0:
            db.executescript(f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT;")
        for statement in later:
            db.execute(statement)
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
def storage(folder: Path) -> Iterator[None]:
    """Errors of the database or the disk as `LedgerError` and `StorageError`."""
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
