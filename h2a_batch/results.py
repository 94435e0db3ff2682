"""What earlier runs made, read from IN, OUT and the ledger: no lock, no write, one photo after the other.

The ledger alone says which output belongs to a photo. A photo that was moved since it was converted is
known by its content.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from h2a_batch.card import name_of_shipped
from h2a_batch.errors import UsageError
from h2a_batch.files import sha256_of
from h2a_batch.ledger import Ledger, Row
from h2a_batch.source import LEDGER_FOLDER, Ignored, Scan, Source, Unusable, check_inputs, scan

DONE, FAILED, PENDING = "done", "failed", "pending"


@dataclass(frozen=True)
class Item:
    """What became of one photo.

    Args:
        source: the input as it was reached.
        name: its path below IN, or the file's name, for labels; it may hold anything a file name may.
        output: the complete output, or None.
        state: ``done``, ``failed``, or ``pending`` where there is no output of the photo as it is now.
        error: the reason, one line, when failed.
        seconds: what the conversion took, from the first byte read to the last byte written.
        source_size, output_size: bytes.
    """

    source: Path
    name: str
    output: Path | None
    state: str
    error: str = ""
    seconds: float = 0.0
    source_size: int = 0
    output_size: int = 0


Items = Sequence[Item]
"""What became of one photo: an item for each OUT."""


@dataclass(frozen=True)
class Setting:
    """One way in which outputs of an OUT were made: the model's name, and the fields of `Options.settings`."""

    model: str
    fields: dict[str, Any]
    photos: int


@dataclass(frozen=True)
class Facts:
    """The counts of an IN and OUT, and how its outputs were made, the commonest way first."""

    out: Path
    done: int = 0
    failed: int = 0
    pending: int = 0
    seconds: float = 0.0
    settings: tuple[Setting, ...] = ()

    @property
    def photos(self) -> int:
        """All photos of the inputs."""
        return self.done + self.failed + self.pending

    @property
    def words(self) -> dict[str, str]:
        """How most outputs were made, for people: what is asked, and the answer."""
        if not self.settings:
            return {}
        fields = self.settings[0].fields
        size = str(fields.get("size", "model"))
        known = {"model": "as the model gives it", "source": "the photo's own"}
        return {
            "Model": self.model,
            "Format": str(fields.get("format", "")).upper(),
            "Size": known.get(size, f"{size} px"),
            "Fit": str(fields.get("fit", "")),
        }

    @property
    def model(self) -> str:
        """The name of the model, or of several; empty where nothing was made yet."""
        return ", ".join(dict.fromkeys(setting.model for setting in self.settings))


def read_results(inputs: Sequence[Path], out: Path, recursive: bool = True) -> Iterator[Item]:
    """What became of each photo of the inputs, in the order of `source.scan`.

    Raises:
        UsageError: an input cannot be reached, or no run has written to OUT.
        LedgerError, StorageError: OUT's ledger cannot be read.
    """
    for (item,) in read_columns(inputs, [out], recursive):
        yield item


def read_columns(inputs: Sequence[Path], outs: Sequence[Path], recursive: bool = True) -> Iterator[tuple[Item, ...]]:
    """As `read_results`, of several OUTs at once: an item of each for every photo."""
    paths = check_inputs(inputs, recursive)
    with ExitStack() as stack:
        ledgers = [stack.enter_context(open_ledger(out)) for out in outs]
        for found in _photos(paths, ledgers, recursive):
            yield tuple(look(found, paths, ledger)[0] for ledger in ledgers)


def summarise(inputs: Sequence[Path], outs: Sequence[Path], recursive: bool = True) -> list[Facts]:
    """The counts and settings of each OUT, from one look at the photos' names and the ledgers.

    Raises:
        as `read_results`.
    """
    paths = check_inputs(inputs, recursive)
    with ExitStack() as stack:
        ledgers = [stack.enter_context(open_ledger(out)) for out in outs]
        tallies = [_Tally() for _ in outs]
        for found in _photos(paths, ledgers, recursive):
            for ledger, tally in zip(ledgers, tallies, strict=True):
                tally.add(*look(found, paths, ledger))
        return [tally.facts(ledger) for ledger, tally in zip(ledgers, tallies, strict=True)]


