"""CycleGAN (arXiv 1703.10593): its losses, the pool of generated images, and one training step as compiled functions.

X is the domain A (faces), Y the domain B (anime); G = G_AB, F = G_BA. Pictures are (N, 3, H, W) float32 in [-1, 1],
scores of the discriminators (N, 1, h, w) without sigmoid. Equation numbers are the paper's.

Two additions, off unless asked for: discriminators of several scales (pix2pixHD, arXiv 1711.11585, section 3.2), which
see more of a face than 70x70 pixels, and DiffAugment (`train.diffaugment`), for sets of few pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from numpy.typing import NDArray

from train.diffaugment import Draw, augment, draw
from train.networks import PatchDiscriminator, build_generator
from train.parallel import ALONE, Workers

Array = NDArray[np.float32]
Compiled = Callable[..., tuple[Tensor, ...]]

GENERATOR_LOSSES = ("gan_ab", "gan_ba", "cycle_a", "cycle_b", "identity_a", "identity_b", "luminance")
DISCRIMINATOR_LOSSES = ("d_a", "d_b")
LUMINANCE_CELL = 16


def lsgan(score: Tensor, target: float) -> Tensor:
    """Least squares (section 4, "Training details"; arXiv 1611.04076): E[(D - target)^2]."""
    return ops.mean(ops.square(score - target))


def vanilla(score: Tensor, target: float) -> Tensor:
    """Equation 1, as the cross entropy with sigmoid(score), in the form that cannot overflow."""
    return ops.mean(ops.relu(score) - target * score + ops.log(1.0 + ops.exp(-ops.abs(score))))


def l1(a: Tensor, b: Tensor) -> Tensor:
    """E[|a - b|], the norm of the cycle and identity losses."""
    return ops.mean(ops.abs(a - b))


def luminance(x: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H / 16, W / 16): the mean of all channels over cells of 16x16 pixels."""
    return ops.avg_pool2d(ops.mean(x, 1, True), LUMINANCE_CELL, LUMINANCE_CELL)


GAN_LOSSES = {"lsgan": lsgan, "vanilla": vanilla}


def over_scales(gan: str, discriminators: tuple[nn.Cell, ...], x: Tensor, target: float) -> Tensor:
    """The GAN loss summed over discriminators, each seeing (N, C, H, W) at half the size of the one before."""
    loss, total = GAN_LOSSES[gan], ops.zeros((), ms.float32)
    for scale, discriminator in enumerate(discriminators):
        if scale > 0:
            x = ops.avg_pool2d(x, 2, 2)
        total = total + loss(discriminator(x), target)
    return total


def by_scale(name: str, discriminators: tuple[nn.Cell, ...]) -> dict[str, nn.Cell]:
    """The discriminators by the names that files of weights use: NAME, NAME2, ..."""
    return {f"{name}{scale if scale > 1 else ''}": cell for scale, cell in enumerate(discriminators, 1)}


@dataclass(frozen=True)
class Weights:
    """The factors of the loss terms; the adversarial ones have 1."""

    gan: str = "lsgan"
    cycle: float = 10.0
    identity: float = 5.0


