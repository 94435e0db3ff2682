"""A run: a feed, the conversion, the ledger. Photos come from the one, results go onto the other."""

from h2a_batch.run.folder import convert_folder

__all__ = [
    "convert_folder",
]
