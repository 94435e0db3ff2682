"""Addresses: paths and URLs, which name where bytes lie. They are plain values that other processes can receive."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from h2a_batch.errors import UsageError
from h2a_batch.places.client import S3, filesystem

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Remote:
    """An object, or all objects below a prefix: it is to an object store what a `Path` is to a file system.

    It holds no connection: each process that receives one connects for itself.

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
        """The part before ``://``."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the name, as in ``.jpg``."""
        return os.path.splitext(self.name)[1]

    @property
    def parent(self) -> Remote:
        """The prefix that the object lies below."""
        return Remote(self.url.rpartition("/")[0], self.endpoint)


Address = Path | Remote
AnyAddress = TypeVar("AnyAddress", Path, Path | Remote)


class Stat(NamedTuple):
    """What a place says of a file without reading it.

    Args:
        size: in bytes.
        changed: the time of the last change, in nanoseconds.
        regular: whether it is a regular file or an object.
    """

    size: int
    changed: int
    regular: bool = True


def is_url(text: str | os.PathLike[str]) -> bool:
    """Tell whether a text is a URL, which names something in an object store."""
    return isinstance(text, str) and _URL.match(text) is not None


def address(text: str | os.PathLike[str], endpoint: str = "") -> Address:
    """Return the address that a user's text names: a path, or by a URL an object or prefix.

    Args:
        text: a path or a URL.
        endpoint: the address of the store; by default the one of the environment (``AWS_ENDPOINT_URL_S3``).

    Raises:
        UsageError: the text is empty, the URL names no bucket, or the client of such a store is missing.
    """
    if isinstance(text, os.PathLike) or not is_url(text):
        return _path(os.fspath(text))
    protocol, _, rest = text.partition("://")
    protocol = protocol.lower()
    if protocol in ("file", "local"):
        return _path(rest)
    if not rest.strip("/") or rest.startswith("/"):
        raise UsageError(f"{text}: names no bucket", f"write {protocol}://BUCKET/FOLDER")
    if protocol in S3:
        endpoint = endpoint or next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
    endpoint = endpoint.rstrip("/")
    names = filesystem(protocol, endpoint).protocol
    if not isinstance(names, str) and protocol in names:  # an object has one name, whatever people call its protocol
        protocol = names[0]
    return Remote(f"{protocol}://{rest.rstrip('/')}", endpoint)


def _path(text: str) -> Path:
    """Return a path; raise UsageError where no file can have it, or where it would stand for the current folder."""
    if not text:  # as of a shell variable that is not set
        raise UsageError("an empty name", "write . for the current folder")
    if "\0" in text:
        raise UsageError(f"{text}: no file has a zero byte in its name", "name another")
    return Path(text)
