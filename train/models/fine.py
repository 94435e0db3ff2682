"""The fine half of `coarse-to-fine`, learnt from anime faces alone: each is its own pair.

Made small by means and worn (`train.data`) it is what goes in, whole it is what should come out. The loss is that of
SRGAN (arXiv 1609.04802, section 2.2) with newer parts: L1 to the whole picture, agreement of the result made small
again, features of EfficientNet-Lite1 in place of VGG's, and a GAN of two discriminators, a projected one (arXiv
2111.01007) and a PatchGAN (arXiv 1611.07004, section 3.2.2).

With a coarse half (`coarse`) the second half of each batch is what that makes of photos. There is no right answer to
these, so that they learn from the discriminators and the agreement alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from train.config import FINE, Config
from train.data import cell_means, worn
from train.errors import TrainError
from train.foreign import load_weights
from train.losses import hinge, hinge_generator, l1, lsgan
from train.models.model import Losses, translated
from train.models.pool import Array, ImagePool
from train.models.steps import Average, Tensors, compiled_step, generator_of, of_config, trainable
from train.networks import PatchDiscriminator, ProjectedDiscriminator, build_generator
from train.parallel import ALONE, Workers
from train.weights import WeightsError, load_network, read_weights

GENERATOR_LOSSES = ("recon", "agreement", "features", "gan", "gan_photos")
DISCRIMINATOR_LOSSES = ("d_patch", "d_projected")
FEATURE_SCALES = 3  # of the four: the last has hardly any place left
GRID = 4  # crops begin at multiples of so many pixels, where cells of the small picture and of the network begin
DISCRIMINATORS_BETA1 = 0.5
COARSE_NETWORKS = ("ema", "gab")  # of a file, the first that it has


@dataclass(frozen=True)
class Factors:
    """Of the loss terms; 0 leaves a term out."""

    recon: float
    agreement: float
    features: float
    adversarial: float
    patch: float
    projected: float
    photos: float


def agreement(made: Tensor, small: Tensor, times: int) -> Tensor:
    """E|means(G(s)) - s|: the result made small again is what it was made of (PULSE, arXiv 2003.03808, equation 1).

    `made`: (N, 3, times h, times w); `small`: (N, 3, h, w).
    """
    return l1(ops.avg_pool2d(made, times, times), small)


def feature_loss(made: Tensors, real: Tensors) -> Tensor:
    """sum over layers of E|f(G(s)) - f(y)| / E|f(y)| (arXiv 1603.08155, section 3.2, here with L1 and that measure)."""
    total = ops.zeros((), ms.float32)
    for i in range(len(made)):
        total = total + l1(made[i], real[i]) / ops.mean(ops.abs(real[i]))
    return total


class FineTraining:
    """Generator, its average, discriminators, the coarse half if any, and the compiled steps over them.

    A model as `train.models.Model` describes it. The coarse half is frozen and in no file of the run.
    """

    discriminator_losses = DISCRIMINATOR_LOSSES

    def __init__(self, config: Config, workers: Workers = ALONE) -> None:
        self.config = config
        self.factors = of_config(Factors, config)
        self.generator, self.ema = (generator_of(FINE, config.generator_options, config.size) for _ in "ab")
        self.times = self.generator.times
        self.coarse: Any = ms.jit(coarse_half(config)) if config.coarse else None
        # Of a batch the first ones have a right answer.
        self.right = config.batch // 2 if self.coarse else config.batch
        self.patch: Any = PatchDiscriminator(config.d_width) if self.factors.patch else None
        needed = self.factors.projected or self.factors.features
        self.projected: Any = ProjectedDiscriminator(load_weights("lite1"), config.crop) if needed else None
        for name, cell in self.networks().items():
            cell.update_parameters_name(f"{name}.")
            cell.set_train(name != "ema")
        self.g_parameters = trainable(self.generator)
        used = ((self.patch, self.factors.patch), (self.projected, self.factors.projected))
        self.d_parameters = trainable(*(cell for cell, factor in used if factor))
        g_optimizer = nn.Adam(self.g_parameters, 1e-4, config.beta1, config.beta2)
        self.optimizers = {"g_optimizer": g_optimizer}
        if self.has_gan:
            self.optimizers["d_optimizer"] = nn.Adam(self.d_parameters, 1e-4, DISCRIMINATORS_BETA1, config.beta2)
        self.pools: Mapping[str, ImagePool] = {}
        shown = tuple(name for name in GENERATOR_LOSSES[:3] if getattr(self.factors, name))
        gan = GENERATOR_LOSSES[3 : 5 if self.coarse else 4] if self.has_gan else ()
        self.panels = (shown, gan, DISCRIMINATOR_LOSSES) if self.has_gan else (shown,)
        self.summary: Mapping[str, tuple[str, ...]] = {name: (name,) for name in (*shown, *gan)}
        averages = Average(trainable(self.ema), self.g_parameters)
        self.average, self.restart_average = averages.follow, averages.restart
        self._compile(workers)
        self.restart_average()

    @property
    def has_gan(self) -> bool:
        return bool(self.factors.adversarial and len(self.d_parameters))

    def _compile(self, workers: Workers) -> None:
        def of_generator(gan: Tensor, small: Tensor, whole: Tensor) -> Tensors:
            return self.generator_loss(gan, small, whole)

        def of_discriminators(whole: Tensor, made: Tensor, *mixed: Tensor) -> Tensors:
            return self.discriminator_loss(whole, made, *mixed)

        self._generator_step = compiled_step(of_generator, self.optimizers["g_optimizer"], self.g_parameters, workers)
        if self.has_gan:
            optimizer = self.optimizers["d_optimizer"]
            self._discriminator_step = compiled_step(of_discriminators, optimizer, self.d_parameters, workers)

    def networks(self) -> dict[str, nn.Cell]:
        """`gab` is the fine half and `ema` its average, as of other generators; `pb` is the projected discriminator."""
        cells = {"gab": self.generator, "db": self.patch, "pb": self.projected, "ema": self.ema}
        return {name: cell for name, cell in cells.items() if cell is not None}

    def adversarial(self, made: Tensor, scores: Tensors) -> Tensor:
        """The generator's GAN loss of its pictures and of the projected discriminator's scores of them."""
        by, total = self.factors, ops.zeros((), ms.float32)
        if by.patch:
            total = total + by.patch * lsgan(self.patch(made), 1.0)
        if by.projected:
            total = total + by.projected * hinge_generator(scores)
        return total

    def generator_loss(self, gan: Tensor, small: Tensor, whole: Tensor) -> Tensors:
        """The terms times their factors; `gan` is the one of the GAN terms, which changes with the step.

        `small` (N, 3, h, w), `whole` (N, 3, times h, times w), of which the first `right` belong together. Returns the
        total, GENERATOR_LOSSES in their order (terms before their factors), G(small), then the mixed features of that
        and of `whole`, for the discriminators' step.
        """
        by, right, made = self.factors, self.right, self.generator(small)
        recon = agree = feature = adversarial = photos = ops.zeros((), ms.float32)
        if by.recon:
            recon = l1(made[:right], whole[:right])
        if by.agreement:
            agree = agreement(made, self.answers(small, whole), self.times)
        mixed: Tensors = ()
        if by.features or by.projected:
            own, real = self.projected.lite(made), self.projected.lite(whole)
            if by.features:
                feature = feature_loss(*(tuple(f[:right] for f in part[:FEATURE_SCALES]) for part in (own, real)))
            if by.projected:
                mixed = (*self.projected.mixing(*own), *self.projected.mixing(*real))
        if self.has_gan:
            scores = self.projected(*mixed[:4]) if by.projected else ()
            adversarial = self.adversarial(made[:right], tuple(s[:right] for s in scores))
            if right < made.shape[0]:
                photos = self.adversarial(made[right:], tuple(s[right:] for s in scores))
        share = right / made.shape[0]
        total = by.recon * recon + by.agreement * agree + by.features * feature
        total = total + gan * (share * adversarial + (1 - share) * by.photos * photos)
        return (total, recon, agree, feature, adversarial, photos, made, *mixed)

    def answers(self, small: Tensor, whole: Tensor) -> Tensor:
        """What results should be when made small again: the unworn picture, or the coarse half's own."""
        means = ops.avg_pool2d(whole[: self.right], self.times, self.times)
        return ops.concat((means, small[self.right :])) if self.right < small.shape[0] else means

    def discriminator_loss(self, whole: Tensor, made: Tensor, *mixed: Tensor) -> Tensors:
        """The total, then DISCRIMINATOR_LOSSES: least squares, halved, of the patches, and hinges of the projected one.

        `mixed`: the features of `made`, then those of `whole`, as `generator_loss` returns them.
        """
        patch = projected = ops.zeros((), ms.float32)
        if self.factors.patch:
            patch = 0.5 * (lsgan(self.patch(whole), 1.0) + lsgan(self.patch(made), 0.0))
        if self.factors.projected:
            projected = hinge(self.projected(*mixed[4:]), 1.0) + hinge(self.projected(*mixed[:4]), -1.0)
        return patch + projected, patch, projected

    def step(self, step: int, x: Array, y: Array, random: np.random.Generator) -> tuple[Losses, tuple[Array, ...]]:
        """One Adam step of the generator, one of the discriminators on what it made before."""
        config, rate = self.config, self.config.rate_at(step)
        small, whole = map(Tensor, self.pairs(x, y, random))
        gan = Tensor(config.gan_at(step), ms.float32)
        _, *values = self._generator_step(Tensor(rate, ms.float32), gan, small, whole)
        losses = {name: float(value) for name, value in zip(GENERATOR_LOSSES, values, strict=False)}
        made, *mixed = values[len(GENERATOR_LOSSES) :]
        pictures = made.asnumpy()
        if self.has_gan:
            _, *terms = self._discriminator_step(Tensor(rate * config.d_rate, ms.float32), whole, made, *mixed)
            losses |= {name: float(term) for name, term in zip(DISCRIMINATOR_LOSSES, terms, strict=True)}
        return losses, (pictures,)

    def pairs(self, x: Array, y: Array, random: np.random.Generator) -> tuple[Array, Array]:
        """Small pictures (N, 3, crop / times, crop / times) and anime (N, 3, crop, crop), cut at the same places.

        `x`: faces, of which the coarse half draws as many as it takes; `y`: N anime faces.
        """
        small = worn(cell_means(y[: self.right], self.times), random)
        if self.coarse:
            faces = cell_means(x[: len(y) - self.right], self.times)
            small = np.concatenate((small, self.coarse(Tensor(faces)).asnumpy()))
        side, crop = y.shape[2], self.config.crop
        places = GRID * random.integers(0, (side - crop) // GRID + 1, (len(y), 2))
        wholes = [p[:, i : i + crop, j : j + crop] for p, (i, j) in zip(y, places, strict=True)]
        places, crop = places // self.times, crop // self.times
        smalls = [p[:, i : i + crop, j : j + crop] for p, (i, j) in zip(small, places, strict=True)]
        return np.stack(smalls), np.stack(wholes)

    def samples(self, x: Array, y: Array) -> list[Array]:
        """Anime made small, the average's pictures of it; faces and what both halves make of them, if there are two."""
        small = cell_means(y, self.times)
        rows = [small.repeat(self.times, 2).repeat(self.times, 3), translated(self.ema, small)]
        return [*rows, x, self.paint(x)] if self.coarse else rows

    def paint(self, x: Array) -> Array:
        """Faces by both halves; without a coarse half, pictures made small and drawn large again."""
        small = cell_means(x, self.times)
        return translated(self.ema, translated(self.coarse, small) if self.coarse else small)


def coarse_half(config: Config) -> nn.Cell:
    """The coarse half with its weights, in inference mode."""
    path, options = Path(config.coarse), config.coarse_options
    networks = read_weights(path)
    name = next((name for name in COARSE_NETWORKS if name in networks), None)
    if name is None:
        raise TrainError(f"{path}: has no network 'ema' or 'gab' (coarse): it has {', '.join(networks)}")
    try:
        coarse = build_generator("coarse", **options)
        load_network(coarse, networks[name])
    except (TypeError, ValueError, WeightsError) as error:
        raise TrainError(f"{path}: network {name!r} is no 'coarse' with {options} (coarse_options): {error}") from error
    coarse.update_parameters_name("coarse.")
    return coarse
