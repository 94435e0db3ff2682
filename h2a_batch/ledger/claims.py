"""Claims: which source gets which name in OUT, so that nothing of anybody's is ever overwritten unasked.

A file in OUT is one of four things: an output of this source, of another source, of nobody we know (a foreign
file), or an original. The first may be replaced unless it was edited, the third only by ``--overwrite``, the
other two never: the next of `names.variants` is taken instead. A face does so also for a foreign file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import KEPT, Task
from h2a_batch.ledger.status import is_foreign, names_of, portraits_of
from h2a_batch.places import Address, at
from h2a_batch.sources import Source, numbered, variants


def claim(ledger: Ledger, source: Source, overwrite: bool, originals: Sequence[str]) -> Task | None:
    """Give a source the name of its output and write that down; None where a foreign or edited file has it.

    Args:
        overwrite: take such a name all the same.
        originals: real paths of the folders whose files may be originals.
    """
    with ledger.together():
        if not overwrite and any(is_foreign(ledger, output.name) for output in portraits_of(ledger, source.real)):
            return None
        for name in names_of(ledger, source):
            if not _is_anothers(ledger, source, name, originals):
                return None if is_foreign(ledger, name) and not overwrite else ledger.start(source, name)
    return None


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


def _is_anothers(ledger: Ledger, source: Source, name: str, originals: Sequence[str]) -> bool:
    """Whether a name in OUT is that of another photo's output, or of what may be an original."""
    made = ledger.made(name)
    if made is not None and (made.size != KEPT or made.source != source.real):
        return made.source != source.real
    return ledger.size(name) is not None and _may_be_original(ledger, ledger.out / name, source, originals)


def _is_free(ledger: Ledger, source: Source, name: str, overwrite: bool, originals: Sequence[str]) -> bool:
    path = ledger.out / name
    usable = not is_foreign(ledger, name) or (overwrite and at(path).can_be_replaced())
    return usable and not _is_anothers(ledger, source, name, originals)


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
