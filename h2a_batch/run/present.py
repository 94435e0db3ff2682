"""What a run shows of its results once it has ended: the contact sheet and the report."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from h2a_batch.errors import StorageError, UsageError
from h2a_batch.events import Summary
from h2a_batch.gallery import (
    REPORT_SUFFIXES,
    Facts,
    Item,
    Items,
    Sheet,
    check_report,
    check_writable,
    claim_sheet,
    facts_of,
    files_of,
    plan_sheet,
    stale_pages,
    title_of,
    write_report,
    write_sheet,
)
from h2a_batch.ledger import Ledger, Row
from h2a_batch.options import SHEET_SUFFIXES, Options

REPORT_NAME = "report.html"
Looks = Callable[[], Iterator[tuple[list[Item], Row | None]]]


class _StoppedError(Exception):
    """The run is to end; what is being written is left as it was."""


@dataclass(frozen=True)
class Presenter:
    """Writes what the options ask for.

    Args:
        inputs: as `folder` has them.
        stop: when set, what is not complete is not written.
    """

    ledger: Ledger
    options: Options
    inputs: Sequence[Path]
    stop: threading.Event
    made: list[Path] = field(default_factory=list)  # folders that were not there before

    @property
    def sheet(self) -> Path | None:
        """The contact sheet's first page."""
        given = self.options.contact_sheet
        return given and Path(os.path.abspath(given))

    @property
    def report(self) -> Path | None:
        """The report, which may be given as the folder that it should lie in."""
        given = self.options.report and Path(os.path.abspath(self.options.report))
        return given / REPORT_NAME if given and given.suffix.lower() not in REPORT_SUFFIXES else given

    def check(self) -> None:
        """Before anything is converted: whether there is a place for it.

        Raises:
            UsageError: there is none.
        """
        if self.options.dry_run:
            return
        given = self.options.report
        if given and given.suffix.lower() in SHEET_SUFFIXES:
            raise UsageError(
                f"--report {given}: a report is an .html file, or lies in a folder", "--contact-sheet writes pages"
            )
        self.made.extend(file.parent for file in (self.sheet, self.report) if file and not file.parent.exists())
        if self.sheet:
            check_writable(self.sheet)
            claim_sheet(self.ledger, self.sheet, self.options.overwrite)
        if self.report:
            check_report(self.report)

    def write(self, summary: Summary, looks: Looks) -> None:
        """Write what was asked for, and note in the summary what was written, and why something was not.

        Args:
            looks: goes through the photos of the run anew each time, and tells what became of them.
        """
        try:
            facts = facts_of(self.ledger, self._until_stopped(looks))
            if not facts.photos:
                for folder in self.made:
                    with contextlib.suppress(OSError):  # there is something in it
                        folder.rmdir()
                return
            for file, write in ((self.sheet, self._write_sheet), (self.report, self._write_report)):
                try:
                    if file:
                        write(file, facts, summary, looks)
                except (UsageError, StorageError) as error:
                    summary.unwritten += (str(error),)
        except _StoppedError:
            summary.interrupted = True

    def _write_sheet(self, file: Path, facts: Facts, summary: Summary, looks: Looks) -> None:
        sheet = Sheet(file, [facts], facts.rows, title_of(self.inputs))
        grid = plan_sheet(sheet, self._rows(looks))
        pages = files_of(sheet, grid)
        for page in pages:
            claim_sheet(self.ledger, page, self.options.overwrite)
        for written, _ in write_sheet(sheet, grid, self._rows(looks)):
            summary.sheets += (written,) if written else ()
        for page in stale_pages(file, len(pages)):
            if page in self.ledger.sheets():  # an earlier run's, and there is less to show now
                with contextlib.suppress(OSError):
                    page.unlink()

    def _write_report(self, file: Path, facts: Facts, summary: Summary, looks: Looks) -> None:
        write_report(self._rows(looks), file, title=title_of(self.inputs), facts=facts.words)
        summary.page = file

    def _until_stopped(self, looks: Looks) -> Iterator[tuple[list[Item], Row | None]]:
        for seen in looks():
            if self.stop.is_set():
                raise _StoppedError
            yield seen

    def _rows(self, looks: Looks) -> Iterator[Items]:
        return ((item,) for items, _ in self._until_stopped(looks) for item in items)
