"""A run: photos from a feed into the conversion, and what became of them onto the ledger."""

from h2a_batch.run.folder import convert_folder

__all__ = [
    "convert_folder",
]
