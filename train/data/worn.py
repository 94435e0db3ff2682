"""Small pictures of anime as a coarse generator draws them: softer, noisier, a little out of shape.

A fine half that was taught on the means of drawings alone would meet nothing like what it will have to enlarge (as for
noise conditioning augmentation in cascades, arXiv 2106.15282, section 3). Every change is a function of the random
numbers given. Pictures are (N, 3, h, w) float32 in [-1, 1]; the result may go a little beyond.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.data.augmentation import sampled

Array = NDArray[np.float32]

SOFTER = (-0.3, 0.9)  # the share of a 3x3 mean in the picture; below 0 it is sharpened
NOISE = 0.05  # the largest standard deviation
BENT = 0.5  # the probability of being out of shape
BEND, BEND_CELLS = 0.006, 8  # standard deviation of the shifts, in half sides, given for 8x8 places


def worn(x: Array, random: np.random.Generator) -> Array:
    """Each picture of (N, 3, h, w) worn in its own way."""
    return np.stack([_worn(picture, random) for picture in x])


def cell_means(x: Array, size: int) -> Array:
    """(N, C, H, W) -> (N, C, H / size, W / size): means over cells of size x size pixels."""
    n, channels, height, width = x.shape
    means: Array = x.reshape(n, channels, height // size, size, width // size, size).mean((3, 5))
    return means


def _worn(picture: Array, random: np.random.Generator) -> Array:
    x = picture + (softened(picture) - picture) * np.float32(random.uniform(*SOFTER))
    # A product of two, so that most have little noise.
    x = x + random.standard_normal(x.shape, np.float32) * np.float32(NOISE * random.random() * random.random())
    return bent(x, random.normal(0, BEND, (2, BEND_CELLS, BEND_CELLS))) if random.random() < BENT else x


def softened(picture: Array) -> Array:
    """The mean of 3x3 pixels, mirrored at the border: (3, h, w) -> the same shape."""
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    height, width = picture.shape[1:]
    parts = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    mean: Array = np.mean(parts, axis=0, dtype=np.float32)
    return mean


def bent(picture: Array, shifts: NDArray[np.float64]) -> Array:
    """The picture taken from places that are shifted by (2, k, k): to the right and down, smooth in between."""
    height, width = picture.shape[1:]
    right, down = (
        np.asarray(Image.fromarray(np.float32(part)).resize((width, height), Image.Resampling.BICUBIC), np.float64)
        for part in shifts
    )
    across, along = ((np.arange(side) * 2.0 + 1 - side) / side for side in (width, height))
    return sampled(picture, across[None] + right, along[:, None] + down)
