"""Sources: what there is to convert in folders, stores and drop folders, and how outputs are named."""

from h2a_batch.sources.names import ASIDE, is_image_name, numbered, stem_of, variants
from h2a_batch.sources.scan import check_inputs, scan
from h2a_batch.sources.settle import SETTLE_SECONDS, Settling, has_writer
from h2a_batch.sources.source import LEDGER_FOLDER, Found, Ignored, Scan, Source, Unusable
from h2a_batch.sources.watch import Watcher, wait_until

__all__ = [
    "ASIDE",
    "LEDGER_FOLDER",
    "SETTLE_SECONDS",
    "Found",
    "Ignored",
    "Scan",
    "Settling",
    "Source",
    "Unusable",
    "Watcher",
    "check_inputs",
    "has_writer",
    "is_image_name",
    "numbered",
    "scan",
    "stem_of",
    "variants",
    "wait_until",
]
