"""Scores of sets of pictures, on arrays alone: KID, structure, own structure, diversity.

KID is the unbiased squared maximum mean discrepancy with a cubic kernel (arXiv 1801.01401, section 4). The paper takes
Inception's features; here they are EfficientNet-Lite0's, so the figures compare with no Inception KID.

KID does not see a generator that draws one good face for everybody: diversity and own structure do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]

LUMINANCE_SIZE = 32  # pixels across, of both structures
CONTRAST_FLOOR = 0.6  # of the input's own part: an output whose own part is fainter counts as little as it is
SUBSETS, SUBSET_SIZE = 100, 50  # of KID's standard error
# Below these a generator draws one face for everybody. Measured (train/README.md): a generator that had collapsed has
# a diversity of 0.6 and an own structure below 0.1, real anime faces 1, useful generators 0.75 and 0.5 or more.
COLLAPSED_DIVERSITY, COLLAPSED_OWN_STRUCTURE = 0.7, 0.3


def kid(x: Array, y: Array) -> float:
    """Unbiased MMD^2 of features (M, D) and (N, D), kernel (a.b / D + 1)^3, times 1000; may fall below 0 by chance."""
    return 1000 * _unbiased(_kernel(x, x), _kernel(y, y), _kernel(x, y))


def kid_error(x: Array, y: Array, seed: int = 0) -> float:
    """The standard error of `kid`, estimated by subsets.

    The spread over SUBSETS random pairs of subsets of at most SUBSET_SIZE, without replacement, scaled to the whole by
    sqrt(subset / whole). Not a bootstrap: repeated pictures would bias the unbiased estimate upwards.
    """
    m, n = len(x), len(y)
    k, j = min(SUBSET_SIZE, m // 2), min(SUBSET_SIZE, n // 2)
    if min(k, j) < 2:
        return float("nan")
    kernels, random = (_kernel(x, x), _kernel(y, y), _kernel(x, y)), np.random.default_rng(seed)
    values = []
    for _ in range(SUBSETS):
        a, b = random.choice(m, k, replace=False), random.choice(n, j, replace=False)
        values.append(_unbiased(kernels[0][np.ix_(a, a)], kernels[1][np.ix_(b, b)], kernels[2][np.ix_(a, b)]))
    # Subsets of a finite set overlap, which hides spread: by the factor 1 - k / m of sampling without replacement.
    share = (k + j) / (m + n)
    return 1000 * float(np.std(values, ddof=1) * np.sqrt(share / (1 - share)))


def _kernel(x: Array, y: Array) -> Array:
    kernel: Array = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def _unbiased(xx: Array, yy: Array, xy: Array) -> float:
    m, n = xy.shape
    within = (xx.sum() - np.trace(xx)) / (m * (m - 1)) + (yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def diversity(features: Array, real: Array) -> float:
    """Returns the mean distance of two generated pictures as a share of that of two real ones.

    Of features (N, D) scaled to length 1. 1: as different as real ones; 0: N times the same picture.
    """
    return _mean_distance(features) / _mean_distance(real)


def _mean_distance(features: Array) -> float:
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    squares = np.maximum(2 - 2 * unit @ unit.T, 0)
    np.fill_diagonal(squares, 0)  # where rounding leaves a remainder
    return float(np.sqrt(squares).sum() / (len(unit) * (len(unit) - 1)))


def correlation(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Returns Pearson's correlation of two pictures' 32x32 luminance; 0 where one has no contrast at all."""
    a, b = (luminance(picture) for picture in (before, after))
    a, b = a - a.mean(), b - b.mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 0 else 0.0


def own_structure(before: Array, after: Array) -> float:
    """Returns the mean correlation of what is a picture's own in inputs and outputs: luminances (N, L), row by row.

    The mean of all rows is taken away from each first, because a face that is the same for everybody follows that mean,
    too: such a template has a `correlation` of 0.7 and an own structure near 0.
    """
    u, v = (rows - rows.mean(0) for rows in (before, after))
    u, v = (rows - rows.mean(1, keepdims=True) for rows in (u, v))
    lengths = np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1)
    scale = lengths[0] * np.maximum(lengths[1], CONTRAST_FLOOR * lengths[0])
    return float(np.mean((u * v).sum(1) / np.maximum(scale, 1e-12)))


def luminance(picture: NDArray[np.uint8]) -> Array:
    """Returns the luminance, 0 to 255, of 32x32 cells in one row: (height, width, 3) -> (1024,)."""
    small = Image.fromarray(picture).convert("L").resize((LUMINANCE_SIZE,) * 2, Image.Resampling.BOX)
    values: Array = np.asarray(small, np.float64).ravel()
    return values


def has_collapsed(diverse: float, own: float | None) -> bool:
    """Tells whether a generator draws one face for everybody, by its diversity and, where known, its own structure."""
    return diverse < COLLAPSED_DIVERSITY or (own is not None and own < COLLAPSED_OWN_STRUCTURE)
