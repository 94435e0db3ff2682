"""Reading: gives an open image file as upright pixels, as large as they are needed, and converts them to sRGB."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from h2a_batch.errors import PhotoError
from h2a_batch.machine import lacks_memory
from h2a_batch.photos.colour import eight_bit, to_srgb
from h2a_batch.photos.fit import Size
from h2a_batch.photos.frame import Frame, cut
from h2a_batch.photos.inspect import Look, inspect
from h2a_batch.photos.kinds import HEIF
from h2a_batch.photos.limits import spoken, too_many_pixels
from h2a_batch.photos.patched import patched
from h2a_batch.photos.tags import lighten_exif

try:  # the extra `heif`
    import pillow_heif

    pillow_heif.register_heif_opener()
    HAVE_HEIF = True
except ImportError:
    HAVE_HEIF = False

Image.init()
# Pillow may open these only: some of its other readers start programs
_WANTED = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", HEIF)
READERS = [name for name in _WANTED if name in Image.OPEN]
AGAIN = "copy it again from its source"
_ORIENTATION = 0x0112
# TIFF tags that describe the layout of its pixels: they are wrong for any other file
_LAYOUT_TAGS = frozenset(
    {*range(254, 260), 262, 266, 273, *range(277, 280), 284, 317, *range(320, 326), 330, 338, 339, 347, 34675}
) | frozenset(range(512, 533))
_NEARLY = 0.9  # of the wanted size: the difference is not worth reading the file again


@dataclass(frozen=True)
class Scaled:
    """An upright photo, perhaps smaller than its file's.

    Args:
        image: in L, RGB, CMYK or LAB; the transparent parts of a photo are blended with white.
        alpha: the transparency; None for an opaque photo.
        original: the image without blending, RGBA; None for an opaque photo.
        x: its width as a share of the photo's own.
        y: its height as a share of the photo's own.
    """

    image: Image.Image
    alpha: Image.Image | None
    original: Image.Image | None
    x: float
    y: float

    @property
    def colours(self) -> Image.Image:
        """The image without blending: below its transparent parts, too, it has its colours."""
        return self.image if self.original is None else self.original.convert("RGB")


class Reader:
    """An open photo: what its header says, and its pixels as large as they are needed.

    Args:
        file: open for reading; the reader leaves it open.
        look: what `inspect` found; None to have it inspected.

    Attributes:
        upright: the width and height of the upright photo, in pixels.
        profile: its ICC profile; None where it has none.
        exif: its EXIF block for an upright copy; None where it has none.
        note: what was left out because it is too large, in words; empty for most photos.

    Raises:
        PhotoError: the file cannot be opened. For broken data Pillow raises errors of its own, see `explained`.
    """

    def __init__(self, file: BinaryIO, look: Look | None = None) -> None:
        look = look or inspect(file)
        self._file = patched(file, look.patches) if look.patches else file
        image = self._open()
        if image.format not in ("JPEG", "MPO"):
            image.load()  # some formats keep the EXIF block behind the pixels
        self.profile = look.profile or image.info.get("icc_profile")
        left_out = look.left_out + _lighten(image)
        self.note = f"metadata of {spoken(left_out)} left out: more than a photo needs" if left_out else ""
        self.exif, self._turn = exif_of(image)
        self.upright = (image.height, image.width) if self._turn >= 5 else image.size
        self._image: Image.Image | None = image
        self._loaded: Scaled | None = None

    def load(self, scale: float) -> Scaled:
        """Return the photo, shrunk to the share `scale` of its size or less far; only JPEG shrinks, to load faster."""
        known = self._loaded
        if known is None or known.x < _NEARLY * min(1.0, scale):
            image = self._image or self._open()
            self._image = None
            if scale < 1:
                width, height = (max(1, round(side * scale)) for side in self.upright)
                image.draft(None, (height, width) if self._turn >= 5 else (width, height))
            image.load()
            image = _turned(image, self._turn)
            x, y = image.width / self.upright[0], image.height / self.upright[1]
            known = self._loaded = Scaled(*eight_bit(image), x, y)
        return known

    def _open(self) -> Image.Image:
        return open_image(_from_start(self._file))


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image file of a known kind.

    Raises:
        PhotoError: the file cannot be read (``corrupt``, ``truncated``), or has too many pixels (``too-large``).
    """
    try:
        return Image.open(file, formats=READERS)
    except Image.DecompressionBombError as error:
        raise too_many_pixels() from error
    except UnidentifiedImageError as error:
        raise PhotoError("corrupt", "it begins like an image but its header is broken", AGAIN) from error
    except MemoryError:
        raise
    except Exception as error:
        raise explained(error) from error


