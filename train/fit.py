"""`python -m train fit`: the training loop of CycleGAN, and what it leaves in the run's folder.

config.toml, about.json (versions, seed), log.csv, samples/ (step-NNNNNN.png, losses.png), checkpoint.npz, weights.npz
and card.toml, which `python -m train export` takes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import mindspore as ms
import numpy as np
from tqdm import tqdm

from h2a_batch.files import replacing
from train import checkpoint, report
from train.config import Config, config_from, tomllib
from train.cyclegan import CycleGAN, ImagePool, Weights
from train.data import POOLS, Array, batches, fixed_pictures, random_of
from train.errors import TrainError

CONSTANT = 0.01  # standard deviation of a picture in [-1, 1] below which it shows nothing
CERTAIN = 1e-5  # loss of the discriminators below which the generators learn nothing


def fit(config: Config, out: Path, resume: bool = False, stop_after: int | None = None) -> int:
    """Trains to `config.steps`, or `stop_after` steps from here, or SIGINT; returns the last step, which is saved."""
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(config.seed)
    model, pools = build(config), (ImagePool(config.pool), ImagePool(config.pool))
    first = open_run(config, out, model, pools, resume) + 1
    last = min(config.steps, first - 1 + (stop_after or config.steps))
    fixed, log, watch = fixed_pictures(config), report.Log(out, first), Watch(config.collapse_steps)
    step = first - 1
    with interruption() as stopped, tqdm(total=config.steps, initial=step, desc=config.name, unit="step") as bar:
        for step, x, y in batches(config, first, last):
            rate, random = config.rate_at(step), random_of(config, step, POOLS)
            losses, fake_b, fake_a = model.train_generators(
                x, y, rate, config.identity_at(step), config.luminance_at(step), random=random
            )
            old_a, old_b = pools[0].query(fake_a, random), pools[1].query(fake_b, random)
            losses |= model.train_discriminators(x, y, old_a, old_b, rate * config.d_rate, random=random)
            model.average(config.ema_at(step))
            watch.check(step, losses, fake_a, fake_b)
            log.add(step, losses, rate, len(x))
            bar.update()
            if step % config.log_every == 0 or step == last or stopped:
                bar.set_postfix_str(log.write())
            if step % config.sample_every == 0 or step == last:
                report.samples(out, model, fixed, step)
            if step % config.save_every == 0 or step == last or stopped:
                checkpoint.save(out, model, pools, step)
            if stopped:
                tqdm.write(f"{out}: stopped and saved at step {step}; --resume goes on")
                raise KeyboardInterrupt
    return step


def build(config: Config) -> CycleGAN:
    """The networks, freshly initialised from the seed, or from the weights that the config starts from."""
    weights = Weights(config.gan, config.cycle, config.identity)
    try:
        model = CycleGAN(
            config.generator,
            config.generator_options,
            config.d_width,
            config.beta1,
            weights,
            config.d_scales,
            config.diffaugment,
        )
    except (ValueError, TypeError) as error:
        raise TrainError(f"generator {config.generator!r} with {config.generator_options}: {error}") from error
    if config.start:
        checkpoint.start_from(Path(config.start), model)
    return model


def open_run(config: Config, out: Path, model: CycleGAN, pools: checkpoint.Pools, resume: bool) -> int:
    """Makes or resumes the run's folder; returns the last step that is done."""
    done = checkpoint.load(out, model, pools) if resume else 0
    if not resume and (out / checkpoint.CHECKPOINT).exists():
        raise TrainError(f"{out}: has a run already; go on with it by --resume, or choose another --out")
    if resume:
        for line in differences(out, config):
            tqdm.write(f"resumed with {line}")
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "config.toml": config.toml(),
        "about.json": json.dumps({"seed": config.seed, "resumed_at": done, **checkpoint.versions()}, indent=1) + "\n",
        "card.toml": report.card(config),
    }
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write(text.encode())
    return done


def differences(out: Path, config: Config) -> list[str]:
    """What the config changes in the run that it resumes."""
    path = out / "config.toml"
    old = dataclasses.asdict(config_from(tomllib.loads(path.read_text(encoding="utf-8")), path))
    new = dataclasses.asdict(config)
    return [f"{name} = {new[name]!r} (was {old[name]!r})" for name in new if new[name] != old[name]]


class Watch:
    """Stops a run that cannot come back: a loss that is not a number, or generators that have collapsed."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.constant = self.certain = 0

    def check(self, step: int, losses: dict[str, float], *fakes: Array) -> None:
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if broken:
            raise TrainError(f"step {step}: the loss {broken[0]} is not a number; the last checkpoint is kept")
        flat = min(float(np.std(picture)) for fake in fakes for picture in fake) < CONSTANT
        self.constant = self.constant + 1 if flat else 0
        self.certain = self.certain + 1 if losses["d_a"] + losses["d_b"] < CERTAIN else 0
        kept = f"for {self.patience} steps, up to step {step}; the last checkpoint is kept"
        if self.constant >= self.patience:
            raise TrainError(f"a generator has collapsed: its pictures are of one colour {kept}")
        if self.certain >= self.patience:
            raise TrainError(f"the discriminators have won: they are certain of every picture {kept}")


@contextmanager
def interruption() -> Iterator[list[int]]:
    """A list that SIGINT or SIGTERM makes true; a second one ends the process as usual."""
    received: list[int] = []
    previous = {}

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, receive)
    except ValueError:  # not in the main thread: nothing to catch
        pass
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
