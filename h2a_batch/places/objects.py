"""Objects of a store, named by URLs: listed in pages, read and written whole, through fsspec.

Whatever a store or its client raises leaves here as `client.told` says.
"""

from __future__ import annotations

import contextlib
import hashlib
import mimetypes
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from h2a_batch.errors import UsageError
from h2a_batch.places.address import Remote
from h2a_batch.places.client import S3, DeniedError, filesystem, told

_PAGE = 1000  # keys in one answer; more no store gives
_OWN = "h2a-batch"  # metadata of what `put` wrote
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")


_folders: dict[Remote, bool] = {}


@dataclass(frozen=True, slots=True)  # of a folder of a million there are a million at once
class Item:
    """An object in a listing.

    Args:
        key: relative to what was listed.
        size: bytes.
        modified: time of the last change by the store's clock, seconds since 1970.
        tag: changes with the content.
    """

    key: str
    size: int
    modified: float
    tag: str

    @property
    def stamp(self) -> int:
        """The time in nanoseconds; below the second the tag, since an object may change twice in one."""
        return int(self.modified) * 1_000_000_000 + _digest(self.tag)


@dataclass
class Level:
    """A folder that the keys of a listing show.

    Args:
        path: below what was listed, with a slash at its end, or empty.
        items: the objects in it; none where it is passed over.
        folders: the names of its sub-folders.
        passed: leave it and all below it out.
    """

    path: str
    items: list[Item] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    passed: bool = False


def check_reachable(where: Remote, to_read: bool = False) -> None:
    """Make sure that there is such a store, and that it may be listed.

    Args:
        to_read: there has to be something, too.

    Raises:
        UsageError: there is not; which of store, bucket and credentials it is.
    """
    try:
        some = has_any(where)
        _folders[where] = folder = find(where) is None
        if some or not to_read or not folder:
            return
    except FileNotFoundError as error:
        raise UsageError(f"{where}: there is no such bucket", "check its name and the endpoint") from error
    except PermissionError as error:
        advice = "check the credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise UsageError(f"{where}: access is denied ({error.strerror})", advice) from error
    except OSError as error:
        what = f"{where}: cannot be reached ({error.strerror})"
        raise UsageError(what, "check --endpoint and the network") from error
    raise UsageError(f"{where}: no such object, and none below it", "check the name")


def is_folder(where: Remote) -> bool:
    """Tell whether this is no object, and so may be a prefix of some; as `check_reachable` last found it."""
    if where not in _folders:
        check_reachable(where)
    return _folders[where]


def listing(where: Remote) -> Iterator[Item]:
    """All objects below a place, asked for page by page; one folder's stand together.

    Raises:
        OSError: as above.
    """
    for page in _pages(where, _PAGE):
        yield from page


def has_any(where: Remote) -> bool:
    """Whether there is an object below a place."""
    return any(_pages(where, 1))


def find(where: Remote) -> Item | None:
    """An object, or None where there is none of this name; one request, and nothing is read of it."""
    return next((item for page in _pages(where, 1, exact=True) for item in page), None)


def levels(items: Iterable[Item], passes: Callable[[Level, str], bool]) -> Iterator[Level]:
    """The folders of a listing, each once it is complete; all below a folder comes before it.

    Args:
        passes: says, for a folder and the name of one in it, whether that one is passed over. It is called once for
            each, and may set ``passed`` of the folder.
    """
    nested = [Level("")]
    for item in items:
        folder, slash, name = item.key.rpartition("/")
        folder += slash
        while not folder.startswith(nested[-1].path):
            yield nested.pop()
        for part in folder[len(nested[-1].path) :].split("/")[:-1]:
            above = nested[-1]
            above.folders.add(part)
            passed = passes(above, part) or above.passed
            if above.passed:
                above.items.clear()
            nested.append(Level(f"{above.path}{part}/", passed=passed))
        if name and not nested[-1].passed:
            nested[-1].items.append(item)
    while nested:
        yield nested.pop()


def get(where: Remote, most: int | None = None) -> bytes:
    """The bytes of an object, or its first so many, by one request.

    Raises:
        OSError: as above.
    """
    fs, path = _opened(where)
    with told():
        data: bytes = fs.cat_file(path) if most is None else fs.cat_file(path, start=0, end=most)
    return data


