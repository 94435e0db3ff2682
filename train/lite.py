"""Runs a model in MindSpore Lite, in a process of its own.

MindSpore and MindSpore Lite cannot be loaded into one process: both bring a libmindspore_core.so, and whichever comes
second gets the other's. So this module starts itself as a child that imports `h2a_batch` and never MindSpore.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.errors import TrainError

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 600.0  # seconds


def run_on_lite(model: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's output for a batch in its card's range, computed picture by picture on CPU."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "x.npy"), Path(folder, "y.npy")
        np.save(source, x)
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "train.lite", str(model), str(source), str(target)],
                env={**os.environ, "GLOG_v": "4", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise TrainError(f"cannot verify on MindSpore Lite: no answer in {TIMEOUT:.0f} s") from None
        if done.returncode != 0 or not target.exists():
            lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
            raise TrainError(f"cannot verify on MindSpore Lite: {lines[-1]}")
        result: NDArray[np.float32] = np.load(target)
    return result


def lite_version() -> str:
    """The runtime's version, without the local part that a rebuilt wheel adds."""
    return metadata.version("mindspore-lite").partition("+")[0]


def _main(model: str, source: str, target: str) -> int:
    from h2a_batch.errors import H2AError
    from h2a_batch.generator import Generator

    try:
        np.save(target, Generator(model, device="cpu", threads=1).run(np.load(source)))
    except H2AError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
