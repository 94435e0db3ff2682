"""The losses' terms as functions of pictures, (N, 3, H, W) float32 in [-1, 1], and of scores, (N, 1, h, w).

A score's target is 1 for real and 0 for generated, or (N, 1, 1, 1) of these. The projected discriminator has hinges
(arXiv 1705.02894, section 3; arXiv 2111.01007, section 4), here the mean over its heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops

LUMINANCE_CELL = 16


def lsgan(score: Tensor, target: float | Tensor) -> Tensor:
    """Least squares (CycleGAN, section 4, "Training details"; arXiv 1611.04076): E[(D - target)^2]."""
    return ops.mean(ops.square(score - target))


def vanilla(score: Tensor, target: float | Tensor) -> Tensor:
    """Equation 1 of CycleGAN, as the cross entropy with sigmoid(score), in the form that cannot overflow."""
    return ops.mean(ops.relu(score) - target * score + ops.log(1.0 + ops.exp(-ops.abs(score))))


def l1(a: Tensor, b: Tensor) -> Tensor:
    """E[|a - b|], the norm of the cycle and identity losses."""
    return ops.mean(ops.abs(a - b))


def luminance(x: Tensor, cell: int = LUMINANCE_CELL) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H / cell, W / cell): the mean of all channels over cells of cell x cell pixels."""
    return ops.avg_pool2d(ops.mean(x, 1, True), cell, cell)


GAN_LOSSES = {"lsgan": lsgan, "vanilla": vanilla}


def over_scales(gan: str, discriminators: tuple[nn.Cell, ...], x: Tensor, target: float | Tensor) -> Tensor:
    """The GAN loss summed over discriminators, each seeing (N, C, H, W) at half the size of the one before."""
    loss, total = GAN_LOSSES[gan], ops.zeros((), ms.float32)
    for scale, discriminator in enumerate(discriminators):
        if scale > 0:
            x = ops.avg_pool2d(x, 2, 2)
        total = total + loss(discriminator(x), target)
    return total


def hinge(scores: Sequence[Tensor], target: float) -> Tensor:
    """The projected discriminator's loss of one batch: mean(max(0, 1 - target * score)).

    `target` 1 is real, -1 is generated.
    """
    total = ops.mean(ops.relu(1.0 - target * scores[0]))
    for score in scores[1:]:
        total = total + ops.mean(ops.relu(1.0 - target * score))
    return total / len(scores)


def hinge_generator(scores: Sequence[Tensor]) -> Tensor:
    """The generator's loss by the projected discriminator: -mean(score)."""
    total = ops.mean(scores[0])
    for score in scores[1:]:
        total = total + ops.mean(score)
    return -total / len(scores)
