"""Aside: gives a photo a hidden name before it is deleted or moved, so that what was checked is what is disposed of.

Any program may put another photo in a photo's place at any moment, or a link in its folder's place. So a photo is
opened through a handle of its folder, checked to be the one on record, renamed, and checked to be still the open
file. Only then is it deleted or moved. Whatever else has the hidden name afterwards gets its own name back.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from h2a_batch.ledger import Row
from h2a_batch.places import (
    LINKED,
    AnyPath,
    digest_of,
    folder_at,
    in_its_place,
    listed,
    open_in,
    rename_new,
    sync,
    temporary_path,
)
from h2a_batch.sources import ASIDE, has_writer, variants

_LONGEST = 255  # bytes of a file's name


@dataclass(frozen=True)
class Aside:
    """A photo with a hidden name: the file on record, which no program has open for writing.

    Args:
        folder: a handle of its folder.
        name: its hidden name there.
        file: the photo, open for reading.
    """

    folder: int
    name: str
    file: BinaryIO

    def delete(self) -> None:
        """Delete the photo.

        Raises:
            OSError: the system refuses.
        """
        os.unlink(self.name, dir_fd=self.folder)
        sync(self.folder)

    def move(self, folder: int, name: str) -> None:
        """Move the photo over an empty file of our own, also to another volume.

        Args:
            folder: a handle of the new folder.
            name: the empty file there.

        Raises:
            OSError: the system refuses, or the copy differs.
        """
        try:
            os.rename(self.name, name, src_dir_fd=self.folder, dst_dir_fd=folder)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(self.file, folder, name)
            os.unlink(self.name, dir_fd=self.folder)
        sync(folder)
        sync(self.folder)


@contextlib.contextmanager
def set_aside(source: str, row: Row) -> Iterator[Aside | None]:
    """Yield a photo under a hidden name; None where the file on record is not there any more.

    Args:
        source: its path, whose folders are no links.
        row: its record.

    Raises:
        OSError: the photo cannot be renamed, a program has it open for writing, or a link is in its folder's place.
    """
    folder, name = os.path.split(source)
    with unlinked(folder) as handle, contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_in(handle, name))
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            if error.errno not in (*LINKED, errno.EINVAL):
                raise
            yield None  # something else has its name now
            return
        if not _has_stamp(file, row):
            yield None
            return
        if has_writer(file.fileno()):  # further ones wait until the file is closed here
            raise OSError(errno.EBUSY, "a program has it open for writing")
        if not is_on_record(file, row):
            yield None
            return
        hidden = _hidden(name)
        os.rename(name, hidden, src_dir_fd=handle, dst_dir_fd=handle)
        try:
            yield Aside(handle, hidden, file) if _is_open_as(handle, hidden, file, row) else None
        finally:
            with contextlib.suppress(FileNotFoundError):
                put_back(handle, hidden, name)


@contextlib.contextmanager
def unlinked(folder: AnyPath, top: AnyPath = os.sep, make: bool = False) -> Iterator[int]:
    """Yield a handle of a folder, as `folder_at` does.

    Raises:
        OSError: as for `folder_at`; the message names the folder that has a link in its place.
    """
    with contextlib.ExitStack() as stack:
        try:
            handle = stack.enter_context(folder_at(folder, top, make))
        except OSError as error:
            if error.errno in LINKED:
                raise OSError(error.errno, in_its_place(folder, top) or error.strerror) from error
            raise
        yield handle


def restore(source: str) -> None:
    """Give a photo its name back that a killed run left with a hidden one; do nothing where there is none."""
    folder, name = os.path.split(source)
    with contextlib.suppress(OSError), listed(folder) as (handle, entries):
        names = [entry.name for entry in entries]
        for hidden in names:
            if _is_of(hidden, name):
                put_back(handle, hidden, name)


def put_back(folder: int, hidden: str, name: str) -> None:
    """Give a file its name back, or the next free variant of it where another file has come.

    Raises:
        FileNotFoundError: no file has the hidden name.
        OSError: the system refuses.
    """
    status = os.lstat(hidden, dir_fd=folder)
    for place in variants(name):
        try:
            rename_new(folder, hidden, place)
            return
        except FileExistsError:
            if _is_one(folder, place, status):  # a kill came when it had both names
                os.unlink(hidden, dir_fd=folder)
                return


def _is_one(folder: int, name: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(status, os.lstat(name, dir_fd=folder))
    except OSError:
        return False


def is_on_record(file: BinaryIO, row: Row) -> bool:
    """Tell whether an open file is the photo on record: by its size, its time of change and its content."""
    return _has_stamp(file, row) and (row.sha256 is None or _digest(file) == row.sha256)


def _has_stamp(file: BinaryIO, row: Row) -> bool:
    status = os.fstat(file.fileno())
    return (status.st_size, status.st_mtime_ns) == (row.size, row.mtime_ns)


def _hidden(name: str) -> str:
    """Return a hidden name for a file, from which a person can tell its own name where that is not too long."""
    mark = f".{secrets.token_hex(4)}{ASIDE}"
    plain = f".{name}{mark}"
    return plain if len(os.fsencode(plain)) <= _LONGEST else f".{_short(name)}{mark}"


def _is_of(hidden: str, name: str) -> bool:
    """Tell whether a hidden name is one that `_hidden` gives a file."""
    stem = hidden[1:].removesuffix(ASIDE)
    return hidden.endswith(ASIDE) and stem[:-9] in (name, _short(name))


def _short(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    return digest_of(file)


def _is_open_as(folder: int, name: str, file: BinaryIO, row: Row) -> bool:
    """Tell whether the file of a name is the one that is open, and unchanged since it was found to be on record."""
    try:
        with open_in(folder, name) as other:
            same = os.path.samestat(os.fstat(file.fileno()), os.fstat(other.fileno()))
            return _has_stamp(other, row) if same else is_on_record(other, row)  # some volumes number files anew
    except OSError:  # a link, a pipe
        return False


def _copy(file: BinaryIO, folder: int, name: str) -> None:
    """Copy an open file over an empty file of our own, with its times and permissions, but nobody's privileges.

    Raises:
        OSError: the system refuses, or the copy differs.
    """
    temporary = temporary_path(Path(name)).name
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)  # left by a run that was killed
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600, dir_fd=folder), "w+b") as copy:
            file.seek(0)
            while block := file.read(1 << 20):
                copy.write(block)
            copy.flush()
            _copy_status(file.fileno(), copy.fileno())
            os.fsync(copy.fileno())
            if _digest(copy) != _digest(file):
                raise OSError(errno.EIO, "the copy is not the same")
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _copy_status(original: int, copy: int) -> None:
    """Copy what a file is besides its bytes, where volume and system allow it.

    Set-user-ID, set-group-ID and capabilities are left behind: they would give the rights of whom the copy belongs to.
    """
    status = os.fstat(original)
    with contextlib.suppress(OSError):
        os.fchown(copy, status.st_uid, status.st_gid)
    with contextlib.suppress(OSError):
        os.fchmod(copy, stat.S_IMODE(status.st_mode) & 0o777)
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):
            for attribute in os.listxattr(original):
                if attribute.startswith("user."):
                    os.setxattr(copy, attribute, os.getxattr(original, attribute))
    with contextlib.suppress(OSError):
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
