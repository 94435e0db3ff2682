"""Formats: the ONE table of the kinds of files that outputs may be, and how a picture becomes such a file."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, features

from h2a_batch.errors import PhotoError
from h2a_batch.machine import lacks_memory
from h2a_batch.photos.png import encode_png

_QUICK = 1 << 17  # pixels: a larger PNG is worth the time that makes its file smaller
_MOST_JPEG_EXIF = 65_000  # bytes; a JPEG cannot hold more

Save = Callable[[Image.Image, int, bytes | None], bytes]
"""Makes the bytes of a file from a picture, a quality from 1 to 100 and an EXIF block."""


@dataclass(frozen=True)
class Format:
    """A kind of file that outputs may be.

    Args:
        name: its word for ``--format``; also the files' suffix, without the dot.
        lossy: whether the quality decides the bytes.
        alpha: whether it holds transparency.
        save: makes the bytes of a file.
    """

    name: str
    lossy: bool
    alpha: bool
    save: Save


def encode(image: Image.Image, format: str, quality: int, exif: bytes | None = None) -> bytes:
    """Return a picture as the bytes of a file.

    Args:
        image: the picture.
        format: a key of `FORMATS`.
        quality: 1 to 100; lossless formats ignore it.
        exif: the EXIF block of the file.

    Raises:
        PhotoError: the format cannot hold the picture.
    """
    try:
        return FORMATS[format].save(image, quality, exif)
    except (OSError, ValueError, RuntimeError) as error:  # the last one by AVIF's encoder
        if lacks_memory(error):
            raise MemoryError(str(error)) from error
        what = f"{image.width}x{image.height} pixels cannot be saved as {format} ({error})"
        raise PhotoError("output", what, "choose a smaller --size or another --format") from error


def _png(image: Image.Image, quality: int, exif: bytes | None) -> bytes:
    if image.width * image.height <= _QUICK and image.mode in ("L", "RGB", "RGBA"):
        return encode_png(image, exif)
    # filtered pictures take half the time of zlib's default strategy, for the same size
    return _saved(image, "PNG", exif, compress_type=zlib.Z_RLE)


def _jpeg(image: Image.Image, quality: int, exif: bytes | None) -> bytes:
    if exif and len(exif) > _MOST_JPEG_EXIF:
        exif = None
    # halved colour resolution would smear drawn outlines
    return _saved(image, "JPEG", exif, quality=quality, subsampling=0)


def _webp(image: Image.Image, quality: int, exif: bytes | None) -> bytes:
    return _saved(image, "WEBP", exif, quality=quality)


def _avif(image: Image.Image, quality: int, exif: bytes | None) -> bytes:
    if not features.check("avif"):
        raise OSError("this Pillow was built without AVIF: pip install --upgrade pillow")
    return _saved(image, "AVIF", exif, quality=quality, subsampling="4:4:4")


def _saved(image: Image.Image, kind: str, exif: bytes | None, **settings: int | str) -> bytes:
    """Return the bytes of a file that Pillow makes."""
    data = io.BytesIO()
    more = {"exif": exif} if exif else {}
    image.save(data, kind, **settings, **more)
    return data.getvalue()


FORMATS = {
    format.name: format
    for format in (
        Format("png", lossy=False, alpha=True, save=_png),
        Format("jpg", lossy=True, alpha=False, save=_jpeg),
        Format("webp", lossy=True, alpha=True, save=_webp),
        Format("avif", lossy=True, alpha=True, save=_avif),
    )
}
