"""Results: what earlier runs made, read from IN, OUT and the ledger without a lock or a write, photo by photo.

The ledger alone knows which output belongs to a photo. It recognises a photo that was moved since its conversion by
the photo's content.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from math import hypot
from pathlib import Path
from typing import Any

from h2a_batch.errors import UsageError
from h2a_batch.inference import name_of_shipped
from h2a_batch.ledger import CURRENT, DONE, FAILED, NO_OUTPUT, NOBODY, PENDING, Ledger, Output, Row, holds, status
from h2a_batch.photos import Frame
from h2a_batch.places import Address, at
from h2a_batch.sources import LEDGER_FOLDER, Ignored, Scan, Source, Unusable, check_inputs, scan

_NEAR = 0.25  # of a square's side: two squares with middles closer than this show the same face


@dataclass(frozen=True)
class Item:
    """The result of one photo, or of a face in it that has an output of its own.

    Args:
        source: the photo, by the path that reached it.
        name: its path below IN, or the file's name, for labels; it may hold anything that a file name may hold.
        output: the complete output, or None.
        state: ``done``, ``failed``, ``no-face`` where no face was found and so nothing made, or ``pending`` where the
            photo as it is now has no output.
        error: the reason of a failure, in one line.
        seconds: how long the photo's conversion took, from the first byte read to the last byte written.
        source_size: of the photo, in bytes.
        output_size: of the output, in bytes.
        frame: the square of the photo that the output shows; None where it shows the whole photo.
        face: the number of the face, from the left; 0 for the only face, or the whole photo.
        faces: how many faces were found and are painted in the output.
    """

    source: Path
    name: str
    output: Path | None
    state: str
    error: str = ""
    seconds: float = 0.0
    source_size: int = 0
    output_size: int = 0
    frame: Frame | None = None
    face: int = 0
    faces: int = 0

    @property
    def label(self) -> str:
        """The photo's name, with the number of the face where there are several."""
        return f"{self.name}, face {self.face}" if self.face else self.name


Items = Sequence[Item]
"""The results of one photo or one face: an item for each OUT."""


@dataclass(frozen=True)
class Setting:
    """One way in which outputs of an OUT were made.

    Args:
        model: the model's name.
        fields: the fields of `Options.settings`.
        photos: how many photos were converted in this way.
    """

    model: str
    fields: dict[str, Any]
    photos: int


@dataclass(frozen=True)
class Facts:
    """The counts of an IN and an OUT, and how the outputs were made.

    Args:
        out: OUT.
        done: photos that were converted.
        failed: photos that failed.
        pending: photos without an output as they are now.
        settings: how the outputs were made, the most frequent way first.
        nobody: photos without a face, of which nothing was made.
        faces: faces that were converted.
        rows: the number of rows that show it all.
    """

    out: Path
    done: int = 0
    failed: int = 0
    pending: int = 0
    settings: tuple[Setting, ...] = ()
    nobody: int = 0
    faces: int = 0
    rows: int = 0

    @property
    def photos(self) -> int:
        """The number of all photos of the inputs."""
        return self.done + self.failed + self.pending + self.nobody

    @property
    def words(self) -> dict[str, str]:
        """How most outputs were made, in words: a name and a value for each setting."""
        if not self.settings:
            return {}
        fields = self.settings[0].fields
        size = str(fields.get("size", "model"))
        known = {"model": "as the model gives it", "source": "the photo's own"}
        faces = str(next(iter(fields.get("faces") or ["off"])))
        return {
            "Model": self.model,
            "Format": str(fields.get("format", "")).upper(),
            "Size": known.get(size, f"{size} px"),
            "Fit": str(fields.get("fit", "")),
            "Faces": {"crop": "each on its own", "paste": "put back into the photo"}.get(faces, "not looked for"),
        }

    @property
    def model(self) -> str:
        """The name of the model, or of several; empty where nothing was made yet."""
        return ", ".join(dict.fromkeys(setting.model for setting in self.settings))


def read_results(inputs: Sequence[Path], out: Path, recursive: bool = True) -> Iterator[Item]:
    """Yield the result of each photo of the inputs, in the order of `scan`; of its faces, from left to right.

    Raises:
        UsageError: an input cannot be reached, or no run has written to OUT.
        LedgerError, StorageError: OUT's ledger cannot be read.
    """
    for (item,) in read_columns(inputs, [out], recursive):
        yield item


