"""Object stores: places named by URLs, listed in pages, read and written whole, through fsspec (the extra `cloud`).

Whatever a store or its client raises leaves here as `OSError` with a reason of one line: `FileNotFoundError`,
`PermissionError`, or `ConnectionError` where the store itself cannot be used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from h2a_batch.errors import UsageError

_S3 = frozenset({"s3", "s3a", "obs"})  # spoken by the S3 protocol
_PAGE = 1000  # keys in one answer; more no store gives
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_OBS_HOST = re.compile(r"https?://obs\.([a-z0-9-]+)\.")
_BARE_HOST = re.compile(r"https?://(localhost|[\d.]+|\[[^]]*\])(:\d+)?/?$")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")


@dataclass(frozen=True)
class Remote:
    """An object, or all objects below a prefix: to an object store what a `Path` is to a file system.

    A plain value that can be sent to other processes; each connects for itself.

    Args:
        url: without a slash at its end.
        endpoint: the store's own address, where the URL does not say it.
    """

    url: str
    endpoint: str = ""

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, key: str) -> Remote:
        return Remote(f"{self.url}/{key}", self.endpoint)

    @property
    def protocol(self) -> str:
        """What stands before ``://``."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """That of the name, as in ``.jpg``."""
        return os.path.splitext(self.name)[1]

    @property
    def parent(self) -> Remote:
        """The prefix that it lies below."""
        return Remote(self.url.rpartition("/")[0], self.endpoint)

    def is_dir(self) -> bool:
        """Whether it is no object, and so may be a prefix of some."""
        return _find_once(self) is None


Place = Path | Remote
AnyPlace = TypeVar("AnyPlace", Path, Path | Remote)


@dataclass(frozen=True)
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


def place(text: str | os.PathLike[str], endpoint: str = "") -> Place:
    """What a user names: a file or folder, or by a URL something in an object store.

    Raises:
        UsageError: the URL names no bucket, or what is needed to reach it is missing.
    """
    if isinstance(text, os.PathLike) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return Path(text)
    protocol, _, rest = text.partition("://")
    if protocol.lower() == "file":
        return Path(rest)
    if protocol.lower() in _S3:
        endpoint = endpoint or next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
    found = Remote(f"{protocol.lower()}://{rest.rstrip('/')}", endpoint.rstrip("/"))
    if not rest.strip("/") or rest.startswith("/"):
        raise UsageError(f"{text}: names no bucket", f"write {protocol}://BUCKET/FOLDER")
    _filesystem(found.protocol, found.endpoint)
    return found


def absolute(where: AnyPlace) -> AnyPlace:
    """The place as a path from the root; a URL is one already."""
    return where if isinstance(where, Remote) else Path(os.path.abspath(where))


def real_path(where: Place) -> str:
    """The identity of a place: links are resolved, but for the last one of a file."""
    return where.url if isinstance(where, Remote) else os.path.realpath(where)


def check_reachable(where: Remote, to_read: bool = False) -> None:
    """Make sure that there is such a store, and that it may be listed.

    Args:
        to_read: there has to be something, too.

    Raises:
        UsageError: there is not; which of store, bucket and credentials it is.
    """
    _find_once.cache_clear()
    try:
        if next(_pages(where, 1), []) or not to_read or not where.is_dir():
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


def listing(where: Remote) -> Iterator[Item]:
    """All objects below a place, asked for page by page; one folder's stand together.

    Raises:
        OSError: as above.
    """
    for page in _pages(where, _PAGE):
        yield from page


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
    with _told(where):
        data: bytes = fs.cat_file(path) if most is None else fs.cat_file(path, start=0, end=most)
    return data


def put(where: Remote, data: bytes) -> None:
    """Write an object in one go: whole, or not at all.

    Raises:
        OSError: as above.
    """
    fs, path = _opened(where)
    with _told(where):
        fs.pipe_file(path, data)


def upload(file: Path, where: Remote) -> None:
    """Copy a file into a store, without holding it in memory."""
    fs, path = _opened(where)
    with _told(where):
        fs.put_file(str(file), path)


