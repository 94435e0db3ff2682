"""Files: writing them so that they are whole or not there, and holding a folder."""

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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write in place of `path`: temporary in the same folder, then fsync and rename if all went well."""
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
    """Where `path` is written before it is complete: hidden, short, and the same in every run but for `write_apart`.

    Args:
        writer: of the process that writes it; None for this one.
    """
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return path.with_name(f".h2a-{name}{_writer if writer is None else writer}.part")


def write_apart(writer: str) -> None:
    """Name the temporary files of this process differently from those of others, who may write the same files."""
    global _writer
    _writer = writer


def remove_temporaries(paths: Iterable[Path]) -> None:
    """Remove the temporary files of these files, whichever process began to write them."""
    begun: dict[Path, set[str]] = {}
    for path in paths:
        begun.setdefault(path.parent, set()).add(temporary_path(path, "").stem)
    for folder, stems in begun.items():
        found: list[str] = []
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.name.endswith(".part")]
        for name in found:
            if name[: len(min(stems))] in stems:  # they are all of one length
                with contextlib.suppress(OSError):
                    (folder / name).unlink()


def hold(folder: Path, out: Address) -> int:
    """Hold the folder of OUT's ledger for this process, and return what to close to let go.

    The system lets go when the process ends, however it ends.

    Raises:
        BusyError: another process holds it.
        OSError: it cannot be made or written.
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
