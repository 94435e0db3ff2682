"""Distillation: a small generator learns from a big one's pictures and features.

After GAN Compression (arXiv 2003.08936, sections 3.1 and 3.2). What the teacher makes of a face is taken as the truth,
which turns the unpaired problem into the paired one of pix2pix (arXiv 1611.07004): a conditional PatchGAN, L1, and the
mean squared difference of features. Only faces (domain A) are needed. The factors' defaults are those of the released
code for CycleGAN. In the unpaired case that code compares with real pictures of domain B instead, by a discriminator of
pictures alone that starts as the teacher's: `reals = "domain_b"` does so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from train.config import Config
from train.errors import TrainError
from train.losses import Draw, augment, draw, l1, over_scales
from train.models.model import Losses, translated
from train.models.pool import Array, ImagePool
from train.models.steps import Average, Tensors, by_scale, compiled_step, generator_of, of_config, trainable
from train.networks import PatchDiscriminator, ResidualBlock
from train.parallel import ALONE, Workers
from train.weights import Arrays, WeightsError, load_network, read_weights

GENERATOR_LOSSES, DISCRIMINATOR_LOSSES = ("gan", "recon", "distill"), ("d",)


@dataclass(frozen=True)
class Factors:
    """Of the loss terms, and the kind of GAN."""

    gan: str
    adversarial: float
    recon: float
    distill: float


class Distillation:
    """Student, teacher, discriminators, the 1x1 convolutions between features, and the compiled steps over them.

    A model as `train.models.Model` describes it. The teacher is frozen and in no file of the run.
    """

    panels = (("gan", "recon"), ("distill",), DISCRIMINATOR_LOSSES)
    discriminator_losses = DISCRIMINATOR_LOSSES
    summary: Mapping[str, tuple[str, ...]] = {name: (name,) for name in (*GENERATOR_LOSSES, *DISCRIMINATOR_LOSSES)}

    def __init__(self, config: Config, workers: Workers = ALONE) -> None:
        self.config = config
        self.factors = of_config(Factors, config)
        self.conditional = config.reals == "teacher"
        given = read_teacher(config)
        self.teacher = teacher_of(config, given[config.teacher_network])
        self.student, self.ema = (generator_of(config.generator, config.generator_options, config.size) for _ in "ab")
        inputs = 6 if self.conditional else 3
        self.discriminators = tuple(PatchDiscriminator(config.d_width, inputs) for _ in range(config.d_scales))
        self.taps: tuple[tuple[int, ...], ...] = ((), ())
        if config.distill:
            self.taps = evenly(self.student, self.teacher, config.distill_layers)
        self.adapt = nn.CellList([_adapter(self.student, self.teacher) for _ in self.taps[0]])
        if not self.conditional:
            _inherit(Path(config.teacher), given, self.networks())
        for name, cell in self.networks().items():
            cell.update_parameters_name(f"{name}.")
            cell.set_train(name != "ema")
        self.g_parameters = trainable(self.student, self.adapt)
        self.d_parameters = trainable(*self.discriminators)
        self.optimizers = {
            "g_optimizer": nn.Adam(self.g_parameters, 1e-4, config.beta1),
            "d_optimizer": nn.Adam(self.d_parameters, 1e-4, config.beta1),
        }
        self.pools = {"b": ImagePool(config.pool)}
        averages = Average(trainable(self.ema), trainable(self.student))
        self.average, self.restart_average = averages.follow, averages.restart
        self._compile(workers)
        self.restart_average()

    def _compile(self, workers: Workers) -> None:
        def teach(x: Tensor) -> tuple[Tensor, Tensors]:
            return with_features(self.teacher, self.taps[1], x)

        def of_generator(x: Tensor, truth: Tensor, *more: Tensor) -> Tensors:
            return self.generator_loss(x, truth, *more)

        def of_discriminator(real: Tensor, fake: Tensor, *drawn: Tensor) -> Tensors:
            return self.discriminator_loss(real, fake, *drawn)

        self.teach = ms.jit(teach)
        g, d = self.optimizers["g_optimizer"], self.optimizers["d_optimizer"]
        self._generator_step = compiled_step(of_generator, g, self.g_parameters, workers)
        self._discriminator_step = compiled_step(of_discriminator, d, self.d_parameters, workers)

    def networks(self) -> dict[str, nn.Cell]:
        """`dab` is the discriminator of pairs, `db` that of pictures alone; `ema` is the average of `gab`."""
        scales = by_scale("dab" if self.conditional else "db", self.discriminators)
        adapt = {"adapt": self.adapt} if len(self.adapt) else {}
        return {"gab": self.student, **scales, **adapt, "ema": self.ema}

    def adversarial(self, seen: Tensor, target: float, drawn: Draw = ()) -> Tensor:
        """The GAN loss of what is to be taken for `target` (1 the teacher's or real, 0 the student's), over all scales.

        `seen`: (N, 6, H, W), face and picture joined, or (N, 3, H, W); both are augmented alike.
        """
        if drawn:
            seen = ops.concat([augment(seen[:, i : i + 3], drawn) for i in range(0, seen.shape[1], 3)], 1)
        return over_scales(self.factors.gan, self.discriminators, seen, target)

    def generator_loss(self, x: Tensor, truth: Tensor, *more: Tensor) -> Tensors:
        """L = adversarial + recon E|G(x) - T(x)| + distill sum of E(f(features of G) - features of T)^2.

        `truth` is T(x), `more` the features that `teach` gives with it, then the augmentation. Returns the total,
        GENERATOR_LOSSES in their order (terms before their factors), then G(x).
        """
        # One flat row of arguments: a tuple among them would be a constant, and each step would be compiled anew.
        taps = len(self.taps[1])
        features, drawn = more[:taps], more[taps:]
        fake, own = with_features(self.student, self.taps[0], x)
        gan = distill = ops.zeros((), ms.float32)
        if self.factors.adversarial:
            gan = self.adversarial(ops.concat((x, fake), 1) if self.conditional else fake, 1.0, drawn)
        for i in range(len(own)):
            a, b = same_size(own[i], features[i])
            distill = distill + ops.mean(ops.square(self.adapt[i](a) - b))
        recon, by = l1(fake, truth), self.factors
        return by.adversarial * gan + by.recon * recon + by.distill * distill, gan, recon, distill, fake

    def discriminator_loss(self, real: Tensor, fake: Tensor, *drawn: Tensor) -> Tensors:
        """Halved (pix2pix, section 3.3): the total, and the same as the one of DISCRIMINATOR_LOSSES.

        `drawn`: the augmentations of the two, one after the other.
        """
        half = len(drawn) // 2
        d = 0.5 * (self.adversarial(real, 1.0, drawn[:half]) + self.adversarial(fake, 0.0, drawn[half:]))
        return d, d

    def step(self, step: int, x: Array, y: Array, random: np.random.Generator) -> tuple[Losses, tuple[Array, ...]]:
        """One Adam step of student and 1x1 convolutions, one of the discriminators, on what the student made before."""
        config, rate, faces = self.config, self.config.rate_at(step), Tensor(x)
        truth, features = self.teach(faces)
        more = (*features, *draw(config.diffaugment, x.shape, random))
        _, *terms, made = self._generator_step(Tensor(rate, ms.float32), faces, truth, *more)
        losses, fake = {n: float(term) for n, term in zip(GENERATOR_LOSSES, terms, strict=True)}, made.asnumpy()
        if config.adversarial:
            real = np.concatenate((x, truth.asnumpy()), 1) if self.conditional else y
            old = self.pools["b"].query(np.concatenate((x, fake), 1) if self.conditional else fake, random)
            drawn = [part for _ in "ab" for part in draw(config.diffaugment, x.shape, random)]
            rate = rate * config.d_rate
            d = self._discriminator_step(Tensor(rate, ms.float32), Tensor(real), Tensor(old), *drawn)
            losses["d"] = float(d[1])
        return losses, (fake,)

    def samples(self, x: Array, y: Array) -> list[Array]:
        """Faces, the teacher's pictures of them, those of the student's average."""
        return [x, translated(lambda picture: self.teach(picture)[0], x), self.paint(x)]

    def paint(self, x: Array) -> Array:
        return translated(self.ema, x)


def read_teacher(config: Config) -> dict[str, Arrays]:
    """The networks of the teacher's file, which has the one that teaches."""
    given = read_weights(Path(config.teacher))
    if config.teacher_network not in given:
        has = ", ".join(given)
        raise TrainError(f"{config.teacher}: has no network {config.teacher_network!r} (teacher_network): it has {has}")
    return given


