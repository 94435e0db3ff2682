"""Colour: converts any mode and profile of a photo to 8-bit sRGB."""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_WHITE = (255, 255, 255)


def eight_bit(image: Image.Image) -> tuple[Image.Image, Image.Image | None, Image.Image | None]:
    """Return image, alpha and original of a `Scaled`: an image in L, RGB, CMYK or LAB, and None twice if opaque."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image), None, None
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")  # a copy may not fit in memory
        alpha = image.getchannel("A")
        if alpha.getextrema() == (255, 255):
            return image.convert("RGB"), None, None
        white = Image.new("RGB", image.size, _WHITE)
        white.paste(image, mask=alpha)
        return white, alpha, image
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None, None
    return image.convert("L" if image.mode == "1" else "RGB"), None, None


def _from_deep(image: Image.Image) -> Image.Image:
    """Return 16-bit, 32-bit or floating-point gray as 8-bit gray: the range that is in use is scaled, not clipped."""
    values = np.asarray(image).astype(np.float32)
    top = 65535.0 if image.mode.startswith("I;16") else _white_level(values)
    np.nan_to_num(values, copy=False)  # in place, step by step: a scan may have a hundred million pixels
    values *= 255.0 / top
    np.clip(values, 0, 255, out=values)
    np.rint(values, out=values)
    return Image.fromarray(values.astype(np.uint8))


def _white_level(values: NDArray[np.float32]) -> float:
    peak = float(np.nanmax(values, initial=0.0))
    return next((level for level in (1.0, 255.0, 65535.0) if peak <= level), peak)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image as RGB in sRGB; ignore a profile that is broken or belongs to another mode."""
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
