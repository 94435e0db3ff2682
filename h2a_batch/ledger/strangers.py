"""Strangers: a ledger may have come with a folder from anybody. These checks refuse what this program never writes.

SQLite itself refuses a damaged file where it reads it. A sound file can still hold triggers that run as soon as the
program writes, names of files outside of OUT, or a journal that has SQLite delete another file.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from h2a_batch.errors import LedgerError
from h2a_batch.ledger.records import FaceRow, Made, Output, Row
from h2a_batch.photos import Frame
from h2a_batch.places import LINKED, folder_at, has_one_name, in_its_place, is_url, open_in
from h2a_batch.sources import LEDGER_FOLDER

_LENGTH = 0  # SQLite's number of the limit on a value's size
_LARGEST = 1 << 20  # bytes of a value; those of this program have a few thousand
_FARTHEST = 1e7  # pixels; no photo is as large
_FORMATS = (18, 2)  # place and number of the bytes that say how a database is written: 1 with a journal, 2 with a log
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")  # ends a journal that names a further file, which SQLite deletes
_COMMENT, _SPACES, _MARKS = re.compile(r"--[^\n]*"), re.compile(r"[ \t\n\f\r]+"), re.compile(r" ?([(),]) ?")
_ADVICE = "remove it or choose another OUT"
_COPY = "if a snapshot gave it one (a hard link), put a copy in its place; else remove it or choose another OUT"
_FIELDS = {  # of settings, with the types that a value may have
    "version": (int,),
    "model": (str,),
    "format": (str,),
    "quality": (int, type(None)),
    "size": (str,),
    "fit": (str,),
    "keep_metadata": (bool,),
    "faces": (list, type(None)),
}


def check_files(path: Path, top: Path) -> None:
    """Check that a ledger and what SQLite puts beside it are ordinary files, before SQLite opens them.

    Args:
        path: the database; it may be missing.
        top: OUT, or the database's own folder: links up to here are followed, links below are not.

    Raises:
        LedgerError: they are not, or they are not of the kind that this program makes.
        OSError: they cannot be read.
    """
    try:
        with folder_at(path.parent, top) as folder:
            for end in ("", "-journal", "-wal", "-shm"):
                if not has_one_name(folder, path.name + end):
                    what = f"{path}{end}: a link or another thing is in the place of this file, or it has a second name"
                    raise LedgerError(what, _COPY)
            is_log = b"\2" in (_bytes(folder, path.name, *_FORMATS) or b"")
            if is_log or any(_bytes(folder, path.name + end, 0, 0) is not None for end in ("-wal", "-shm")):
                raise LedgerError(f"{path}: the ledger has a write-ahead log", _ADVICE)
            if _bytes(folder, f"{path.name}-journal", -len(_NAMES_ANOTHER), len(_NAMES_ANOTHER)) == _NAMES_ANOTHER:
                raise LedgerError(f"{path}-journal: it names another file", _ADVICE)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in LINKED and (what := in_its_place(path.parent, top)):
            raise LedgerError(what, _ADVICE) from error
        raise


def _bytes(folder: int, name: str, start: int, count: int) -> bytes | None:
    """Return some bytes of a file, from its end for a negative `start`; None where there is no file."""
    try:
        with open_in(folder, name) as file:
            size = os.fstat(file.fileno()).st_size  # a run may write it at this moment
            return os.pread(file.fileno(), count, max(0, size + start) if start < 0 else start)
    except FileNotFoundError:
        return None


def guard(db: sqlite3.Connection) -> None:
    """Limit what the content of a database can make SQLite do; the first statement of a connection."""
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    if hasattr(db, "setlimit"):  # Python 3.11
        db.setlimit(_LENGTH, _LARGEST)


def check_schema(db: sqlite3.Connection, path: Path, own: str, first: Iterable[str]) -> bool:
    """Tell whether a database has the tables of a ledger; False where it is empty.

    Args:
        db: the database.
        path: its file, for messages.
        own: the statements that make the tables and indexes which it may have.
        first: the names of those that it must have.

    Raises:
        LedgerError: it has others, or lacks some.
    """
    known = set(map(_plain, _COMMENT.sub("", own).split(";")))
    found = set()
    for kind, name, of, text in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        if kind == "index" and text is None and name == f"sqlite_autoindex_{of}_1":
            continue
        if not isinstance(text, str) or _plain(text) not in known:
            raise LedgerError(f"{path}: it holds a {kind} that is not of h2a-batch ({name})", _ADVICE)
        found.add(name)
    if found and not found.issuperset(first):
        raise LedgerError(f"{path}: it lacks a table of the ledger", _ADVICE)
    if found and db.execute("PRAGMA encoding").fetchone()[0] != "UTF-8":
        raise LedgerError(f"{path}: its texts are not UTF-8", _ADVICE)
    return bool(found)


def _plain(statement: str) -> str:
    """Return a statement without comments and needless spaces, as SQLite keeps it."""
    text = _SPACES.sub(" ", _COMMENT.sub("", statement)).replace(" IF NOT EXISTS ", " ").strip(" ;")
    return _MARKS.sub(r"\1", text)


class Reading:
    """Checks what is read from the rows of a ledger.

    Args:
        where: the ledger's folder, for messages.
    """

    def __init__(self, where: Path) -> None:
        self._where = where

    def row(self, values: Sequence[Any]) -> Row:
        """Return the columns of `Row` as one; raise LedgerError where this program did not write them."""
        source, size, changed, sha256, settings, natural, output, output_size, state, error, seconds = values
        return Row(
            self.identity(source),
            self.integer(size),
            self.integer(changed),
            self.optional(self.text, sha256),
            self.text(settings),
            natural if natural == "" else self.name(natural),
            self.optional(self.name, output),
            self.optional(self.integer, output_size),
            self.text(state),
            self.optional(self.text, error),
            self.optional(self.number, seconds),
        )

    def made(self, values: Sequence[Any]) -> Made:
        """Return the columns of `Made` as one; raise as `row` does."""
        name, source, sha256, size = values
        return Made(
            self.text(name),  # the caller's own
            self.identity(source),
            self.optional(self.text, sha256),
            self.optional(self.integer, size),
        )

    def face(self, values: Sequence[Any]) -> FaceRow:
        """Return x, y, side, angle, name and size of a face as one; raise as `row` does."""
        *square, name, size = values
        output = None if name is None else Output(self.name(name), self.optional(self.integer, size) or 0)
        return FaceRow(Frame(*self.square(square)), output)

    def name(self, value: object) -> str:
        """Return the name of a file in OUT; raise LedgerError where it is no such name."""
        if is_name(value):
            return str(value)
        raise self._error(f"it names a file outside of OUT: {value!r}")

    def identity(self, value: object) -> str:
        """Return the path or URL of a photo; raise LedgerError where it is none. Keys in a store may hold anything."""
        text = self.text(value)
        if "\0" in text and not is_url(text):
            raise self._error(f"it names no photo: {value!r}")
        return text

    def text(self, value: object) -> str:
        """Return a text; raise LedgerError where it is none."""
        return str(self._of(value, str))

    def integer(self, value: object) -> int:
        """Return a whole number; raise LedgerError where it is none."""
        self._of(value, int)
        return value  # type: ignore[return-value]  # just checked

    def number(self, value: object) -> float:
        """Return a number that is not infinite; raise LedgerError where it is none."""
        self._of(value, int, float)
        if not math.isfinite(value):  # type: ignore[arg-type]  # just checked
            raise self._error(f"a value is {value!r}")
        return value  # type: ignore[return-value]

    def square(self, values: Sequence[object]) -> list[float]:
        """Return middle, side and angle of a face's square; raise LedgerError where no photo can have it."""
        x, y, side, angle = map(self.number, values)
        if max(abs(x), abs(y), side) > _FARTHEST or side <= 0:
            raise self._error("a face lies outside of any photo")
        return [x, y, side, angle]

    def settings(self, value: object) -> dict[str, Any]:
        """Return settings, as `Options.settings` writes them; raise LedgerError where they have another form."""
        try:
            fields = json.loads(self.text(value))
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or not all(
            isinstance(fields[name], types) for name, types in _FIELDS.items() if name in fields
        ):
            raise self._error("its settings have another form")
        return fields

    def optional(self, check: Callable[[object], Any], value: object) -> Any:
        """Return None, or what a check returns."""
        return None if value is None else check(value)

    def _of(self, value: object, *types: type) -> object:
        if isinstance(value, types):
            return value
        raise self._error(f"a value is {type(value).__name__}, not {types[0].__name__}")

    def _error(self, what: str) -> LedgerError:
        return LedgerError(f"{self._where}: the ledger was not made by h2a-batch ({what[:200]})", _ADVICE)


def is_name(value: object) -> bool:
    """Tell whether a value is the name of a file in OUT: relative, not above OUT, and not in the ledger's folder."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    return not any(part in ("", ".", "..") or part.casefold() == LEDGER_FOLDER for part in value.split("/"))
