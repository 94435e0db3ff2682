"""Formats: the ONE table of what kinds of files outputs may be, and how a picture becomes the bytes of one."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, features

from h2a_batch.errors import PhotoError
from h2a_batch.photos.png import encode_png

_QUICK = 1 << 17  # pixels: PNGs of more are worth the time that makes them smaller
_MOST_JPEG_EXIF = 65_000  # bytes; a JPEG cannot hold more

Save = Callable[[Image.Image, int, bytes | None], bytes]
"""The bytes of a file, of a picture, a quality from 1 to 100 and an EXIF block."""


@dataclass(frozen=True)
class Format:
    """A kind of file that outputs may be.

    Args:
        name: as ``--format`` has it; also the files' suffix, without its dot.
        lossy: the quality decides the bytes.
        alpha: it holds transparency.
        save: makes a file.
    """

    name: str
    lossy: bool
    alpha: bool
    save: Save


def encode(image: Image.Image, format: str, quality: int, exif: bytes | None = None) -> bytes:
    """Return the image as the bytes of a file.

    Raises:
        PhotoError: the format cannot hold it.
    """
    try:
        return FORMATS[format].save(image, quality, exif)
    except (OSError, ValueError) as error:
        what = f"{image.width}x{image.height} pixels cannot be saved as {format} ({error})"
        raise PhotoError("output", what, "choose a smaller --size or another --format") from error


def _png(image: Image.Image, quality: int, exif: bytes | None) -> bytes:
    if image.width * image.height <= _QUICK and image.mode in ("L", "RGB", "RGBA"):
        return encode_png(image, exif)
    # on filtered pictures half the time of zlib's default strategy, at its size
    return _saved(image, "PNG", exif, compress_type=zlib.Z_RLE)


def _jpeg(image: Image.Image, quality: int, exif: bytes | None) -> bytes:
    if exif and len(exif) > _MOST_JPEG_EXIF:
        exif = None
    # drawn outlines smear with halved colour
    return _saved(image, "JPEG", exif, quality=quality, subsampling=0)


def _webp(image: Image.Image, quality: int, exif: bytes | None) -> bytes:
    return _saved(image, "WEBP", exif, quality=quality)


def _avif(image: Image.Image, quality: int, exif: bytes | None) -> bytes:
    if not features.check("avif"):
        raise OSError("this Pillow was built without AVIF: pip install --upgrade pillow")
    return _saved(image, "AVIF", exif, quality=quality, subsampling="4:4:4")


def _saved(image: Image.Image, kind: str, exif: bytes | None, **settings: int | str) -> bytes:
    """Have Pillow make a file of its own kind."""
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
