"""Places: where bytes lie, and what can be done there: read, write whole, list, hold; on a disk and in object stores.

An `Address` names where bytes lie; `at` gives the `Place` of one, which knows how to read and write there.
"""

from h2a_batch.places.address import Address, AnyAddress, Remote, address, is_url
from h2a_batch.places.files import (
    digest_of,
    hold,
    remove_own,
    remove_temporaries,
    replacing,
    sweep,
    temporary_path,
    write_apart,
)
from h2a_batch.places.handles import (
    LINKED,
    AnyPath,
    folder_at,
    in_its_place,
    is_plain,
    listed,
    open_file,
    open_in,
    resolved,
)
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
from h2a_batch.places.scratch import Scratch, sweep_scratch

__all__ = [
    "LINKED",
    "Address",
    "AnyAddress",
    "AnyPath",
    "Item",
    "Level",
    "Place",
    "Remote",
    "Scratch",
    "absolute",
    "address",
    "at",
    "check_reachable",
    "delete",
    "digest_of",
    "download",
    "find",
    "folder_at",
    "get",
    "has_any",
    "hold",
    "in_its_place",
    "is_own",
    "is_plain",
    "is_url",
    "levels",
    "listed",
    "listing",
    "open_file",
    "open_in",
    "put",
    "remove_own",
    "remove_temporaries",
    "replacing",
    "resolved",
    "sha256_of",
    "sweep",
    "sweep_scratch",
    "temporary_path",
    "upload",
    "why_no_path",
    "write_apart",
]