def read_columns(inputs: Sequence[Path], outs: Sequence[Path], recursive: bool = True) -> Iterator[Items]:
    """Yield rows of several OUTs, with an item of each, see `read_photos`; raise as `read_results` does."""
    return chain.from_iterable(read_photos(inputs, outs, recursive))


def read_photos(inputs: Sequence[Path], outs: Sequence[Path], recursive: bool = True) -> Iterator[list[Items]]:
    """Yield for each photo its rows: one, or one for each face that any run found, where a run made outputs of faces.

    A row has an item of each OUT. For an OUT without an output of that face, the item says what it made of the photo.

    Raises:
        as `read_results`.
    """
    paths = check_inputs(inputs, recursive)
    with ExitStack() as stack:
        ledgers = [stack.enter_context(open_ledger(out)) for out in outs]
        for found in _photos(paths, ledgers, recursive):
            yield _rows([look(found, paths, ledger)[0] for ledger in ledgers])


def summarise(inputs: Sequence[Path], outs: Sequence[Path], recursive: bool = True) -> list[Facts]:
    """Return the counts and settings of each OUT, from one look at the photos' names and the ledgers.

    Raises:
        as `read_results`.
    """
    paths = check_inputs(inputs, recursive)
    with ExitStack() as stack:
        ledgers = [stack.enter_context(open_ledger(out)) for out in outs]
        tallies = [Tally() for _ in outs]
        for found in _photos(paths, ledgers, recursive):
            looks = [look(found, paths, ledger) for ledger in ledgers]
            rows = len(_rows([items for items, _ in looks]))
            for (items, row), tally in zip(looks, tallies, strict=True):
                tally.add(items, rows, row)
        return [_facts(tally, ledger) for ledger, tally in zip(ledgers, tallies, strict=True)]


def look(found: Source | Unusable, inputs: Sequence[Address], ledger: Ledger) -> tuple[list[Item], Row | None]:
    """Return what the ledger knows of a photo that still holds: an item, or one for each face's output; and its row."""
    path = at(found.path).path
    assert path  # sheets show no photos in object stores
    name = _name(path, inputs)
    if isinstance(found, Unusable):
        return [Item(path, name, None, FAILED, found.message)], None
    item = Item(path, name, None, PENDING, source_size=found.size)
    where = status(ledger, found, settings=None)
    row = where.row
    if row is None:
        return [item], None
    if where.why == FAILED or (where.kind == CURRENT and row.state == NOBODY):
        return [replace(item, state=row.state, error=row.error or "", seconds=row.seconds or 0.0)], row
    is_made = row.state == DONE and (where.kind == CURRENT or where.why == NO_OUTPUT)
    return (_outputs(ledger, row, item) if is_made else [item]), row


@dataclass
class Tally:
    """The counts of some photos in one OUT: by state, by settings, and of the outputs their faces, number and bytes."""

    states: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    faces: int = 0
    outputs: int = 0
    size: int = 0
    rows: int = 0

    def add(self, items: Sequence[Item], rows: int, row: Row | None = None) -> None:
        """Count a photo.

        Args:
            items: the items of its faces, or of its rows; several of them may have the same output of the whole photo.
            rows: the number of rows that show it.
            row: its record in the ledger.
        """
        state = state_of(items)
        self.states[state] += 1
        self.rows += rows
        for item in {item.output: item for item in items if item.output}.values():
            self.faces += item.faces
            self.outputs += 1
            self.size += item.output_size
        if state == DONE and row is not None:
            self.keys[row.settings] += 1

    def counted(self, facts: Facts) -> Facts:
        """Return the facts with these counts."""
        done, failed, pending, nobody = (self.states[state] for state in (DONE, FAILED, PENDING, NOBODY))
        return replace(
            facts, done=done, failed=failed, pending=pending, nobody=nobody, faces=self.faces, rows=self.rows
        )


def state_of(items: Iterable[Item]) -> str:
    """Return the state of a photo, from the states of its faces."""
    states = {item.state for item in items}
    return next(state for state in (FAILED, PENDING, DONE, NOBODY) if state in states)


def facts_of(ledger: Ledger, looks: Iterable[tuple[list[Item], Row | None]]) -> Facts:
    """Return the counts and settings of some photos, from what `look` returned for them."""
    tally = Tally()
    for items, row in looks:
        tally.add(items, len(items), row)
    return _facts(tally, ledger)


