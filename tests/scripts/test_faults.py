"""Faults that strike runs, as scripts/soak --faults does: nothing is lost, and a loss is noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FOLDER = ROOT / "scripts" / "endurance"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["links", "replace", "kill"])
def test_a_round_of_each_fault_loses_nothing(fault: str) -> None:
    command = [sys.executable, FOLDER / "soak.py", "--faults", fault, "--seconds", "3", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and ", 0 losses" in done.stdout, done.stdout + done.stderr
    assert f"{fault}: 0 tries" not in done.stdout


def test_a_fault_of_an_unknown_name_is_refused() -> None:
    command = [sys.executable, FOLDER / "soak.py", "--faults", "links,flood"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "no fault is named flood" in done.stderr


def test_what_is_lost_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import faults
    from pool import pictures

    scene = faults.Scene(tmp_path / "scene", list(pictures().values()), "delete", photos=6)
    gone = next(iter(scene.photos))
    gone.unlink()
    assert scene.missing(scene.held(scene.source), "lost") == [f"{gone} is lost"]
    list(scene.end(scene.start()))
    assert scene.missing(scene.converted(), "not converted") == [f"{gone} is not converted"]
    next(scene.out.glob("*.png")).write_bytes(b"cut short")
    assert len(scene.missing(scene.converted(), "not converted")) == 2
