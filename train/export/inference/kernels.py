"""The arithmetic of the rewrites: weights of a convolution to those of the equal one that is exported.

A value in phases holds the pixels of each 2x2 cell as channels, phase-major: (N, 4 C, H / 2, W / 2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# For an output phase (0 or 1 along one axis): which element of the 4-tap kernel each of the 3 taps is.
# out[2i] = w[3] x[i-1] + w[1] x[i];  out[2i+1] = w[2] x[i] + w[0] x[i+1]
SUBPIXEL_TAPS = {0: {0: 3, 1: 1}, 1: {1: 2, 2: 0}}
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


def subpixel_kernel(weight: Array) -> Array:
    """(in, out, 4, 4) of a transposed convolution (stride 2, padding 1) -> (4 out, in, 3, 3), phase-major."""
    inputs, outputs = weight.shape[:2]
    kernel = np.zeros((4, outputs, inputs, 3, 3), np.float32)
    for phase, (down, right) in enumerate(PHASES):
        for y, source_y in SUBPIXEL_TAPS[down].items():
            for x, source_x in SUBPIXEL_TAPS[right].items():
                kernel[phase, :, :, y, x] = weight[:, :, source_y, source_x].T
    return kernel.reshape(4 * outputs, inputs, 3, 3)


def phase_kernel(weight: Array) -> Array:
    """(out, in, k, k) of a stride-1 convolution, k odd -> (4 out, 4 in, m, m), which does the same on phases."""
    outputs, inputs, size, _ = weight.shape
    reach = (size // 2 + 1) // 2
    kernel = np.zeros((4, outputs, 4, inputs, 2 * reach + 1, 2 * reach + 1), np.float32)
    for phase, (down, right) in enumerate(PHASES):
        for y, x in np.ndindex(size, size):
            cell_y, source_y = divmod(down + y - size // 2, 2)
            cell_x, source_x = divmod(right + x - size // 2, 2)
            source = PHASES.index((source_y, source_x))
            kernel[phase, :, source, :, cell_y + reach, cell_x + reach] = weight[:, :, y, x]
    return kernel.reshape(4 * outputs, 4 * inputs, 2 * reach + 1, 2 * reach + 1)


def to_phases_kernel(weight: Array) -> Array:
    """(out, in, k, k) of a stride-1 convolution -> (4 out, in, k+1, k+1), which with stride 2 gives its phases."""
    outputs, inputs, size, _ = weight.shape
    kernel = np.zeros((4, outputs, inputs, size + 1, size + 1), np.float32)
    for phase, (down, right) in enumerate(PHASES):
        kernel[phase, :, :, down : down + size, right : right + size] = weight
    return kernel.reshape(4 * outputs, inputs, size + 1, size + 1)


def from_phases_kernel(weight: Array) -> Array:
    """(out, in, 3, 3) of a stride-2 convolution, padding 1 -> (out, 4 in, 2, 2) of stride 1, which reads phases.

    out[i] = w[0] x[2i-1] + w[1] x[2i] + w[2] x[2i+1]: the cells i-1 and i, so padding is above and on the left alone.
    """
    outputs, inputs = weight.shape[:2]
    kernel = np.zeros((outputs, 4, inputs, 2, 2), np.float32)
    for y, x in np.ndindex(3, 3):
        source = PHASES.index(((y + 1) % 2, (x + 1) % 2))
        kernel[:, source, :, (y + 1) // 2, (x + 1) // 2] = weight[:, :, y, x]
    return kernel.reshape(outputs, 4 * inputs, 2, 2)


def phase_major(array: Array, axis: int = 0) -> Array:
    """Along one axis 4 C channels of PyTorch's pixel shuffle (phases of a channel together) -> phase-major."""
    moved = np.moveaxis(array, axis, 0)
    split = moved.reshape(-1, 4, *moved.shape[1:]).swapaxes(0, 1)
    return np.moveaxis(split.reshape(moved.shape), 0, axis)


def mean_kernel(size: int, channels: int = 3) -> Array:
    """(C, C, size, size): with a stride of `size`, each channel's mean over cells of size x size pixels."""
    return np.eye(channels, dtype=np.float32)[..., None, None] / np.full((size, size), size * size, np.float32)
