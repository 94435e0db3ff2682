"""What the training loop drives: the interface of CycleGAN, of a distillation and of the fine half."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from train.models.pool import Array, ImagePool

Losses = dict[str, float]


class Model(Protocol):
    """Networks, and how one step trains them. Everything that a step changes is in networks, optimizers and pools."""

    @property
    def panels(self) -> tuple[tuple[str, ...], ...]:
        """The losses: columns of the log, and in these groups the plot."""

    @property
    def discriminator_losses(self) -> tuple[str, ...]:
        """Those of the losses by which discriminators are judged to have won."""

    @property
    def summary(self) -> Mapping[str, tuple[str, ...]]:
        """Sums of losses, for the progress bar."""

    @property
    def optimizers(self) -> Mapping[str, Any]:
        """By the names that checkpoints use."""

    @property
    def pools(self) -> Mapping[str, ImagePool]:
        """By the names that checkpoints use."""

    def networks(self) -> dict[str, nn.Cell]:
        """By the names that files of weights use; the parameters' names begin with them."""

    def step(self, step: int, x: Array, y: Array, random: np.random.Generator) -> tuple[Losses, tuple[Array, ...]]:
        """One step of all optimizers on pictures of the two domains: the losses by name, the generated pictures."""

    def average(self, decay: float) -> None:
        """average = decay average + (1 - decay) generator."""

    def restart_average(self) -> None:
        """The average starts as the generator is."""

    def samples(self, x: Array, y: Array) -> list[Array]:
        """The rows of the sheet of samples for pictures of the two domains."""

    def paint(self, x: Array) -> Array:
        """What the average makes of pictures of domain A: (N, 3, H, W) in [-1, 1] -> the same shape."""


def translated(generator: Any, pictures: Array) -> Array:
    """One by one, so that the memory of a step is enough."""
    return np.concatenate([generator(Tensor(picture[None], ms.float32)).asnumpy() for picture in pictures])
