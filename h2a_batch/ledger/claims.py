"""Claims: decides which photo gets which name in OUT, so that a run never overwrites anybody's file unasked.

A file in OUT is one of four things: an output of this photo, of another photo, of nobody we know (a foreign
file), or an original. The first may be replaced unless it was edited, the third only by ``--overwrite``, the
other two never: the photo then gets the next of `names.variants`. A face also makes way for a foreign file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import KEPT, Task
from h2a_batch.ledger.status import has_natural_name, is_foreign, plain_of, portraits_of
from h2a_batch.places import Address, at
from h2a_batch.sources import Source, numbered, variants


def claim(ledger: Ledger, source: Source, overwrite: bool, originals: Sequence[str]) -> Task | None:
    """Claim the name of a photo's output and record it; return None where a foreign or edited file has the name.

    Args:
        ledger: the ledger of OUT.
        source: the photo.
        overwrite: whether to take such a name all the same.
        originals: real paths of the folders whose files may be originals.
    """
    with ledger.together():
        if not overwrite and any(is_foreign(ledger, output.name) for output in portraits_of(ledger, source.real)):
            return None
        for name in _names(ledger, source):
            if not _is_anothers(ledger, source, name, originals):
                return None if is_foreign(ledger, name) and not overwrite else ledger.start(source, name)
    return None


def in_the_way(ledger: Ledger, source: Source) -> Address:
    """Return the file of other origin, or the edited output, for which `claim` returned None."""
    names = [output.name for output in portraits_of(ledger, source.real)]
    names.append(next(_names(ledger, source)))
    return ledger.out / next((name for name in names if is_foreign(ledger, name)), names[-1])


def claim_faces(
    ledger: Ledger, task: Task, count: int, overwrite: bool, originals: Sequence[str], durable: bool = True
) -> list[str]:
    """Claim the names of a photo's faces, from any thread; return them relative to OUT.

    Where a file of other origin has a name, the face gets the next of `names.variants`.

    Args:
        ledger: the ledger of OUT.
        task: the photo's task.
        count: the number of faces.
        overwrite: as for `claim`.
        originals: as for `claim`.
        durable: whether to make the names durable; otherwise the caller flushes the ledger before it uses them.

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
    """Yield the names that the output of a photo may have; the first one is its present name, where it has one."""
    row = ledger.row(source.real)
    if row is not None and row.output is not None and has_natural_name(source, row) and _may_have(source, row.output):
        yield row.output
    folder, wanted = os.path.split(source.output)
    for name in variants(wanted):
        yield os.path.join(folder, name)


def _may_have(source: Source, name: str) -> bool:
    """Tell whether a photo's output may have a name, whatever a ledger says that may be a stranger's."""
    own = (source.output, *source.also)
    return name in own or plain_of(name) in own


def _is_anothers(ledger: Ledger, source: Source, name: str, originals: Sequence[str]) -> bool:
    """Tell whether a name in OUT belongs to another photo's output, or to what may be an original."""
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
    # a run does not look for photos in an OUT that lies inside an input
    inside = [root for root in originals if not _holds(root, ledger)]
    if not at(path).identity.startswith(ledger.real_out + os.sep):  # a link leads out of OUT
        inside = list(originals)
    return is_below(path, inside)


def _holds(folder: str, ledger: Ledger) -> bool:
    """Tell whether OUT lies in a folder."""
    return ledger.real_out.startswith(folder + os.sep)


def is_below(path: Address, folders: Sequence[str]) -> bool:
    """Tell whether a file lies below one of these folders, by their real paths."""
    real = at(path).identity
    return any(real.startswith(folder + os.sep) for folder in folders)
