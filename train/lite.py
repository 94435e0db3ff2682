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
    """The generator's output for a batch in its card's range, computed picture by picture on CPU."""
    return _in_child("generator", model, x)[0]


def run_graph_on_lite(model: Path, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """All outputs of any graph, which is resized to the pictures (N, 3, H, W); one after the other, on CPU."""
    return _in_child("graph", model, x)


def _in_child(kind: str, model: Path, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "x.npy"), Path(folder, "y.npz")
        np.save(source, x)
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "train.lite", kind, str(model), str(source), str(target)],
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
        with np.load(target) as outputs:
            return [outputs[name] for name in outputs.files]


def lite_version() -> str:
    """The runtime's version, without the local part that a rebuilt wheel adds."""
    return metadata.version("mindspore-lite").partition("+")[0]


def _main(kind: str, model: str, source: str, target: str) -> int:
    from h2a_batch.errors import H2AError
    from h2a_batch.inference import Generator

    x = np.load(source)
    try:
        outputs = [Generator(model, device="cpu", threads=1).run(x)] if kind == "generator" else _graph(model, x)
    except (H2AError, RuntimeError) as error:  # Lite's own are RuntimeErrors, of several lines
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    np.savez(target, *outputs)
    return 0


def _graph(path: str, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    from h2a_batch.inference import load_runtime

    lite = load_runtime()
    context = lite.Context()
    context.target = ["cpu"]
    context.cpu.thread_num = 1
    model = lite.Model()
    model.build_from_file(path, lite.ModelType.MINDIR, context)
    model.resize(model.get_inputs(), [[1, *x.shape[1:]]])
    parts = []
    for picture in x:
        inputs = model.get_inputs()
        inputs[0].set_data_from_numpy(np.ascontiguousarray(picture[None]))
        # Copies: Lite's next answer may lie in the same memory.
        parts.append([output.get_data_to_numpy().copy() for output in model.predict(inputs)])
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
