"""Places: where bytes lie, and what can be done there: read, write whole, list, hold; on a disk and in object stores.

An `Address` names where bytes lie; `at` gives the `Place` of one, which knows how to read and write there.
"""

from h2a_batch.places.address import Address, AnyAddress, Remote, address, is_url
from h2a_batch.places.files import hold, remove_temporaries, replacing, temporary_path, write_apart
from h2a_batch.places.handles import LINKED, folder_at, open_file, open_in
from h2a_batch.places.keys import why_no_path
from h2a_batch.places.objects import (
    Item,
    Level,
    check_reachable,
    delete,
    download,
    find,
    get,
    has_any,
    is_own,
    levels,
    listing,
    put,
    upload,
)
from h2a_batch.places.place import Place, absolute, at, sha256_of

__all__ = [
    "LINKED",
    "Address",
    "AnyAddress",
    "Item",
    "Level",
    "Place",
    "Remote",
    "absolute",
    "address",
    "at",
    "check_reachable",
    "delete",
    "download",
    "find",
    "folder_at",
    "get",
    "has_any",
    "hold",
    "is_own",
    "is_url",
    "levels",
    "listing",
    "open_file",
    "open_in",
    "put",
    "remove_temporaries",
    "replacing",
    "sha256_of",
    "temporary_path",
    "upload",
    "why_no_path",
    "write_apart",
]