def download(where: Remote, file: Path) -> None:
    """Copy an object into a file, without holding it in memory."""
    fs, path = _opened(where)
    with _told(where):
        fs.get_file(path, str(file))


def delete(where: Remote) -> None:
    """Remove an object; none of that name is as good."""
    fs, path = _opened(where)
    with _told(where), contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


@lru_cache(maxsize=256)
def _find_once(where: Remote) -> Item | None:
    return find(where)


@cache
def _filesystem(protocol: str, endpoint: str) -> Any:
    """The client of a store; one for all threads of this process."""
    try:
        import fsspec

        if protocol not in _S3:
            return fsspec.filesystem(protocol)
        return fsspec.filesystem("s3", **_s3_options(protocol, endpoint))
    except ImportError as error:
        needs = f"{protocol}:// needs {'the extra cloud' if protocol in _S3 else 'a package of its own'}"
        advice = f"{sys.executable} -m pip install {'s3fs' if protocol in _S3 else _one_line(error)}"
        raise UsageError(needs, advice) from error
    except ValueError as error:
        raise UsageError(f"{protocol}://: not a kind of store that is known ({_one_line(error)})") from error


def _s3_options(protocol: str, endpoint: str) -> dict[str, Any]:
    if endpoint and not re.match(r"https?://[^/]+", endpoint):
        raise UsageError(f"--endpoint {endpoint}: not an address", "write it as in https://HOST")
    config: dict[str, Any] = {
        "retries": {"max_attempts": 3, "mode": "standard"},
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 64,
    }
    options: dict[str, Any] = {"use_listings_cache": False, "max_concurrency": 1, "config_kwargs": config}
    if endpoint:  # other makers' stores do not all know the newer checksums
        options["endpoint_url"] = endpoint
        config |= {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    if protocol == "obs":
        if not endpoint:
            advice = "such as --endpoint https://obs.cn-north-4.myhuaweicloud.com"
            raise UsageError("obs:// needs the address of its region", advice)
        if not _BARE_HOST.match(endpoint):  # OBS wants the bucket in the host's name
            config["s3"] = {"addressing_style": "virtual"}
        if region := _OBS_HOST.match(endpoint):
            options["client_kwargs"] = {"region_name": region[1]}
        names = {"key": "OBS_ACCESS_KEY_ID", "secret": "OBS_SECRET_ACCESS_KEY", "token": "OBS_SECURITY_TOKEN"}
        options |= {name: os.environ[variable] for name, variable in names.items() if os.environ.get(variable)}
    return options


def _opened(where: Remote) -> tuple[Any, str]:
    """The client, and the place as it wants it named."""
    url = where.url.partition("://")[2] if where.protocol in _S3 else where.url
    return _filesystem(where.protocol, where.endpoint), url


def _pages(where: Remote, size: int, exact: bool = False) -> Iterator[list[Item]]:
    """The objects below a place in the order of their keys, so many at a time; or, ``exact``, the one of its name."""
    fs, path = _opened(where)
    if where.protocol not in _S3:
        with _told(where):
            yield from _walked(fs, path, exact)
        return
    bucket, _, key = path.partition("/")
    prefix, marker = key if exact or not key else f"{key}/", ""
    while True:
        with _told(where):
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


@contextlib.contextmanager
def _told(where: Remote) -> Iterator[None]:
    """What stores and their clients raise, dozens of kinds, as three."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, _one_line(error)) from error
    except PermissionError as error:
        raise PermissionError(errno.EACCES, _one_line(error)) from error
    except OSError as error:  # the store answered, and refused
        kind = ConnectionError if isinstance(error, ConnectionError) else OSError
        raise kind(error.errno or errno.EIO, _one_line(error)) from error
    except Exception as error:
        if "Credentials" in type(error).__name__:
            raise PermissionError(errno.EACCES, "no credentials were found") from error
        raise ConnectionError(errno.EIO, _one_line(error)) from error


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200].rstrip(".")
