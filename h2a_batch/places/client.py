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
PATIENCE = "H2A_STORE_PATIENCE"  # in the environment: a number by which all times for a store are multiplied
_CONNECT, _READ = 10.0, 30.0  # seconds until a connection is made, and until some more bytes come
_OBS_HOST = re.compile(r"https?://obs\.([a-z0-9-]+)\.")
_BARE_HOST = re.compile(r"https?://(localhost|[\d.]+|\[[^]]*\])(:\d+)?/?$")
_BUSY = frozenset("SlowDown ServiceUnavailable 503 Throttling ThrottlingException RequestLimitExceeded".split())
_DENIED = frozenset(
    "ExpiredToken ExpiredTokenException InvalidToken TokenRefreshRequired InvalidAccessKeyId InvalidClientTokenId "
    "SignatureDoesNotMatch RequestTimeTooSkewed UnrecognizedClientException".split()
)

_DIFFERS = frozenset(
    "BadDigest IncompleteBody InvalidDigest XAmzContentSHA256Mismatch XAmzContentChecksumMismatch".split()
)
_FAULTS = frozenset("InternalError RequestTimeout OperationAborted".split())
_FAULTY = frozenset({408, 429, 500, 502, 503, 504})  # of HTTP's answers
# names of errors of the clients' own
_CUT = frozenset("ClientPayloadError FlexibleChecksumError IncompleteReadError ResponseStreamingError".split())
_PASSING = frozenset(
    "HTTPClientError ClientError ConnectionError TimeoutError ResponseParserError IncompleteRead".split()
)


class DeniedError(ConnectionError, PermissionError):
    """The store refuses the credentials: this concerns the whole store, not one object."""


class HopelessError(ConnectionError):
    """The client cannot make such requests at all: another try would end in the same way."""


class FaultError(OSError):
    """The store failed at this request by its own fault; the next one may do."""


class DamagedError(OSError):
    """The bytes that came are not those that were sent."""


class SpoiledError(DamagedError):
    """The store took bytes, and has others than were sent."""


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
        client = fsspec.filesystem("s3", **_s3_options(protocol, endpoint))
        client.retries = 1  # `tries.again` tries again, and nobody else
        return client
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
    except (DamagedError, DeniedError, FaultError, HopelessError):
        raise
    except OSError as error:
        raise _kind_of(error)(error.errno or errno.EIO, one_line(error)) from error
    except UnicodeError as error:
        raise OSError(errno.EILSEQ, "its name is not UTF-8") from error
    except Exception as error:
        if "Credential" in type(error).__name__:
            raise DeniedError(errno.EACCES, "no credentials were found") from error
        raise (_kind_by_name(error) or HopelessError)(errno.EIO, one_line(error)) from error


def _kind_of(error: OSError) -> type[OSError]:
    """Return which kind of error the client's error becomes, by what the store said and by its class."""
    answer: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    if code in _DENIED:
        return DeniedError
    if code in _BUSY or isinstance(error, (ConnectionError, TimeoutError)):
        return ConnectionError
    if code in _DIFFERS:
        return DamagedError
    if code in _FAULTS or answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) in _FAULTY:
        return FaultError
    return _kind_by_name(error) or (PermissionError if isinstance(error, PermissionError) else OSError)


def _kind_by_name(error: Exception) -> type[OSError] | None:
    """Return which kind of error the client's own error becomes; some of those are of class `OSError`, and some not."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return DamagedError if names & _CUT else ConnectionError if names & _PASSING else None


def patience() -> float:
    """Return the number by which the user lengthens all times.

    Raises:
        UsageError: the variable has no such number.
    """
    text = os.environ.get(PATIENCE) or "1"
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.001 <= found <= 1000:
        raise UsageError(f"{PATIENCE}={text}: not a number from 0.001 to 1000", "leave it out, or set it to 2")
    return found


def one_line(error: Exception) -> str:
    """Return the reason of an error in one line of at most 200 characters."""
    late = "no answer came in time" if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__ else ""
    text = getattr(error, "strerror", None) or str(error) or late or type(error).__name__
    return " ".join(str(text).split())[:200].rstrip(".")


def _s3_options(protocol: str, endpoint: str) -> dict[str, Any]:
    """Return the arguments of fsspec's S3 file system; raise UsageError where the endpoint cannot be used."""
    if endpoint and not re.match(r"https?://[^/]+", endpoint):
        raise UsageError(f"--endpoint {endpoint}: not an address", "write it as in https://HOST")
    config: dict[str, Any] = {
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "connect_timeout": _CONNECT * patience(),
        "read_timeout": _READ * patience(),
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
