"""What a terminal, a spreadsheet and a program get of names from anywhere; standard output that cannot be written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from conftest import PHOTOS, Command, command_line
from hypothesis import given
from hypothesis import strategies as st

from h2a_batch.command.console import shown
from h2a_batch.ledger import Ledger, write_table
from h2a_batch.ledger.records import Output, Task
from h2a_batch.sources.source import Source

EVIL = "\x1b[31m\x07\x9b2J\u202egpj\u2066\u2028\r\n\x7f"  # escapes, a C1 control, overrides of direction, new lines


def is_harmless(text: str) -> bool:
    return not set(EVIL.replace("gpj", "").replace("[31m", "").replace("2J", "")) & set(text.replace("\n", ""))


def sheet(*arguments: object) -> list[str]:
    code = "import sys; from h2a_batch.__main__ import sheet; sys.exit(sheet())"
    return [sys.executable, "-c", code, *map(str, arguments)]


@given(st.text())
def test_a_message_is_one_line_without_controls(text: str) -> None:
    line = shown(text + EVIL)
    assert is_harmless(line) and "\n" not in line
    hidden = {letter for letter in line if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert all(letter in "\u200c\u200d" or letter >= "\U000e0020" for letter in hidden), "joiners and tags of emoji"


@pytest.mark.parametrize(
    "arguments",
    [
        [f"none{EVIL}", "out"],
        ["in", f"in/a.jpg/{EVIL}"],
        ["in", "out", f"--{EVIL}"],
        ["in", "out", "--limit", EVIL],
        ["in", "out", "--format", EVIL],
        ["in", "out", "--model", EVIL],
        ["in", "out", "--model", f"{EVIL}.mindir"],
        ["in", "out", "--suffix", f"/{EVIL}"],
        ["in", "out", "--on-success", f"archive=in/a.jpg/{EVIL}"],
        ["in", "out", "--report", f"{EVIL}.pdf"],
        ["in", "out", "--contact-sheet", EVIL],
        ["in", "out", "--ray", EVIL],
        ["in", "out", "--endpoint", EVIL, "--device", EVIL],
        ["doctor", f"none{EVIL}"],
        ["doctor", "out", f"--{EVIL}"],
        ["compare", "in", f"none{EVIL}", f"{EVIL}.pdf"],
    ],
)
def test_no_word_of_the_user_reaches_the_terminal_as_it_is(h2a: Command, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"")
    done = h2a(*arguments)
    assert done.returncode and is_harmless(done.stderr + done.stdout), ascii(done.stderr)


@pytest.mark.slow
def test_names_of_photos_are_shown_escaped_and_are_exact_in_json(h2a: Command, tmp_path: Path) -> None:
    name = f"{EVIL}.jpg".replace("/", "")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"")
    (tmp_path / "in" / f"good{name}").write_bytes(next(PHOTOS.glob("*.jpg")).read_bytes())
    for more in (["--dry-run"], ["-v"], ["--json"], []):
        done = h2a("in", "out", *more)
        assert is_harmless(done.stderr + done.stdout), ascii(done.stderr)
        if more == ["--json"]:
            paths = {json.loads(line)["input"] for line in done.stdout.splitlines()}
            assert paths == {str(tmp_path / "in" / name), str(tmp_path / "in" / f"good{name}")}
    made = subprocess.run(
        sheet("in", "out", f"{EVIL}.jpg"), cwd=tmp_path, capture_output=True, text=True, errors="replace"
    )
    assert made.returncode == 0 and is_harmless(made.stderr), ascii(made.stderr)


def test_names_are_no_formulas_in_a_spreadsheet(tmp_path: Path) -> None:
    names = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\uff1d1", "plain=1", "'=1"]
    with Ledger(tmp_path / "out", "{}") as ledger:
        for number, name in enumerate(names):
            source = Source(tmp_path / name, f"/in/{number}.jpg", f"{name}.png", 5, 5)
            task = Task(source, tmp_path / "out", f"{name}.png")
            ledger.start(source, task.name)
            ledger.done(task, "=sha", [Output(task.name, -5)], 0.5)
        failed = Source(tmp_path / "x", "/in/x.jpg", "x.png", 5, 5)
        ledger.failed(ledger.start(failed, "x.png"), "@error\x1b", 0.1)
        table = write_table(ledger)
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    outputs = {row["output"].removesuffix(".png") for row in rows if row["state"] == "done"}
    assert outputs == {*(f"'{name}" for name in names[:7]), "plain=1", "'=1"}
    assert {row["input_sha256"] for row in rows} == {"'=sha", ""}
    assert {row["error"] for row in rows} == {"", "'@error\x1b"}
    assert all(float(row["output_bytes"]) == -5 for row in rows if row["output_bytes"]), "numbers stay numbers"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["in", "out", "--json"], ["in", "out", "--dry-run"], ["--help"], ["--version"]])
def test_standard_output_that_is_full_costs_one_line(
    photos: Path, tmp_path: Path, arguments: list[str], unbuffered: str
) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command_line(*arguments), cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == 1 and "standard output cannot be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "unexpected" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_messages_that_nobody_can_read_do_not_end_a_run(photos: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(command_line(photos, tmp_path / "out"), cwd=tmp_path, stderr=full)
    assert done.returncode == 0 and len(list((tmp_path / "out").rglob("*.png"))) == 6
