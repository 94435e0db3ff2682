"""Files: writes them so that they are whole or absent, and holds a folder for one process."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from h2a_batch.errors import BusyError
from h2a_batch.places.address import Address

_writer = ""  # see `write_apart`


def digest_of(file: BinaryIO) -> str:
    """Return the sha256 of an open file from where it stands to its end, in hex."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write in place of `path`.

    The file is a temporary one in the same folder. If all goes well, it is flushed to disk and renamed to `path`.
    """
    temporary = temporary_path(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # left by a run that was killed
    try:
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
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


def remove_temporaries(paths: Iterable[Path]) -> None:
    """Remove the temporary files of these paths, whichever process began to write them."""
    begun: dict[Path, set[str]] = {}
    for path in paths:
        begun.setdefault(path.parent, set()).add(temporary_path(path, "").stem)
    for folder, stems in begun.items():
        found: list[str] = []
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.name.endswith(".part")]
        for name in found:
            if name[: len(min(stems))] in stems:  # all stems have the same length
                with contextlib.suppress(OSError):
                    (folder / name).unlink()


def hold(folder: Path, out: Address) -> int:
    """Hold the folder of OUT's ledger for this process.

    The system releases the folder when the process ends, however it ends.

    Args:
        folder: the ledger's folder; it is made if it is missing.
        out: OUT, for the message.

    Returns:
        a file descriptor; closing it releases the folder.

    Raises:
        BusyError: another process holds the folder.
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    guard = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