def explained(error: Exception) -> PhotoError:
    """Return the one kind of error for the dozen that Pillow's readers raise for broken data.

    Raises:
        MemoryError: it says that memory is short; this is not the photo's fault.
    """
    text = " ".join(str(error).split())[:120]
    if lacks_memory(error):
        raise MemoryError(text) from error
    if "truncated" in text or "Truncated" in text:
        return PhotoError("truncated", "the file ends too early", AGAIN)
    return PhotoError("corrupt", f"the image data is broken ({text or type(error).__name__})", AGAIN)


def _lighten(image: Image.Image) -> int:
    """Take the tags that are too large out of a photo's EXIF block; return the bytes that they claim."""
    block = image.info.get("exif")
    if block is None and isinstance(text := image.info.get("Raw profile type exif"), str):  # as ImageMagick writes it
        with contextlib.suppress(ValueError):
            block = bytes.fromhex("".join(text.split("\n")[3:]))
    if not isinstance(block, bytes):
        return 0
    image.info["exif"], left_out = lighten_exif(block)
    return left_out


def exif_of(image: Image.Image) -> tuple[bytes | None, int]:
    """Return the EXIF block for an upright copy, or None, and the orientation (1 to 8) that the photo has now."""
    try:
        exif = image.getexif()
        turn = exif.get(_ORIENTATION, 1)
        if _ORIENTATION in exif:
            exif[_ORIENTATION] = 1
        for tag in _LAYOUT_TAGS & set(exif):
            del exif[tag]
        data = exif.tobytes() if len(exif) else None
    except MemoryError:
        raise
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


def cut_out(photo: Scaled, profile: bytes | None, square: Frame, size: Size) -> Image.Image:
    """Cut a square out of a photo, in sRGB; cut before the conversion of colours where the mode allows it."""
    image = photo.image
    if image.mode != "RGB":
        image = to_srgb(image, profile)
        profile = None
    return to_srgb(Image.fromarray(cut(image, square, size)), profile)


def cut_alpha(photo: Scaled, square: Frame, size: Size) -> Image.Image | None:
    """Cut the same square out of a photo's alpha; return None for an opaque photo."""
    return photo.alpha and Image.fromarray(cut(photo.alpha.convert("RGB"), square, size)[..., 0])


def extent_of(path: Path) -> Size | None:
    """Return the width and height of the upright photo, from its header; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            look = inspect(file)
            with open_image(patched(file, look.patches) if look.patches else _from_start(file)) as image:
                _lighten(image)
                _, turn = exif_of(image) if image.format in ("JPEG", "MPO") else (None, 1)
                return (image.height, image.width) if turn >= 5 else image.size
    except (OSError, PhotoError):
        return None


def is_complete(file: BinaryIO) -> bool:
    """Tell whether a file is an image that can be read to its end; a suspicious one is taken for complete, unread."""
    try:
        if inspect(file).why:
            return True
        with Image.open(_from_start(file), formats=READERS) as image:
            image.load()
    except Exception:  # Pillow's readers raise a dozen kinds for broken data
        return False
    return True


def _from_start(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file
