"""The gallery: earlier results on contact sheets, and as pages for a browser."""

from h2a_batch.gallery.layout import LABELS, THEMES, Look
from h2a_batch.gallery.page import Sheet, column_names
from h2a_batch.gallery.report import REPORT_SUFFIXES, check_report, write_report
from h2a_batch.gallery.results import (
    Facts,
    Item,
    Items,
    Setting,
    Tally,
    facts_of,
    look,
    open_ledger,
    read_photos,
    summarise,
)
from h2a_batch.gallery.sheet import check_writable, files_of, plan_sheet, stale_pages, title_of, write_sheet
from h2a_batch.gallery.target import check_page, claim_sheet
from h2a_batch.gallery.text.typeset import printable, undrawn
from h2a_batch.ledger import DONE, FAILED, NOBODY

__all__ = [
    "DONE",
    "FAILED",
    "LABELS",
    "NOBODY",
    "REPORT_SUFFIXES",
    "THEMES",
    "Facts",
    "Item",
    "Items",
    "Look",
    "Setting",
    "Sheet",
    "Tally",
    "check_page",
    "check_report",
    "check_writable",
    "claim_sheet",
    "column_names",
    "facts_of",
    "files_of",
    "look",
    "open_ledger",
    "plan_sheet",
    "printable",
    "read_photos",
    "stale_pages",
    "summarise",
    "title_of",
    "undrawn",
    "write_report",
    "write_sheet",
]
