"""Handles: opens folders and files one step after the other, so that no link leads the program elsewhere.

A path names whatever lies there at the moment of each call. A handle names one folder, also while somebody renames it
or puts a link in its place. A link on the way makes these functions raise OSError with ELOOP or ENOTDIR.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

AnyPath = str | os.PathLike[str]

_STEP = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)  # O_PATH: what may be entered, not listed
# of volumes without hard links, such as FAT, and of files that may not get a second name
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})
LINKED = frozenset({errno.ELOOP, errno.ENOTDIR})  # error numbers where a link, or a file, is in a folder's place


def resolved(path: AnyPath) -> str:
    """Return a path with all links resolved; unresolved where a link stops being one in that moment."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)


@contextlib.contextmanager
def folder_at(path: AnyPath, top: AnyPath = os.sep, make: bool = False) -> Iterator[int]:
    """Yield a handle of a folder, for the parameter ``dir_fd`` of functions of `os`.

    Args:
        path: the folder.
        top: a folder that contains it or is it; links up to here are followed, links below are not.
        make: whether to make the folders below `top` that are missing.

    Raises:
        OSError: a folder is missing or may not be entered; a link is in its place (an error number in `LINKED`).
        ValueError: `path` does not lie below `top`.
    """
    names = Path(path).relative_to(top).parts
    if os.pardir in names:
        raise ValueError(f"{path} leads out of {top}")
    handle = os.open(top, _STEP)
    try:
        for name in names:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=handle)
            inner = os.open(name, _STEP | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def listed(path: AnyPath) -> Iterator[tuple[int, Iterator[os.DirEntry[str]]]]:
    """Yield a handle of a folder whose path holds no link, and its entries; use them before it is closed.

    Raises:
        OSError: as for `folder_at`.
    """
    with folder_at(path) as folder:
        handle = os.open(os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(handle) as entries:
            yield handle, entries
    finally:
        os.close(handle)


def open_file(path: AnyPath, top: AnyPath = os.sep) -> BinaryIO:
    """Open a regular file for reading; `top` is as for `folder_at`.

    Raises:
        OSError: the file cannot be read; it or a folder is a link (an error number in `LINKED`); it is no regular file.
        ValueError: `path` does not lie below `top`.
    """
    folder, name = os.path.split(path)
    with folder_at(folder, top) as handle:
        return open_in(handle, name)


def open_in(folder: int, name: str) -> BinaryIO:
    """Open a regular file in the folder of a handle for reading.

    Raises:
        OSError: as for `open_file`.
    """
    # a pipe would make a blocking open wait for ever
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return open(descriptor, "rb")


def rename_new(folder: int, old: str, new: str) -> None:
    """Rename a file or folder in the folder of a handle without replacing anything.

    Raises:
        FileExistsError: something has the new name.
        OSError: the system refuses.
    """
    is_folder = stat.S_ISDIR(os.lstat(old, dir_fd=folder).st_mode)
    try:
        if not is_folder:  # folders have no second names
            os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            os.unlink(old, dir_fd=folder)
            return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    make_empty(folder, new, is_folder)
    try:
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(new, dir_fd=folder) if is_folder else os.unlink(new, dir_fd=folder)
        raise


def make_empty(folder: int, name: str, is_folder: bool = False) -> None:
    """Make an empty file or folder, which holds a name until something is renamed to it.

    Raises:
        FileExistsError: something has the name.
        OSError: the system refuses.
    """
    if is_folder:
        os.mkdir(name, dir_fd=folder)
    else:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))


def sync(folder: int) -> None:
    """Make the names in the folder of a handle durable, where its file system can."""
    with contextlib.suppress(OSError):
        opened = os.open(os.curdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def has_one_name(folder: int, name: str) -> bool:
    """Tell whether a name in the folder of a handle is free, or that of a regular file which has no other name."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1


def in_its_place(folder: AnyPath, top: AnyPath) -> str:
    """Say what is in the place of a folder, or of one between it and `top`; an empty text where all are folders."""
    path = Path(top)
    for name in Path(folder).relative_to(path).parts:
        path /= name
        with contextlib.suppress(OSError):
            mode = os.lstat(path).st_mode
            if not stat.S_ISDIR(mode):
                return f"{'a link' if stat.S_ISLNK(mode) else 'a file'} is in the place of folder {path}"
    return ""
