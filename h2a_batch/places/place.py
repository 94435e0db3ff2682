"""Places: what can be done where bytes lie, by the same methods for a disk and for every object store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Protocol

from h2a_batch.places.address import Address, AnyAddress, Remote, Stat
from h2a_batch.places.files import digest_of
from h2a_batch.places.local import Local
from h2a_batch.places.store import Store


class Place(Protocol):
    """A file or folder, an object or prefix: `at` returns the place of an address.

    ``far`` is true where each call is a request to another machine: callers do well to read and write in several
    threads. ``whole`` is true where a file is always complete, since the place writes it in one go.
    """

    far: bool
    whole: bool

    @property
    def path(self) -> Path | None:
        """The path of a file or folder; None for an object or prefix."""

    @property
    def remote(self) -> Remote | None:
        """The URL of an object or prefix; None for a file or folder."""

    @property
    def real(self) -> str:
        """The identity of a folder: its path with all links resolved, or its URL."""

    @property
    def identity(self) -> str:
        """The identity of a file: its path with the links of its folder resolved, or its URL."""

    def is_folder(self) -> bool:
        """Tell whether this is a folder, or may be a prefix of objects."""

    def is_file(self) -> bool:
        """Tell whether this is a file itself, not a link to one."""

    def can_be_replaced(self) -> bool:
        """Tell whether a file may take this name: no folder has it."""

    def is_same(self, other: Address) -> bool:
        """Tell whether two addresses name one file."""

    def has(self, identity: str) -> bool:
        """Tell whether the file of an identity is still there; True also where this place cannot know."""

    def stat(self) -> Stat | None:
        """Return what the place says of a file without reading it; None where there is no file.

        Raises:
            OSError: the place cannot be reached.
        """

    def open(self) -> BinaryIO:
        """Open a file for reading.

        Raises:
            OSError: the file cannot be read.
        """

    def head(self, count: int) -> bytes:
        """Return the first `count` bytes of a file, or fewer; empty bytes where the file cannot be read.

        Raises:
            ConnectionError: the store cannot be reached; this says nothing about the file.
        """

    def fetch(self) -> Path | bytes:
        """Return a photo in the form that the decoder takes: the path of a file, the bytes of an object.

        Raises:
            PhotoError: the photo cannot be read.
            StorageError: the store can no longer be reached.
        """

    def is_plain(self, top: Address) -> bool:
        """Tell whether this is a file that no link leads to from `top`, a folder that contains it."""

    def write(self, data: bytes, top: Address | None = None, fresh: bool = False) -> None:
        """Write a file, whole or not at all; make its folder if it is missing.

        Args:
            data: the bytes.
            top: a folder that contains the file: no link below is followed; by default the file's own folder.
            fresh: whether to replace no file that has the name, where the place can tell.

        Raises:
            StorageError: the volume is full, or the volume or store went away.
            PhotoError: this file alone cannot be written.
        """

    def remove(self) -> None:
        """Remove a file; do nothing where there is none.

        Raises:
            OSError: the file cannot be removed.
        """

    def remove_unfinished(self, writer: str, top: Address) -> None:
        """Remove the temporary file that a process which died left for this file; see `write_apart`, and `write`."""

    def names_below(self, folder: Address) -> set[str]:
        """Return the names of a file relative to a folder; a link has its own name and the name of its target."""

    def check_input(self) -> None:
        """Check that there is something to read.

        Raises:
            UsageError: nothing can be read; the message says why.
        """

    def check_output(self) -> None:
        """Check that outputs can go here: a folder is there, or nothing prevents one.

        Raises:
            UsageError: no folder can be here.
        """


def at(address: Address) -> Place:
    """Return the place of an address; nothing else decides which kind of place that is."""
    return Local(address) if isinstance(address, Path) else Store(address)


def absolute(where: AnyAddress) -> AnyAddress:
    """Return a path from the root; return a URL unchanged."""
    return where if at(where).far else Path(os.path.abspath(str(where)))


def sha256_of(address: Address) -> str:
    """Return the sha256 of a file, in hex.

    Raises:
        OSError: the file cannot be read.
    """
    with at(address).open() as file:
        return digest_of(file)
