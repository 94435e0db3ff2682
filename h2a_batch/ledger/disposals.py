"""Disposals: a record of what is still to be done with photos in IN after their conversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from h2a_batch.ledger.database import Database


@dataclass(frozen=True)
class Entry:
    """What is to be done with a photo.

    Args:
        source: the photo's real path.
        state: ``done`` or ``failed``: the state on record that the photo must have.
        target: the path to move the photo to; empty where it is to be deleted.
        device: the number of the photo's volume.
    """

    source: str
    state: str
    target: str
    device: int


class Disposals:
    """The entries of a ledger, one for each photo at most."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, entry: Entry) -> None:
        """Record an entry; it replaces an earlier one of its photo."""
        query = "INSERT OR REPLACE INTO disposals VALUES (CAST(? AS TEXT), ?, CAST(? AS TEXT), ?)"
        self._db.execute(query, entry.source, entry.state, entry.target, entry.device)

    def strike(self, entry: Entry) -> None:
        """Remove an entry."""
        self._db.execute("DELETE FROM disposals WHERE source = CAST(? AS TEXT)", entry.source)

    def of(self, source: str) -> Entry | None:
        """Return the entry of a photo; None where it has none."""
        found = self._db.one("SELECT * FROM disposals WHERE source = CAST(? AS TEXT)", source)
        return self._entry(found) if found else None

    def all(self) -> list[Entry]:
        """Return all entries."""
        return [self._entry(values) for values in self._db.select("SELECT * FROM disposals")]

    def _entry(self, values: Sequence[object]) -> Entry:
        source, state, target, device = values
        read = self._db.reading
        return Entry(read.identity(source), read.text(state), read.identity(target), read.integer(device))
