"""What passes between the ledger and the stages: a photo's task, the outputs made of it, and what is on record."""

from __future__ import annotations

from dataclasses import dataclass

from h2a_batch.photos import Frame
from h2a_batch.places import Address
from h2a_batch.sources import Source

# States of a photo: its outputs are complete; it could not be converted; neither as yet; passed over, nobody is in it.
DONE, FAILED, PENDING, NOBODY = "done", "failed", "pending", "no-face"
KEPT = -1  # the size of an output that is none: its name is kept for its photo, a file there is somebody's
DELETED = "//deleted-"  # behind the path of a photo that was deleted on success; no real path has two slashes


@dataclass(frozen=True)
class Task:
    """A photo to convert, and the file to make of it: its name relative to OUT."""

    source: Source
    out: Address
    name: str

    @property
    def output(self) -> Address:
        """The file to make."""
        return self.out / self.name


@dataclass(frozen=True)
class Output:
    """A file that was made: its name relative to OUT, and its bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class FaceRow:
    """A face that was converted; ``output`` is None where it was put back into its photo."""

    frame: Frame
    output: Output | None


@dataclass(frozen=True)
class Row:
    """What the ledger knows of one input."""

    source: str
    size: int
    mtime_ns: int
    sha256: str | None
    settings: str
    natural: str
    output: str | None
    output_size: int | None
    state: str
    error: str | None
    seconds: float | None


@dataclass(frozen=True)
class Made:
    """A file that this program made in OUT: whose it is, and its size once it is complete."""

    name: str
    source: str
    sha256: str | None
    size: int | None
