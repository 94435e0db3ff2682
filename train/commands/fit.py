"""Trains CycleGAN (arXiv 1703.10593) on two folders of pictures, or with --teacher a small generator after a big one.

A run is one TOML file of `train/configs/`; `--set` changes any of its fields. The run's folder gets the config, the
log, samples, a checkpoint that resumes exactly, and weights.npz and card.toml for `export`. A teacher is a trained
generator; the small one learns from its pictures and features (arXiv 2003.08936), and needs trainA alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "trains on two folders of pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, type=Path, metavar="TOML", help="a file of train/configs/")
    parser.add_argument("--data", metavar="FOLDER", help="with trainA and trainB in it; short for --set data=FOLDER")
    parser.add_argument("--teacher", metavar="FILE", help="weights of the big generator; short for --set teacher=FILE")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the run (default: runs/NAME)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the config")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="save and end after so many steps")
    parser.add_argument("--device", default="CPU", choices=("CPU", "GPU", "Ascend"), help="(default: %(default)s)")


def run(options: argparse.Namespace) -> None:
    from train.config import read_config
    from train.errors import TrainError

    short = {"data": options.data, "teacher": options.teacher}
    config = read_config(options.config, [*options.set, *(f"{k}={v}" for k, v in short.items() if v)])
    if not config.data:
        raise TrainError("no pictures: --data FOLDER, with trainA and trainB in it")
    if options.stop_after is not None and options.stop_after < 1:
        raise TrainError("--stop-after must be 1 or more")
    out = options.out or Path("runs", config.name)

    import mindspore as ms

    from train.parallel import join_workers
    from train.run import fit

    try:
        ms.set_device(options.device)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TrainError(
            f"--device {options.device}: MindSpore {ms.__version__} cannot use it here: {reason}"
        ) from error
    workers = join_workers()
    step = fit(config, out, options.resume, options.stop_after, workers)
    if workers.leads:
        print(f"{out}: step {step} of {config.steps}")
