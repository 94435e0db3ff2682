"""Disposal: archives, moves or deletes photos in IN after their conversion.

The ledger records what is to be done together with the result. The program touches a photo only when output and
ledger are safely on disk, and the photo is still the very file that was read; the next run completes what a killed run
left. A photo that has gone leaves its place free: another photo of the same name is another photo, and gets an output
of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from h2a_batch.errors import PhotoError, UsageError
from h2a_batch.events import Event
from h2a_batch.ledger import DELETED, Entry, Ledger, Row, Task
from h2a_batch.options import Options
from h2a_batch.places import (
    Address,
    at,
    folder_at,
    make_empty,
    remove_own,
    resolved,
    sha256_of,
    sync,
    temporary_path,
)
from h2a_batch.run.aside import Aside, restore, set_aside, unlinked
from h2a_batch.sources import Source, variants

_NOT_ITS_FAULT = frozenset({"vanished", "changed", "unreadable", "output", "model", "internal"})  # kinds of failure
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_TRIES = 100


class Disposal:
    """Archives, deletes or moves photos as ``--on-success`` and ``--on-failure`` say.

    Args:
        ledger: the ledger of OUT.
        options: the options of the run.
        inputs: as the user gave them; a target of a link outside of them is left alone.
        tell: called with an event for each photo: ``archived``, ``deleted``, ``moved`` or ``kept``.
    """

    def __init__(
        self, ledger: Ledger, options: Options, inputs: Sequence[Address], tell: Callable[[Event], None]
    ) -> None:
        self._ledger = ledger
        self._on_record = ledger.disposals
        self._tell = tell
        self._inputs = [at(path).real for path in inputs]
        self._archive, self._failures = options.archive, options.failures
        self._delete = options.on_success == "delete"
        self._planned: list[str] = []
        self._converted: set[str] = set()  # photos that this run gave an entry: nobody else wrote it
        self.refused: set[str] = set()  # the system refuses to move or delete these photos; each is reported once
        if self._archive or self._failures or self._delete:
            ledger.survive_power_cuts()

    def plan(self, task: Task, error: Exception | None) -> None:
        """Record what is to be done with a photo whose result was just recorded."""
        real = task.source.real
        folder = self._archive if error is None else self._failures
        if error is None and not (folder or self._delete):
            return
        if error is not None and (folder is None or _is_blameless(error)):
            return
        try:
            status = os.lstat(real)
        except OSError:
            return
        if not stat.S_ISREG(status.st_mode) or not self._is_within(real):
            return
        target = str(self._free(self._place_of(task.source, folder))) if folder else ""
        self._on_record.add(Entry(real, "done" if error is None else "failed", target, status.st_dev))
        self._planned.append(real)
        self._converted.add(real)

    def carry_out(self) -> None:
        """Do what was planned; the ledger must be committed."""
        planned = self._planned
        self._planned = []
        entries = [entry for real in planned if (entry := self._on_record.of(real))]
        rows = [self._ledger.row(entry.source) for entry in entries]
        out = Path(str(self._ledger.out))  # a path: nothing is planned for an object store
        outputs = {(out / row.output).parent for row in rows if row and row.output}
        for folder in {level for output in outputs for level in _levels(output, out)}:
            _sync(folder)
        for entry in entries:
            self._try(entry)
        if entries:
            self._ledger.commit()

    def resume(self, source: Source | None = None) -> None:
        """Plan again what is still to be done with a photo that is found to be done, or with all such photos."""
        if not (self._archive or self._delete or self._failures):
            return
        for entry in [self._on_record.of(source.real)] if source else self._on_record.all():
            if source and entry and entry.target and self._archive and not _lies_in(entry.target, str(self._archive)):
                entry = replace(entry, target=str(self._free(self._place_of(source, self._archive))))
                self._on_record.add(entry)  # the last run had another folder for it
            if entry and self._may_act(entry, self._ledger.row(entry.source)):
                self._planned.append(entry.source)

    def recover(self) -> None:
        """Tidy up after a killed run: free the places of photos that it moved or deleted.

        Where an entry may not be acted on, this changes nothing but the ledger.
        """
        for entry in self._on_record.all():
            if not self._is_within(entry.source):  # its run goes on with it
                continue
            restore(entry.source)
            row = self._ledger.row(entry.source)
            may_act = self._may_act(entry, row)
            if row is not None and entry.target and may_act and _is_still(entry.source, row):
                _clear(Path(entry.target), row)
            gone = not os.path.lexists(entry.source)
            if row is None or gone or (entry.target and may_act and _is_at(entry.target, row)):
                self._try(entry)
            elif entry.target and not _is_still(entry.source, row) and _is_at(entry.target, row):
                self._leave_place(entry, entry.target)  # it was moved, and another file came later
            elif not entry.target and not _is_at(entry.source, row):
                self._leave_place(entry, "")  # it was deleted, and another file came later: nothing says otherwise
        self._ledger.commit()

    def _may_act(self, entry: Entry, row: Row | None) -> bool:
        """Tell whether to move or delete a photo because of an entry: anybody may have written the ledger.

        This run made the entry, or all of this holds: the run was asked for the same, the photo lies in IN, the
        target lies in the folder that the run was given, and the record has the hash that the photo is compared with.
        """
        base = self._failures if entry.state == "failed" else self._archive
        asked = base is not None if entry.target else entry.state == "done" and self._delete
        if not asked or (entry.target and not _lies_in(entry.target, str(base))):
            return False
        if entry.source in self._converted:
            return True
        if row is None or row.state != entry.state or row.sha256 is None:
            return False
        return self._is_within(entry.source)

    def retry(self) -> None:
        """Try the refused photos again, as long as the target has room."""
        for real in sorted(self.refused):
            entry = self._on_record.of(real)
            if entry is None:
                self.refused.discard(real)
            elif self._try(entry) in _FULL:
                return

    def _try(self, entry: Entry) -> int:
        """Do what an entry says; if the system refuses, report that once.

        Returns:
            the error number of the refusal; 0 where there is none.
        """
        row = self._ledger.row(entry.source)
        is_due = row is not None and row.state == entry.state and os.path.lexists(entry.source)
        if is_due and not self._may_act(entry, row):
            return 0
        number = 0
        try:
            event = self._finish(entry)
        except OSError as error:
            event = None
            number = error.errno or errno.EIO
            if entry.source not in self.refused:
                what = "deleted" if not entry.target else "archived" if entry.state == "done" else "moved"
                message = f"it stays where it is: it cannot be {what} ({error.strerror or error})"
                event = Event("kept", Path(entry.source), message=message)
            self.refused.add(entry.source)
        else:
            self.refused.discard(entry.source)
        if event:
            self._tell(event)
        return number

    def _finish(self, entry: Entry) -> Event | None:
        """Do what an entry says, whatever state a kill left; return None where nothing is left to do or to report."""
        row = self._ledger.row(entry.source)
        if row is None or row.state != entry.state:
            self._on_record.strike(entry)
            return None
        if entry.target and _is_at(entry.target, row) and not _are_one(entry.source, entry.target):
            with set_aside(entry.source, row) as photo:  # a killed run copied it and did not remove it yet
                if photo:
                    photo.delete()
            self._leave_place(entry, entry.target)
            return None
        if not os.path.lexists(entry.source):
            restore(entry.source)
        if not os.path.lexists(entry.source):
            if _device_of(os.path.dirname(entry.source)) == entry.device:  # else the whole volume is away
                self._leave_place(entry, "") if not entry.target else self._on_record.strike(entry)
            return None
        with set_aside(entry.source, row) as photo:
            if photo is None:  # it changed meanwhile, and a run will convert it again
                return None
            target = self._move(entry, photo) if entry.target else ""
            if not target:
                photo.delete()
        self._leave_place(entry, target)
        kind = "deleted" if not target else "archived" if entry.state == "done" else "moved"
        return Event(kind, Path(entry.source), Path(target) if target else None)

    def _move(self, entry: Entry, photo: Aside) -> str:
        """Move a photo to its target, or to the next free name beside it, and return the new path.

        Raises:
            OSError: the folder is not there, a link is in the place of one below it, or the system refuses.
        """
        base = self._archive if entry.state == "done" else self._failures
        if base is None or not base.is_dir():  # a new folder must not take the place of a lost volume
            raise OSError(errno.ENOENT, f"{base} is not there")
        target = Path(entry.target)
        with unlinked(target.parent, base, make=True) as folder:
            for _ in range(_TRIES):
                try:  # an empty file holds the name, so that the move replaces nobody's file
                    make_empty(folder, target.name)
                except FileExistsError:
                    target = self._free(target)
                    self._on_record.add(Entry(entry.source, entry.state, str(target), entry.device))
                    self._ledger.commit()
                    continue
                try:
                    photo.move(folder, target.name)
                except OSError:
                    with contextlib.suppress(OSError):
                        if os.lstat(target.name, dir_fd=folder).st_size == 0:  # still our empty file
                            os.unlink(target.name, dir_fd=folder)
                    raise
                for level in _levels(target.parent, base):
                    _sync(level)
                return str(target)
        raise OSError(errno.EEXIST, "no free name")

    def _leave_place(self, entry: Entry, target: str) -> None:
        """Keep the record of a photo under its new path, so that another photo can have the old one."""
        name = target or f"{entry.source}{DELETED}{time.time_ns()}"
        with self._ledger.together():
            self._ledger.rename(entry.source, name)
            if entry.state == "done":
                self._ledger.rename_outputs(entry.source, target)
            self._on_record.strike(entry)

    def _place_of(self, source: Source, folder: Path) -> Path:
        return folder / os.path.dirname(source.output) / os.path.basename(source.real)

    def _is_within(self, real: str) -> bool:
        """Tell whether a photo lies in an input; its path may come from a stranger and take detours or links."""
        folder, name = os.path.split(real)
        is_real = resolved(folder) == folder and name not in ("", os.curdir, os.pardir)
        return is_real and any((real + os.sep).startswith(root + os.sep) for root in self._inputs)

    def _free(self, path: Path) -> Path:
        """Return the path, or the first variant of its name that no file and no output has."""
        places = (path.with_name(name) for name in variants(path.name))
        return next(place for place in places if not os.path.lexists(place) and not self._ledger.is_output(place))


def check_rules(options: Options, out: Address, inputs: Sequence[str]) -> None:
    """Make the folders to which photos are moved.

    Args:
        options: the options of the run.
        out: OUT.
        inputs: real paths of the folders that hold originals.

    Raises:
        UsageError: a folder is OUT or an input, holds one, or lies in OUT; or it cannot be made or written.
    """
    real_out = at(out).real
    for folder in filter(None, (options.archive, options.failures)):
        real = resolved(folder)
        if any((place + os.sep).startswith(real + os.sep) for place in (real_out, *inputs)):
            raise UsageError(
                f"{folder}: photos cannot be moved there, IN or OUT is there", "choose a folder of its own"
            )
        if real.startswith(real_out + os.sep) and real_out not in inputs:  # outputs have their names there
            raise UsageError(
                f"{folder}: photos cannot be moved there, it lies in OUT", "choose a folder outside of OUT"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: photos cannot be moved there ({error.strerror})") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"{folder}: photos cannot be moved there (no permission)")


def _is_blameless(error: Exception) -> bool:
    return isinstance(error, PhotoError) and error.kind in _NOT_ITS_FAULT


def _is_still(path: str, row: Row) -> bool:
    """Tell whether a file is the very one on record: no link, of the same size, time and content.

    A few system calls lie between this look and what the caller does to the file; no system has a lock for them.
    """
    try:
        before = os.lstat(path)
        if not stat.S_ISREG(before.st_mode) or (before.st_size, before.st_mtime_ns) != (row.size, row.mtime_ns):
            return False
        if row.sha256 is not None and sha256_of(Path(path)) != row.sha256:
            return False
        after = os.lstat(path)
    except FileNotFoundError:
        return False
    return (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns)


def _is_at(target: str, row: Row) -> bool:
    """Tell whether a photo is at a path, by its content; a photo that failed, by its size and time."""
    if row.sha256 is None:
        return _is_still(target, row)
    try:
        status = os.lstat(target)
        return stat.S_ISREG(status.st_mode) and status.st_size == row.size and sha256_of(Path(target)) == row.sha256
    except OSError:
        return False


def _are_one(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _device_of(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None


def _lies_in(path: str, folder: str) -> bool:
    """Tell whether a path, written without detours, lies in a folder, and no link is between the two."""
    if path != os.path.normpath(path) or not path.startswith(os.path.join(folder, "")):
        return False
    inner = os.path.relpath(os.path.dirname(path), folder)
    return resolved(os.path.dirname(path)) == os.path.normpath(os.path.join(resolved(folder), inner))


def _clear(target: Path, row: Row) -> None:
    """Remove what a killed run left of a move: the empty file that held the name, or half of a copy."""
    remove_own(target.parent, [temporary_path(target).name])
    with contextlib.suppress(OSError):
        if row.size and target.lstat().st_size == 0:
            remove_own(target.parent, [target.name])


def _levels(folder: Path, top: Path) -> Sequence[Path]:
    """Return a folder, those above it up to `top`, and the one that holds `top`: any of them may be new."""
    inside = [level for level in (folder, *folder.parents) if level == top or top in level.parents]
    return [*inside, top.parent]


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError), folder_at(folder, folder) as handle:
        sync(handle)
