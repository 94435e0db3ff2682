"""Objects, and prefixes of objects, in any store that fsspec knows."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from typing import BinaryIO

from h2a_batch.errors import PhotoError, StorageError, UsageError
from h2a_batch.places.address import Address, Remote, Stat
from h2a_batch.places.client import DamagedError
from h2a_batch.places.objects import check_reachable, delete, find, get, is_folder, put

_MISNAMED = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EMSGSIZE}  # this object's own fault: others may be written


@dataclass(frozen=True)
class Store:
    """A `Place` in an object store."""

    remote: Remote
    far = True
    whole = True
    path = None

    @property
    def real(self) -> str:
        return self.remote.url

    @property
    def identity(self) -> str:
        return self.remote.url

    def is_folder(self) -> bool:
        return is_folder(self.remote)

    def is_file(self) -> bool:
        return True

    def can_be_replaced(self) -> bool:
        return True

    def is_same(self, other: Address) -> bool:
        return other == self.remote

    def has(self, identity: str) -> bool:
        if identity.startswith(os.sep):
            return os.path.lexists(identity)
        try:
            return find(Remote(identity, self.remote.endpoint)) is not None
        except OSError:
            return True

    def stat(self) -> Stat | None:
        found = find(self.remote)
        return Stat(found.size, found.stamp) if found else None

    def open(self) -> BinaryIO:
        return io.BytesIO(get(self.remote))

    def head(self, count: int) -> bytes:
        try:
            return get(self.remote, count)
        except ConnectionError:
            raise
        except OSError:
            return b""

    def fetch(self) -> bytes:
        try:
            return get(self.remote)
        except ConnectionError as error:
            what = f"{self.remote}: the store cannot be reached ({error.strerror})"
            raise StorageError(what, "run again when it is back: it goes on from here") from error
        except FileNotFoundError as error:
            raise PhotoError("vanished", "the object is no longer there", "run again when it is back") from error
        except OSError as error:
            what = f"the object cannot be read: {error.strerror}"
            advice = "check its permissions" if isinstance(error, PermissionError) else "check the store and run again"
            raise PhotoError("unreadable", what, advice) from error

    def is_plain(self, top: Address) -> bool:
        return True

    def write(self, data: bytes, top: Address | None = None, fresh: bool = False) -> None:
        try:
            put(self.remote, data)
        except OSError as error:
            what = f"{self.remote}: cannot be written ({error.strerror or error})"
            if error.errno in _MISNAMED:
                raise PhotoError("output", what, "rename the photo") from error
            if isinstance(error, DamagedError):
                raise PhotoError("output", what, "check the network and the store, and run again") from error
            raise StorageError(what, "check the store and run again: it goes on from here") from error

    def remove(self) -> None:
        delete(self.remote)

    def remove_unfinished(self, writer: str, top: Address) -> None:
        """Do nothing: a store writes an object in one go."""

    def names_below(self, folder: Address) -> set[str]:
        return {self.remote.url[len(str(folder)) + 1 :]}

    def check_input(self) -> None:
        check_reachable(self.remote, to_read=True)

    def check_output(self) -> None:
        check_reachable(self.remote)
        if not is_folder(self.remote):
            raise UsageError(f"{self.remote}: OUT is an object, not a folder", "name a folder for the results")
