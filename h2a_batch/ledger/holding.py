"""Holding OUT: how a run makes its ledger its own, on a disk and in an object store."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from h2a_batch.ledger.mirror import Mirror, state_folder
from h2a_batch.places import Address, at, remove_temporaries, sweep
from h2a_batch.sources import LEDGER_FOLDER


class Holding(Protocol):
    """What a ledger needs of the place of OUT."""

    def begin(self) -> Path:
        """Bring the ledger up to date, and return the database to work on.

        Raises:
            BusyError: another run writes to OUT.
            UsageError: OUT cannot be used.
        """

    def attach(self, db: sqlite3.Connection, lock: threading.RLock) -> None:
        """Look at what OUT holds; copy the database from time to time where OUT is in a store.

        Raises:
            UsageError: OUT cannot be listed.
            StorageError: as `check`.
        """

    def size(self, name: str) -> int | None:
        """Return the bytes of whatever has a name in OUT; None where nothing has."""

    def is_left_behind(self, name: str) -> bool:
        """Tell whether a run made a file and died before it could record it."""

    def wrote(self, outputs: Iterable[tuple[str, int]]) -> None:
        """Note files that the run made, by their names and bytes."""

    def clean(self, names: Iterable[str]) -> None:
        """Remove the temporary files of these names that a killed run left."""

    def check(self) -> None:
        """Check that no other run has taken this one for dead.

        Raises:
            StorageError: another run has.
        """

    def end(self, lost: bool) -> None:
        """Release OUT.

        Args:
            lost: whether OUT cannot be written any more.

        Raises:
            StorageError: the ledger cannot be copied to OUT.
        """

    def abandon(self) -> None:
        """Release OUT before anything has begun."""


@dataclass(frozen=True)
class Disk:
    """The `Holding` of a folder: the ledger lies in it, and the system says what it holds."""

    out: Path
    folder: Path

    def begin(self) -> Path:
        return self.folder / "ledger.sqlite"

    def attach(self, db: sqlite3.Connection, lock: threading.RLock) -> None:
        pass

    def size(self, name: str) -> int | None:
        try:
            return os.lstat(f"{self.out}/{name}").st_size
        except OSError:
            return None

    def is_left_behind(self, name: str) -> bool:
        return False

    def wrote(self, outputs: Iterable[tuple[str, int]]) -> None:
        pass

    def clean(self, names: Iterable[str]) -> None:
        remove_temporaries((self.out / name for name in names), self.out)
        sweep(self.out)  # of a sheet or report

    def check(self) -> None:
        pass

    def end(self, lost: bool) -> None:
        pass

    def abandon(self) -> None:
        pass


def holding_of(out: Address, folder: Path, read_only: bool) -> Holding:
    """Return how a ledger holds OUT; `folder` is the ledger's."""
    remote = at(out).remote
    return Mirror(remote, folder, read_only) if remote else Disk(Path(str(out)), folder)


def ledger_folder(out: Address) -> Path:
    """Return the folder of an OUT's ledger: in OUT, or for a store among this user's own files."""
    remote = at(out).remote
    return state_folder(remote) if remote else Path(str(out)) / LEDGER_FOLDER
