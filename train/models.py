"""What the training loop drives: the interface, and CycleGAN behind it. The other one is `train.distill`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from train.config import Config
from train.cyclegan import DISCRIMINATOR_LOSSES, PROJECTED_LOSS, CycleGAN, ImagePool, generator_losses
from train.schedule import factors_at
from train.structure import Controller

Array = NDArray[np.float32]
Losses = dict[str, float]


class Model(Protocol):
    """Networks, and how one step trains them. Everything that a step changes is in networks, optimizers and pools."""

    panels: tuple[tuple[str, ...], ...]  # the losses: columns of the log, and in these groups the plot
    discriminator_losses: tuple[str, ...]
    summary: Mapping[str, tuple[str, ...]]  # sums of losses, for the progress bar
    optimizers: Mapping[str, Any]
    pools: Mapping[str, ImagePool]

    def networks(self) -> dict[str, nn.Cell]:
        """By the names that files of weights use; the parameters' names begin with them."""

    def step(self, step: int, x: Array, y: Array, random: np.random.Generator) -> tuple[Losses, tuple[Array, ...]]:
        """One step of all optimizers on pictures of the two domains: the losses by name, the generated pictures."""

    def average(self, decay: float) -> None:
        """average = decay average + (1 - decay) generator."""

    def samples(self, x: Array, y: Array) -> list[Array]:
        """The rows of the sheet of samples for pictures of the two domains."""

    def paint(self, x: Array) -> Array:
        """What the average makes of pictures of domain A: (N, 3, H, W) in [-1, 1] -> the same shape."""


class Unpaired:
    """CycleGAN with its two pools of generated pictures, and the controller of own structure."""

    summary: Mapping[str, tuple[str, ...]] = {
        "gan": ("gan_ab", "gan_ba"),
        "cycle": ("cycle_a", "cycle_b"),
        "d": DISCRIMINATOR_LOSSES,
    }

    def __init__(self, config: Config, cyclegan: CycleGAN) -> None:
        self.config, self.cyclegan = config, cyclegan
        self.discriminator_losses = (*DISCRIMINATOR_LOSSES, *[PROJECTED_LOSS] * bool(config.projected))
        self.panels: tuple[tuple[str, ...], ...] = (generator_losses(config), self.discriminator_losses)
        self.controller = Controller(config.own_structure)
        self.optimizers: Mapping[str, Any] = dict(cyclegan.optimizers)
        if config.own_structure:
            self.optimizers = {**self.optimizers, "structure": self.controller}
        self.pools = {"a": ImagePool(config.pool), "b": ImagePool(config.pool)}
        self.networks, self.average = cyclegan.networks, cyclegan.average

    def step(self, step: int, x: Array, y: Array, random: np.random.Generator) -> tuple[Losses, tuple[Array, ...]]:
        config, cyclegan, rate = self.config, self.cyclegan, self.config.rate_at(step)
        factors = factors_at(config, step, float(self.controller))
        losses, fake_b, fake_a, features = cyclegan.train_generators(x, y, rate, factors, random=random)
        old_a, old_b = self.pools["a"].query(fake_a, random), self.pools["b"].query(fake_b, random)
        losses |= cyclegan.train_discriminators(x, y, old_a, old_b, rate * config.d_rate, random=random)
        if config.projected:
            losses |= cyclegan.train_projected(y, features, rate * config.projected_rate, random=random)
        if config.own_structure:  # on the mean of all workers, so that their factors stay equal
            (different,) = cyclegan.workers.mean([losses["structure_a"]])
            self.controller.update(1 - different)
        return losses, (fake_a, fake_b)

    def samples(self, x: Array, y: Array) -> list[Array]:
        """Faces, the average G of them, anime, the average F of them."""
        return [x, self.paint(x), y, translated(self.cyclegan.ema_ba, y)]

    def paint(self, x: Array) -> Array:
        return translated(self.cyclegan.ema_ab, x)


def translated(generator: Any, pictures: Array) -> Array:
    """One by one, so that the memory of a step is enough."""
    return np.concatenate([generator(Tensor(picture[None], ms.float32)).asnumpy() for picture in pictures])
