"""The clients of object stores, made by fsspec (the extra `cloud`). Their errors become a few kinds of `OSError`."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from h2a_batch.errors import UsageError

S3 = frozenset({"s3", "s3a", "obs"})  # these stores speak the S3 protocol
_OBS_HOST = re.compile(r"https?://obs\.([a-z0-9-]+)\.")
_BARE_HOST = re.compile(r"https?://(localhost|[\d.]+|\[[^]]*\])(:\d+)?/?$")
_BUSY = frozenset("SlowDown ServiceUnavailable 503 Throttling ThrottlingException RequestLimitExceeded".split())
_DENIED = frozenset(
    "ExpiredToken ExpiredTokenException InvalidToken TokenRefreshRequired InvalidAccessKeyId InvalidClientTokenId "
    "SignatureDoesNotMatch RequestTimeTooSkewed UnrecognizedClientException".split()
)


class DeniedError(ConnectionError, PermissionError):
    """The store refuses the credentials: this concerns the whole store, not one object."""


@cache
def filesystem(protocol: str, endpoint: str) -> Any:
    """Return the client of a store; all threads of this process share it.

    Raises:
        UsageError: fsspec knows no such store, or a package or setting that the client needs is missing.
    """
    try:
        import fsspec

        if protocol not in S3:
            return fsspec.filesystem(protocol)
        return fsspec.filesystem("s3", **_s3_options(protocol, endpoint))
    except ImportError as error:
        needs = f"{protocol}:// needs {'the extra cloud' if protocol in S3 else 'a package of its own'}"
        advice = f"{sys.executable} -m pip install {'s3fs' if protocol in S3 else one_line(error)}"
        raise UsageError(needs, advice) from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"{protocol}://: not a kind of store that can be used ({one_line(error)})") from error


@contextlib.contextmanager
def unified_errors() -> Iterator[None]:
    """Turn the dozens of errors that stores and their clients raise into a few kinds.

    Raises:
        FileNotFoundError: there is no such object, or no such bucket.
        PermissionError: this object may not be used.
        DeniedError: the store refuses the credentials.
        ConnectionError: the store cannot be used, at least for now.
        OSError: anything else; its reason has one line.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, one_line(error)) from error
    except OSError as error:
        code = str(getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", ""))
        kind: type[OSError] = PermissionError if isinstance(error, PermissionError) else OSError
        if code in _DENIED:
            kind = DeniedError
        elif code in _BUSY or isinstance(error, (ConnectionError, TimeoutError)):
            kind = ConnectionError
        raise kind(error.errno or errno.EIO, one_line(error)) from error
    except UnicodeError as error:
        raise OSError(errno.EILSEQ, "its name is not UTF-8") from error
    except Exception as error:
        if "Credential" in type(error).__name__:
            raise DeniedError(errno.EACCES, "no credentials were found") from error
        raise ConnectionError(errno.EIO, one_line(error)) from error


def one_line(error: Exception) -> str:
    """Return the reason of an error in one line of at most 200 characters."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200].rstrip(".")


def _s3_options(protocol: str, endpoint: str) -> dict[str, Any]:
    """Return the arguments of fsspec's S3 file system; raise UsageError where the endpoint cannot be used."""
    if endpoint and not re.match(r"https?://[^/]+", endpoint):
        raise UsageError(f"--endpoint {endpoint}: not an address", "write it as in https://HOST")
    config: dict[str, Any] = {
        "retries": {"max_attempts": 4, "mode": "standard"},  # s3fs tries again for itself where the store is busy
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
