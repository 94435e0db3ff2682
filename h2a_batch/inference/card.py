"""Models and their cards: where a model lies, and how pixels become its numbers and back.

A MINDIR file knows the shape of its input, but not its colour range, channel order or licence. The card knows these:
a JSON file of the same name beside it. No other place in the program knows anything about a model.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2a_batch.errors import ModelError
from h2a_batch.photos import FITS
from h2a_batch.places import sha256_of

LAYOUTS = ("NCHW", "NHWC")
ORDERS = ("RGB", "BGR")
GENERATOR, DETECTOR = "generator", "face detector"  # kinds of models; a card that names none means a generator
_LARGEST = 1 << 14  # pixels of a side; larger is a slip of the pen
_FLOAT = np.finfo(np.float32)
_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "models", _PACKAGE.parent / "models")  # of an installed wheel, of a checkout


@dataclass(frozen=True)
class Pixels:
    """How 8-bit pixels lie in a tensor: ``value = (pixel / 255 * (high - low) + low - mean) / std``.

    Args:
        width: of an image, in pixels.
        height: of an image, in pixels.
        layout: ``NCHW`` or ``NHWC``.
        order: of the channels, ``RGB`` or ``BGR``.
        low: the value of black, before ``mean`` and ``std``.
        high: the value of white, before ``mean`` and ``std``.
        mean: for each channel, in the tensor's order.
        std: for each channel, in the tensor's order.
    """

    width: int
    height: int
    layout: str = "NCHW"
    order: str = "RGB"
    low: float = -1.0
    high: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def shape(self, count: int) -> tuple[int, int, int, int]:
        """Return the tensor's shape for ``count`` images."""
        if self.layout == "NCHW":
            return (count, 3, self.height, self.width)
        return (count, self.height, self.width, 3)

    def to_tensor(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return images of shape (height, width, 3), uint8 RGB, as one float32 tensor of ``shape(len(images))``."""
        pixels = np.stack(images)
        if self.order == "BGR":
            pixels = pixels[..., ::-1]
        tensor = self._as_layout(pixels).astype(np.float32, order="C")
        scale, shift = self._affine
        tensor *= scale
        tensor += shift
        return tensor

    def to_images(self, tensor: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
        """Return the images of a tensor: the inverse of `to_tensor`, rounded and clipped to 0 to 255."""
        scale, shift = self._affine
        values = tensor - shift
        values /= scale
        np.rint(values, out=values)
        planes = values.clip(0, 255, out=values).astype(np.uint8)
        if self.layout == "NCHW":
            planes = planes.transpose(0, 2, 3, 1)
        pixels = np.empty(planes.shape, np.uint8)
        for channel in range(3):  # channel by channel takes an eighth of the time of NumPy's own transposing copy
            pixels[..., channel] = planes[..., 2 - channel if self.order == "BGR" else channel]
        return list(pixels)

    def _as_layout(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return pixels.transpose(0, 3, 1, 2) if self.layout == "NCHW" else pixels

    @cached_property
    def _affine(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scale and shift from pixel to value, in shapes that broadcast over the layout."""
        std, mean = np.array(self.std), np.array(self.mean)
        form = (3, 1, 1) if self.layout == "NCHW" else (3,)
        scale = (self.high - self.low) / 255 / std
        shift = (self.low - mean) / std
        return scale.reshape(form).astype(np.float32), shift.reshape(form).astype(np.float32)


@dataclass(frozen=True)
class FaceRule:
    """Where a face lies in the square pictures of the model's training set, in shares of their side.

    The default is the rule by which FFHQ cuts its faces (Karras et al., arXiv 1812.04948).

    Args:
        x: the middle between the eyes, from the left.
        y: the middle between the eyes, from the top.
        eyes: the distance between the eyes.
        mouth: the distance from the middle between the eyes to the middle of the mouth.
    """

    x: float = 0.5
    y: float = 0.475
    eyes: float = 0.28
    mouth: float = 0.28


@dataclass(frozen=True)
class Card:
    """What is known of a model beside its MINDIR file.

    Args:
        name: the model's name.
        path: its MINDIR file.
        sha256: of that file's bytes, in hex: the model's identity.
        input: the pixels that it takes.
        output: the pixels that it gives.
        fit: how to lay a whole photo into its input, a key of `FITS`.
        facts: all fields of the card as they are written (parameters, licence, limits, ...); empty without a card.
        face: how it wants a face framed.
    """

    name: str
    path: Path
    sha256: str
    input: Pixels
    output: Pixels
    fit: str
    facts: dict[str, Any]
    face: FaceRule = FaceRule()


def find_model(model: str | os.PathLike[str]) -> Path:
    """Return the MINDIR file for a name in ``models/`` or a path.

    Raises:
        ModelError: there is no such model.
    """
    text = os.fspath(model)
    if not text.endswith(".mindir") and os.sep not in text:
        for folder in _FOLDERS:
            if (folder / f"{text}.mindir").is_file():
                return folder / f"{text}.mindir"
        raise ModelError(f"there is no model named {text!r}", _known())
    path = Path(text)
    if path.suffix != ".mindir":
        raise ModelError(f"{path}: not a .mindir file", "give a name or the path of a .mindir file")
    if not os.path.isfile(path):
        raise ModelError(f"{path}: no such model file", "give a name or the path of a .mindir file")
    if path.stat().st_size == 0:
        raise ModelError(f"{path}: the model file is empty", "export or copy it again")
    return path


def known_models() -> list[str]:
    """Return the names of the generators that the program ships with, sorted."""
    shipped = (path for folder in _FOLDERS for path in folder.glob("*.mindir"))
    return sorted({path.stem for path in shipped if _kind_of(path) == GENERATOR})


def name_of_shipped(sha256: str) -> str | None:
    """Return the name of the shipped model whose card has this sha256; None where there is none."""
    for name in known_models():
        card = find_model(name).with_suffix(".json")
        with contextlib.suppress(OSError, ValueError):
            if json.loads(card.read_text(encoding="utf-8")).get("sha256") == sha256:
                return name
    return None


def card_of(path: Path) -> Card | None:
    """Return the card beside a generator; None where there is no card.

    Raises:
        ModelError: the card cannot be read, is not complete, or belongs to another file or kind of model.
    """
    fields = read_card(path, GENERATOR)
    if fields is None:
        return None
    try:
        return Card(
            name=str(fields["name"]),
            path=path,
            sha256=str(fields["sha256"]),
            input=_pixels(fields["input"]),
            output=_pixels(fields["output"]),
            fit=_one_of(fields.get("framing", "pad"), tuple(FITS)),
            facts=fields,
            face=_face_rule(fields.get("face", {})),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _unusable(path, error) from error


def read_card(path: Path, kind: str) -> dict[str, Any] | None:
    """Return the fields of the card beside a model; None where there is no card.

    Args:
        path: the model's MINDIR file.
        kind: the kind that the model must have, GENERATOR or DETECTOR.

    Raises:
        ModelError: the card cannot be read, is of another kind, or its sha256 is not that of the model's bytes.
    """
    file = path.with_suffix(".json")
    if not file.is_file():
        return None
    try:
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found = fields.get("kind", GENERATOR)
        sha256 = fields["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(path, error) from error
    if found != kind:
        raise ModelError(f"{path}: a {found}, not a {kind}", _known() if kind == GENERATOR else "")
    if sha256_of(path) != sha256:
        raise ModelError(f"{path}: its sha256 is not the one on its card", "one of the two is damaged or another's")
    return fields


def identify(path: Path) -> tuple[str, str, FaceRule]:
    """Return a model's sha256, its fit and its rule for faces, without loading it.

    Raises:
        ModelError: the model or its card cannot be read.
    """
    try:
        card = card_of(path)
        return (card.sha256, card.fit, card.face) if card else (sha256_of(path), "pad", FaceRule())
    except OSError as error:
        raise ModelError(f"{path}: the model cannot be read ({error.strerror})") from error


def card_from_shape(path: Path, shape: Sequence[int]) -> Card:
    """Make a card for a model without one: size and layout come from its graph, colours are RGB in -1 to 1.

    Args:
        path: the model's MINDIR file.
        shape: the graph's input shape, (N, 3, H, W) or (N, H, W, 3).

    Raises:
        ModelError: the graph does not take one batch of colour images.
    """
    if len(shape) == 4 and shape[1] == 3 and min(shape[2:]) > 0:
        pixels = Pixels(height=shape[2], width=shape[3], layout="NCHW")
    elif len(shape) == 4 and shape[3] == 3 and min(shape[1:3]) > 0:
        pixels = Pixels(height=shape[1], width=shape[2], layout="NHWC")
    else:
        raise ModelError(f"{path}: its input has shape {tuple(shape)}", "it must be (N, 3, H, W) or (N, H, W, 3)")
    return Card(path.stem, path, sha256_of(path), pixels, pixels, "pad", {})


def _kind_of(path: Path) -> str:
    """Return the kind of model that a card names, without checking the rest of the card."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return str(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")).get("kind", GENERATOR))
    return GENERATOR


def _known() -> str:
    return f"known: {', '.join(known_models()) or 'none'}; or give the path of a .mindir file"


def _unusable(path: Path, error: Exception) -> ModelError:
    what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
    what = " ".join(what.split())[:200]
    return ModelError(f"{path.with_suffix('.json')}: not a usable model card: {what}", "restore or remove the card")


def _pixels(fields: dict[str, Any]) -> Pixels:
    """Return the pixels that a card describes; raise ValueError, KeyError or TypeError if it does not."""
    low, high = _range(fields["range"])
    width, height = _side(fields["width"]), _side(fields["height"])
    mean, std = _triple("mean", fields.get("mean", (0, 0, 0))), _triple("std", fields.get("std", (1, 1, 1)))
    if min(std) <= 0:
        raise ValueError(f"std {list(std)} is not over 0")
    steps = [(high - low) / 255 / value for value in std]
    ends = [(end - shift) / value for end in (low, high) for shift, value in zip(mean, std, strict=True)]
    if min(steps) < _FLOAT.tiny or max(map(abs, [*steps, *ends])) > _FLOAT.max:  # pixels would all become one value
        raise ValueError(f"range {[low, high]}, mean {list(mean)} and std {list(std)} together make no sense")
    return Pixels(
        width=width,
        height=height,
        layout=_one_of(fields["layout"], LAYOUTS),
        order=_one_of(fields["order"], ORDERS),
        low=low,
        high=high,
        mean=mean,
        std=std,
    )


def check_detector_card(path: Path, fields: dict[str, Any]) -> None:
    """Check the fields of a face detector's card.

    Raises:
        ModelError: a field is missing, or has a value that the detector cannot have.
    """
    try:
        pixels = fields["input"]
        _range(pixels["range"])
        _one_of(pixels["layout"], LAYOUTS)
        _one_of(pixels["order"], ORDERS)
        for name in ("mean", "std"):
            _triple(name, pixels.get(name, (1, 1, 1)))
        if min(_triple("std", pixels.get("std", (1, 1, 1)))) <= 0:
            raise ValueError(f"std {pixels['std']} is not over 0")
        for side in (pixels["multiple_of"], *(answer["channels"] for answer in fields["outputs"].values())):
            _side(side)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _unusable(path, error) from error


def _face_rule(fields: Any) -> FaceRule:
    """Return the rule that a card describes; raise ValueError or TypeError if it does not."""
    if not isinstance(fields, dict):
        raise ValueError(f"face {fields!r} is no table")
    rule = FaceRule(**{name: _number(name, value) for name, value in fields.items()})
    if not (0 <= rule.x <= 1 and 0 <= rule.y <= 1 and 0.01 <= rule.eyes <= 1 and 0.01 <= rule.mouth <= 1):
        raise ValueError(f"face {fields} makes no sense")
    return rule


def _number(name: str, value: Any) -> float:
    """Return a finite number of a card; raise ValueError if it is none: JSON in Python also has NaN and Infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} is not a finite number")
    return float(value)


def _range(values: Any) -> tuple[float, float]:
    """Return the values of black and white; raise ValueError or TypeError if they are none."""
    low, high = (_number("range", value) for value in values)
    if not low < high:
        raise ValueError(f"range {values} makes no sense")
    return low, high


def _side(value: Any) -> int:
    """Return a number of pixels or channels; raise ValueError if it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise ValueError(f"size {value!r} makes no sense")
    return value


def _triple(name: str, values: Sequence[Any]) -> tuple[float, float, float]:
    red, green, blue = (_number(name, value) for value in values)
    return red, green, blue


def _one_of(value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
    return value
