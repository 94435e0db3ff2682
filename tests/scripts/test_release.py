"""The command that makes a release, on a copy of the project that is a repository of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, tree

pytestmark = pytest.mark.slow


def git(place: Path, *words: object) -> str:
    done = subprocess.run(["git", *map(str, words)], cwd=place, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def release(place: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, place / "scripts" / "release.py", *words]
    return subprocess.run([str(word) for word in command], cwd=place, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What git knows of the project, as it is now, committed in a new repository; of pictures and tests nothing."""
    place = tmp_path / "project"
    wanted = ("h2a_batch", "models", "scripts/release.py", "setup.cfg", "pyproject.toml", "*.md", "LICENSE", "NOTICE")
    for name in git(ROOT, "ls-files", "--", *wanted).splitlines():
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)
    (place / ".gitignore").write_text("build/\ndist/\n*.egg-info/\n__pycache__/\n")
    git(place, "init", "--quiet")
    git(place, "config", "user.name", "Somebody")
    git(place, "config", "user.email", "somebody@example.org")
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", "all")
    return place


def unreleased(text: str) -> str:
    return text.partition("## [Unreleased]\n")[2].partition("\n## [")[0].strip()


def state(place: Path) -> tuple[object, ...]:
    """All that a release changes, and all that it must not leave behind."""
    return (
        tree(place),
        git(place, "log", "--format=%H"),
        git(place, "tag"),
        git(place, "status", "--porcelain", "--ignored"),
    )


def test_a_dry_run_makes_wheel_sdist_and_notes_and_changes_nothing(project: Path, tmp_path: Path) -> None:
    before, out = state(project), tmp_path / "out"
    done = release(project, "98.7.6", "--dry-run", "--output", out)
    assert done.returncode == 0 and "nothing was changed" in done.stdout, done.stderr
    assert state(project) == before
    names = {"h2a_batch-98.7.6-py3-none-any.whl", "h2a_batch-98.7.6.tar.gz", "notes-98.7.6.md"}
    assert set(os.listdir(out)) == names
    wheel = zipfile.ZipFile(out / "h2a_batch-98.7.6-py3-none-any.whl")
    assert '__version__ = "98.7.6"' in wheel.read("h2a_batch/version.py").decode()
    assert "h2a_batch/models/anime-256.mindir" in wheel.namelist()
    with tarfile.open(out / "h2a_batch-98.7.6.tar.gz") as sdist:
        assert "h2a_batch-98.7.6/setup.cfg" in sdist.getnames()
    changes = unreleased((project / "CHANGELOG.md").read_text())
    assert (out / "notes-98.7.6.md").read_text() == f"# h2a-batch 98.7.6\n\n{changes}\n"


def test_a_release_is_committed_and_tagged_and_the_next_one_can_follow(project: Path) -> None:
    changes = unreleased((project / "CHANGELOG.md").read_text())
    done = release(project, "98.7.6")
    assert done.returncode == 0, done.stderr
    assert git(project, "rev-parse", "HEAD") == git(project, "rev-parse", "v98.7.6^{commit}")
    assert git(project, "diff", "--name-only", "HEAD~").split() == ["CHANGELOG.md", "h2a_batch/version.py"]
    assert not git(project, "status", "--porcelain") and len(os.listdir(project / "dist")) == 3
    text = (project / "CHANGELOG.md").read_text()
    assert unreleased(text) == ""
    assert re.search(r"^## \[98\.7\.6\] - \d{4}-\d\d-\d\d\n\n" + re.escape(changes), text, re.MULTILINE)
    links = re.findall(r"^\[(.+)\]: \.\./\.\./compare/(?:.+)\.\.\.(.+)$", text, re.MULTILINE)
    assert links == [("Unreleased", "HEAD"), ("98.7.6", "v98.7.6")]
    again = release(project, "98.7.7", "--dry-run")
    assert again.returncode == 2 and "names no change" in again.stderr


def test_what_would_be_a_wrong_release_costs_one_line(project: Path) -> None:
    git(project, "tag", "v98.0.0")
    for version, words in (("1.2", "not a version"), ("0.0.9", "does not come after"), ("98.0.0", "is there already")):
        done = release(project, version)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    (project / "README.md").write_text("changed")
    done = release(project, "98.7.6", "--dry-run")
    assert done.returncode == 2 and "not committed" in done.stderr
    (project / "README.md").unlink()
    git(project, "checkout", "--quiet", "README.md")
    (project / "setup.cfg").write_text("[metadata]\nname =\n")
    git(project, "commit", "--quiet", "--all", "--message", "a project that cannot be built")
    before = state(project)
    done = release(project, "98.7.6")
    assert done.returncode == 2 and "build" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert state(project) == before
