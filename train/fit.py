"""`python -m train fit`: the training loop, of CycleGAN or a distillation, and what it leaves in the run's folder.

config.toml, about.json (versions, seed), log.csv, samples/ (step-NNNNNN.png, losses.png), checkpoint.npz, weights.npz
and card.toml, which `python -m train export` takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

import mindspore as ms
import numpy as np
from tqdm import tqdm

from h2a_batch.places import hold, replacing, sha256_of
from train import best, checkpoint, report
from train.config import FINE, Config, read_config
from train.cyclegan import CycleGAN
from train.data import POOLS, Array, batches, held_out, random_of
from train.distill import Distillation
from train.errors import TrainError
from train.fine import FineTraining
from train.models import Model, Unpaired
from train.networks import total_stride
from train.parallel import ALONE, Workers

Networks = TypeVar("Networks", CycleGAN, Distillation, FineTraining)

CONSTANT = 0.01  # standard deviation of a picture in [-1, 1] below which it shows nothing
CERTAIN = 1e-5  # loss of the discriminators below which the generators learn nothing


def fit(
    config: Config, out: Path, resume: bool = False, stop_after: int | None = None, workers: Workers = ALONE
) -> int:
    """Trains to `config.steps`, or `stop_after` steps from here, or SIGINT; returns the last step, which is saved.

    Of several workers each calls this; the first one writes.
    """
    if resume and not (out / checkpoint.CHECKPOINT).exists():
        raise TrainError(f"{out / checkpoint.CHECKPOINT}: no such file, so there is nothing to resume")
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(config.seed)
    model = model_of(config, workers)
    with held(out) if workers.leads else contextlib.nullcontext():
        done = open_run(config, out, model, resume, workers)
        last = min(config.steps, done + (stop_after or config.steps))
        return train_steps(config, out, model, done + 1, last, workers)


def train_steps(config: Config, out: Path, model: Model, first: int, last: int, workers: Workers) -> int:
    """The loop over the steps first to last."""
    read = wanted_pictures(config)
    recorder = report.Recorder(config, out, model, held_out(read, config.samples), first, workers)
    scorer = best.Scorer(read, out, first) if config.score_every and workers.leads else None
    watch, step = Watch(config.collapse_steps, model.discriminator_losses), first - 1
    with interruption() as received, recorder.bar:
        for step, x, y in batches(read, first, last, workers):
            losses, made = model.step(step, x, y, random_of(config, step, POOLS, workers.rank))
            model.average(config.ema_at(step))
            losses, flat, stopped = agreed(workers, losses, is_flat(made), bool(received))
            watch.check(step, losses, flat)
            recorder.step(step, losses, len(x), at_once=step == last or stopped)
            if scorer and (step % config.score_every == 0 or step == config.steps):
                recorder.say(str(scorer.score(step, model)))
            if step % config.save_every == 0 or step == last or stopped:
                checkpoint.save(out, model, step, workers)
            if stopped:
                recorder.say(f"{out}: stopped and saved at step {step}; --resume goes on")
                raise KeyboardInterrupt
    return step


def agreed(
    workers: Workers, losses: dict[str, float], flat: bool, stopped: bool
) -> tuple[dict[str, float], bool, bool]:
    """The mean losses of all workers, and whether any of them made a flat picture, or was told to stop."""
    *means, flat_share, stopped_share = workers.mean([*losses.values(), flat, stopped])
    return dict(zip(losses, means, strict=True)), flat_share > 0, stopped_share > 0


def model_of(config: Config, workers: Workers = ALONE) -> Model:
    """CycleGAN as `build` says; where there is a teacher, a distillation; for the fine half, that one's own."""
    if config.generator == FINE:
        return started(config, FineTraining(config, workers), workers)
    if config.teacher:
        return started(config, Distillation(config, workers), workers)
    return Unpaired(config, build(config, workers))


def started(config: Config, model: Networks, workers: Workers) -> Networks:
    """The model with the weights that the config starts from, if any."""
    if config.start:
        names = checkpoint.start_from(Path(config.start), model)
        if workers.leads:
            tqdm.write(f"{config.start}: start of {', '.join(names)}")
    return model


def wanted_pictures(config: Config) -> Config:
    """A distillation from nothing but the teacher's pictures reads faces alone: there may be no domain B.

    The fine half by itself reads anime alone.
    """
    if config.generator == FINE and not config.coarse:
        return dataclasses.replace(config, domain_a=config.domain_b)
    faces = bool(config.teacher) and config.reals == "teacher"
    return dataclasses.replace(config, domain_b=config.domain_a) if faces else config


