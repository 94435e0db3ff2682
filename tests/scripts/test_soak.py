"""A minute of ``scripts/soak``: a watcher treated badly, then every photo accounted for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_a_watcher_that_is_treated_badly_loses_nothing() -> None:
    command = [sys.executable, ROOT / "scripts" / "endurance" / "soak.py", "--seconds", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{mode}: " in done.stdout for mode in ("keep", "archive", "delete"))
    assert done.stdout.count(" 0 problems") == 3
