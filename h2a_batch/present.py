"""What a run shows of its results once it has ended: the contact sheet and the report."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from h2a_batch.claims import claim_sheet
from h2a_batch.events import Summary
from h2a_batch.ledger import Ledger, Row
from h2a_batch.options import Options
from h2a_batch.page import Sheet
from h2a_batch.report import REPORT_SUFFIXES, check_report, write_report
from h2a_batch.results import Item, facts_of
from h2a_batch.sheet import check_writable, files_of, plan_sheet, title_of, write_sheet

REPORT_NAME = "report.html"


@dataclass(frozen=True)
class Presenter:
    """Writes what the options ask for.

    Args:
        inputs, originals: as `folder` has them.
        looks: goes through the photos of the run anew each time, and tells what became of them.
        stop: when set, no further page is begun.
    """

    ledger: Ledger
    options: Options
    inputs: Sequence[Path]
    originals: Sequence[str]
    looks: Callable[[], Iterator[tuple[list[Item], Row | None]]]
    stop: threading.Event

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
        if self.sheet:
            check_writable(self.sheet)
            claim_sheet(self.ledger, self.sheet, self.options.overwrite, self.originals)
        if self.report:
            check_report(self.report)

    def write(self, summary: Summary) -> None:
        """Write it, and note in the summary what was written.

        Raises:
            UsageError: a further page has no place.
            StorageError: it cannot be written.
        """
        facts = facts_of(self.ledger, self.looks())
        if not facts.photos:
            return
        title = title_of(self.inputs)
        if self.sheet:
            sheet = Sheet(self.sheet, [facts], facts.rows, title)
            grid = plan_sheet(sheet, self._rows())
            for file in files_of(sheet, grid):
                claim_sheet(self.ledger, file, self.options.overwrite, self.originals)
            for page, _ in write_sheet(sheet, grid, self._rows()):
                summary.sheets += (page,) if page else ()
                if self.stop.is_set():
                    return
        if self.report:
            write_report(self._rows(), self.report, title=title, facts=facts.words)
            summary.page = self.report

    def _rows(self) -> Iterator[tuple[Item]]:
        return ((item,) for items, _ in self.looks() for item in items)
