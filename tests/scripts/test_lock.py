"""The lock file of the launcher's environment."""

from __future__ import annotations

import configparser
import re

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

LOCK = ROOT / "scripts" / "requirements.lock"


def pins(python: str) -> dict[str, str]:
    """What a Linux machine with this Python gets, by the markers of the lock file."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    lines = re.findall(r"^([a-z].*?) \\$", LOCK.read_text(), re.MULTILINE)
    found = [Requirement(line) for line in lines]
    chosen = [pin for pin in found if pin.marker is None or pin.marker.evaluate(environment)]
    assert len({pin.name for pin in chosen}) == len(chosen), "one release of each"
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in chosen}


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_requirement_of_the_project_is_pinned_to_a_release_that_it_allows(python: str) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = [Requirement(line) for line in config["options"]["install_requires"].split("\n") if line]
    got = pins(python)
    assert {requirement.name for requirement in wanted} == set(got), "scripts/lock writes it anew"
    for requirement in wanted:
        assert requirement.specifier.contains(got[requirement.name]), requirement


def test_every_pin_has_hashes_and_nothing_is_of_one_machine() -> None:
    text = LOCK.read_text()
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9-]+==\S+(?: ; .*)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry), entry
    assert not re.search(r"/(?:home|opt|root|tmp|work)|file:|--(?:extra-)?index-url|--find-links", text)
