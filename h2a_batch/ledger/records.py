"""Records: what the ledger keeps and what the stages exchange: tasks, outputs, rows and faces."""

from __future__ import annotations

from dataclasses import dataclass

from h2a_batch.photos import Frame
from h2a_batch.places import Address
from h2a_batch.sources import Source

# states of a photo: its outputs are complete; it could not be converted; neither yet; skipped, since it shows no face
DONE, FAILED, PENDING, NOBODY = "done", "failed", "pending", "no-face"
KEPT = -1  # the size of a name without an output: it is kept for its photo, and a file there is somebody else's
DELETED = "//deleted-"  # follows the path of a photo that was deleted on success; no real path has two slashes


@dataclass(frozen=True)
class Task:
    """A photo to convert, with the name of its output.

    Args:
        source: the photo.
        out: OUT.
        name: the name of the output, relative to OUT.
        fresh: whether nothing had this name when it was claimed: a file that has it now came meanwhile.
    """

    source: Source
    out: Address
    name: str
    fresh: bool = False

    @property
    def output(self) -> Address:
        """The address of the output."""
        return self.out / self.name


@dataclass(frozen=True)
class Output:
    """A file that the program made.

    Args:
        name: its name, relative to OUT.
        size: in bytes.
    """

    name: str
    size: int


@dataclass(frozen=True)
class FaceRow:
    """A face that was converted; ``output`` is None where it was put back into its photo."""

    frame: Frame
    output: Output | None


@dataclass(frozen=True)
class Row:
    """What the ledger knows of one photo: the columns of its table `files`, see `database`."""

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
    """A file that this program made in OUT: its photo, and its size once it is complete; see the table `outputs`."""

    name: str
    source: str
    sha256: str | None
    size: int | None
