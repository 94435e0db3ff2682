"""What can be done where bytes lie, the same for a disk and for every object store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Protocol

from h2a_batch.places.address import Address, AnyAddress, Remote, Stat
from h2a_batch.places.local import Local
from h2a_batch.places.store import Store


class Place(Protocol):
    """A file or folder, an object or prefix: what `at` gives for an address.

    ``far`` is true where each call is a request to another machine: what reads and writes there had better wait in
    several threads. ``whole`` is true where no file can be cut short, since writing takes place in one go.
    """

    far: bool
    whole: bool

    @property
    def path(self) -> Path | None:
        """The path of a file or folder; None for what has none."""

    @property
    def remote(self) -> Remote | None:
        """The URL of an object or prefix; None for what has none."""

    @property
    def real(self) -> str:
        """The identity of a folder: all links are resolved."""

    @property
    def identity(self) -> str:
        """The identity of a file: the links of its folder are resolved."""

    def is_folder(self) -> bool:
        """Tell whether this is a folder, or a prefix of objects; what is neither may be either."""

    def is_file(self) -> bool:
        """Tell whether this is a file of its own, not a link to one."""

    def can_be_replaced(self) -> bool:
        """Tell whether a file may take this name: no folder has it."""

    def is_same(self, other: Address) -> bool:
        """Tell whether two addresses name one file."""

    def has(self, identity: str) -> bool:
        """Tell whether the file of an identity is still there, as far as can be told from here; if not, True."""

    def stat(self) -> Stat | None:
        """Return what is known of a file without reading it; None where there is nothing.

        Raises:
            OSError: it cannot be reached.
        """

    def open(self) -> BinaryIO:
        """Open a file for reading.

        Raises:
            OSError: it cannot be read.
        """

    def head(self, count: int) -> bytes:
        """Return the first bytes of a file; none where it cannot be read.

        Raises:
            ConnectionError: the store is away, which says nothing of the file.
        """

    def fetch(self) -> Path | bytes:
        """Return a photo for the decoder: the path of a file, the bytes of an object.

        Raises:
            PhotoError: it cannot be read.
            StorageError: the store cannot be reached any more.
        """

    def write(self, data: bytes) -> None:
        """Write a file, whole or not at all; make its folder if it is not there.

        Raises:
            StorageError: the volume is full, or it or the store went away.
            PhotoError: this file alone cannot be written.
        """

    def remove(self) -> None:
        """Remove a file; none of that name is as good.

        Raises:
            OSError: it cannot be removed.
        """

    def remove_unfinished(self, writer: str) -> None:
        """Remove what a process that died had begun to write here; see `write_apart`."""

    def names_below(self, folder: Address) -> set[str]:
        """Return the names that a file has relative to a folder; links count as what they name, too."""

    def check_input(self) -> None:
        """Make sure that there is something to read.

        Raises:
            UsageError: there is not; what is wrong.
        """

    def check_output(self) -> None:
        """Make sure that there is, or can be, a folder for outputs.

        Raises:
            UsageError: there cannot.
        """


def at(address: Address) -> Place:
    """Return the place of an address: the one factory."""
    return Local(address) if isinstance(address, Path) else Store(address)


def absolute(where: AnyAddress) -> AnyAddress:
    """Return an address from the root; a URL is one already."""
    return where if at(where).far else Path(os.path.abspath(str(where)))


def sha256_of(address: Address) -> str:
    """Return the sha256 of a file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with at(address).open() as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
