"""What a run tells: what became of each photo, changes of state, and the counts at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from h2a_batch.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED
from h2a_batch.places import Address


@dataclass(frozen=True)
class FileResult:
    """What became of one input.

    Args:
        path: the input.
        state: ``converted``, ``skipped`` or ``failed``; ``planned`` in a dry run.
        output: the file made, or found to be there already, of several the first; None where there is none.
        kind: for a failure, see `PhotoError`; for a skip, ``unchanged``, ``exists`` or ``no-face``.
        message: what is wrong and what to do, one line; empty where all is well.
        seconds: time from the first byte read to the last byte written.
        trace: for the kind ``internal`` alone, the traceback.
        outputs: all files made.
        faces: how many faces were found and converted; 0 where the photo was converted as a whole.
    """

    path: Address
    state: str
    output: Address | None = None
    kind: str = ""
    message: str = ""
    seconds: float = 0.0
    trace: str = ""
    outputs: tuple[Address, ...] = ()
    faces: int = 0


@dataclass
class Summary:
    """Counts of a run.

    ``faces`` were converted, ``faceless`` photos skipped since no face was found; ``ignored`` are files that are no
    photos, ``exist`` photos skipped for a foreign file in OUT, ``kept`` photos that were to be moved or deleted and
    could not be; ``table`` is the list of all files, ``page`` the report to look at, ``unwritten`` says why a sheet or
    page that was asked for is not there.
    """

    converted: int = 0
    skipped: int = 0
    exist: int = 0
    failed: int = 0
    faces: int = 0
    faceless: int = 0
    ignored: int = 0
    kept: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    table: Path | None = None
    sheets: tuple[Path, ...] = ()
    page: Path | None = None
    unwritten: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all fine, 1 some files failed, could not be moved or not be written, 130 interrupted."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_SOME_FAILED if self.failed or self.kept or self.unwritten else EXIT_OK


@dataclass(frozen=True)
class Event:
    """A change of state.

    Args:
        kind: ``ready``, ``gone`` and ``back`` (an input), ``full`` and ``free`` (OUT), ``polling``, ``ignored``;
            ``archived``, ``deleted``, ``moved`` and ``kept`` (a photo after its conversion); ``lost`` and ``refused``
            (a node of a cluster, by its address), ``waiting`` (for such nodes).
        path: the photo or folder it is about.
        target: where the photo is now.
        message: one line for people.
    """

    kind: str
    path: Address
    target: Address | None = None
    message: str = ""
