"""Data parallel training: two real processes under MindSpore's own `msrun`, on CPU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_support import arrays
from train_support import PHOTOS, ROOT

from train.config import read_config
from train.errors import TrainError
from train.run import checkpoint, report
from train.run.fit import fit

SMOKE = ROOT / "train" / "configs" / "smoke.toml"
# No random crops and flips, and no exchange in the pools yet: two workers of one picture are one with a batch of two.
SETTINGS = ("steps=2", "save_every=1000", "sample_every=1000", "smallest_crop=1", "flip=0", f"data={PHOTOS}")


def workers(out: Path, logs: Path, *arguments: object) -> subprocess.Popen[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = Path(sys.executable).with_name("msrun")
    msrun = [launcher, "--worker_num=2", "--local_worker_num=2", f"--master_port={port}", f"--log_dir={logs}"]
    fit_command = ["python", "-m", "train", "fit", "--config", SMOKE, "--out", out, *arguments]
    return subprocess.Popen(
        [*map(str, [*msrun, "--join=True", *fit_command])],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{launcher.parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def finish(process: subprocess.Popen[str], logs: Path) -> str:
    output, _ = process.communicate(timeout=600)
    for log in sorted(logs.glob("worker_*.log")):
        output += f"\n{log.name}:\n{log.read_text(errors='replace')[-1500:]}"
    return output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of two workers in one go."""
    out, logs = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("log")
    process = workers(out, logs, *settings(*SETTINGS))
    output = finish(process, logs)
    assert process.returncode == 0, output
    return out


def test_two_workers_are_one_with_twice_the_batch(whole: Path, tmp_path: Path) -> None:
    assert fit(read_config(SMOKE, [*SETTINGS, "pool=4", "batch=2"]), tmp_path) == 2
    two, one = report.read_log(whole / "log.csv"), report.read_log(tmp_path / "log.csv")
    for row, expected in zip(two, one, strict=True):
        for name in row:
            if name not in ("step", "rate", "images_per_second"):
                assert float(row[name]) == pytest.approx(float(expected[name]), rel=2e-3), name
    assert json.loads((whole / "about.json").read_text())["workers"] == 2


def test_two_workers_resume_exactly_with_their_own_pools(whole: Path, tmp_path: Path) -> None:
    out, logs = tmp_path / "run", tmp_path / "log"
    for more in (("--stop-after", 1), ("--resume",)):
        process = workers(out, logs, *settings(*SETTINGS), *more)
        output = finish(process, logs)
        assert process.returncode == 0, output
    expected, resumed = arrays(whole), arrays(out)
    assert expected["pool_a"].shape == (2, 2, 3, 64, 64)
    assert (expected["pool_a"][0] != expected["pool_a"][1]).any()
    assert [name for name in expected if not np.array_equal(expected[name], resumed[name])] == []
    with pytest.raises(TrainError, match="of a run with 2 worker"):
        fit(read_config(SMOKE, [*SETTINGS, "steps=3"]), out, resume=True)


def test_sigterm_to_one_worker_saves_and_ends_both(tmp_path: Path) -> None:
    out, logs = tmp_path / "run", tmp_path / "log"
    process = workers(out, logs, *settings(*SETTINGS[1:], "steps=100000"))
    deadline = time.monotonic() + 120
    while len(report.read_log(out / "log.csv")) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    children = subprocess.run(["pgrep", "-f", f"train fit.*{out}"], capture_output=True, text=True).stdout.split()
    trainers = [pid for pid in map(int, children) if pid != process.pid and _rank(pid) == "1"]
    assert trainers, finish(process, logs)
    os.kill(trainers[0], signal.SIGTERM)
    output = finish(process, logs)
    assert "Traceback" not in "".join(log.read_text(errors="replace") for log in logs.glob("worker_*.log"))
    with np.load(out / checkpoint.CHECKPOINT) as file:
        step = json.loads(str(file["about"]))["step"]
    assert step >= 2, output


def _rank(pid: int) -> str:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((v.partition(b"=")[2].decode() for v in variables if v.startswith(b"RANK_ID=")), "")