def teacher_of(config: Config, arrays: Arrays) -> nn.Cell:
    """The teacher with its weights, in inference mode."""
    kind, options = config.teacher_generator, config.teacher_options
    teacher = generator_of(kind, options, config.size, "teacher_")
    try:
        load_network(teacher, arrays)
    except WeightsError as error:
        what = f"network {config.teacher_network!r} is no {kind!r} with {options}"
        raise TrainError(f"{config.teacher}: {what} (teacher_generator, teacher_options): {error}") from error
    teacher.update_parameters_name("teacher.")
    return teacher


def trunk(generator: nn.Cell) -> list[int]:
    """The places of the residual blocks in `layers`."""
    return [place for place, cell in enumerate(getattr(generator, "layers", ())) if isinstance(cell, ResidualBlock)]


def evenly(student: nn.Cell, teacher: nn.Cell, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The layers after which features are compared, at equal intervals from the trunk's input to its end.

    Four for nine residual blocks, as in the released code: before the first, after the third, the sixth, the ninth. A
    shorter trunk has fewer.
    """
    trunks = [trunk(student), trunk(teacher)]
    if not all(trunks):
        raise TrainError("distill: only generators with residual blocks have features to compare; set distill = 0")
    count = min(count, *(len(places) + 1 for places in trunks))
    # From the end, where a single one is taken.
    steps = [np.linspace(len(places), 0, count).round().astype(int)[::-1] for places in trunks]
    own, theirs = (tuple(int(p[0] - 1 + n) for n in s) for p, s in zip(trunks, steps, strict=True))
    return own, theirs


def with_features(generator: nn.Cell, taps: Sequence[int], x: Tensor) -> tuple[Tensor, Tensors]:
    """The generator's pictures, and its features after the layers `taps`."""
    if not taps:
        return generator(x), ()
    features: Tensors = ()
    for place, cell in enumerate(generator.layers):
        x = cell(x)
        if place in taps:
            features = (*features, x)
    return x, features


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The larger is averaged over cells down to the size of the other: 2x2 for a trunk at 1/4 and one at 1/8."""
    if b.shape[2] > a.shape[2]:
        cell = b.shape[2] // a.shape[2]
        b = ops.avg_pool2d(b, cell, cell)
    elif a.shape[2] > b.shape[2]:
        cell = a.shape[2] // b.shape[2]
        a = ops.avg_pool2d(a, cell, cell)
    return a, b


def _adapter(student: nn.Cell, teacher: nn.Cell) -> nn.Conv2d:
    """From the channels of the student's trunk to those of the teacher's."""
    channels = [cell.layers[trunk(cell)[0]].first.conv.in_channels for cell in (student, teacher)]
    return nn.Conv2d(*channels, 1, has_bias=True, weight_init=Normal(0.02), bias_init="zeros")


def _inherit(path: Path, given: Mapping[str, Arrays], cells: Mapping[str, nn.Cell]) -> None:
    """The teacher's own discriminators are the best to start from (section 3.1), where its file has them."""
    for name in sorted(cells.keys() & given.keys()):
        if name.startswith("db"):
            try:
                load_network(cells[name], given[name])
            except WeightsError as error:
                raise TrainError(f"{path}: its discriminator {name!r} does not fit d_width: {error}") from error
