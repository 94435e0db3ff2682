"""Objects of a store: lists them in pages, reads them, and writes them whole, through fsspec.

All errors of a store or its client leave these functions in the few kinds of `client.unified_errors`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mimetypes
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from h2a_batch.errors import UsageError
from h2a_batch.places import transfer
from h2a_batch.places.address import Remote
from h2a_batch.places.client import S3, DeniedError, SpoiledError, filesystem, unified_errors
from h2a_batch.places.tries import again, ask

_PAGE = 1000  # keys in one answer; no store gives more
_OWN = "h2a-batch"  # metadata of what `put` wrote
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")


_folders: dict[Remote, bool] = {}


@dataclass(frozen=True, slots=True)  # a listing of a million objects holds a million of these
class Item:
    """An object in a listing.

    Args:
        key: the key relative to the prefix that was listed.
        size: in bytes.
        modified: the time of the last change by the store's clock, in seconds since 1970.
        tag: changes with the content.
    """

    key: str
    size: int
    modified: float
    tag: str

    @property
    def stamp(self) -> int:
        """The time of the last change in nanoseconds; the tag gives the digits below a second."""
        return int(self.modified) * 1_000_000_000 + _digest(self.tag)


@dataclass
class Level:
    """A folder in a listing: a part that several keys share up to a slash.

    Args:
        path: the path below the prefix that was listed, with a slash at its end, or empty.
        items: the objects in the folder; none where it is passed over.
        folders: the names of its sub-folders.
        passed: whether the listing leaves out the folder and all below it.
    """

    path: str
    items: list[Item] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    passed: bool = False


def check_reachable(where: Remote, to_read: bool = False) -> None:
    """Check that the store and the bucket exist, and that this user may list them.

    Args:
        where: an object or a prefix.
        to_read: require an object of this name, or one below it.

    Raises:
        UsageError: they do not; the message says which of store, bucket, credentials and name is wrong.
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
    """Tell whether no object has this name, so that it may be a prefix; by what `check_reachable` last found."""
    if where not in _folders:
        check_reachable(where)
    return _folders[where]


def listing(where: Remote) -> Iterator[Item]:
    """Yield all objects below a prefix, page by page; the objects of one folder follow each other.

    Raises:
        OSError: one of the kinds of `client.unified_errors`.
    """
    for page in _pages(where, _PAGE):
        yield from page


def has_any(where: Remote) -> bool:
    """Tell whether there is an object below a prefix."""
    return any(_pages(where, 1))


def find(where: Remote) -> Item | None:
    """Return an object's entry in the listing, or None; this takes one request and reads nothing of the object."""
    return next((item for page in _pages(where, 1, exact=True) for item in page), None)


