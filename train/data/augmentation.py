"""Augmentation of whole pictures, (3, H, W) float32 in [-1, 1]: small turns, zooms and shifts, and changes of colour.

Unlike DiffAugment's, both generators and discriminators see it: it makes more pictures of few. Shares and angles are
the tables `affine_a`, `affine_b` and `jitter_a` of a config. Every change is a function of the random numbers given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def draw_affine(limits: Mapping[str, Any], flip: float, random: np.random.Generator) -> NDArray[np.float64]:
    """(2, 3): where in the picture, in units of half its side, each place of the result is taken from.

    `limits`: `turn` in radians and `shift` as a share of half the side, each up to that in both directions; `zoom`
    [least, most], above 1 larger. `flip` is the probability of a mirrored picture.
    """
    turn, shift = limits.get("turn", 0.0), limits.get("shift", 0.0)
    angle, zoom = random.uniform(-turn, turn), random.uniform(*limits.get("zoom", (1.0, 1.0)))
    mirrored = -1.0 if random.random() < flip else 1.0
    right, down = random.uniform(-shift, shift, 2)
    c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
    return np.array([[c * mirrored, -s, right], [s * mirrored, c, down]])


def affine(x: Array, matrix: NDArray[np.float64]) -> Array:
    """The picture at the places of `draw_affine`: bilinear between pixels, mirrored outside, edge pixels repeated."""
    height, width = x.shape[1:]
    across, along = (np.arange(side) * 2.0 + 1 - side for side in (width, height))
    across, along = across[None] / width, along[:, None] / height
    columns, rows = (m[0] * across + m[1] * along + m[2] for m in matrix)
    return sampled(x, columns, rows)


def sampled(x: Array, columns: NDArray[np.float64], rows: NDArray[np.float64]) -> Array:
    """(C, H, W) at the places (h, w), in units of half the side from the middle: bilinear, mirrored outside."""
    height, width = x.shape[1:]
    left, right, share_x = _neighbours(columns, width)
    above, below, share_y = _neighbours(rows, height)
    upper = x[:, above, left] * (1 - share_x) + x[:, above, right] * share_x
    lower = x[:, below, left] * (1 - share_x) + x[:, below, right] * share_x
    result: Array = (upper * (1 - share_y) + lower * share_y).astype(np.float32)
    return result


def jitter(x: Array, limits: Mapping[str, Any], random: np.random.Generator) -> Array:
    """As other cameras would show it: contrast, brightness and saturation change, and now and then colour is lost.

    Each changes by up to its limit, contrast and saturation as factors around 1, brightness as a sum; `gray` is the
    probability of a gray picture.
    """
    contrast, brightness, saturation = (
        random.uniform(-limits.get(name, 0.0), limits.get(name, 0.0))
        for name in ("contrast", "brightness", "saturation")
    )
    kept = 0.0 if random.random() < limits.get("gray", 0.0) else 1 + saturation
    x = x * (1 + contrast) + brightness
    mean = x.mean(0, keepdims=True)
    result: Array = (mean + (x - mean) * kept).clip(-1, 1).astype(np.float32)
    return result


def _neighbours(places: NDArray[np.float64], side: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Of places in units of half the side: the pixels before and after, and the share of the second."""
    position = (places + 1) * side / 2 - 0.5
    # Mirrored at the outer edges of the outermost pixels, as often as it takes.
    position = np.abs(np.mod(position + 0.5 + side, 2 * side) - side) - 0.5
    position = position.clip(0, side - 1)
    before = np.floor(position).astype(np.intp)
    return before, np.minimum(before + 1, side - 1), (position - before).astype(np.float32)
