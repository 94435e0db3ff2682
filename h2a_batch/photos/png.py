"""PNG in a third of Pillow's time: one filter for all rows, where Pillow tries five on each.

This makes the files of painted 256x256 pictures 2.5 % larger, and those of enlarged pictures an eighth. Pillow
therefore still writes the latter. `scripts/bench_stages` measures both.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {"L": 0, "RGB": 2, "RGBA": 6}  # PNG specification, third edition, section 11.2.1
_UP = 2  # the filter: each byte minus the one above; section 9.2
_WINDOW_BITS, _MEMORY = 15, 9


def encode_png(image: Image.Image, exif: bytes | None = None) -> bytes:
    """Return a picture as a PNG file; the same picture always gives the same bytes, with the same zlib.

    Args:
        image: in mode L, RGB or RGBA.
        exif: the EXIF block of the file.

    Raises:
        KeyError: the image has another mode.
    """
    kind = _COLOUR_TYPES[image.mode]
    pixels = np.asarray(image).reshape(image.height, -1)
    rows = np.empty((pixels.shape[0], 1 + pixels.shape[1]), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY, zlib.Z_RLE)  # Z_RLE ignores the level
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, kind, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header)]
    if exif:
        chunks.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [_chunk(b"IDAT", packer.compress(rows.data) + packer.flush()), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