def open_ledger(out: Path) -> Ledger:
    """Open a private copy of OUT's ledger; OUT is neither locked nor written.

    Raises:
        UsageError: OUT has no ledger.
    """
    target = Path(os.path.abspath(out))
    if not (target / LEDGER_FOLDER / "ledger.sqlite").is_file():
        raise UsageError(f"{out}: no run of h2a-batch has written here", "name the OUT folder of an earlier run")
    return Ledger(target, "{}", read_only=True)


def _facts(tally: Tally, ledger: Ledger) -> Facts:
    """Return the counts of a tally, with the settings that its outputs were made with."""
    keys = tally.keys.most_common()
    settings = tuple(_setting(ledger, key, photos) for key, photos in keys)
    return tally.counted(Facts(Path(str(ledger.out)), settings=settings))


def _setting(ledger: Ledger, key: str, photos: int) -> Setting:
    """Return the settings of a key, with the name of their model."""
    fields = ledger.settings(key)
    sha256 = str(fields.get("model", ""))
    return Setting(ledger.model_name(sha256) or name_of_shipped(sha256) or f"model {sha256[:8]}", fields, photos)


def _photos(inputs: Sequence[Path], ledgers: Sequence[Ledger], recursive: bool) -> Iterator[Source | Unusable]:
    """Yield the photos of the inputs, without the outputs of the runs, even if IN and OUT are one folder."""
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


def _outputs(ledger: Ledger, row: Row, item: Item) -> list[Item]:
    """Return an item for each output of a photo; it is pending where the output is gone or cut short."""
    faces = ledger.faces(row.source)
    apart = [(face.frame, face.output) for face in faces if face.output]
    if not apart:
        whole = Output(str(row.output), row.output_size or 0)
        return [_made(ledger, item, row, whole, len(faces))]
    return [
        _made(ledger, replace(item, frame=frame, face=number), row, output, 1)
        for number, (frame, output) in enumerate(apart, 1 if len(apart) > 1 else 0)
    ]


def _made(ledger: Ledger, item: Item, row: Row, output: Output, faces: int) -> Item:
    """Return an item with its output, or unchanged where the output is gone or cut short."""
    path = at(ledger.out / output.name).path
    if path is None or not holds(ledger, output):
        return item
    size = ledger.size(output.name) or 0
    return replace(item, output=path, state=DONE, seconds=row.seconds or 0.0, output_size=size, faces=faces)


def _rows(columns: Sequence[Sequence[Item]]) -> list[Items]:
    """Return the rows of one photo: each face beside the same face of the other runs, from left to right."""
    faces: list[dict[int, Item]] = []  # for each face, its items by column
    for column, item in ((column, item) for column, items in enumerate(columns) for item in items if item.frame):
        near = [face for face in faces if column not in face and _apart(item, *face.values()) < _NEAR]
        if near:
            min(near, key=lambda face: _apart(item, *face.values()))[column] = item
        else:
            faces.append({column: item})
    if not faces:
        return [tuple(items[0] for items in columns)]
    faces.sort(key=lambda face: min(item.frame.x for item in face.values() if item.frame))
    return [
        tuple(
            replace(face.get(column) or _whole(items[0]), face=number if len(faces) > 1 else 0)
            for column, items in enumerate(columns)
        )
        for number, face in enumerate(faces, 1)
    ]


def _apart(item: Item, *others: Item) -> float:
    """Return the distance between the squares of two faces, in sides of the larger one."""
    one, other = item.frame, others[0].frame
    assert one and other
    return hypot(one.x - other.x, one.y - other.y) / max(one.side, other.side)


def _whole(item: Item) -> Item:
    """Return an item of the whole photo; where the run has outputs of other faces only, one without an output."""
    if item.frame is None:
        return item
    return replace(item, output=None, state=NOBODY, output_size=0, frame=None, faces=0)


def _name(path: Path, inputs: Sequence[Address]) -> str:
    """Return a photo's path below its input; with several inputs, the path begins with the input's own name."""
    for root in (root for root in (at(address).path for address in inputs) if root):
        if root == path:
            return path.name
        if path.is_relative_to(root):
            return str(path.relative_to(root.parent if len(inputs) > 1 else root))
    return path.name
