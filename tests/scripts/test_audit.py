"""The list of known holes: it tells, and never fails its caller; pip-audit is a stand-in, as tests have no network."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("echo 'No known vulnerabilities found'", "no known holes in requirements.lock"),
        ("echo 'Found 2 known vulnerabilities in 1 package'; echo 'pillow 9 CVE-1'; exit 1", "audit: pillow 9 CVE-1"),
        (
            "echo 'Dependency not found on PyPI and could not be audited: pillow (9)'",
            "not done: not found on PyPI and could not be audited: pillow (9)",
        ),
        ("echo 'no route to host' >&2; exit 1", "not done (no route to host): this needs a network"),
        ("sleep 60", "1 seconds were not enough"),
        ("exit 127", "not done"),
    ],
)
def test_it_tells_what_was_found_or_why_not_and_ends_with_0(tool: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "uvx").write_text(f"#!/bin/sh\n{tool}\n")
    (tmp_path / "uvx").chmod(0o755)
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "H2A_AUDIT_SECONDS": "1"}
    started = time.monotonic()
    done = subprocess.run([ROOT / "scripts" / "audit"], env=variables, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0 and words in done.stderr and not done.stdout, done.stderr
    assert time.monotonic() - started < 40


def test_ci_calls_it_and_every_locked_release_has_a_hash() -> None:
    assert "\nscripts/audit" in (ROOT / ".ci" / "run").read_text()
    lock = (ROOT / "scripts" / "requirements.lock").read_text()
    assert lock.count("==") <= lock.count("--hash=sha256:"), "pip-audit reads them as they are"
