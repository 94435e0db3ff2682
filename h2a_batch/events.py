"""What a run reports: the result of each photo, changes of state, and the counts at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from h2a_batch.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED
from h2a_batch.places import Address


@dataclass(frozen=True)
class FileResult:
    """The result of one photo.

    Args:
        path: the photo's address.
        state: ``converted``, ``skipped`` or ``failed``; ``planned`` in a dry run.
        output: the first file that the run made or found; None where there is none.
        kind: for a failure, see `PhotoError`; for a skip, ``unchanged``, ``exists`` or ``no-face``.
        message: says what is wrong and what to do, in one line; for a converted photo what of it was left out, if
            anything; empty where all is well.
        seconds: the time from the first byte read to the last byte written.
        trace: the traceback, for the kind ``internal`` alone.
        outputs: all files that the run made.
        faces: the number of faces that were found and converted; 0 where the photo was converted as a whole.
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
    """The counts of a run.

    Args:
        converted: photos that the run converted.
        skipped: photos that the run left out, for whatever reason; ``exist`` and ``faceless`` are among them.
        exist: photos skipped because OUT has a file of another origin under the output's name.
        failed: photos that could not be converted.
        faces: faces that were converted.
        faceless: photos skipped because no face was found.
        ignored: files that are no photos.
        kept: photos that were to be moved or deleted after their conversion, and could not be.
        seconds: how long the run took.
        interrupted: whether the run was stopped before its end.
        table: the table of all files.
        sheets: the pages of the contact sheet.
        page: the report, a page to look at.
        unwritten: for each sheet or report that was asked for and is missing, the reason.
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
        """The exit code: 0 all is well, 1 a photo failed or stayed in IN, or a sheet is missing, 130 interrupted."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_SOME_FAILED if self.failed or self.kept or self.unwritten else EXIT_OK


@dataclass(frozen=True)
class Event:
    """A change of state.

    Args:
        kind: ``ready``; ``gone`` and ``back`` (an input); ``full`` and ``free`` (OUT); ``polling``; ``ignored``;
            ``archived``, ``deleted``, ``moved`` and ``kept`` (a photo after its conversion); ``lost`` and ``refused``
            (a node of a cluster, by its address); ``waiting`` (for such nodes).
        path: the photo or folder that changed.
        target: the photo's new address, where the run moved it.
        message: one line for people.
    """

    kind: str
    path: Address
    target: Address | None = None
    message: str = ""