def levels(items: Iterable[Item], passes: Callable[[Level, str], bool]) -> Iterator[Level]:
    """Yield the folders of a listing, each once it is complete; a folder comes after all that lie below it.

    Args:
        items: a listing.
        passes: gets a folder and the name of a folder in it, and tells whether to pass over the latter. It is called
            once for each, and may set ``passed`` of the former.
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
    """Return the bytes of an object, or its first `most` bytes, by one request.

    Raises:
        OSError: one of the kinds of `client.unified_errors`.
    """
    fs, path = _opened(where)
    if where.protocol in S3:
        return again(lambda: transfer.read(fs, path, most))
    part = {} if most is None else {"start": 0, "end": most}
    data: bytes = again(lambda: ask(fs, "cat_file", path, **part))
    return data


def put(where: Remote, data: bytes) -> None:
    """Write an object in one go: whole, or not at all.

    Raises:
        OSError: one of the kinds of `client.unified_errors`.
    """
    fs, path = _opened(where)
    if where.protocol not in S3:
        again(lambda: ask(fs, "pipe_file", path, data, size=len(data)))
        return
    kind = mimetypes.guess_type(where.name, strict=False)[0] or "application/octet-stream"
    try:
        again(lambda: transfer.write(fs, path, data, {"ContentType": kind, "Metadata": {_OWN: _mark_of(path)}}))
    except SpoiledError:
        with contextlib.suppress(OSError):  # it would pass for a picture
            delete(where)
        raise


def is_own(where: Remote) -> bool:
    """Tell by its metadata whether `put` wrote this object; False where no metadata says so, as outside of S3.

    Raises:
        OSError: one of the kinds of `client.unified_errors`.
    """
    fs, path = _opened(where)
    if where.protocol not in S3:
        return False
    bucket, _, key = path.partition("/")
    try:
        about = again(lambda: ask(fs, "call_s3", "head_object", Bucket=bucket, Key=key))
        return bool(about["Metadata"].get(_OWN) == _mark_of(path))
    except DeniedError:
        raise
    except (FileNotFoundError, PermissionError):  # as of another owner
        return False


def upload(file: Path, where: Remote) -> None:
    """Copy a file into a store without holding more of it in memory than a part."""
    fs, path = _opened(where)
    if where.protocol in S3:
        transfer.send(fs, path, file)
    else:
        again(lambda: ask(fs, "put_file", str(file), path, size=file.stat().st_size))


def download(where: Remote, file: Path) -> None:
    """Copy an object into a file without holding it in memory."""
    fs, path = _opened(where)
    if where.protocol in S3:
        again(lambda: transfer.receive(fs, path, file))
    else:
        size = again(lambda: ask(fs, "info", path))["size"] or 0
        again(lambda: ask(fs, "get_file", path, str(file), size=size))


def delete(where: Remote) -> None:
    """Remove an object; do nothing where there is none."""
    fs, path = _opened(where)
    with contextlib.suppress(FileNotFoundError):
        again(lambda: ask(fs, "rm_file", path))


def _opened(where: Remote) -> tuple[Any, str]:
    """Return the client of an object's store, and the object's path as this client takes it."""
    url = where.url.partition("://")[2] if where.protocol in S3 else where.url
    return filesystem(where.protocol, where.endpoint), url


def _mark_of(path: str) -> str:
    """Return a mark of the object's own name: a copy under another name keeps the old mark and is recognised by it.

    Raises:
        OSError: the name is not UTF-8.
    """
    with unified_errors():
        return hashlib.sha256(path.encode()).hexdigest()[:16]


def _pages(where: Remote, size: int, exact: bool = False) -> Iterator[list[Item]]:
    """Yield the objects below a prefix in the order of their keys, in pages of `size`.

    With `exact`, yield one page with the object of just this name, or an empty page.
    """
    fs, path = _opened(where)
    if where.protocol not in S3:
        yield from _walked(fs, path, exact)
        return
    bucket, _, key = path.partition("/")
    prefix = key if exact or not key else f"{key}/"
    marker = ""
    while True:
        # the first version of this call, which all stores know
        words: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "Marker": marker, "MaxKeys": size}
        page = again(partial(ask, fs, "call_s3", "list_objects", **words))
        found = page.get("Contents", [])
        if exact:
            yield [_item(found[0], "")] if found and found[0]["Key"] == key else []
            return
        yield [_item(info, info["Key"][len(prefix) :]) for info in found]
        if not page.get("IsTruncated") or not found:
            return
        if marker == found[-1]["Key"]:
            raise OSError(errno.EIO, "its listing repeats itself without an end")
        marker = found[-1]["Key"]


def _walked(fs: Any, path: str, exact: bool) -> Iterator[list[Item]]:
    """Do as `_pages` does, folder by folder, for any store that fsspec knows."""
    if exact:
        is_there = again(lambda: ask(fs, "isfile", path))
        yield [_item(again(lambda: ask(fs, "info", path)), "")] if is_there else []
        return
    root = fs._strip_protocol(path).rstrip("/") + "/"
    waiting = [path]
    while waiting:
        with contextlib.suppress(FileNotFoundError):  # a prefix that nothing has
            listed = again(partial(ask, fs, "ls", waiting.pop(), detail=True))
            found = sorted(listed, key=lambda info: str(info["name"]))
            files = [info for info in found if info["type"] == "file"]
            yield [_item(info, info["name"][len(root) :]) for info in files if info["name"].startswith(root)]
            waiting += [info["name"] for info in reversed(found) if info["type"] == "directory"]


def _item(info: dict[str, Any], key: str) -> Item:
    """Return an entry of a client's listing as an `Item`."""
    changed = next((info[name] for name in _TIMES if info.get(name)), 0)
    modified = changed.timestamp() if hasattr(changed, "timestamp") else float(changed)
    return Item(key, int(info.get("Size", info.get("size")) or 0), modified, str(info.get("ETag") or info.get("etag")))


def _digest(tag: str) -> int:
    return zlib.crc32(tag.encode()) % 1_000_000_000