class CycleGAN:
    """The networks, the moving averages of the generators, two optimizers, and the compiled steps over them.

    `d_scales` discriminators a domain, each at half the size of the one before; `policy`: of `train.diffaugment`.
    """

    def __init__(
        self,
        generator: str,
        options: dict[str, object],
        d_width: int,
        beta1: float,
        weights: Weights,
        d_scales: int = 1,
        policy: str = "",
        workers: Workers = ALONE,
    ) -> None:
        self.weights = weights
        self.workers = workers
        self.policy = policy
        self.g_ab, self.g_ba = (build_generator(generator, **options) for _ in "ab")
        self.d_a, self.d_b = (tuple(PatchDiscriminator(d_width) for _ in range(d_scales)) for _ in "ab")
        self.ema_ab, self.ema_ba = (build_generator(generator, **options) for _ in "ab")
        for name, cell in self.networks().items():
            cell.update_parameters_name(f"{name}.")
            cell.set_train(not name.startswith("ema"))
        self.g_parameters = ParameterTuple([*self.g_ab.trainable_params(), *self.g_ba.trainable_params()])
        self.d_parameters = ParameterTuple([p for d in (*self.d_a, *self.d_b) for p in d.trainable_params()])
        self.ema_parameters = ParameterTuple([*self.ema_ab.trainable_params(), *self.ema_ba.trainable_params()])
        self.g_optimizer = nn.Adam(self.g_parameters, 1e-4, beta1)
        self.d_optimizer = nn.Adam(self.d_parameters, 1e-4, beta1)
        self._average = Average(self.ema_parameters, self.g_parameters)
        self._compiled: dict[object, Compiled] = {}
        self.restart_average()

    def networks(self) -> dict[str, nn.Cell]:
        """By the names that files of weights use; `ema` is the average of `gab`, as the PyTorch twin writes it."""
        scales = {**by_scale("da", self.d_a), **by_scale("db", self.d_b)}
        return {"gab": self.g_ab, "gba": self.g_ba, **scales, "ema": self.ema_ab, "ema_ba": self.ema_ba}

    def adversarial(self, discriminators: tuple[nn.Cell, ...], x: Tensor, target: float, drawn: Draw = ()) -> Tensor:
        """The GAN loss of pictures that are to be taken for `target` (1 real, 0 generated), summed over the scales."""
        return over_scales(self.weights.gan, discriminators, augment(x, drawn), target)

    def generator_loss(
        self, x: Tensor, y: Tensor, gray: Tensor, identity: bool, light: bool, *drawn: Tensor
    ) -> tuple[Tensor, ...]:
        """Equation 3 for G and F, with the identity loss of section 5.2 ("photo generation from paintings").

        `drawn`: the augmentation of G(x), then that of F(y). Returns the total, GENERATOR_LOSSES in their order (terms
        before their factors), then G(x) and F(y).
        """
        zero, half = ops.zeros((), ms.float32), len(drawn) // 2
        identity_a = identity_b = tone = zero
        if identity:  # G(x) and G(y) in one pass: instance norm keeps pictures apart
            n = x.shape[0]
            both_b, both_a = self.g_ab(ops.concat((x, y))), self.g_ba(ops.concat((y, x)))
            fake_b, fake_a = both_b[:n], both_a[:n]
            identity_b, identity_a = l1(both_b[n:], y), l1(both_a[n:], x)  # E|G(y) - y|, E|F(x) - x|
        else:
            fake_b, fake_a = self.g_ab(x), self.g_ba(y)
        gan_ab = self.adversarial(self.d_b, fake_b, 1.0, drawn[:half])  # equation 1: G and F to fool D
        gan_ba = self.adversarial(self.d_a, fake_a, 1.0, drawn[half:])
        cycle_a, cycle_b = l1(self.g_ba(fake_b), x), l1(self.g_ab(fake_a), y)  # equation 2: F(G(x)) = x, G(F(y)) = y
        if light:
            tone = l1(luminance(fake_b), luminance(x)) + l1(luminance(fake_a), luminance(y))
        w = self.weights
        total = gan_ab + gan_ba + w.cycle * (cycle_a + cycle_b) + w.identity * (identity_a + identity_b) + gray * tone
        return total, gan_ab, gan_ba, cycle_a, cycle_b, identity_a, identity_b, tone, fake_b, fake_a

    def discriminator_loss(
        self, x: Tensor, y: Tensor, fake_a: Tensor, fake_b: Tensor, *drawn: Tensor
    ) -> tuple[Tensor, ...]:
        """Equation 1 for D_X and D_Y, halved (section 4): the total, then DISCRIMINATOR_LOSSES.

        `drawn`: the augmentations of x, y, fake_a and fake_b, one after the other.
        """
        n = len(drawn) // 4
        d_a = self.adversarial(self.d_a, x, 1.0, drawn[:n])
        d_a = d_a + self.adversarial(self.d_a, fake_a, 0.0, drawn[2 * n : 3 * n])
        d_b = self.adversarial(self.d_b, y, 1.0, drawn[n : 2 * n])
        d_b = d_b + self.adversarial(self.d_b, fake_b, 0.0, drawn[3 * n :])
        return 0.5 * (d_a + d_b), 0.5 * d_a, 0.5 * d_b

    def train_generators(
        self, x: Array, y: Array, rate: float, identity: bool, gray: float, *, random: np.random.Generator
    ) -> tuple[dict[str, float], Array, Array]:
        """One Adam step of G and F: their losses by name, then G(x) and F(y) of before the step."""
        step = self._generator_step(identity, gray > 0)
        drawn = self._drawn((x, y), random)
        values = step(Tensor(rate, ms.float32), Tensor(x), Tensor(y), Tensor(gray, ms.float32), *drawn)
        _, *terms, fake_b, fake_a = values
        losses = {name: float(term) for name, term in zip(GENERATOR_LOSSES, terms, strict=True)}
        return losses, fake_b.asnumpy(), fake_a.asnumpy()

    def train_discriminators(
        self, x: Array, y: Array, fake_a: Array, fake_b: Array, rate: float, *, random: np.random.Generator
    ) -> dict[str, float]:
        """One Adam step of D_X and D_Y: their losses by name."""
        pictures = (x, y, fake_a, fake_b)
        drawn = self._drawn(pictures, random)
        _, *terms = self._discriminator_step()(Tensor(rate, ms.float32), *map(Tensor, pictures), *drawn)
        return {name: float(term) for name, term in zip(DISCRIMINATOR_LOSSES, terms, strict=True)}

    def _drawn(self, batches: tuple[Array, ...], random: np.random.Generator) -> Draw:
        # One flat row of arguments: a tuple among them would be a constant, and each step would be compiled anew.
        return tuple(part for batch in batches for part in draw(self.policy, batch.shape, random))

    def average(self, decay: float) -> None:
        """ema = decay ema + (1 - decay) G, for every weight of both generators."""
        self._average(Tensor(1 - decay, ms.float32))

    def restart_average(self) -> None:
        """The averages start as the generators are."""
        self._average.restart()

    def _generator_step(self, identity: bool, light: bool) -> Compiled:
        key = ("g", identity, light)
        if key not in self._compiled:

            def loss(x: Tensor, y: Tensor, gray: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
                return self.generator_loss(x, y, gray, identity, light, *drawn)

            self._compiled[key] = compiled_step(loss, self.g_optimizer, self.g_parameters, self.workers)
        return self._compiled[key]

    def _discriminator_step(self) -> Compiled:
        if "d" not in self._compiled:

            def loss(x: Tensor, y: Tensor, fake_a: Tensor, fake_b: Tensor, *drawn: Tensor) -> tuple[Tensor, ...]:
                return self.discriminator_loss(x, y, fake_a, fake_b, *drawn)

            self._compiled["d"] = compiled_step(loss, self.d_optimizer, self.d_parameters, self.workers)
        return self._compiled["d"]


def compiled_step(
    loss: Compiled, optimizer: nn.Optimizer, parameters: ParameterTuple, workers: Workers = ALONE
) -> Compiled:
    """One graph of forward and backward, one of the update; `loss` returns what to minimise, then what to report.

    Two graphs, because one of both takes half as long again: its updates keep the runtime from overlapping the rest.
    """
    gradients = ms.jit(ms.value_and_grad(loss, None, parameters, has_aux=True))
    current_rate, reducer = optimizer.learning_rate, workers.reducer(parameters)

    @ms.jit
    def update(rate: Tensor, *gradient: Tensor) -> Tensor:
        # In the graph: a compiled graph does not see what set_data does to the parameter later.
        ops.assign(current_rate, rate)
        if reducer is not None:
            gradient = reducer(gradient)
        return ops.depend(rate, optimizer(gradient))

    def step(rate: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
        values, gradient = gradients(*batch)
        update(rate, *gradient)
        return values

    return step


class Average(nn.Cell):
    """old = old + share (new - old), for two lists of parameters."""

    def __init__(self, old: ParameterTuple, new: ParameterTuple) -> None:
        super().__init__()
        self.old, self.new = old, new

    @ms.jit
    def construct(self, share: Tensor) -> Tensor:
        for i in range(len(self.old)):
            ops.assign(self.old[i], self.old[i] + share * (self.new[i] - self.old[i]))
        return share

    def restart(self) -> None:
        for old, new in zip(self.old, self.new, strict=True):
            old.set_data(Tensor(new.asnumpy()))


class ImagePool:
    """The history of generated images (section 4; Shrivastava et al., arXiv 1612.07828), `size` deep.

    Until it is full it keeps and returns what comes; then each image is, with probability 1/2, exchanged for a random
    older one. Size 0 returns everything as it comes.
    """

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self.images: list[Array] = []

    def query(self, batch: Array, random: np.random.Generator) -> Array:
        """(N, 3, H, W) -> the same shape, for the discriminator."""
        result = []
        for image in batch:
            if len(self.images) < self.size:
                self.images.append(image.copy())
            elif self.size and random.random() < 0.5:
                place = int(random.integers(self.size))
                image, self.images[place] = self.images[place], image.copy()
            result.append(image)
        return np.stack(result)
