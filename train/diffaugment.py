"""DiffAugment (arXiv 2006.10738): what a discriminator sees is augmented, generated and real pictures alike.

The augmentation is differentiable, so that the generator learns through it, and it keeps a discriminator from learning
a small set by heart. Its random numbers are drawn outside the compiled step and handed in. Ranges and names of the
policies, "color" and "translation", are those of the paper's released code; its third, cutout, is left out.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import NDArray

Draw = tuple[Tensor, ...]

BRIGHTNESS, SATURATION, CONTRAST = (-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)
LARGEST_SHIFT = 8  # a picture is moved by up to this part of its side


def draw(policy: str, shape: tuple[int, ...], random: np.random.Generator) -> Draw:
    """The random numbers for a batch of this shape (N, 3, H, W); () when the policy is empty.

    Colour: (3, N, 1, 1, 1), brightness, saturation and contrast. Translation: (N, 1, H, H) and (N, 1, W, W), the
    matrices that move rows and columns. A colour or a translation that the policy lacks moves nothing.
    """
    if not policy:
        return ()
    parts = policy.split(",")
    n, _, height, width = shape
    colour = np.stack([np.zeros(n), np.ones(n), np.ones(n)])
    if "color" in parts:
        colour = np.stack([random.uniform(*limits, n) for limits in (BRIGHTNESS, SATURATION, CONTRAST)])
    moves = [_moves(side, n, random if "translation" in parts else None) for side in (height, width)]
    return tuple(Tensor(a, ms.float32) for a in (colour.reshape(3, n, 1, 1, 1), moves[0], moves[1].swapaxes(2, 3)))


def augment(x: Tensor, drawn: Draw) -> Tensor:
    """(N, 3, H, W) in [-1, 1] -> the same shape; what a translation uncovers is 0, as in the released code."""
    if not drawn:
        return x
    colour, rows, columns = drawn
    x = x + colour[0]
    gray = ops.mean(x, 1, True)
    x = (x - gray) * colour[1] + gray
    gray = ops.mean(x, (1, 2, 3), True)
    x = (x - gray) * colour[2] + gray
    # Products with shifted identities: a slice at a computed place would have no static shape, and a slow gradient.
    return ops.matmul(ops.matmul(rows, x), columns)


def _moves(side: int, n: int, random: np.random.Generator | None) -> NDArray[np.float32]:
    """(N, 1, side, side): M @ x moves the rows of x, and fills with 0."""
    reach = side // LARGEST_SHIFT
    shifts = random.integers(-reach, reach + 1, n) if random else np.zeros(n, int)
    return np.stack([np.eye(side, k=int(shift), dtype=np.float32)[None] for shift in shifts])
