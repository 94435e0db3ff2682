"""One photo: from a file to the model's square of pixels, and from the model's answer to a file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from h2a_batch.errors import PhotoError
from h2a_batch.source import HEIF, sniff

try:  # the extra `heif`
    import pillow_heif

    pillow_heif.register_heif_opener()
    HAVE_HEIF = True
except ImportError:
    HAVE_HEIF = False

Image.init()
# only these are opened, whatever else Pillow knows: some of its readers start other programs
_WANTED = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", HEIF)
_READERS = [name for name in _WANTED if name in Image.OPEN]
_PILLOW_FORMAT = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_ORIENTATION = 0x0112
# tags of how TIFF lays out its pixels: they are wrong for any other file
_LAYOUT_TAGS = frozenset(
    {*range(254, 260), 262, 266, 273, *range(277, 280), 284, 317, *range(320, 326), 330, 338, 339, 347, 34675}
) | frozenset(range(512, 533))
_MOST_JPEG_EXIF = 65_000  # bytes; a JPEG cannot hold more
_WHITE = (255, 255, 255)
_AGAIN = "copy it again from its source"

Box = tuple[int, int, int, int]
Size = tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """Where a photo lies in the model's frame, and how large its output is; all in pixels.

    ``crop`` is the part of the upright photo that is used, ``content`` the part of the frame it fills
    (left, top, right, bottom), ``output`` the width and height of the result.
    """

    crop: Box
    content: Box
    output: Size


@dataclass(frozen=True)
class Photo:
    """A decoded photo: uint8 RGB of shape (height, width, 3) in the model's size, and what is needed at the end.

    ``alpha`` has the output's size. ``sha256`` is that of the file's bytes.
    """

    pixels: NDArray[np.uint8]
    placement: Placement
    alpha: Image.Image | None
    exif: bytes | None
    sha256: str


def place(photo: Size, frame: Size, fit: str, size: str) -> Placement:
    """Fit a photo into the model's frame.

    Args:
        photo: width and height of the upright photo.
        frame: width and height of the model's input.
        fit: ``pad`` keeps the whole photo (letterbox), ``crop`` fills the frame from the middle,
            ``stretch`` ignores proportions.
        size: ``model``, ``source``, or the output's longest side in pixels.
    """
    (width, height), (across, down) = photo, frame
    crop, content = (0, 0, width, height), (0, 0, across, down)
    if fit == "crop":
        w = max(1, min(width, round(height * across / down)))
        h = max(1, min(height, round(width * down / across)))
        left, top = (width - w) // 2, (height - h) // 2
        crop = (left, top, left + w, top + h)
    elif fit == "pad":
        scale = min(across / width, down / height)
        w = min(across, max(1, round(width * scale)))
        h = min(down, max(1, round(height * scale)))
        left, top = (across - w) // 2, (down - h) // 2
        content = (left, top, left + w, top + h)
    output = _extent(crop) if size == "source" else _extent(content)
    if size.isdigit():
        shape = photo if fit == "pad" else output
        scale = int(size) / max(shape)
        output = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    return Placement(crop, content, output)


def decode(path: Path, frame: Size, fit: str, size: str, keep_metadata: bool = False) -> Photo:
    """Read a photo upright, in sRGB and in the model's frame.

    Raises:
        PhotoError: the file cannot be read as a photo; ``kind`` says why.
    """
    try:
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            if before.st_size == 0:
                raise PhotoError("empty", "the file is empty (0 bytes)", _AGAIN)
            photo = _decode_open(file, frame, fit, size, keep_metadata)
            after = os.fstat(file.fileno())
    except FileNotFoundError as error:
        raise PhotoError("vanished", "the file is no longer there", "run again when it is back") from error
    except PermissionError as error:
        raise PhotoError("unreadable", "no permission to read the file", "change its permissions") from error
    except OSError as error:
        raise PhotoError(
            "unreadable", f"the file cannot be read: {error.strerror or error}", "check the disk"
        ) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise PhotoError("changed", "the file changed while it was read", "run again when it is complete")
    return photo


def finish(photo: Photo, painted: NDArray[np.uint8], keep_alpha: bool) -> Image.Image:
    """The model's answer without its padding, in the output's size, with the photo's alpha where wanted.

    Args:
        painted: uint8 RGB, any size of the same proportions as the model's input.
    """
    image = Image.fromarray(painted)
    down, across = photo.pixels.shape[:2]
    left, top, right, bottom = photo.placement.content
    wide, high = image.width / across, image.height / down
    box = (left * wide, top * high, right * wide, bottom * high)
    if image.size != photo.placement.output or box != (0, 0, *image.size):
        image = image.resize(photo.placement.output, Image.Resampling.BICUBIC, box=box)
    if photo.alpha is not None and keep_alpha:
        image.putalpha(photo.alpha)
    return image


def encode(image: Image.Image, format: str, quality: int, exif: bytes | None = None) -> bytes:
    """The image as the bytes of a file.

    Raises:
        PhotoError: the format cannot hold it.
    """
    if exif and format == "jpg" and len(exif) > _MOST_JPEG_EXIF:
        exif = None
    extra: dict[str, object] = {"exif": exif} if exif else {}
    if format == "png":
        extra |= {"compress_type": zlib.Z_RLE}  # on filtered pictures half the time of the default, at its size
    elif format == "jpg":
        extra |= {"quality": quality, "subsampling": 0}  # drawn outlines smear with halved colour
    elif format == "webp":
        extra |= {"quality": quality}
    data = io.BytesIO()
    try:
        image.save(data, _PILLOW_FORMAT[format], **extra)
    except (OSError, ValueError) as error:
        what = f"{image.width}x{image.height} pixels cannot be saved as {format} ({error})"
        raise PhotoError("output", what, "choose a smaller --size or another --format") from error
    return data.getvalue()


def thumbnail(path: Path, side: int) -> Image.Image:
    """A photo upright and in sRGB, its longest side `side` pixels, transparent parts white.

    Raises:
        PhotoError: as `decode`.
    """
    photo = decode(path, (side, side), "pad", "model")
    left, top, right, bottom = photo.placement.content
    return Image.fromarray(photo.pixels[top:bottom, left:right])


def extent_of(path: Path) -> Size | None:
    """Width and height of a photo held upright, from its header; None where it cannot be read."""
    try:
        with open(path, "rb") as file, _open(file) as image:
            _, turn = _exif(image) if image.format in ("JPEG", "MPO") else (None, 1)
            return (image.height, image.width) if turn >= 5 else image.size
    except (OSError, PhotoError):
        return None


def is_complete(path: Path) -> bool:
    """Whether a file is an image that can be read to its end."""
    try:
        with Image.open(path, formats=_READERS) as image:
            image.load()
    except Exception:  # Pillow's readers raise a dozen kinds for broken data
        return False
    return True


def _decode_open(file: BinaryIO, frame: Size, fit: str, size: str, keep_metadata: bool) -> Photo:
    digest = hashlib.sha256()
    head = file.read(64)
    kind = sniff(head)
    if kind is None:
        raise PhotoError("not-an-image", "its content is no image of a known kind", "check where it came from")
    if kind == HEIF and not HAVE_HEIF:
        raise PhotoError(
            "unsupported", "HEIC photos need the extra heif", f"{sys.executable} -m pip install pillow-heif"
        )
    digest.update(head)
    while block := file.read(1 << 20):
        digest.update(block)
    file.seek(0)
    image = _open(file)
    try:
        pixels, placement, alpha, exif = _read(image, frame, fit, size, keep_metadata)
    except PhotoError:
        raise
    except MemoryError as error:
        raise PhotoError("too-large", f"{image.width}x{image.height} pixels do not fit in memory") from error
    except Exception as error:  # Pillow's readers raise a dozen kinds for broken data
        raise _broken(error) from error
    return Photo(pixels, placement, alpha, exif, digest.hexdigest())


def _open(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=_READERS)
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise PhotoError(
            "too-large",
            f"it unpacks to more than the limit of {limit} million pixels",
            "make it smaller with another program",
        ) from error
    except UnidentifiedImageError as error:
        raise PhotoError("corrupt", "it begins like an image but its header is broken", _AGAIN) from error
    except Exception as error:
        raise _broken(error) from error


def _broken(error: Exception) -> PhotoError:
    text = " ".join(str(error).split())[:120]
    if "truncated" in text or "Truncated" in text:
        return PhotoError("truncated", "the file ends too early", _AGAIN)
    return PhotoError("corrupt", f"the image data is broken ({text or type(error).__name__})", _AGAIN)


def _read(
    image: Image.Image, frame: Size, fit: str, size: str, keep_metadata: bool
) -> tuple[NDArray[np.uint8], Placement, Image.Image | None, bytes | None]:
    if image.format not in ("JPEG", "MPO"):
        image.load()  # before the EXIF block, which some formats keep behind the pixels
    profile = image.info.get("icc_profile")
    exif, turn = _exif(image)
    upright = (image.height, image.width) if turn >= 5 else image.size
    placement = place(upright, frame, fit, size)
    _draft(image, placement, upright, turn)
    image.load()
    image = _turned(image, turn)
    x, y = image.width / upright[0], image.height / upright[1]  # what the JPEG decoder was asked to save
    crop = (placement.crop[0] * x, placement.crop[1] * y, placement.crop[2] * x, placement.crop[3] * y)
    left, top, right, bottom = placement.content
    image, alpha = _eight_bit(image)
    small = image.resize((right - left, bottom - top), Image.Resampling.LANCZOS, box=crop)
    if alpha is not None:
        alpha = alpha.resize(placement.output, Image.Resampling.LANCZOS, box=crop)
    content = np.asarray(_srgb(small, profile))
    margins = ((top, frame[1] - bottom), (left, frame[0] - right), (0, 0))
    # mirrored, not black: instance norm would spread the bars' darkness over the face
    pixels = np.pad(content, margins, mode="symmetric") if any(map(any, margins)) else content
    return pixels, placement, alpha, exif if keep_metadata else None


def _draft(image: Image.Image, placement: Placement, upright: Size, turn: int) -> None:
    """Let the JPEG decoder skip detail that the model cannot see; other formats ignore it."""
    used, wanted = _extent(placement.crop), _extent(placement.content)
    scale = max(wanted[0] / used[0], wanted[1] / used[1])
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in upright)
        image.draft(None, (height, width) if turn >= 5 else (width, height))


def _exif(image: Image.Image) -> tuple[bytes | None, int]:
    """The EXIF block for an upright copy, and the orientation (1 to 8) that the photo has now."""
    try:
        exif = image.getexif()
        turn = exif.get(_ORIENTATION, 1)
        if _ORIENTATION in exif:
            exif[_ORIENTATION] = 1
        for tag in _LAYOUT_TAGS & set(exif):
            del exif[tag]
        data = exif.tobytes() if len(exif) else None
    except Exception:  # a broken block must not cost the photo
        return None, 1
    return data, turn if turn in range(1, 9) else 1


def _turned(image: Image.Image, turn: int) -> Image.Image:
    ways = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    return image.transpose(ways[turn]) if turn in ways else image


def _eight_bit(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The image in a mode that can be resized and profiled (L, RGB, CMYK, LAB), and its alpha where it has one."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image), None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() == (255, 255):
            return image.convert("RGB"), None
        white = Image.new("RGB", image.size, _WHITE)
        white.paste(image, mask=alpha)
        return white, alpha
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point gray as 8-bit: the full range of the type's use, not clipped."""
    values = np.asarray(image).astype(np.float32)
    top = 65535.0 if image.mode.startswith("I;16") else _white_level(values)
    return Image.fromarray((np.nan_to_num(values) * (255.0 / top)).clip(0, 255).round().astype(np.uint8))


def _white_level(values: NDArray[np.float32]) -> float:
    peak = float(np.nanmax(values, initial=0.0))
    return next((level for level in (1.0, 255.0, 65535.0) if peak <= level), peak)


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image as RGB in sRGB; a profile that is broken or of another kind is left out of account."""
    if image.mode == "LAB":
        return _transform(None, "LAB").apply(image)
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            return _transform(profile, image.mode).apply(image)
    return image.convert("RGB")


@lru_cache(maxsize=32)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform:
    source = io.BytesIO(profile) if profile else ImageCms.createProfile("LAB")
    return ImageCms.ImageCmsTransform(ImageCms.ImageCmsProfile(source), _SRGB, mode, "RGB")


_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _extent(box: Box) -> Size:
    return box[2] - box[0], box[3] - box[1]
