"""CycleGAN (arXiv 1703.10593): its networks, and one training step as compiled functions.

X is the domain A (faces), Y the domain B (anime); G = G_AB, F = G_BA. Pictures are (N, 3, H, W) float32 in [-1, 1],
scores of the discriminators (N, 1, h, w) without sigmoid. Equation numbers are the paper's.

The loss of the generators is a sum of named terms times factors (`schedule`). Beyond the paper's, off unless asked for:
own structure and own colour, and noise on what goes back round the cycle, so that it cannot carry a hidden copy of the
picture (arXiv 1712.02950). Discriminators may be of several scales (pix2pixHD, arXiv 1711.11585, section 3.2), which
see more of a face than 70x70 pixels; a projected one may judge G(x), too; and all of them may see pictures augmented
(`augment` of `train.losses`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from train.config import Config
from train.foreign import load_weights
from train.losses import (
    Draw,
    augment,
    draw,
    hinge,
    hinge_generator,
    l1,
    luminance,
    over_scales,
    own_colour,
    own_structure,
)
from train.models.pool import Array
from train.models.steps import Average, Compiled, Tensors, by_scale, compiled_step, generator_of, of_config, trainable
from train.networks import PatchDiscriminator, ProjectedDiscriminator
from train.parallel import ALONE, Workers

PAPER_LOSSES = ("gan_ab", "gan_ba", "cycle_a", "cycle_b", "identity_a", "identity_b", "luminance")
GENERATOR_LOSSES = (*PAPER_LOSSES, "structure_a", "structure_b", "colour", "projected")
DISCRIMINATOR_LOSSES = ("d_a", "d_b")
PROJECTED_LOSS = "d_projected"
FEATURES = "lite1"  # of the projected discriminator


@dataclass(frozen=True)
class Options:
    """What of a Config the compiled functions read."""

    gan: str
    cycle_noise: float
    identity_share: float
    luminance_cell: int


class CycleGAN:
    """The networks, the moving averages of the generators, the optimizers, and the compiled steps over them."""

    def __init__(self, config: Config, workers: Workers = ALONE) -> None:
        self.options = of_config(Options, config)
        self.policy, self.workers = config.diffaugment, workers
        generators = [generator_of(config.generator, config.generator_options, config.size) for _ in range(4)]
        self.g_ab, self.g_ba, self.ema_ab, self.ema_ba = generators
        widths = (config.d_width_a or config.d_width, config.d_width)
        self.d_a, self.d_b = (tuple(PatchDiscriminator(width) for _ in range(config.d_scales)) for width in widths)
        self.projected: Any = None
        if config.projected:
            self.projected = ProjectedDiscriminator(load_weights(FEATURES), config.projected_size)
        for name, cell in self.networks().items():
            cell.update_parameters_name(f"{name}.")
            cell.set_train(not name.startswith("ema"))
        self.g_parameters = trainable(self.g_ab, self.g_ba)
        self.d_parameters = trainable(*self.d_a, *self.d_b)
        self.ema_parameters = trainable(self.ema_ab, self.ema_ba)
        groups = {"g_optimizer": self.g_parameters, "d_optimizer": self.d_parameters}
        if self.projected:
            groups["p_optimizer"] = trainable(self.projected)
        self.optimizers = {name: nn.Adam(group, 1e-4, config.beta1, config.beta2) for name, group in groups.items()}
        averages = Average(self.ema_parameters, self.g_parameters)
        self.average, self.restart_average = averages.follow, averages.restart
        self._generator_steps: dict[tuple[str, ...], Compiled] = {}
        self._compile()
        self.restart_average()

    def networks(self) -> dict[str, nn.Cell]:
        """By the names that files of weights use; `ema` is the average of `gab`, as the PyTorch twin writes it."""
        judges = {**by_scale("da", self.d_a), **by_scale("db", self.d_b)}
        judges |= {"pb": self.projected} if self.projected else {}
        return {"gab": self.g_ab, "gba": self.g_ba, **judges, "ema": self.ema_ab, "ema_ba": self.ema_ba}

    def adversarial(self, discriminators: tuple[nn.Cell, ...], seen: Tensor, target: float | Tensor) -> Tensor:
        """The GAN loss of pictures that are to be taken for `target` (1 real, 0 generated), summed over the scales."""
        return over_scales(self.options.gan, discriminators, seen, target)

    def generator_loss(self, wanted: tuple[str, ...], x: Tensor, y: Tensor, factors: Tensor, *drawn: Tensor) -> Tensors:
        """Equation 3 for G and F: the sum of the terms `wanted`, of GENERATOR_LOSSES in their order, times `factors`.

        `factors`: (terms,). `drawn`: the augmentations of G(x) and F(y), after the noise on them, if any. Returns the
        total, the terms, then G(x) and F(y), then the features of G(x) where the projected discriminator has a term.
        """
        options = self.options
        noise, drawn = (drawn[:2], drawn[2:]) if options.cycle_noise else ((), drawn)
        half = len(drawn) // 2
        few = max(1, int(x.shape[0] * options.identity_share)) if "identity_a" in wanted else 0
        fake_b, same_b = together(self.g_ab, x, y, few)
        fake_a, same_a = together(self.g_ba, y, x, few)
        seen_b, seen_a = augment(fake_b, drawn[:half]), augment(fake_a, drawn[half:])
        # Equation 1, G and F are to fool D; then equation 2, F(G(x)) = x and G(F(y)) = y.
        terms: Tensors = (self.adversarial(self.d_b, seen_b, 1.0), self.adversarial(self.d_a, seen_a, 1.0))
        if "cycle_a" in wanted:
            terms = (*terms, l1(self.g_ba(fake_b + noise[0] if noise else fake_b), x))
        if "cycle_b" in wanted:
            terms = (*terms, l1(self.g_ab(fake_a + noise[1] if noise else fake_a), y))
        if few:  # section 5.2, "photo generation from paintings"
            terms = (*terms, l1(same_a, x[:few]), l1(same_b, y[:few]))
        if "luminance" in wanted:
            a, b, made_b, made_a = (luminance(v, options.luminance_cell) for v in (x, y, fake_b, fake_a))
            terms = (*terms, l1(made_b, a) + l1(made_a, b))
        if "structure_a" in wanted:
            terms = (*terms, 1.0 - own_structure(fake_b, x))
        if "structure_b" in wanted:
            terms = (*terms, 1.0 - own_structure(fake_a, y))
        if "colour" in wanted:
            terms = (*terms, 1.0 - own_colour(fake_b, x))
        features: Tensors = ()
        if "projected" in wanted:
            features = self.projected.features(seen_b)
            terms = (*terms, hinge_generator(self.projected(*features)))
        return (ops.sum(factors * ops.stack(terms)), *terms, fake_b, fake_a, *features)

    def discriminator_loss(self, x: Tensor, y: Tensor, fake_a: Tensor, fake_b: Tensor, *drawn: Tensor) -> Tensors:
        """Equation 1 for D_X and D_Y, halved (section 4): the total, then DISCRIMINATOR_LOSSES.

        `drawn`: the augmentations of real and generated faces, joined, then those of anime.
        """
        half, n = len(drawn) // 2, x.shape[0]
        # In one pass, whose mean over both is the half of their sum.
        targets = ops.concat((ops.ones((n, 1, 1, 1), ms.float32), ops.zeros((n, 1, 1, 1), ms.float32)))
        d_a = self.adversarial(self.d_a, augment(ops.concat((x, fake_a)), drawn[:half]), targets)
        d_b = self.adversarial(self.d_b, augment(ops.concat((y, fake_b)), drawn[half:]), targets)
        return d_a + d_b, d_a, d_b

    def projected_loss(self, y: Tensor, *more: Tensor) -> Tensors:
        """The hinges of real anime and of G(x), whose features come first in `more`; then the augmentation of y."""
        real = self.projected.features(augment(y, more[4:]))
        loss = hinge(self.projected(*real), 1.0) + hinge(self.projected(*more[:4]), -1.0)
        return loss, loss

    def train_generators(
        self, x: Array, y: Array, rate: float, factors: Mapping[str, float], *, random: np.random.Generator
    ) -> tuple[dict[str, float], Array, Array, Tensors]:
        """One Adam step of G and F: their losses by name, then G(x), F(y) and features of G(x) of before the step.

        `factors`: of the terms, by their names in GENERATOR_LOSSES; the adversarial ones have 1. A term without a
        factor, or with 0, is not computed.
        """
        factors = {"gan_ab": 1.0, "gan_ba": 1.0, **factors}
        wanted = tuple(name for name in GENERATOR_LOSSES if factors.get(name))
        drawn = self._drawn((x, y), random)
        if self.options.cycle_noise:
            noise = (random.standard_normal(v.shape, np.float32) * np.float32(self.options.cycle_noise) for v in (x, y))
            drawn = (*map(Tensor, noise), *drawn)
        numbers = Tensor([factors[name] for name in wanted], ms.float32)
        step = self._generator_step(wanted)
        _, *values = step(Tensor(rate, ms.float32), Tensor(x), Tensor(y), numbers, *drawn)
        losses = {name: float(value) for name, value in zip(wanted, values, strict=False)}
        fake_b, fake_a, *features = values[len(wanted) :]
        return losses, fake_b.asnumpy(), fake_a.asnumpy(), tuple(features)

    def train_discriminators(
        self, x: Array, y: Array, fake_a: Array, fake_b: Array, rate: float, *, random: np.random.Generator
    ) -> dict[str, float]:
        """One Adam step of D_X and D_Y: their losses by name."""
        pictures = (x, y, fake_a, fake_b)
        drawn = self._drawn((np.concatenate((x, fake_a)), np.concatenate((y, fake_b))), random)
        _, *terms = self._discriminator_step(Tensor(rate, ms.float32), *map(Tensor, pictures), *drawn)
        return {name: float(term) for name, term in zip(DISCRIMINATOR_LOSSES, terms, strict=True)}

    def train_projected(
        self, y: Array, features: Tensors, rate: float, *, random: np.random.Generator
    ) -> dict[str, float]:
        """One Adam step of the projected discriminator's heads, on the features that `train_generators` gave."""
        drawn = self._drawn((y,), random)
        _, loss = self._projected_step(Tensor(rate, ms.float32), Tensor(y), *features, *drawn)
        return {PROJECTED_LOSS: float(loss)}

    def _drawn(self, batches: tuple[Array, ...], random: np.random.Generator) -> Draw:
        # One flat row of arguments: a tuple among them would be a constant, and each step would be compiled anew.
        return tuple(part for batch in batches for part in draw(self.policy, batch.shape, random))

    def _compile(self) -> None:
        """Compiles nothing yet: each step is compiled when it is first taken."""

        def of_discriminators(x: Tensor, y: Tensor, fake_a: Tensor, fake_b: Tensor, *drawn: Tensor) -> Tensors:
            return self.discriminator_loss(x, y, fake_a, fake_b, *drawn)

        def of_projected(y: Tensor, *more: Tensor) -> Tensors:
            return self.projected_loss(y, *more)

        self._discriminator_step = self._step(of_discriminators, "d_optimizer")
        if self.projected:
            self._projected_step = self._step(of_projected, "p_optimizer")

    def _generator_step(self, wanted: tuple[str, ...]) -> Compiled:
        """A step for each set of terms: luminance ends after a while, identity may be left out now and then."""

        def of_generators(x: Tensor, y: Tensor, factors: Tensor, *drawn: Tensor) -> Tensors:
            return self.generator_loss(wanted, x, y, factors, *drawn)

        if wanted not in self._generator_steps:
            self._generator_steps[wanted] = self._step(of_generators, "g_optimizer")
        return self._generator_steps[wanted]

    def _step(self, loss: Compiled, optimizer: str) -> Compiled:
        return compiled_step(loss, self.optimizers[optimizer], self.optimizers[optimizer].parameters, self.workers)


def generator_losses(config: Config) -> tuple[str, ...]:
    """The terms that a run of this config may have: the paper's, and those that are asked for."""
    asked = {
        "structure_a": config.own_structure,
        "structure_b": config.own_structure,
        "colour": config.own_colour,
        "projected": config.projected,
    }
    return (*PAPER_LOSSES, *(name for name, value in asked.items() if value))


def together(generator: nn.Cell, own: Tensor, others: Tensor, few: int) -> tuple[Tensor, Tensor]:
    """The generator's pictures of its own domain, and of the first `few` of the other, for the identity loss."""
    if not few:
        made = generator(own)
        return made, made
    # In one pass: instance norm keeps pictures apart.
    made = generator(ops.concat((own, others[:few])))
    return made[: own.shape[0]], made[own.shape[0] :]
