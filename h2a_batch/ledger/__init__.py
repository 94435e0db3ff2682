"""The ledger: what became of every photo, whose the files in OUT are, and what is current. All SQL is here."""

from h2a_batch.ledger.claims import claim, claim_faces, in_the_way, is_below
from h2a_batch.ledger.disposals import Entry
from h2a_batch.ledger.holding import ledger_folder
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import DELETED, DONE, FAILED, NOBODY, PENDING, Output, Row, Task
from h2a_batch.ledger.status import CURRENT, FOREIGN, NO_OUTPUT, STALE, Status, holds, status
from h2a_batch.ledger.table import write_table
from h2a_batch.sources import LEDGER_FOLDER

__all__ = [
    "CURRENT",
    "DELETED",
    "DONE",
    "FAILED",
    "FOREIGN",
    "LEDGER_FOLDER",
    "NOBODY",
    "NO_OUTPUT",
    "PENDING",
    "STALE",
    "Entry",
    "Ledger",
    "Output",
    "Row",
    "Status",
    "Task",
    "claim",
    "claim_faces",
    "holds",
    "in_the_way",
    "is_below",
    "ledger_folder",
    "status",
    "write_table",
]
