"""Sources: what a photo is before it is read, and which files count as photos."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from h2a_batch.photos import sniff
from h2a_batch.places import Address, at, open_file
from h2a_batch.sources.names import is_image_name

LEDGER_FOLDER = ".h2a-batch"
_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store"})
# raw files begin like TIFF but hold sensor data; most of them have a JPEG of the same picture beside them
_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 "
    ".rwl .sr2 .srf .srw .x3f".split()
)
_MOST_BYTES = 1 << 30  # of an object: it is held in memory


@dataclass(frozen=True)
class Source:
    """A photo to convert.

    Args:
        path: the address by which the walk reached it.
        real: its identity: the path with the links of its folders resolved, or the URL.
        output: the natural path of its output, relative to OUT.
        size: in bytes.
        mtime_ns: the time of the last change, in nanoseconds; of an object see `Item.stamp`.
        also: paths that were natural for its output while other files lay beside it.
        link: where it is a link, the file that it led to when it was found, without any links; else empty.
    """

    path: Address
    real: str
    output: str
    size: int
    mtime_ns: int
    also: tuple[str, ...] = ()
    link: str = ""

    @property
    def target(self) -> str:
        """The path of the file to read, without any links; of an object the URL."""
        return self.link or self.real

    def open(self) -> BinaryIO:
        """Open the photo for reading; no link that came in its way since it was found is followed.

        Raises:
            OSError: it cannot be read.
        """
        return at(self.path).open() if at(self.path).far else open_file(self.target)


@dataclass(frozen=True)
class Unusable:
    """Something that was named as a photo or claims to be one, and cannot be reached or used."""

    path: Address
    kind: str
    message: str


@dataclass(frozen=True)
class Ignored:
    """A file that this program leaves alone, such as a hidden file, camera raw, or no image at all."""

    path: Address
    reason: str


Found = Source | Unusable | Ignored


@dataclass(frozen=True)
class Scan:
    """How to look for photos.

    Args:
        suffix: as in `Options`, for the names of outputs.
        format: as in `Options`, for the names of outputs.
        recursive: whether to go into sub-folders.
        out: OUT; the walk passes it over inside an input.
        is_output: tells whether an earlier run wrote a path in OUT.
        exclude: files to pass over, such as the contact sheet.
        avoid: real paths of folders to pass over, such as the archive.
        watching: whether to leave alone links that lead out of the inputs, and files named as unfinished.
    """

    suffix: str
    format: str
    recursive: bool
    out: Address
    is_output: Callable[[Address], bool] = lambda path: False
    exclude: frozenset[Path] = frozenset()
    avoid: frozenset[str] = frozenset()
    watching: bool = False


@dataclass(frozen=True)
class Folder:
    """A folder to look into.

    Args:
        path: the path by which the walk reached it.
        real: the path with all links resolved.
        relative: where its outputs go, relative to OUT.
    """

    path: str
    real: str
    relative: str


def why_ignored(given: str, kind: str, head: Callable[[], bytes] | None) -> str | None:
    """Return why a file is passed over without a message; None for a photo, or a file that claims to be one.

    Args:
        given: its name.
        kind: as `_kind` says.
        head: reads its first bytes; None where that costs a request: only names without a suffix get one.
    """
    name = given.lower()
    if name in _JUNK:
        return "made by the system"
    if name.startswith("."):
        return "hidden"
    if kind == "O":
        return "not a file"
    if is_image_name(name):
        return None
    if os.path.splitext(name)[1] in _RAW:
        return "camera raw"
    return None if head and sniff(head()) else "not an image"


def source_at(path: Address, real: str, output: str, also: Sequence[str], link: str) -> Source | Unusable:
    """Return the photo at an address, or why it cannot be used; the arguments are those of `Source`."""
    place = at(path)
    try:
        found = place.stat()
    except OSError as error:
        what = "a link that leads nowhere" if os.path.islink(str(path)) else f"it cannot be reached ({error.strerror})"
        return Unusable(path, "unreadable" if place.far else "vanished", what)
    if found is None:
        what = "a link that leads nowhere" if os.path.islink(str(path)) else "there is no such file any more"
        return Unusable(path, "vanished", what)
    if not found.regular:
        return Unusable(path, "not-an-image", "not a file")
    return of_size(Source(path, real, output, found.size, found.changed, tuple(also), link))


def of_size(source: Source) -> Source | Unusable:
    """Return a photo, or why it is too large: an object is held in memory."""
    if at(source.path).far and source.size > _MOST_BYTES:
        what = f"the object has {source.size:,} bytes, and at most {_MOST_BYTES:,} are read"
        return Unusable(source.path, "too-large", what)
    return source
