"""The ledger: what became of every photo, whose the files in OUT are, and what is current; all SQL of the program."""

from h2a_batch.ledger.claims import claim, claim_faces, in_the_way, is_below, is_current, is_known
from h2a_batch.ledger.database import storage
from h2a_batch.ledger.disposals import Entry
from h2a_batch.ledger.holding import ledger_folder
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import DELETED, DONE, FAILED, NOBODY, PENDING, Output, Row, Task
from h2a_batch.ledger.table import write_table

__all__ = [
    "DELETED",
    "DONE",
    "FAILED",
    "NOBODY",
    "PENDING",
    "Entry",
    "Ledger",
    "Output",
    "Row",
    "Task",
    "claim",
    "claim_faces",
    "in_the_way",
    "is_below",
    "is_current",
    "is_known",
    "ledger_folder",
    "storage",
    "write_table",
]
