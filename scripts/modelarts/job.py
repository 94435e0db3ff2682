"""A training job on ModelArts, once `start.py` has found that this machine can do it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from job_data import find_data
from job_files import JobError, Mirror, below, fetch_run, one_line, say, store
from job_processes import ROOT, STOPPED, Stop, device, fit_command, is_first_copy, run

from h2a_batch.places import replacing
from train.commands import fit
from train.commands.export import NETWORKS, read_card
from train.config import Config, read_config
from train.errors import TrainError

CACHE = Path("/cache")  # the fast local disk of ModelArts
CONFIG = "cyclegan-256"
ABOUT = "Trains by `python -m train fit`, whose options and whose config's fields are options here, too: --steps 1000."
PLACES = {
    ("--data_url", "--data-url", "--data"): "the data set: a folder, an archive, or obs://...",
    ("--train_url", "--train-url", "--out"): "the run and its models: a folder or obs://...",
}
EXIT_FAILED, EXIT_UNUSABLE = 1, 2


class NotCopiedError(JobError):
    """The run could not be copied at the end, so that its folder must stay."""


@dataclass(frozen=True)
class Job:
    data: str  # a folder or a URL, and so is `out`
    out: str
    fit: tuple[str, ...]  # arguments of `fit`, without data and out
    domain: str  # the folder of the data set that every run needs
    workers: int
    minutes: float
    cache: Path | None


def main(arguments: Sequence[str]) -> int:
    try:
        if not is_first_copy():
            say("one of several copies: the first one does the work")
            return 0
        job = parse(arguments)
        check_node(job)
        return work_in_cache(job)
    except (JobError, TrainError, OSError) as error:
        print(f"modelarts: {one_line(error)}", file=sys.stderr, flush=True)
        return EXIT_FAILED if isinstance(error, NotCopiedError) else EXIT_UNUSABLE


def parse(arguments: Sequence[str]) -> Job:
    """The job; inputs and outputs of ModelArts may come as environment variables of their names, too."""
    own = argparse.ArgumentParser("start.py", description=ABOUT, allow_abbrev=False)
    for names, text in PLACES.items():
        own.add_argument(*names, metavar="PLACE", default=os.environ.get(names[0].lstrip("-")), help=text)
    own.add_argument("--workers", type=int, default=1, metavar="N", help="devices of this node, by msrun (default: 1)")
    own.add_argument("--sync_minutes", "--sync-minutes", type=float, default=10, metavar="N", help="(default: 10)")
    own.add_argument("--cache", type=Path, metavar="FOLDER", help="to work in (default: /cache, else a temporary one)")
    given, rest = own.parse_known_args(arguments)
    if not given.data_url or not given.train_url:
        raise JobError("needs --data_url and --train_url: the job's input and output, each a folder or obs://...")
    if given.workers < 1 or not given.sync_minutes > 0:
        raise JobError("--workers must be 1 or more, and --sync_minutes more than 0")
    words, config = arguments_of_fit(rest)
    places = (given.data_url, given.train_url)
    return Job(*places, words, config.domain_a, given.workers, given.sync_minutes, given.cache)


def arguments_of_fit(rest: Sequence[str]) -> tuple[tuple[str, ...], Config]:
    """What of `rest` is for `fit`, completed, and the config that comes of it; says what is for nobody."""
    parser = argparse.ArgumentParser("start.py", add_help=False, allow_abbrev=False)
    fit.add_arguments(parser)
    wanted, unknown = parser.parse_known_args(["--config", CONFIG, "--device", device(), *rest])
    settings, ignored = settings_in(unknown)
    if ignored:
        say(f"ignored: {' '.join(ignored)}")
    wanted.set = [*wanted.set, *settings]
    wanted.config = config_file(str(wanted.config))
    words = []
    for name, value in vars(wanted).items():
        option = "--" + name.replace("_", "-")
        if name in ("data", "out", "resume") or value is None or value is False:
            continue
        if isinstance(value, list):
            words += [word for entry in value for word in (option, str(entry))]
        else:
            words += [option] if value is True else [option, str(value)]
    return tuple(words), read_config(wanted.config, wanted.set)


def settings_in(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """`--FIELD VALUE` and `--FIELD=VALUE` as FIELD=VALUE where the config has the field; and all other words."""
    fields = {field.name for field in dataclasses.fields(Config)} - {"data"}
    settings, ignored, left = [], [], list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        pair = [word]
        if word.startswith("--") and not equals and left and not left[0].startswith("--"):
            value, equals = left.pop(0), "="
            pair.append(value)
        name = name.replace("-", "_")
        if word.startswith("--") and equals and name.partition(".")[0] in fields:
            settings.append(f"{name}={value}")
        else:
            ignored += pair
    return settings, ignored


def config_file(name: str) -> Path:
    """A file as it is, or from the project's folder, or the config of that name."""
    candidates = [Path(name), ROOT / name, ROOT / "train" / "configs" / f"{name}.toml"]
    return next((file.resolve() for file in candidates if file.is_file()), candidates[0])


