"""Addresses: what names where bytes lie, a path or a URL. Plain values, which can be sent to other processes."""

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


Address = Path | Remote
AnyAddress = TypeVar("AnyAddress", Path, Path | Remote)


class Stat(NamedTuple):
    """What is known of a file unread: bytes, time of its last change in nanoseconds, and whether it is one."""

    size: int
    changed: int
    regular: bool = True


def is_url(text: str | os.PathLike[str]) -> bool:
    """Tell whether this names something in an object store."""
    return isinstance(text, str) and _URL.match(text) is not None


def address(text: str | os.PathLike[str], endpoint: str = "") -> Address:
    """Return what a user names: a file or folder, or by a URL something in an object store.

    Raises:
        UsageError: the URL names no bucket, or what is needed to reach it is missing.
    """
    if isinstance(text, os.PathLike) or not is_url(text):
        return Path(text)
    protocol, _, rest = text.partition("://")
    protocol = protocol.lower()
    if protocol in ("file", "local"):
        return Path(rest)
    if not rest.strip("/") or rest.startswith("/"):
        raise UsageError(f"{text}: names no bucket", f"write {protocol}://BUCKET/FOLDER")
    if protocol in S3:
        endpoint = endpoint or next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
    endpoint = endpoint.rstrip("/")
    names = filesystem(protocol, endpoint).protocol
    if not isinstance(names, str) and protocol in names:  # an object has one name, whatever people call its protocol
        protocol = names[0]
    return Remote(f"{protocol}://{rest.rstrip('/')}", endpoint)