def put(where: Remote, data: bytes) -> None:
    """Write an object in one go: whole, or not at all.

    Raises:
        OSError: as above.
    """
    fs, path = _opened(where)
    about: dict[str, Any] = {}
    with told():
        if where.protocol in S3:
            kind = mimetypes.guess_type(where.name, strict=False)[0] or "application/octet-stream"
            about = {"ContentType": kind, "Metadata": {_OWN: _mark_of(path)}}
        fs.pipe_file(path, data, **about)


def is_own(where: Remote) -> bool:
    """Whether an object is as `put` wrote it, by its metadata; False where that cannot be told, as outside of S3.

    Raises:
        OSError: as above.
    """
    fs, path = _opened(where)
    if where.protocol not in S3:
        return False
    bucket, _, key = path.partition("/")
    try:
        with told():
            return bool(fs.call_s3("head_object", Bucket=bucket, Key=key)["Metadata"].get(_OWN) == _mark_of(path))
    except DeniedError:
        raise
    except (FileNotFoundError, PermissionError):  # as of another owner
        return False


def upload(file: Path, where: Remote) -> None:
    """Copy a file into a store, without holding it in memory."""
    fs, path = _opened(where)
    with told():
        fs.put_file(str(file), path)


def download(where: Remote, file: Path) -> None:
    """Copy an object into a file, without holding it in memory."""
    fs, path = _opened(where)
    with told():
        fs.get_file(path, str(file))


def delete(where: Remote) -> None:
    """Remove an object; none of that name is as good."""
    fs, path = _opened(where)
    with told(), contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def _opened(where: Remote) -> tuple[Any, str]:
    """The client, and the place as it wants it named."""
    url = where.url.partition("://")[2] if where.protocol in S3 else where.url
    return filesystem(where.protocol, where.endpoint), url


def _mark_of(path: str) -> str:
    """What tells an object from a copy of it that has another name."""
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def _pages(where: Remote, size: int, exact: bool = False) -> Iterator[list[Item]]:
    """The objects below a place in the order of their keys, so many at a time; or, ``exact``, the one of its name."""
    fs, path = _opened(where)
    if where.protocol not in S3:
        with told():
            yield from _walked(fs, path, exact)
        return
    bucket, _, key = path.partition("/")
    prefix, marker = key if exact or not key else f"{key}/", ""
    while True:
        with told():
            # the first version of this call, which all stores know
            page = fs.call_s3("list_objects", Bucket=bucket, Prefix=prefix, Marker=marker, MaxKeys=size)
        found = page.get("Contents", [])
        if exact:
            yield [_item(found[0], "")] if found and found[0]["Key"] == key else []
            return
        yield [_item(info, info["Key"][len(prefix) :]) for info in found]
        if not page.get("IsTruncated") or not found:
            return
        marker = found[-1]["Key"]


def _walked(fs: Any, path: str, exact: bool) -> Iterator[list[Item]]:
    """As `_pages`, of any store that fsspec knows: folder by folder."""
    if exact:
        yield [_item(fs.info(path), "")] if fs.isfile(path) else []
        return
    root, waiting = fs._strip_protocol(path).rstrip("/") + "/", [path]
    while waiting:
        with contextlib.suppress(FileNotFoundError):  # a prefix that nothing has
            found = sorted(fs.ls(waiting.pop(), detail=True), key=lambda info: str(info["name"]))
            files = [info for info in found if info["type"] == "file"]
            yield [_item(info, info["name"][len(root) :]) for info in files if info["name"].startswith(root)]
            waiting += [info["name"] for info in reversed(found) if info["type"] == "directory"]


def _item(info: dict[str, Any], key: str) -> Item:
    changed = next((info[name] for name in _TIMES if info.get(name)), 0)
    modified = changed.timestamp() if hasattr(changed, "timestamp") else float(changed)
    return Item(key, int(info.get("Size", info.get("size")) or 0), modified, str(info.get("ETag") or info.get("etag")))


def _digest(tag: str) -> int:
    return zlib.crc32(tag.encode()) % 1_000_000_000
