"""Presenting: writes the contact sheet and the report of a run once it has ended."""

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
from h2a_batch.places import at

REPORT_NAME = "report.html"
Looks = Callable[[], Iterator[tuple[list[Item], Row | None]]]


class _StoppedError(Exception):
    """A signal ends the run; files that are not complete stay as they were."""


@dataclass(frozen=True)
class Presenter:
    """Writes the contact sheet and the report that the options ask for.

    Args:
        ledger: the ledger of OUT.
        options: the options of the run.
        inputs: the inputs on a disk, as `folder` has them.
        stop: when set, files that are not complete are not written.
        made: the folders that the presenter made, and removes again if nothing is written.
    """

    ledger: Ledger
    options: Options
    inputs: Sequence[Path]
    stop: threading.Event
    made: list[Path] = field(default_factory=list)

    @property
    def sheet(self) -> Path | None:
        """The first page of the contact sheet; None where none is wanted."""
        given = self.options.contact_sheet
        return given and Path(os.path.abspath(given))

    @property
    def report(self) -> Path | None:
        """The report, by default `REPORT_NAME` in the folder that the user named; None where none is wanted."""
        given = self.options.report and Path(os.path.abspath(self.options.report))
        return given / REPORT_NAME if given and given.suffix.lower() not in REPORT_SUFFIXES else given

    @property
    def _outs(self) -> list[Path]:
        return [path for path in [at(self.ledger.out).path] if path]

    def check(self) -> None:
        """Check, before anything is converted, that sheet and report can be written; make their folders.

        Raises:
            UsageError: one of them cannot be written there.
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
            check_writable(self.sheet, self._outs)
            claim_sheet(self.ledger, self.sheet, self.options.overwrite)
        if self.report:
            check_report(self.report, self._outs)

    def write(self, summary: Summary, looks: Looks) -> None:
        """Write sheet and report; note in the summary what was written, and why something was not.

        Args:
            summary: the counts of the run.
            looks: goes through the photos of the run anew each time, and yields the items and the record of each.
        """
        try:
            facts = facts_of(self.ledger, self._until_stopped(looks))
            if not facts.photos:
                for folder in self.made:
                    with contextlib.suppress(OSError):  # the folder is not empty
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
        """Write the contact sheet, and remove pages that an earlier run left."""
        sheet = Sheet(file, [facts], facts.rows, title_of(self.inputs))
        grid = plan_sheet(sheet, self._rows(looks))
        pages = files_of(sheet, grid)
        for page in pages:
            claim_sheet(self.ledger, page, self.options.overwrite)
        for written, _ in write_sheet(sheet, grid, self._rows(looks)):
            summary.sheets += (written,) if written else ()
        for page in stale_pages(file, len(pages)):
            if page in self.ledger.sheets():  # a page of an earlier run that had more to show
                with contextlib.suppress(OSError):
                    page.unlink()

    def _write_report(self, file: Path, facts: Facts, summary: Summary, looks: Looks) -> None:
        """Write the report."""
        write_report(self._rows(looks), file, title=title_of(self.inputs), facts=facts.words, outs=self._outs)
        summary.page = file

    def _until_stopped(self, looks: Looks) -> Iterator[tuple[list[Item], Row | None]]:
        """Yield what `looks` yields; raise _StoppedError once the run is to end."""
        for seen in looks():
            if self.stop.is_set():
                raise _StoppedError
            yield seen

    def _rows(self, looks: Looks) -> Iterator[Items]:
        return ((item,) for items, _ in self._until_stopped(looks) for item in items)
