"""Transfers: the bytes of objects of the S3 protocol, checked on both ways. Each function makes one try.

A store knows by Content-MD5 whether it got what was sent. What it has, it tells by the ETag: of an object that was
written in one request, and not encrypted by a key of the user's, this is the MD5. Where a store also sends a checksum
that was asked for, its client checks that.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from h2a_batch.places.client import DamagedError, SpoiledError
from h2a_batch.places.tries import again, allowed, ask

_MOST = 1 << 30  # bytes of an object that is held in memory
_CHUNK = 1 << 18  # bytes that are received together
PART = 50 << 20  # bytes of a part of a large file
_SHA256 = "h2a-batch-sha256"  # metadata of what `send` wrote
_MD5 = re.compile(r"[0-9a-f]{32}")


def read(fs: Any, path: str, most: int | None = None) -> bytes:
    """Return the bytes of an object, or its first `most` bytes, which no checksum covers.

    Args:
        fs: the client.
        path: bucket and key.
        most: how many bytes.

    Raises:
        DamagedError: they are not those that the store has.
        OSError: there are too many to be held in memory.
        Exception: whatever the client raises.
    """
    chunks: list[bytes] = []
    part = {} if most is None else {"Range": f"bytes=0-{most - 1}"}
    _receive(fs, _place(path) | part, chunks.append, _MOST)
    return b"".join(chunks)


def receive(fs: Any, path: str, file: Path) -> None:
    """Copy an object into a file; raise as `read` does."""
    with file.open("wb") as target:
        _receive(fs, _place(path), lambda chunk: bool(target.write(chunk)), None)


def write(fs: Any, path: str, data: bytes, about: dict[str, Any]) -> None:
    """Write an object.

    Args:
        fs: the client.
        path: bucket and key.
        data: its bytes.
        about: its type and metadata, as the client takes them.

    Raises:
        DamagedError: the store got other bytes, and refused them.
        SpoiledError: the store got other bytes, and took them.
        Exception: whatever the client raises.
    """
    _write(fs, "put_object", data, **_place(path), **about)


def send(fs: Any, path: str, file: Path) -> None:
    """Copy a file into a store, a large one in parts, each of which is tried again for itself; raise as `write`."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while block := source.read(_CHUNK):
            digest.update(block)
    about: dict[str, Any] = {"ContentType": "application/octet-stream", "Metadata": {_SHA256: digest.hexdigest()}}
    if file.stat().st_size <= PART:
        data = file.read_bytes()
        again(lambda: write(fs, path, data, about))
        return
    place = _place(path)
    begun = place | {
        "UploadId": again(lambda: ask(fs, "call_s3", "create_multipart_upload", **place, **about))["UploadId"]
    }
    try:
        parts = _send_parts(fs, file, begun)
        again(lambda: ask(fs, "call_s3", "complete_multipart_upload", **begun, MultipartUpload={"Parts": parts}))
    except BaseException:
        with contextlib.suppress(Exception):
            ask(fs, "call_s3", "abort_multipart_upload", **begun)
        raise


def _send_parts(fs: Any, file: Path, begun: dict[str, Any]) -> list[dict[str, Any]]:
    """Send the parts of a file, and return what the store has to be told of them at the end."""
    parts: list[dict[str, Any]] = []
    with file.open("rb") as source:
        while data := source.read(PART):
            number = len(parts) + 1

            def send_one(data: bytes = data, number: int = number) -> str:
                return _write(fs, "upload_part", data, **begun, PartNumber=number)

            parts.append({"PartNumber": number, "ETag": again(send_one)})
    return parts


def _write(fs: Any, call: str, data: bytes, **more: Any) -> str:
    """Send bytes by a call of the S3 protocol, check what the store says of them, and return their ETag."""
    md5 = hashlib.md5(data, usedforsecurity=False)
    more["ContentMD5"] = base64.b64encode(md5.digest()).decode()
    answer = ask(fs, "call_s3", call, size=len(data), Body=data, **more)
    known = _md5_of(fs, answer)
    if known and known != md5.hexdigest():
        raise SpoiledError(errno.EBADMSG, "the store has other bytes than were sent to it")
    return str(answer["ETag"])


def _receive(fs: Any, place: dict[str, Any], take: Callable[[bytes], object], most: int | None) -> None:
    """Give the bytes of an object to `take`, and check them."""
    from fsspec.asyn import sync

    digests = [hashlib.md5(usedforsecurity=False), hashlib.sha256()]
    answer, size = sync(fs.loop, _received, fs, place, take, digests, most)
    if size != answer.get("ContentLength", size):
        raise DamagedError(errno.EBADMSG, f"{size:,} bytes came, and not {answer['ContentLength']:,}")
    if "Range" in place:
        return
    known = (_md5_of(fs, answer), answer.get("Metadata", {}).get(_SHA256))
    if any(value and value != digest.hexdigest() for value, digest in zip(known, digests, strict=True)):
        raise DamagedError(errno.EBADMSG, "other bytes came than its checksum is of")


async def _received(
    fs: Any, place: dict[str, Any], take: Callable[[bytes], object], digests: list[Any], most: int | None
) -> tuple[dict[str, Any], int]:
    """Receive an object and return the answer's fields and the number of bytes; time is allowed as bytes come."""
    answer = await asyncio.wait_for(fs._call_s3("get_object", **place), allowed())
    body = answer["Body"]
    used = digests if _SHA256 in answer.get("Metadata", {}) else digests[:1]
    size, started = 0, time.monotonic()
    try:
        if most is not None and answer.get("ContentLength", 0) > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
        while chunk := await asyncio.wait_for(body.read(_CHUNK), started + allowed(size) - time.monotonic()):
            size += len(chunk)
            if most is not None and size > most:
                raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
            for digest in used:
                digest.update(chunk)
            take(chunk)
    finally:
        body.close()
    return answer, size


def _md5_of(fs: Any, answer: dict[str, Any]) -> str | None:
    """Return the MD5 that a store tells of an object, in hex; None where its ETag is something else."""
    tag = str(answer.get("ETag", "")).strip('"').lower()
    encrypted = answer.get("ServerSideEncryption") or answer.get("SSECustomerAlgorithm")
    if encrypted == "AES256" and not fs.endpoint_url and not answer.get("SSECustomerAlgorithm"):
        encrypted = None  # by Amazon's own keys, as all is there
    return tag if not encrypted and _MD5.fullmatch(tag) else None


def _place(path: str) -> dict[str, Any]:
    bucket, _, key = path.partition("/")
    return {"Bucket": bucket, "Key": key}