def check_node(job: Job) -> None:
    if count_in("MA_NUM_HOSTS") > 1:
        raise JobError("works on one node; set the job's number of compute nodes to 1")
    devices = max(count_in("MA_NUM_GPUS"), count_in("RANK_SIZE"))
    if devices > job.workers:
        say(f"the node has {devices} devices, and {job.workers} in use; --workers {devices} uses them all")


def count_in(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else 1


def work_in_cache(job: Job) -> int:
    parent = job.cache or (CACHE if os.access(CACHE, os.W_OK) else None)
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    cache = Path(tempfile.mkdtemp(prefix="h2a-batch-", dir=parent))
    say(f"works in {cache}")
    keep = False
    try:
        return work(job, cache, Stop())
    except NotCopiedError:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(cache, ignore_errors=True)


def work(job: Job, cache: Path, stop: Stop) -> int:
    """Fetches, trains, copies, exports; returns the exit code."""
    folder = cache / "run"
    folder.mkdir()
    resumed = fetch_run(job.out, folder)
    say(f"goes on with the run in {job.out}" if resumed else f"a new run, for {job.out}")
    about = {"data": job.data, "train": job.out, "workers": job.workers, "fit": job.fit, "resumed": resumed}
    with replacing(folder / "job.json") as file:
        file.write((json.dumps(about, indent=1) + "\n").encode())
    mirror = Mirror(folder, job.out, job.minutes)
    mirror.copy()  # so that an output that cannot be written is found before the training, not after it
    data = find_data(job.data, job.domain, cache)
    words = [*job.fit, "--data", str(data), "--out", str(folder), *(["--resume"] if resumed else [])]
    with mirror:
        code = run(fit_command(words, job.workers, folder / "msrun"), stop)
    try:
        mirror.copy()
    except (JobError, OSError) as error:
        raise NotCopiedError(f"not copied to {job.out}, so it is kept in {folder}: {one_line(error)}") from error
    say(f"the run is in {job.out}")
    if code == 0:
        try:
            code = export(job, folder, cache / "models", stop)
        except (JobError, TrainError, OSError) as error:
            print(f"modelarts: no models: {one_line(error)}", file=sys.stderr, flush=True)
            code = EXIT_FAILED
    if stop.signals:
        say("stopped; the same job started again goes on from here")
        return STOPPED
    return EXIT_FAILED if code else 0


def export(job: Job, folder: Path, models: Path, stop: Stop) -> int:
    """Both directions, as far as the run has them, to `job.out`/models; returns the exit code of what failed, or 0."""
    name, directions = read_card(folder / "card.toml")["name"], directions_in(folder / "weights.npz")
    if find_spec("mindspore_lite") is None:
        say("no MindSpore Lite in this image to check an export on, so no models; download the run as RUN, and then:")
        for direction in directions:
            say("  " + " ".join(["python", *export_words(Path("RUN"), name, direction), "models"]))
        return 0
    codes = []
    for direction in directions:
        codes.append(run([sys.executable, *export_words(folder, name, direction), str(models)], stop))
        if codes[-1]:
            say(f"the export {direction} ended with code {codes[-1]}")
    if models.is_dir():
        store(models, below(job.out, "models"))
        say(f"the models are in {below(job.out, 'models')}")
    return max(codes, key=abs, default=0)


def directions_in(weights: Path) -> list[str]:
    """Those of `export` that the run has a network of."""
    try:
        with zipfile.ZipFile(weights) as file:
            there = {name.partition(".")[0] for name in file.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise JobError(f"{weights.name}: cannot be read, so nothing is exported: {one_line(error)}") from error
    return [direction for direction, networks in NETWORKS.items() if there & {*networks}]


def export_words(folder: Path, name: str, direction: str) -> list[str]:
    """The command, less `python` and its output; the model of the second direction gets a name of its own."""
    files = ["--weights", str(folder / "weights.npz"), "--card", str(folder / "card.toml")]
    named = [] if direction == next(iter(NETWORKS)) else ["--name", f"{name}-{direction}"]
    return ["-m", "train", "export", *files, "--direction", direction, *named]
