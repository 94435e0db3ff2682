"""Files: writes them so that they are whole or absent, and holds a folder for one process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from h2a_batch.errors import BusyError, LedgerError
from h2a_batch.places.address import Address
from h2a_batch.places.handles import LINKED, folder_at, in_its_place, rename_new

_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = re.compile(r"\.h2a-[0-9a-f]{16}(-[0-9a-f]{8})?\.part")
_BEGUN = 0.5  # seconds after which a temporary file that nobody has locked is nobody's
_ADVICE = "remove it or choose another OUT"
_OLD = 86_400.0  # the same where no lock says anything
_writer = ""  # see `write_apart`


def digest_of(file: BinaryIO) -> str:
    """Return the sha256 of an open file from where it stands to its end, in hex."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: Path, top: Path | None = None, fresh: bool = False) -> Iterator[BinaryIO]:
    """Yield a file to write in place of `path`.

    The file is a temporary one in the same folder. If all goes well, it is flushed to disk and renamed to `path`. A
    link that has the name of either is replaced, not followed.

    Args:
        path: the file to write.
        top: a folder that contains it, such as OUT: missing folders below are made, and links below not followed. By
            default it is the file's own folder.
        fresh: whether to replace no file.

    Raises:
        FileExistsError: with `fresh`, a file has the name.
        OSError: the file cannot be written; a link is in the place of a folder (an error number in `LINKED`).
    """
    temporary = temporary_path(path).name
    with folder_at(path.parent, path.parent if top is None else top, make=True) as folder:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)  # left by a run that was killed
        try:
            with open(os.open(temporary, os.O_WRONLY | _NEW, 0o666, dir_fd=folder), "wb") as file:
                _lock(file.fileno())  # until it is closed: `sweep` knows by it that somebody writes
                yield file
                file.flush()
                os.fsync(file.fileno())
            if fresh:
                rename_new(folder, temporary, path.name)
            else:
                os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise


def temporary_path(path: Path, writer: str | None = None) -> Path:
    """Return the path where `path` is written until it is complete: hidden, short, and the same in every run.

    Args:
        path: the file to write.
        writer: marks the process that writes it, see `write_apart`; None means this process.
    """
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return path.with_name(f".h2a-{name}{_writer if writer is None else writer}.part")


def write_apart(writer: str) -> None:
    """Mark the temporary files of this process, so that other processes may write the same files meanwhile."""
    global _writer
    _writer = writer


def remove_temporaries(paths: Iterable[Path], top: Path | None = None) -> None:
    """Remove the temporary files of these paths, whichever process began to write them; `top` as for `replacing`."""
    begun: dict[Path, set[str]] = {}
    for path in paths:
        begun.setdefault(path.parent, set()).add(temporary_path(path, "").stem)
    for folder, stems in begun.items():
        length = len(min(stems))  # all stems have the same length
        remove_own(folder, (name for name in _temporaries(folder) if name[:length] in stems), top)


def remove_own(folder: Path, names: Iterable[str], top: Path | None = None) -> None:
    """Remove regular files of this program from a folder; leave what cannot be removed. `top` as for `replacing`."""
    with contextlib.suppress(OSError), folder_at(folder, folder if top is None else top) as handle:
        for name in names:
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.lstat(name, dir_fd=handle).st_mode):  # a kill may leave it with two names
                    os.unlink(name, dir_fd=handle)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder, whatever they were to become."""
    with contextlib.suppress(OSError), folder_at(folder, folder) as handle:
        remove_own(folder, [name for name in _temporaries(folder) if _is_abandoned(handle, name)])


def lock_dead(descriptor: int) -> bool:
    """Tell whether the process that made a file or folder is dead: then nobody has locked it.

    Args:
        descriptor: of the file or folder; the lock is taken, until the descriptor is closed.
    """
    age = time.time() - os.fstat(descriptor).st_mtime
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return age > _OLD
    return age > _BEGUN


def _is_abandoned(folder: int, name: str) -> bool:
    """Tell whether a temporary file is this user's, and its writer has died."""
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return False
        if "-" in name[5:]:  # a node of a cluster writes it, and its lock may be unknown on this machine
            return time.time() - status.st_mtime > _OLD
        return lock_dead(descriptor)
    finally:
        os.close(descriptor)


def _temporaries(folder: Path) -> list[str]:
    """Return the names of all temporary files in a folder."""
    try:
        with os.scandir(folder) as entries:
            return [name for entry in entries if (name := entry.name)[0] == "." and _TEMPORARY.fullmatch(name)]
    except OSError:
        return []


def _lock(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def hold(folder: Path, out: Address, top: Path | None = None) -> int:
    """Hold the folder of OUT's ledger for this process.

    The system releases the folder when the process ends, however it ends.

    Args:
        folder: the ledger's folder; it is made if it is missing.
        out: OUT, for the message.
        top: a folder that contains it, such as OUT: links up to here are followed, links below are not. By default it
            is the folder itself.

    Returns:
        a file descriptor; closing it releases the folder.

    Raises:
        BusyError: another process holds the folder.
        LedgerError: the folder or the lock is a link, or something else that this program does not make.
        OSError: the folder cannot be made or written.
    """
    top = folder if top is None else top
    top.mkdir(parents=True, exist_ok=True)
    try:
        with folder_at(folder, top, make=True) as handle:
            guard = _opened_lock(handle, folder)
    except OSError as error:
        if error.errno in LINKED and (what := in_its_place(folder, top)):
            raise LedgerError(f"{out}: {what}", _ADVICE) from error
        raise
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(guard, 32).decode("ascii", "replace").strip() or "?"
        os.close(guard)
        raise BusyError(
            f"{out}: another run (process {holder}) is writing here",
            "wait for it, or choose another OUT",
        ) from error
    except OSError:  # a network share without locks: SQLite's own still keep the ledger whole
        return guard
    os.ftruncate(guard, 0)
    os.write(guard, str(os.getpid()).encode())
    return guard


def _opened_lock(handle: int, folder: Path) -> int:
    """Open or make the lock in the folder of a handle; raise as `hold` does."""
    refusal = LedgerError(f"{folder / 'lock'}: a link or another thing is in the place of this file", _ADVICE)
    with contextlib.suppress(FileNotFoundError):
        status = os.lstat("lock", dir_fd=handle)
        if not stat.S_ISREG(status.st_mode):  # to open a device or a pipe can have effects
            raise refusal
        if status.st_nlink > 1:  # as snapshots by hard links make: the file of the other name is left alone
            os.unlink("lock", dir_fd=handle)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        guard = os.open("lock", flags, 0o666, dir_fd=handle)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise refusal from error
        raise
    status = os.fstat(guard)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(guard)
        raise refusal
    return guard
