"""Damaged photos, as scripts/fuzz makes them: half a minute of them harms nobody, and harm is noticed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FUZZ = ROOT / "scripts" / "endurance" / "fuzz.py"


@pytest.mark.slow
def test_damaged_photos_end_in_time_with_a_picture_or_a_known_error(tmp_path: Path) -> None:
    command = [sys.executable, FUZZ, "--seconds", "30", "--keep", tmp_path / "kept"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {kind: int(count) for count, kind in re.findall(r"^ *(\d+) (\S+)$", done.stdout, re.MULTILINE)}
    assert sum(counts.values()) > 50 and counts["ok"] and counts["corrupt"], "some damage does not matter, some does"


def test_a_process_that_dies_or_hangs_is_noticed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FUZZ.parent))
    import fuzz

    photo = fuzz.PHOTOS[0].read_bytes()
    decoder = fuzz.Decoder()
    assert decoder.answer(photo) == "ok" and decoder.answer(photo[:3000]) in ("truncated", "corrupt")
    decoder.process.kill()
    decoder.process.wait()
    monkeypatch.setattr(fuzz, "DEADLINE", 0.0)
    decoder.start()
    assert decoder.answer(photo).startswith("PROBLEM it took more than 0 s")
    monkeypatch.undo()
    monkeypatch.setattr(fuzz, "DEADLINE", 60.0)
    assert decoder.answer(photo) == "ok", "another process goes on"
    decoder.end()
