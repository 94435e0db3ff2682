"""The tests of `train`, each file in a process of its own: MindSpore and MindSpore Lite cannot share one.

Both bring a libmindspore_core.so, and whichever is imported second fails. To run some of them alone, with pytest's own
report: `pytest tests/train_cases/test_mindir.py -k refuses`.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = sorted((HERE / "train_cases").glob("test_*.py"))
NOTHING_SELECTED = 5  # pytest's exit code

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("mindspore") is None, reason="needs MindSpore: pip install -e '.[train]'"),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_its_own_process(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(file)],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=900,
    )
    assert done.returncode in (0, NOTHING_SELECTED), done.stdout[-8000:] + done.stderr[-2000:]
    if done.returncode == NOTHING_SELECTED:
        pytest.skip(done.stdout.strip()[-300:])
