"""The tests of `train`, each file in a process of its own: MindSpore and MindSpore Lite cannot share one.

Both bring a libmindspore_core.so, and whichever is imported second fails. To run some of them alone, with pytest's own
report: `pytest tests/train/cases/test_mindir.py -k refuses`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = sorted((HERE / "cases").glob("test_*.py"))
AT_ONCE = 2  # most of their time MindSpore compiles graphs, on one core
NOTHING_SELECTED = 5  # pytest's exit code

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("mindspore") is None, reason="needs MindSpore: pip install -e '.[train]'"),
]
Running = dict[Path, "Future[subprocess.CompletedProcess[str]]"]


def run(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", str(file)]
    return subprocess.run(
        command, cwd=HERE.parent.parent, capture_output=True, text=True, errors="replace", timeout=1500, check=False
    )


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """All the files that were selected, on their way."""
    chosen = [item.callspec.params["file"] for item in request.session.items if item.path == request.path]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {file: pool.submit(run, file) for file in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_its_own_process(file: Path, running: Running) -> None:
    done = running[file].result()
    assert done.returncode in (0, NOTHING_SELECTED), done.stdout[-8000:] + done.stderr[-2000:]
    if done.returncode == NOTHING_SELECTED:
        pytest.skip(done.stdout.strip()[-300:])
