"""Files and folders on a disk."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from h2a_batch.errors import PhotoError, StorageError, UsageError
from h2a_batch.places.address import Address, Stat
from h2a_batch.places.files import remove_own, replacing, temporary_path
from h2a_batch.places.handles import LINKED, folder_at, in_its_place, resolved

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE}


@dataclass(frozen=True)
class Local:
    """A `Place` on a disk."""

    path: Path
    far = False
    whole = False
    remote = None

    @property
    def real(self) -> str:
        return resolved(self.path)

    @property
    def identity(self) -> str:
        return os.path.join(resolved(self.path.parent), self.path.name)

    def is_folder(self) -> bool:
        return self.path.is_dir()

    def is_file(self) -> bool:
        return self.path.is_file() and not self.path.is_symlink()

    def can_be_replaced(self) -> bool:
        return not self.path.is_dir()

    def is_same(self, other: Address) -> bool:
        try:
            return os.path.samefile(self.path, str(other))
        except OSError:  # one of them is gone, or no path
            return False

    def has(self, identity: str) -> bool:
        return not identity.startswith(os.sep) or os.path.lexists(identity)

    def stat(self) -> Stat | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return Stat(status.st_size, status.st_mtime_ns, S_ISREG(status.st_mode))

    def open(self) -> BinaryIO:
        return open(self.path, "rb")

    def head(self, count: int) -> bytes:
        try:
            with open(self.path, "rb") as file:
                return file.read(count)
        except OSError:
            return b""

    def fetch(self) -> Path:
        return self.path

    def is_plain(self, top: Address) -> bool:
        try:
            with folder_at(self.path.parent, Path(str(top))) as folder:
                return S_ISREG(os.stat(self.path.name, dir_fd=folder, follow_symlinks=False).st_mode)
        except (OSError, ValueError):
            return False

    def write(self, data: bytes, top: Address | None = None, fresh: bool = False) -> None:
        base = self.path.parent if top is None else Path(str(top))
        try:
            base.mkdir(parents=True, exist_ok=True)
            with replacing(self.path, base, fresh) as file:
                file.write(data)
        except FileExistsError as error:
            what = f"{self.path}: a file of other origin came there meanwhile"
            raise PhotoError("output", what, "rename it, or run again with --overwrite to replace it") from error
        except OSError as error:
            if error.errno in LINKED and (what := in_its_place(self.path.parent, base)):
                raise PhotoError("output", what, "remove it or choose another OUT") from error
            what = f"{self.path}: cannot be written ({error.strerror or error})"
            if error.errno in _FULL:
                raise StorageError(what, "free space there and run again: it goes on from here") from error
            raise PhotoError("output", what, "check the folder's permissions") from error

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def remove_unfinished(self, writer: str, top: Address) -> None:
        remove_own(self.path.parent, [temporary_path(self.path, writer).name], Path(str(top)))

    def names_below(self, folder: Address) -> set[str]:
        out = str(folder)
        real = os.path.relpath(resolved(self.path), resolved(out))
        return {os.path.relpath(self.path, out), real}

    def check_input(self) -> None:
        try:
            self.path.stat()
        except OSError as error:
            what = "no such file or folder" if error.errno == errno.ENOENT else f"cannot be reached ({error.strerror})"
            raise UsageError(f"{self.path}: {what}") from error
        if self.path.is_dir() and not os.access(self.path, os.R_OK | os.X_OK):
            raise UsageError(f"{self.path}: no permission to read the folder")

    def check_output(self) -> None:
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise UsageError(f"{self.path}: OUT is not a folder", "name a folder for the results")
