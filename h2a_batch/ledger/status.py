"""Status: the ONE rule of what is current, for runs, watches, sheets and reports alike."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache

from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import DONE, FAILED, KEPT, NOBODY, Made, Output, Row
from h2a_batch.photos import is_complete
from h2a_batch.places import Address, at, digest_of
from h2a_batch.sources import Source, stem_of

CURRENT, STALE, FOREIGN, PENDING = "current", "stale", "foreign", "pending"
NO_OUTPUT = "output gone, or not as it was made"
_NUMBER = re.compile(r"~\d+$")


@dataclass(frozen=True)
class Status:
    """Where a photo stands.

    Args:
        kind: `CURRENT`: all outputs of the photo are there and whole, or it shows no face and needs none; `STALE`: it
            was converted, and must be converted again; `PENDING`: it never was; `FOREIGN`: somebody edited its output.
            `claim`, which knows the originals, finds a file of other origin that has the output's name.
        why: the reason why it is stale, in a word or two; ``failed`` where its conversion failed.
        row: the photo's record, wherever the photo lay; None where it has none.
        edited: the output that somebody edited.
    """

    kind: str
    why: str = ""
    row: Row | None = None
    edited: Address | None = None


def status(ledger: Ledger, source: Source, settings: str | None, look: bool = True) -> Status:
    """Tell where a photo stands; bring its record up to date if the photo was moved or touched.

    Args:
        ledger: the ledger of OUT.
        source: the photo.
        settings: the key of the settings that its outputs must have been made with; None for any.
        look: whether to look at its outputs, and at its content where its time of change differs. Without it, no file
            is touched and no moved photo is recognised: the record must hold for the photo just as it lies there.
    """
    row = ledger.row(source.real) or (_moved_here(ledger, source) if look else None)
    why = _why_not_current(ledger, source, row, settings, look) if row else ""
    if row and not why:
        return Status(CURRENT, row=row)
    if row is None:
        return Status(PENDING)
    edited = _edited(ledger, source, row, settings) if look else None
    return Status(FOREIGN if edited else STALE, why, row, edited)


def outputs_of(ledger: Ledger, row: Row) -> list[Output]:
    """Return the files that were made of a photo."""
    if row.state == NOBODY or row.output is None:
        return []
    return portraits_of(ledger, row.source) or [Output(row.output, row.output_size or 0)]


def portraits_of(ledger: Ledger, source: str) -> list[Output]:
    """Return the files of a photo's faces; none where the faces have no files of their own."""
    return [face.output for face in ledger.faces(source) if face.output]


def holds(ledger: Ledger, output: Output) -> bool:
    """Tell whether an output is there, as it was made or as somebody edited it, not cut short, and no link."""
    size = ledger.size(output.name)
    if size is None or not at(ledger.out / output.name).is_plain(ledger.out):
        return False
    return size == output.size or is_foreign(ledger, output.name)


def is_foreign(ledger: Ledger, name: str) -> bool:
    """Tell whether a file in OUT has this name and is edited, or made by nobody we know."""
    made = ledger.made(name)
    size = ledger.size(name)
    return size is not None and (made is None or made.size == KEPT or _is_edited(ledger, made, size))


def _why_not_current(ledger: Ledger, source: Source, row: Row, settings: str | None, look: bool) -> str:
    """Return why a photo on record is stale, the cheapest reason first; an empty text where it is current."""
    if row.size != source.size:
        return "changed"
    if row.state not in (DONE, NOBODY):
        return FAILED if row.state == FAILED else "not finished"
    if settings is not None and row.settings != settings:
        return "made with other settings"
    if settings is not None and not has_natural_name(source, row):
        return "named otherwise"
    if look and not all(ledger.size(output.name) == output.size for output in outputs_of(ledger, row)):
        return NO_OUTPUT
    if row.mtime_ns == source.mtime_ns:
        return ""
    if not look or _content(source) != row.sha256:
        return "changed"
    ledger.touch(source)
    return ""


def _edited(ledger: Ledger, source: Source, row: Row, settings: str | None) -> Address | None:
    """Return an output that somebody edited, where it is what the photo's next output would replace."""
    names = [output.name for output in portraits_of(ledger, source.real)]
    if not names and row.output and (settings is None or has_natural_name(source, row)):
        names = [row.output]
    return next((ledger.out / name for name in names if is_foreign(ledger, name)), None)


def has_natural_name(source: Source, row: Row) -> bool:
    """Tell whether an output has the name that it would get now, or if a namesake had not come or gone since."""
    # it may have been the second of two with one name
    return row.natural == source.output or row.natural in source.also or plain_of(row.natural) in source.also


def plain_of(name: str) -> str:
    """Return a name without the number that `names.variants` gave it."""
    stem, dot = os.path.splitext(name)
    return f"{_NUMBER.sub('', stem)}{dot}"


def _moved_here(ledger: Ledger, source: Source) -> Row | None:
    """Return the record of a photo that lay elsewhere in the same place below IN, and bring it up to date."""
    for row in _namesakes(ledger, source):
        if row.size != source.size or not row.sha256 or at(source.path).has(row.source):
            continue
        if _content(source) == row.sha256:
            with ledger.together():
                ledger.rename(row.source, source.real)
                ledger.rename_outputs(row.source, source.real)
            return ledger.row(source.real)
    return None


def _namesakes(ledger: Ledger, source: Source) -> list[Row]:
    """Return the records of photos whose output has, or would have, the name of this one's."""
    if not ledger.read_only:
        made = ledger.made(source.output)
        row = ledger.row(made.source) if made and made.source and made.sha256 else None
        return [row] if row else []
    # a reader may not know how outputs are named: a photo of the same folder and stem is a namesake
    folder = os.path.dirname(source.output)
    stem = stem_of(source.path.name)
    rows = (row for row in ledger.rows_of_size(source.size) if os.path.dirname(row.natural) == folder)
    return [row for row in rows if stem_of(os.path.basename(row.source)) == stem]


def _is_edited(ledger: Ledger, made: Made, size: int) -> bool:
    """Tell whether somebody edited an output: its size is not the recorded one, and yet it is whole, not cut short."""
    path = ledger.out / made.name
    place = at(path)
    if not place.is_file():
        return True
    if made.size in (None, size):
        return False
    return place.whole or (place.is_plain(ledger.out) and _is_readable(path))


def _is_readable(path: Address) -> bool:
    try:
        with at(path).open() as file:
            return is_complete(file)
    except OSError:
        return False


@lru_cache(maxsize=64)
def _content(source: Source) -> str | None:
    """Return the sha256 of a photo; None where it cannot be read: the pipeline will report that."""
    try:
        with source.open() as file:
            return digest_of(file)
    except OSError:
        return None
