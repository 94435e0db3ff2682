"""The commands that a job runs, each in a process of its own, and how it stops them."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from job_files import one_line, say

ROOT = Path(__file__).resolve().parents[2]
STOPPED = 130
# Set for one process a device by ModelArts or msrun; a process that we start must not take itself for one of those.
LAUNCHERS = (
    *("RANK_ID", "RANK_SIZE", "RANK_TABLE_FILE", "ASCEND_DEVICE_ID"),
    *("MS_ROLE", "MS_WORKER_NUM", "MS_NODE_ID", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_TOPO_TIMEOUT"),
)


class Stop:
    """The signals SIGTERM and SIGINT that came since it was made."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)


def is_first_copy() -> bool:
    """ModelArts starts the file once a device, and asks it to end where ASCEND_DEVICE_ID is not 0; msrun does alike."""
    ranks = [os.environ.get(name, "0") for name in ("RANK_ID", "ASCEND_DEVICE_ID")]
    return os.environ.get("MS_ROLE") != "MS_SCHED" and all(rank in ("", "0") for rank in ranks)


def device() -> str:
    return "Ascend" if glob.glob("/dev/davinci[0-9]*") else "CPU"


def fit_command(arguments: Sequence[str], workers: int, logs: Path) -> list[str]:
    """`python -m train fit ...`, by MindSpore's launcher msrun if there are several workers, each with its device."""
    fit = ["-m", "train", "fit", *arguments]
    if workers == 1:
        return [sys.executable, *fit]
    launcher = [sys.executable, "-m", "mindspore.parallel.cluster.run"]  # msrun, whatever is on PATH
    options = ("--join=True", f"--log_dir={logs}", "--tail_worker_log=0")
    return [*launcher, f"--worker_num={workers}", f"--local_worker_num={workers}", *options, "python", *fit]


def run(command: Sequence[str], stop: Stop) -> int:
    """The command's exit code; a signal is handed on to it once, so that it can save, and a second Ctrl-C kills it."""
    if stop.signals:
        return STOPPED
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), start_new_session=True)
    told = False
    while True:
        try:
            return process.wait(0.5)
        except subprocess.TimeoutExpired:
            if stop.signals and not told:
                told = True
                say("stopping: waits for the step to end and the run to be saved")
                for number in workers_of(process.pid) or [process.pid]:
                    terminate(number)
            if stop.signals.count(signal.SIGINT) > 1:
                process.kill()


def environment() -> dict[str, str]:
    """Of our processes: the project on the path, `python` this one, a line of progress a minute in a log."""
    result = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    result["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), result.get("PYTHONPATH", "")]))
    result["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), result.get("PATH", os.defpath)])
    if not sys.stderr.isatty():
        result.setdefault("TQDM_MININTERVAL", "60")
    return result


def workers_of(launcher: int) -> list[int]:
    """The processes of `train` that msrun has started; msrun itself would leave them running."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().split(b"\0")
            role = b"MS_ROLE=MS_WORKER" in (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            continue  # it has ended
        if parent == launcher and role and b"train" in words:
            found.append(int(folder.name))
    return found


def terminate(number: int) -> None:
    try:
        os.kill(number, signal.SIGTERM)
    except ProcessLookupError as error:
        say(f"process {number} has ended already: {one_line(error)}")
