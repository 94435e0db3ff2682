"""The table: the ledger as a CSV file for people and spreadsheets."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from h2a_batch.ledger.database import storage
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import DELETED, DONE
from h2a_batch.places import replacing

_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four are wide forms of the first four


def write_table(ledger: Ledger) -> Path:
    """Write the ledger as ``report.csv`` beside it, a line for every photo on record; return the path.

    Raises:
        StorageError: the file cannot be written.
    """
    path = ledger.folder / "report.csv"
    with storage(ledger.folder), replacing(path, ledger.top) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        writer = csv.writer(text)
        writer.writerow("input state output error seconds input_bytes output_bytes input_sha256 faces".split())
        for row in ledger.rows():
            faces = ledger.faces(row.source) if row.state == DONE else []
            files = [face.output.name for face in faces if face.output] or [row.output or ""]
            output = " | ".join(files) if row.state == DONE else ""
            source = row.source.partition(DELETED)[0] if row.source.startswith("/") else row.source
            known = [source, row.state, output, row.error or "", row.seconds]
            writer.writerow(map(_inert, [*known, row.size, row.output_size, row.sha256, len(faces)]))
        text.flush()
        text.detach()
    return path


def _inert(cell: object) -> object:
    """Return what a spreadsheet shows and does not run: an apostrophe before a text that it would take for a formula.

    This is what OWASP advises: https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