def build(config: Config, workers: Workers = ALONE) -> CycleGAN:
    """The networks, freshly initialised from the seed, or from the weights that the config starts from."""
    try:
        model = CycleGAN(config, workers)
    except (ValueError, TypeError) as error:
        raise TrainError(f"generator {config.generator!r} with {config.generator_options}: {error}") from error
    if config.size % (stride := total_stride(model.g_ab)):
        raise TrainError(f"size = {config.size}: generator {config.generator!r} needs a multiple of {stride}")
    return started(config, model, workers)


def open_run(config: Config, out: Path, model: Model, resume: bool, workers: Workers) -> int:
    """Makes or resumes the run's folder; returns the last step that is done."""
    if not resume and (out / checkpoint.CHECKPOINT).exists():
        raise TrainError(f"{out}: has a run already; go on with it by --resume, or choose another --out")
    about: dict[str, object] = {"seed": config.seed, "workers": workers.size, **checkpoint.versions()}
    if config.teacher:
        about["teacher_sha256"] = sha256_of(Path(config.teacher))
    if config.coarse:
        about["coarse_sha256"] = sha256_of(Path(config.coarse))
    done = resumed(config, out, model, about, workers) if resume else 0
    if not workers.leads:
        return done
    texts = {
        "config.toml": config.toml(),
        "about.json": json.dumps({"resumed_at": done, **about}, indent=1) + "\n",
        "card.toml": report.card(config, str(about.get("teacher_sha256", ""))),
    }
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write(text.encode())
    return done


def resumed(config: Config, out: Path, model: Model, about: dict[str, object], workers: Workers) -> int:
    """Loads the run's checkpoint and tells what differs from the run that was; returns the last step that is done."""
    old = read_config(out / "config.toml")
    if kind(old) != kind(config):
        was = f"{kind(old)} {old.teacher}".strip()
        raise TrainError(f"{out}: is a run of {was}; resume it as that, or choose another --out")
    done = checkpoint.load(out, model, workers)
    if not workers.leads:
        return done
    with contextlib.suppress(OSError, ValueError):  # about.json is for people; a run goes on without it
        was = json.loads((out / "about.json").read_text(encoding="utf-8")).get("teacher_sha256")
        if was != about.get("teacher_sha256"):
            tqdm.write("resumed with another content of the teacher's file than before")
    for name, value in dataclasses.asdict(config).items():
        if value != getattr(old, name):
            tqdm.write(f"resumed with {name} = {value!r} (was {getattr(old, name)!r})")
    return done


def kind(config: Config) -> str:
    """What a run of this config is, in words; runs of two kinds do not go on from one another."""
    if config.generator == FINE:
        return "the fine half"
    return "a distillation, from --teacher" if config.teacher else "CycleGAN, without a teacher"


class Watch:
    """Stops a run that cannot come back: a loss that is not a number, or generators that have collapsed."""

    def __init__(self, patience: int, discriminators: Sequence[str]) -> None:
        self.patience, self.discriminators = patience, discriminators
        self.constant = self.certain = 0

    def check(self, step: int, losses: dict[str, float], flat: bool) -> None:
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if broken:
            raise TrainError(f"step {step}: the loss {broken[0]} is not a number; the last checkpoint is kept")
        self.constant = self.constant + 1 if flat else 0
        scores = [losses[name] for name in self.discriminators if name in losses]
        self.certain = self.certain + 1 if scores and sum(scores) < CERTAIN else 0
        kept = f"for {self.patience} steps, up to step {step}; the last checkpoint is kept"
        if self.constant >= self.patience:
            raise TrainError(f"a generator has collapsed: its pictures are of one colour {kept}")
        if self.certain >= self.patience:
            raise TrainError(f"the discriminators have won: they are certain of every picture {kept}")


def is_flat(made: Sequence[Array]) -> bool:
    """Whether a generated picture is of one colour; `made`: batches of (N, 3, H, W) in [-1, 1]."""
    return min(float(np.std(picture)) for pictures in made for picture in pictures) < CONSTANT


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The run's folder for this process alone: BusyError, of one line, while another one trains there."""
    guard = hold(out / ".fit", out)
    try:
        yield
    finally:
        os.close(guard)


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
