"""Files that take much time or memory, made small."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

from PIL import Image


def webp_of(width: int, height: int) -> bytes:
    """The head of a lossless WebP that claims a size."""
    bits = (width - 1) | (height - 1) << 14
    data = b"VP8L" + struct.pack("<IBI", 14, 0x2F, bits) + bytes(9)
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data


def scans(count: int, size: int = 64) -> bytes:
    """A gray progressive JPEG whose last scan is there so many times more."""
    data = io.BytesIO()
    Image.new("L", (size, size), 90).save(data, "JPEG", progressive=True)
    whole = data.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + whole[-2:]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*chunks: tuple[bytes, bytes], image: Image.Image | None = None) -> bytes:
    """A PNG of 40x30 orange pixels with some chunks behind its header."""
    data = io.BytesIO()
    (image or Image.new("RGB", (40, 30), (200, 100, 50))).save(data, "PNG")
    whole = data.getvalue()
    return whole[:33] + b"".join(chunk(*one) for one in chunks) + whole[33:]


def png_of(width: int, height: int, colours: int = 2) -> bytes:
    """A black PNG of a size, in few bytes."""
    row = bytes(1 + width * {0: 1, 2: 3, 6: 4}[colours])
    packer = zlib.compressobj(9)
    pixels = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff_with(tags: Sequence[tuple[int, int, int, int]], size: int = 0, big: bool = False) -> bytes:
    """A TIFF of 16x16 orange pixels.

    Args:
        tags: further ones: number, type, count, and the place of the value or the value.
        size: the least size of the file; zeros fill it.
        big: whether it is a BigTIFF.
    """
    entries = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 0)]
    entries += [(277, 3, 1, 3), (278, 3, 1, 16), (279, 4, 1, 768), *tags]
    code = "<HHQQ" if big else "<HHII"
    start = 24 + len(entries) * 20 + 8 if big else 10 + len(entries) * 12 + 4
    entries[5] = (273, 4, 1, start)
    head = b"II" + (
        struct.pack("<HHHQQ", 43, 8, 0, 16, len(entries)) if big else struct.pack("<HIH", 42, 8, len(entries))
    )
    body = b"".join(struct.pack(code, *entry) for entry in entries) + bytes(8 if big else 4)
    return (head + body + bytes((200, 100, 50)) * 256).ljust(size, b"\0")
