"""Own structure and own colour: how far each output follows its own input, beyond what all outputs have in common.

Without it a GAN on faces can draw one face for everybody: each output then correlates well with each input, because
heads are where heads are. So the batch's mean picture is taken away from inputs and outputs first; what is left is what
makes one person differ from the others. The term is this project's; the correlation is Pearson's, over cells of a
picture.
"""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

STRUCTURE_CELLS, COLOUR_CELLS = 32, 16  # a side
LEAST_DIFFERENCE = 0.6  # of the input's: an output that differs less from the mean than this counts for less
EPSILON = 1e-4
FIRST, GAIN, LEAST, MOST = 2.0, 0.02, 0.05, 30.0  # of the controller


def own_structure(made: Tensor, source: Tensor) -> Tensor:
    """The correlation of luminance, in 32x32 cells: () in [-1, 1], 1 when each output has its own input's structure.

    `made`, `source`: outputs and their inputs, (N, 3, H, W), N at least 2, H and W multiples of 32.
    """
    return correlation(_luminance(made), _luminance(source), STRUCTURE_CELLS)


def own_colour(made: Tensor, source: Tensor) -> Tensor:
    """The same of the colour without its luminance, in 16x16 cells."""
    return correlation(made - _luminance(made), source - _luminance(source), COLOUR_CELLS)


def correlation(made: Tensor, source: Tensor, cells: int) -> Tensor:
    """The mean over the batch of sum(m s) / (max(|m|, 0.6 |s|) |s|), m and s without the batch's and their own mean.

    The floor keeps an output that is nearly the mean picture from counting as a faithful one.
    """
    m, s = _differences(made, cells), _differences(source, cells)
    # The root of a sum that can be 0 would have an infinite gradient.
    size_m, size_s = (ops.sqrt(ops.sum(ops.square(v), 1) + EPSILON * EPSILON) for v in (m, s))
    return ops.mean(ops.sum(m * s, 1) / (size_s * ops.maximum(size_m, LEAST_DIFFERENCE * size_s) + EPSILON))


def _luminance(x: Tensor) -> Tensor:
    return ops.mean(x, 1, True)


def _differences(x: Tensor, cells: int) -> Tensor:
    """(N, C, H, W) -> (N, C cells cells): means of cells, less the batch's mean picture, less each one's own mean."""
    n, channels, height, width = x.shape
    split = ops.reshape(x, (n, channels, cells, height // cells, cells, width // cells))
    x = ops.reshape(ops.mean(split, (3, 5)), (n, -1))
    x = x - ops.mean(x, 0, True)
    return x - ops.mean(x, 1, True)


class Controller(nn.Cell):
    """Holds a value at its target by the factor of a loss term: more of it while the value is below, less above.

    The factor is a parameter, so that checkpoints keep it with those of the optimizers.
    """

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target
        self.factor = Parameter(Tensor(FIRST, ms.float32), name="factor", requires_grad=False)

    def __float__(self) -> float:
        return float(self.factor.asnumpy())

    def update(self, value: float) -> None:
        """factor *= exp(0.02 (target - value)), within [0.05, 30]."""
        factor = float(self) * math.exp(GAIN * (self.target - value))
        self.factor.set_data(Tensor(min(max(factor, LEAST), MOST), ms.float32))
