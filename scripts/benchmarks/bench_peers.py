"""What `scripts/bench` and `scripts/bench_curve` install and make for themselves, in build/bench (which git ignores).

The peers live in an environment of their own, so that .venv stays as it is: ONNX Runtime and OpenVINO, and MindSpore,
which writes the network of the shipped model as ONNX (`bench_models.py`). About 3 GB on the
disk, for the most part MindSpore. Deleting build/bench undoes it all.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "bench"
PACKAGES = ("mindspore==2.8.0", "onnx>=1.17", "onnxruntime>=1.20", "openvino>=2025.0", "pillow>=11.3")


class PeersError(Exception):
    """The peers cannot be installed, or their graphs cannot be made."""


def peers_python() -> Path:
    """The Python of the peers' environment, which is made where it is not there or not up to date.

    Raises:
        PeersError: it cannot be made.
    """
    python, stamp = PLACE / "peers" / "bin" / "python", PLACE / "peers" / ".stamp"
    wanted = f"{sys.version_info[:2]} {' '.join(PACKAGES)}"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print("bench: installing the peers into build/bench (once, some 3 GB)", file=sys.stderr)
    _call([sys.executable, "-m", "venv", "--clear", str(PLACE / "peers")], "cannot make build/bench/peers")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
    _call(command, "pip could not install the peers; is the network there?")
    stamp.write_text(wanted)
    return python


def graphs(model: Path) -> Path:
    """The folder of the graphs that `bench_models.py` makes of a model, made anew when model or script changed.

    Raises:
        PeersError: as `peers_python`; or MindSpore cannot make them.
    """
    python, script = peers_python(), ROOT / "scripts" / "benchmarks" / "bench_models.py"
    folder = PLACE / f"graphs-{model.stem}"
    stamp, wanted = folder / ".stamp", hashlib.sha256(model.read_bytes() + script.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"bench: making the graphs of {model.name} (once, a minute)", file=sys.stderr)
        _call([str(python), str(script), str(model), str(folder)], f"cannot make the ONNX graph of {model}")
        stamp.write_text(wanted)
    return folder


def _call(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise PeersError(f"{what} ({error})") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
        raise PeersError(f"{what} ({lines[-1].strip() if lines else f'exit code {done.returncode}'})")
