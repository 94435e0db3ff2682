"""Reading: an open image file as upright pixels, as large as they are needed, and their way to sRGB."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from h2a_batch.errors import PhotoError
from h2a_batch.kinds import HEIF

try:  # the extra `heif`
    import pillow_heif

    pillow_heif.register_heif_opener()
    HAVE_HEIF = True
except ImportError:
    HAVE_HEIF = False

Image.init()
# only these are opened, whatever else Pillow knows: some of its readers start other programs
_WANTED = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", HEIF)
READERS = [name for name in _WANTED if name in Image.OPEN]
AGAIN = "copy it again from its source"
_ORIENTATION = 0x0112
# tags of how TIFF lays out its pixels: they are wrong for any other file
_LAYOUT_TAGS = frozenset(
    {*range(254, 260), 262, 266, 273, *range(277, 280), 284, 317, *range(320, 326), 330, 338, 339, 347, 34675}
) | frozenset(range(512, 533))
_WHITE = (255, 255, 255)
_NEARLY = 0.9  # of the size that is wanted: not worth reading the file again


@dataclass(frozen=True)
class Scaled:
    """An upright photo in a mode that can be resized and profiled, smaller than the file's by ``x`` and ``y``.

    Where it is transparent it is blended with white; ``colours`` is the same as it is, without its ``alpha``.
    """

    image: Image.Image
    alpha: Image.Image | None
    colours: Image.Image | None
    x: float
    y: float


class Reader:
    """An open photo: what its header says, and its pixels as large as they are needed.

    Args:
        file: open for reading, and left open.

    Attributes:
        upright: width and height as the photo is to be held.
        profile: its ICC profile.
        exif: its EXIF block, for an upright copy.

    Raises:
        PhotoError: it cannot be opened. For broken data Pillow raises errors of its own, see `explained`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        image = self._open()
        if image.format not in ("JPEG", "MPO"):
            image.load()  # before the EXIF block, which some formats keep behind the pixels
        self.profile = image.info.get("icc_profile")
        self.exif, self._turn = exif_of(image)
        self.upright = (image.height, image.width) if self._turn >= 5 else image.size
        self._image: Image.Image | None = image
        self._loaded: Scaled | None = None

    def load(self, scale: float) -> Scaled:
        """The photo, made smaller by no more than `scale`; only JPEG comes smaller at all, and sooner for it."""
        known = self._loaded
        if known is None or known.x < _NEARLY * min(1.0, scale):
            image, self._image = self._image or self._open(), None
            if scale < 1:
                width, height = (max(1, round(side * scale)) for side in self.upright)
                image.draft(None, (height, width) if self._turn >= 5 else (width, height))
            image.load()
            image = _turned(image, self._turn)
            x, y = image.width / self.upright[0], image.height / self.upright[1]
            known = self._loaded = Scaled(*_eight_bit(image), x, y)
        return known

    def _open(self) -> Image.Image:
        self._file.seek(0)
        return open_image(self._file)


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image file of a known kind.

    Raises:
        PhotoError: it cannot be read (``corrupt``, ``truncated``), or unpacks to too much (``too-large``).
    """
    try:
        return Image.open(file, formats=READERS)
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise PhotoError(
            "too-large",
            f"it unpacks to more than the limit of {limit} million pixels",
            "make it smaller with another program",
        ) from error
    except UnidentifiedImageError as error:
        raise PhotoError("corrupt", "it begins like an image but its header is broken", AGAIN) from error
    except Exception as error:
        raise explained(error) from error


def explained(error: Exception) -> PhotoError:
    """What Pillow's readers raise for broken data, a dozen kinds, as one."""
    text = " ".join(str(error).split())[:120]
    if "truncated" in text or "Truncated" in text:
        return PhotoError("truncated", "the file ends too early", AGAIN)
    return PhotoError("corrupt", f"the image data is broken ({text or type(error).__name__})", AGAIN)


def exif_of(image: Image.Image) -> tuple[bytes | None, int]:
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


def _eight_bit(image: Image.Image) -> tuple[Image.Image, Image.Image | None, Image.Image | None]:
    """What a `Scaled` has of an image: in L, RGB, CMYK or LAB; alpha and colours where it has an alpha."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image), None, None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() == (255, 255):
            return image.convert("RGB"), None, None
        white = Image.new("RGB", image.size, _WHITE)
        white.paste(image, mask=alpha)
        return white, alpha, image.convert("RGB")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None, None
    return image.convert("L" if image.mode == "1" else "RGB"), None, None


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point gray as 8-bit: the full range of the type's use, not clipped."""
    values = np.asarray(image).astype(np.float32)
    top = 65535.0 if image.mode.startswith("I;16") else _white_level(values)
    return Image.fromarray((np.nan_to_num(values) * (255.0 / top)).clip(0, 255).round().astype(np.uint8))


def _white_level(values: NDArray[np.float32]) -> float:
    peak = float(np.nanmax(values, initial=0.0))
    return next((level for level in (1.0, 255.0, 65535.0) if peak <= level), peak)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
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