def look(found: Source | Unusable, inputs: Sequence[Path], ledger: Ledger) -> tuple[Item, Row | None]:
    """What a ledger knows of a photo, and what of that still holds."""
    name = _name(found.path, inputs)
    if isinstance(found, Unusable):
        return Item(found.path, name, None, FAILED, found.message), None
    row = _row(ledger, found)
    pending = Item(found.path, name, None, PENDING, source_size=found.size)
    if row is None or row.size != found.size:
        return pending, row
    if row.mtime_ns != found.mtime_ns and row.sha256 and _content(found) != row.sha256:
        return pending, row
    seconds = row.seconds or 0.0
    if row.state == FAILED:
        return Item(found.path, name, None, FAILED, row.error or "", seconds, found.size), row
    output = ledger.out / row.output if row.state == DONE and row.output else None
    if output is None or not output.is_file():
        return pending, row
    return Item(found.path, name, output, DONE, "", seconds, found.size, row.output_size or 0), row


def facts_of(ledger: Ledger, looks: Iterable[tuple[Item, Row | None]]) -> Facts:
    """The counts and settings of what `look` gave for some photos."""
    tally = _Tally()
    for item, row in looks:
        tally.add(item, row)
    return tally.facts(ledger)


def open_ledger(out: Path) -> Ledger:
    """A private copy of OUT's ledger; OUT is neither locked nor written.

    Raises:
        UsageError: there is none.
    """
    target = Path(os.path.abspath(out))
    if not (target / LEDGER_FOLDER / "ledger.sqlite").is_file():
        raise UsageError(f"{out}: no run of h2a-batch has written here", "name the OUT folder of an earlier run")
    return Ledger(target, "{}", read_only=True)


@dataclass
class _Tally:
    states: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, item: Item, row: Row | None) -> None:
        self.states[item.state] += 1
        self.seconds += item.seconds
        if item.state == DONE and row is not None:
            self.keys[row.settings] += 1

    def facts(self, ledger: Ledger) -> Facts:
        settings = tuple(_setting(ledger, key, photos) for key, photos in self.keys.most_common())
        done, failed, pending = (self.states[state] for state in (DONE, FAILED, PENDING))
        return Facts(ledger.out, done, failed, pending, self.seconds, settings)


def _setting(ledger: Ledger, key: str, photos: int) -> Setting:
    fields = ledger.settings(key)
    sha256 = str(fields.get("model", ""))
    return Setting(ledger.model_name(sha256) or name_of_shipped(sha256) or f"model {sha256[:8]}", fields, photos)


def _photos(inputs: Sequence[Path], ledgers: Sequence[Ledger], recursive: bool) -> Iterator[Source | Unusable]:
    """The photos of the inputs; what the runs made of them is none, even if IN and OUT are one folder."""
    roots = [os.path.realpath(path if path.is_dir() else path.parent) + os.sep for path in inputs]
    around = (ledger for ledger in ledgers if any(root.startswith(ledger.real_out + os.sep) for root in roots))
    how = Scan(
        suffix="",
        format="",
        recursive=recursive,
        out=next(around, ledgers[0]).out,
        is_output=lambda path: any(ledger.is_output(path) for ledger in ledgers),
        exclude=frozenset().union(*(ledger.sheets() for ledger in ledgers)),
    )
    for found in scan(inputs, how):
        if not isinstance(found, Ignored):
            yield found


def _row(ledger: Ledger, source: Source) -> Row | None:
    """What is known of a photo; of one that lay elsewhere, by its content."""
    row = ledger.row(source.real)
    if row is not None or not ledger.read_only:  # a run has brought its own ledger up to date
        return row
    ledger.execute("CREATE INDEX IF NOT EXISTS sizes ON files (size)")  # in the copy
    gone = [row for row in ledger.rows(source.size) if row.sha256 and not os.path.lexists(row.source)]
    if not gone:
        return None
    sha256 = _content(source)
    alike = [row for row in gone if row.sha256 == sha256]
    same_name = [row for row in alike if os.path.basename(row.source) == source.path.name]
    return next(iter(same_name or alike), None)


@lru_cache(maxsize=64)
def _content(source: Source) -> str | None:
    try:
        return sha256_of(source.path)
    except OSError:  # gone again, or not readable: then it has no output here
        return None


def _name(path: Path, inputs: Sequence[Path]) -> str:
    """A photo's path below its input; of several inputs, with the input's own name."""
    for root in inputs:
        if root == path:
            return path.name
        if path.is_relative_to(root):
            return str(path.relative_to(root.parent if len(inputs) > 1 else root))
    return path.name
