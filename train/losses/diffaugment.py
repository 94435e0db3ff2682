"""DiffAugment (arXiv 2006.10738): what a discriminator sees is augmented, generated and real pictures alike.

The augmentation is differentiable, so that the generator learns through it, and it keeps a discriminator from learning
a small set by heart. Its random numbers are drawn outside the compiled step and handed in. Names of the policies,
"color", "translation" and "cutout", are those of the paper's released code, and so are the ranges of the first two.
Cutout is milder, for small faces: a square of 0.4 of the side, not 0.5, and only in every second picture.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import NDArray

Draw = tuple[Tensor, ...]

BRIGHTNESS, SATURATION, CONTRAST = (-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)
LARGEST_SHIFT = 8  # a picture is moved by up to this part of its side
CUTOUT_SIDE, CUTOUT_SHARE = 0.4, 0.5  # of the picture's side; of the pictures


def draw(policy: str, shape: tuple[int, ...], random: np.random.Generator) -> Draw:
    """The random numbers for a batch of this shape (N, 3, H, W); () when the policy is empty.

    Colour: (3, N, 1, 1, 1), brightness, saturation and contrast. Translation: (N, 1, H, H) and (N, 1, W, W), the
    matrices that move rows and columns. A colour or a translation that the policy lacks moves nothing. Cutout, last and
    only where the policy has it: (N, 1, H, W), 0 in the square and 1 elsewhere.
    """
    if not policy:
        return ()
    parts = policy.split(",")
    n, _, height, width = shape
    colour = np.stack([np.zeros(n), np.ones(n), np.ones(n)])
    if "color" in parts:
        colour = np.stack([random.uniform(*limits, n) for limits in (BRIGHTNESS, SATURATION, CONTRAST)])
    moves = [_moves(side, n, random if "translation" in parts else None) for side in (height, width)]
    drawn = [colour.reshape(3, n, 1, 1, 1), moves[0], moves[1].swapaxes(2, 3)]
    drawn += [_kept(n, height, width, random)] if "cutout" in parts else []
    return tuple(Tensor(part, ms.float32) for part in drawn)


def augment(x: Tensor, drawn: Draw) -> Tensor:
    """(N, 3, H, W) in [-1, 1] -> the same shape; what a translation uncovers or cutout blanks is 0, as in the code."""
    if not drawn:
        return x
    colour, rows, columns = drawn[:3]
    x = x + colour[0]
    gray = ops.mean(x, 1, True)
    x = (x - gray) * colour[1] + gray
    gray = ops.mean(x, (1, 2, 3), True)
    x = (x - gray) * colour[2] + gray
    # Products with shifted identities: a slice at a computed place would have no static shape, and a slow gradient.
    x = ops.matmul(ops.matmul(rows, x), columns)
    return x * drawn[3] if len(drawn) > 3 else x


def _moves(side: int, n: int, random: np.random.Generator | None) -> NDArray[np.float32]:
    """(N, 1, side, side): M @ x moves the rows of x, and fills with 0."""
    reach = side // LARGEST_SHIFT
    shifts = random.integers(-reach, reach + 1, n) if random else np.zeros(n, int)
    return np.stack([np.eye(side, k=int(shift), dtype=np.float32)[None] for shift in shifts])


def _kept(n: int, height: int, width: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(N, 1, H, W): 0 in a square around a place anywhere in the picture, 1 elsewhere."""
    inside = [
        np.abs(np.arange(side) - random.uniform(0, side, (n, 1))) < CUTOUT_SIDE / 2 * side for side in (height, width)
    ]
    cut = random.random((n, 1, 1)) < CUTOUT_SHARE
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :] & cut[..., None]
    kept: NDArray[np.float32] = 1 - square.astype(np.float32)
    return kept
