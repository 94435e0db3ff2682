"""The page for a report of a fault, as a user gets it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from conftest import PHOTOS, Command

from h2a_batch.inference import card_of, find_model


def lines(text: str) -> dict[str, str]:
    return {subject: rest.strip() for subject, _, rest in (line.partition(":") for line in text.splitlines())}


def test_it_tells_what_a_report_needs(h2a: Command, tmp_path: Path) -> None:
    done = h2a("doctor", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    page = lines(done.stdout)
    card = card_of(find_model("anime-256"))
    assert card and card.sha256 in page["model"]
    assert page["Lite"].startswith("MindSpore Lite ") and " ms on cpu" in page["generator"]
    assert page["machine"].startswith(f"{len(os.sched_getaffinity(0))} of ")
    assert "no /dev/davinci_manager" in page["Ascend"] or "davinci" in page["Ascend"]
    assert "JPEG" in page["reads"] and "png" in page["writes"] and page["OUT"].endswith(" MB/s")
    assert not list(tmp_path.iterdir())


def test_what_prevents_a_conversion_is_said_and_counts(h2a: Command, tmp_path: Path) -> None:
    blind = {**os.environ, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "mindspore_lite.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')")
    done = h2a("doctor", tmp_path / "missing", env=blind)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    page = lines(done.stdout)
    assert page["Lite"].startswith("WRONG: ") and "libgomp.so.1" in page["Lite"] and "generator" not in page
    assert page["OUT"] == f"WRONG: {tmp_path}/missing: No such file or directory"


def test_a_folder_of_its_name_is_converted(h2a: Command, tmp_path: Path) -> None:
    (tmp_path / "doctor").mkdir()
    shutil.copy(sorted(PHOTOS.glob("*.jpg"))[0], tmp_path / "doctor")
    done = h2a("doctor", "out", "--dry-run")
    assert done.returncode == 0 and "/doctor/" in done.stdout
