"""Targets: where a sheet may be written: over another sheet, and over nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from h2a_batch.errors import UsageError
from h2a_batch.gallery.sheet import is_sheet
from h2a_batch.ledger import Ledger, is_below
from h2a_batch.sources import is_image_name


def claim_sheet(ledger: Ledger, sheet: Path, overwrite: bool) -> None:
    """Reserve a file for a page of the contact sheet.

    Raises:
        UsageError: the file is no sheet of this ledger, and `_check_place` refuses it.
    """
    _check_place(sheet, [ledger], overwrite or sheet in ledger.sheets())
    name = os.path.relpath(os.path.join(os.path.realpath(sheet.parent), sheet.name), ledger.real_out)
    ledger.add_sheet(sheet, None if name.startswith(os.pardir) else name)


def check_page(page: Path, ledgers: Sequence[Ledger], inputs: Sequence[Path], overwrite: bool) -> None:
    """Check that a page of a sheet can be written, where no ledger can record it.

    Args:
        page: the page.
        ledgers: the ledgers of the OUTs that the sheet shows.
        inputs: as `check_inputs` returns them.
        overwrite: whether the page may replace another sheet.

    Raises:
        UsageError: `_check_place` refuses the page, or it would lie among the originals and look like one.
    """
    if not any(page in ledger.sheets() for ledger in ledgers):
        folders = [os.path.realpath(path) for path in inputs if path.is_dir()]
        outs = [ledger.real_out for ledger in ledgers if is_below(ledger.out, folders)]
        if is_image_name(page.name) and is_below(page, folders) and not is_below(page, outs):
            raise UsageError(f"{page}: among the photos it would be taken for one", "choose a folder outside of IN")
    _check_place(page, ledgers, overwrite)


def _check_place(page: Path, ledgers: Sequence[Ledger], replace: bool) -> None:
    """Check that a page of a sheet replaces nothing but another sheet.

    Args:
        page: the page.
        ledgers: the ledgers whose outputs it must not replace.
        replace: whether it may replace another sheet.

    Raises:
        UsageError: an output, a folder or a file of other origin has the name, or a sheet that may not be replaced.
    """
    advice = "choose another name for the sheet"
    real = os.path.join(os.path.realpath(page.parent), page.name)
    for ledger in ledgers:
        made = ledger.made(os.path.relpath(real, ledger.real_out))
        if made is not None and made.source:
            raise UsageError(f"{page}: a photo's output has this name", advice)
    if page.is_dir():
        raise UsageError(f"{page}: a folder has this name", advice)
    if not os.path.lexists(page):
        return
    if not is_sheet(page):
        raise UsageError(f"{page}: the file exists and is no sheet of h2a-batch", advice)
    if not replace:
        raise UsageError(f"{page}: the file exists", "choose another name, or --overwrite")
