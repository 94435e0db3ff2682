"""One image in memory: converts any kind of picture into a picture, without files and without a ledger."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.convert.answers import answers_of
from h2a_batch.convert.finish import finish
from h2a_batch.convert.parts import decode
from h2a_batch.errors import PhotoError
from h2a_batch.faces import Detectors, search_of
from h2a_batch.inference import Generator
from h2a_batch.options import Options
from h2a_batch.photos import Limits

_STORED = ("L", "RGB", "RGBA", "I;16")  # modes that PNG keeps as they are

AnyImage = Image.Image | NDArray[np.uint8] | bytes | str | os.PathLike[str]


def convert_image(
    image: AnyImage,
    *,
    model: str | os.PathLike[str] = Options.model,
    faces: str = "off",
    size: int | str = "model",
    fit: str | None = None,
    device: str = "auto",
    generator: Generator | None = None,
    timeout_per_photo: float = Options.timeout_per_photo,
    memory_per_photo: str | None = None,
) -> Image.Image | list[Image.Image]:
    """Convert one image to an anime face.

    Args:
        image: a Pillow image of any size and mode; an array, uint8 RGB or RGBA of shape (height, width, 3 or 4), or
            gray of shape (height, width); the bytes of an image file; or the path of one. It stays as it is.
        model: the name of a shipped model, or the path of a ``.mindir``.
        faces: ``off`` converts the image as a whole; ``crop`` converts each face that is found, or the whole image
            where it is a portrait or shows no face; ``paste`` puts the painted faces back into the image.
        size: ``model``, ``source``, or the longest side of the result in pixels.
        fit: ``crop``, ``pad`` or ``stretch``; None means the model's own fit.
        device: ``cpu``, ``ascend``, ``ascend:N`` or ``auto``.
        generator: an open model, which saves loading it for each image. Threads may share it. It makes ``model`` and
            ``device`` irrelevant.
        timeout_per_photo: the seconds that reading a file of a suspicious structure may take.
        memory_per_photo: the memory that it may take, in MB or with a unit, such as ``4G``.

    Returns:
        a Pillow image: RGBA where the input is transparent, else RGB. With ``faces="crop"`` a list of such images, from
        the leftmost face to the rightmost.

    Raises:
        UsageError: an argument has a value that cannot be used.
        PhotoError: the image cannot be read; ``kind`` says why.
        ModelError: the model is missing or broken, or gave no picture.
        RuntimeMissingError: MindSpore Lite or the device is missing.
        MemoryError: the machine lacks the memory.
    """
    options = Options(model=os.fspath(model), faces=faces, size=str(size), fit=fit, device=device)
    options = replace(options, timeout_per_photo=timeout_per_photo, memory_per_photo=memory_per_photo)
    limits = Limits(options.timeout_per_photo, options.most_memory)
    generator = generator or Generator(options.model, device=options.device)
    card = generator.card
    search = search_of(options, _detectors().find, card.face)
    frame = card.input.width, card.input.height
    photo = decode(_file_of(image), frame, options.fit or card.fit, options.size, search=search, limits=limits)
    pictures = finish(photo, answers_of(generator, [part.pixels for part in photo.parts]), keep_alpha=True)
    return pictures if options.faces == "crop" else pictures[0]


@cache
def _detectors() -> Detectors:
    """Return this process's face detectors, which load when the first face is looked for."""
    return Detectors()


def _file_of(image: AnyImage) -> Path | bytes:
    """Return an image in the form that the decoder reads: the path or the bytes of a file.

    Raises:
        PhotoError: the array has a type or shape that no image has.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, os.PathLike)):
        return Path(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise PhotoError("unsupported", f"an array of {image.dtype}", "give one of uint8, 0 to 255")
        shape = image.shape
        try:
            image = Image.fromarray(image)
        except (TypeError, ValueError) as error:
            what = f"an array of shape {shape}"
            raise PhotoError("unsupported", what, "give (height, width), or (height, width, 3 or 4)") from error
    data = io.BytesIO()
    image = image if image.mode in _STORED else image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.save(data, "PNG", compress_level=1, icc_profile=image.info.get("icc_profile"))
    return data.getvalue()
