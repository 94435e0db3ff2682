"""`python -m train fit`: the training loop, of CycleGAN or a distillation, and what it leaves in the run's folder.

config.toml, about.json (versions, seed), log.csv, samples/ (step-NNNNNN.png, losses.png), checkpoint.npz, weights.npz
and card.toml, which `python -m train export` takes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import mindspore as ms

from train.config import Config
from train.data import POOLS, batches, held_out, random_of
from train.errors import TrainError
from train.models import Model, wanted_pictures
from train.parallel import ALONE, Workers
from train.run.best import Scorer
from train.run.checkpoint import CHECKPOINT, save
from train.run.report import Recorder
from train.run.start import held, model_of, open_run
from train.run.watch import Watch, interruption, is_flat


def fit(
    config: Config, out: Path, resume: bool = False, stop_after: int | None = None, workers: Workers = ALONE
) -> int:
    """Trains to `config.steps`, or `stop_after` steps from here, or SIGINT; returns the last step, which is saved.

    Of several workers each calls this; the first one writes.
    """
    if resume and not (out / CHECKPOINT).exists():
        raise TrainError(f"{out / CHECKPOINT}: no such file, so there is nothing to resume")
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
    recorder = Recorder(config, out, model, held_out(read, config.samples), first, workers)
    scorer = Scorer(read, out, first) if config.score_every and workers.leads else None
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
                save(out, model, step, workers)
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
