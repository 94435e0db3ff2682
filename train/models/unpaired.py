"""CycleGAN as the training loop drives it: with its pools, its schedule and the controller of own structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from train.config import Config
from train.losses import Controller
from train.models.cyclegan import DISCRIMINATOR_LOSSES, PROJECTED_LOSS, CycleGAN, generator_losses
from train.models.model import Losses, translated
from train.models.pool import Array, ImagePool
from train.models.schedule import factors_at
from train.parallel import ALONE, Workers


class Unpaired:
    """CycleGAN with its two pools of generated pictures, and the controller of own structure."""

    summary: Mapping[str, tuple[str, ...]] = {
        "gan": ("gan_ab", "gan_ba"),
        "cycle": ("cycle_a", "cycle_b"),
        "d": DISCRIMINATOR_LOSSES,
    }

    def __init__(self, config: Config, workers: Workers = ALONE) -> None:
        self.config, self.cyclegan = config, CycleGAN(config, workers)
        self.discriminator_losses = (*DISCRIMINATOR_LOSSES, *[PROJECTED_LOSS] * bool(config.projected))
        self.panels: tuple[tuple[str, ...], ...] = (generator_losses(config), self.discriminator_losses)
        self.controller = Controller(config.own_structure)
        self.optimizers: Mapping[str, Any] = dict(self.cyclegan.optimizers)
        if config.own_structure:
            self.optimizers = {**self.optimizers, "structure": self.controller}
        self.pools: Mapping[str, ImagePool] = {"a": ImagePool(config.pool), "b": ImagePool(config.pool)}
        self.networks = self.cyclegan.networks
        self.average, self.restart_average = self.cyclegan.average, self.cyclegan.restart_average

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
