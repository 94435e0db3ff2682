"""How a run begins: its model, from nothing or from weights, and its folder, made or resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from h2a_batch.places import hold, replacing, sha256_of
from train.config import Config, read_config
from train.errors import TrainError
from train.models import Model, build, kind
from train.parallel import ALONE, Workers
from train.run.checkpoint import CHECKPOINT, load, versions
from train.run.report import card
from train.weights import load_network, read_weights

AVERAGES = {"ema": "gab", "ema_ba": "gba"}  # and the generators that they average
NETWORKS = ("gab", "gba", "da", "db", "pb", "ema", "ema_ba", "dab", "adapt")  # the last two of distillations


def model_of(config: Config, workers: Workers = ALONE) -> Model:
    """The model that a config means, with the weights that it starts from, if any."""
    model = build(config, workers)
    if config.start:
        names = start_from(Path(config.start), model)
        if workers.leads:
            tqdm.write(f"{config.start}: start of {', '.join(names)}")
    return model


def open_run(config: Config, out: Path, model: Model, resume: bool, workers: Workers) -> int:
    """Makes or resumes the run's folder; returns the last step that is done."""
    if not resume and (out / CHECKPOINT).exists():
        raise TrainError(f"{out}: has a run already; go on with it by --resume, or choose another --out")
    about: dict[str, object] = {"seed": config.seed, "workers": workers.size, **versions()}
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
        "card.toml": card(config, str(about.get("teacher_sha256", ""))),
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
    done = load(out, model, workers)
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


def start_from(path: Path, model: Model) -> list[str]:
    """The model's networks that a weights file has, by name; those of the other kind of training are left alone.

    A generator that the file lacks starts as its average there, an average that it lacks as its generator.
    """
    given = read_weights(path)
    cells = model.networks()
    unknown = sorted(name for name in given.keys() - cells.keys() if name.rstrip("0123456789") not in NETWORKS)
    if unknown:
        raise TrainError(f"{path}: unknown networks {', '.join(unknown)}; known are {', '.join(NETWORKS)}")
    for average, generator in AVERAGES.items():
        if average in given:
            given.setdefault(generator, given[average])
    used = sorted((cells.keys() & given.keys()), key=lambda name: name in AVERAGES)
    if not used:
        raise TrainError(f"{path}: has none of the networks {', '.join(cells)}")
    for averages in (False, True):
        for name in (name for name in used if (name in AVERAGES) == averages):
            load_network(cells[name], {f"{name}.{layer}": array for layer, array in given[name].items()})
        if not averages:
            model.restart_average()
    return used


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The run's folder for this process alone: BusyError, of one line, while another one trains there."""
    guard = hold(out / ".fit", out)
    try:
        yield
    finally:
        os.close(guard)
