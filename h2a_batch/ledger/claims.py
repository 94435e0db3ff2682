"""Claims: which source gets which name in OUT, so that nothing of anybody's is ever overwritten unasked.

A file in OUT is one of four things: an output of this source, of another source, of nobody we know (a foreign
file), or an original. The first may be replaced unless it was edited, the third only by ``--overwrite``, the
other two never: the next of `names.variants` is taken instead. A face does so also for a foreign file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import KEPT, NOBODY, Made, Output, Row, Task
from h2a_batch.photos import is_complete
from h2a_batch.places import Address, at, sha256_of
from h2a_batch.sources import Source, numbered, variants

_NUMBER = re.compile(r"~\d+$")


def is_current(ledger: Ledger, source: Source) -> bool:
    """Whether a source's output exists, complete, made from this content with these settings."""
    row = ledger.row(source.real) or _moved_here(ledger, source)
    if row is None or not _is_done(ledger, source, row) or row.size != source.size:
        return False
    if not all(ledger.size(output.name) == output.size for output in _outputs(ledger, row)):
        return False
    if row.mtime_ns == source.mtime_ns:
        return True
    if _content(source) != row.sha256:
        return False
    ledger.touch(source)
    return True


def is_known(ledger: Ledger, source: Source) -> bool:
    """Whether a source is on record as done, just as it lies there; neither file is read, the output not looked for."""
    row = ledger.row(source.real)
    unchanged = row is not None and (row.size, row.mtime_ns) == (source.size, source.mtime_ns)
    return row is not None and unchanged and _is_done(ledger, source, row)


def claim(ledger: Ledger, source: Source, overwrite: bool, originals: Sequence[str]) -> Task | None:
    """Give a source the name of its output and write that down; None where a foreign or edited file has it.

    Args:
        overwrite: take such a name all the same.
        originals: real paths of the folders whose files may be originals.
    """
    with ledger.together():
        if not overwrite and any(_is_foreign(ledger, output.name) for output in _portraits(ledger, source.real)):
            return None
        for name in _names(ledger, source):
            if not _is_anothers(ledger, source, name, originals):
                return None if _is_foreign(ledger, name) and not overwrite else ledger.start(source, name)
    return None


def in_the_way(ledger: Ledger, source: Source) -> Address:
    """The file of other origin, or the edited one, for which `claim` gave no task."""
    names = [output.name for output in _portraits(ledger, source.real)]
    names.append(next(_names(ledger, source)))
    return ledger.out / next((name for name in names if _is_foreign(ledger, name)), names[-1])


def claim_faces(
    ledger: Ledger, task: Task, count: int, overwrite: bool, originals: Sequence[str], durable: bool = True
) -> list[str]:
    """Give the faces of a photo their names, on record and durable when this returns; for any thread.

    Where a file of other origin has such a name, the next of `names.variants` is taken.

    Args:
        overwrite, originals: as for `claim`.
        durable: otherwise the caller has the ledger flushed before the names are used.

    Raises:
        StorageError: the ledger cannot be written.
    """
    folder, base = os.path.split(task.name)
    names: list[str] = []
    with ledger.together():
        for number in range(1, count + 1):
            wanted = (os.path.join(folder, name) for name in variants(numbered(base, number)))
            names.append(next(name for name in wanted if _is_free(ledger, task.source, name, overwrite, originals)))
            ledger.reserve(task, names[-1])
        if durable:
            ledger.flush()
    return names


def _names(ledger: Ledger, source: Source) -> Iterator[str]:
    """The names a source may have, the one it has first."""
    row = ledger.row(source.real)
    if row is not None and row.output is not None and _has_natural_name(source, row):
        yield row.output
    folder, wanted = os.path.split(source.output)
    for name in variants(wanted):
        yield os.path.join(folder, name)


def _is_anothers(ledger: Ledger, source: Source, name: str, originals: Sequence[str]) -> bool:
    """Whether a name in OUT is that of another photo's output, or of what may be an original."""
    made = ledger.made(name)
    if made is not None and (made.size != KEPT or made.source != source.real):
        return made.source != source.real
    return ledger.size(name) is not None and _may_be_original(ledger, ledger.out / name, source, originals)


def _is_foreign(ledger: Ledger, name: str) -> bool:
    """Whether a file has a name in OUT that nobody we know made, or that was edited."""
    made, size = ledger.made(name), ledger.size(name)
    return size is not None and (made is None or made.size == KEPT or _is_edited(made, ledger.out / name, size))


def _is_free(ledger: Ledger, source: Source, name: str, overwrite: bool, originals: Sequence[str]) -> bool:
    path = ledger.out / name
    usable = not _is_foreign(ledger, name) or (overwrite and at(path).can_be_replaced())
    return usable and not _is_anothers(ledger, source, name, originals)


def _portraits(ledger: Ledger, source: str) -> list[Output]:
    """The files of a photo's faces, where they have files of their own."""
    return [face.output for face in ledger.faces(source) if face.output]


def _outputs(ledger: Ledger, row: Row) -> list[Output]:
    """The files that were made of a photo."""
    if row.state == NOBODY or row.output is None:
        return []
    return _portraits(ledger, row.source) or [Output(row.output, row.output_size or 0)]


def _is_done(ledger: Ledger, source: Source, row: Row) -> bool:
    return row.state in ("done", NOBODY) and row.settings == ledger.key and _has_natural_name(source, row)


def _has_natural_name(source: Source, row: Row) -> bool:
    """Whether it was named as it would be now, or would be if a namesake had not come, or not gone, since."""
    stem, dot = os.path.splitext(row.natural)
    plain = f"{_NUMBER.sub('', stem)}{dot}"  # it may have been the second of two of one name
    return row.natural == source.output or row.natural in source.also or plain in source.also


def _moved_here(ledger: Ledger, source: Source) -> Row | None:
    """The record of a source that lay elsewhere and was moved here with its content; it is brought up to date."""
    made = ledger.made(source.output)
    if made is None or not made.source or made.sha256 is None or at(source.path).has(made.source):
        return None
    row = ledger.row(made.source)
    if row is None or row.size != source.size or _content(source) != made.sha256:
        return None
    with ledger.together():
        ledger.rename(made.source, source.real)
        ledger.rename_outputs(made.source, source.real)
    return ledger.row(source.real)


def _is_edited(made: Made, path: Address, size: int) -> bool:
    """Whether somebody changed an output: not the recorded size, and yet whole. What is cut short is not edited."""
    place = at(path)
    if not place.is_file():
        return True
    return made.size is not None and made.size != size and (place.whole or is_complete(path))


def _may_be_original(ledger: Ledger, path: Address, source: Source, originals: Sequence[str]) -> bool:
    if at(path).is_same(source.path):
        return True
    # in an OUT that lies inside an input no photos are looked for
    inside = [root for root in originals if not _holds(root, ledger)]
    if not at(path).identity.startswith(ledger.real_out + os.sep):  # a link leads out of OUT
        inside = list(originals)
    return is_below(path, inside)


def _holds(folder: str, ledger: Ledger) -> bool:
    """Whether OUT lies in a folder."""
    return ledger.real_out.startswith(folder + os.sep)


def is_below(path: Address, folders: Sequence[str]) -> bool:
    real = at(path).identity
    return any(real.startswith(folder + os.sep) for folder in folders)


def _content(source: Source) -> str | None:
    try:
        return sha256_of(source.path)
    except OSError:  # the pipeline will meet it again and say so
        return None
