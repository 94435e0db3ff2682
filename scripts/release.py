"""Make a release of what is committed: scripts/release 0.2.0 [--dry-run] [--output FOLDER]

All of it is done in a temporary clone first: the version is set, the changelog's "Unreleased" becomes the version with
today's date, wheel and sdist are built, the changelog's section becomes the notes, and this is committed and tagged.
Only when all of it went well are commit and tag taken over, so a release that fails leaves nothing behind. With
--dry-run they are not. Nothing is pushed; the last line says how.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION_FILE, CHANGELOG = "h2a_batch/version.py", "CHANGELOG.md"
_VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
_UNRELEASED = re.compile(r"^## \[Unreleased\]\n(.*?)(?=^## \[|^\[)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"^\[Unreleased\]: (.*/compare/)(.+)\.\.\.HEAD$", re.MULTILINE)


class ReleaseError(Exception):
    """There can be no release; the text is one line that says why."""


def main() -> int:
    """Run the command and return its exit code: 0, or 2 where there can be no release."""
    parser = argparse.ArgumentParser(prog="scripts/release", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("version", metavar="VERSION", help="of the release, as in 0.2.0")
    parser.add_argument("--dry-run", action="store_true", help="do all of it in a temporary copy, and change nothing")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for wheel, sdist and notes (default: dist/; in a dry run none)"
    )
    given = parser.parse_args()
    try:
        _check(given.version)
        with tempfile.TemporaryDirectory(prefix="h2a-release-") as folder:
            _release(given.version, Path(folder), given.output, given.dry_run)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    return 0


def _check(version: str) -> None:
    """Refuse what would give a wrong release."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ReleaseError(f"{version}: not a version; write three numbers, as in 0.2.0")
    if changes := _git(ROOT, "status", "--porcelain"):
        raise ReleaseError(f"{len(changes.splitlines())} files are not committed; git status names them")
    now = _search(_VERSION, VERSION_FILE, ROOT)[1]
    if _numbers(version) <= _numbers(now):
        raise ReleaseError(f"{version}: does not come after {now}, the version now")
    if _git(ROOT, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"{version}: the tag v{version} is there already")
    if not re.search(r"^- ", _search(_UNRELEASED, CHANGELOG, ROOT)[1], re.MULTILINE):
        raise ReleaseError(f'{CHANGELOG}: "Unreleased" names no change; say what is new first')
    _search(_LINK, CHANGELOG, ROOT)


def _release(version: str, folder: Path, output: Path | None, dry_run: bool) -> None:
    """Make the release in a clone, and take it over unless this is a dry run."""
    clone, dist = folder / "clone", folder / "dist"
    _git(folder, "clone", "--quiet", ROOT, clone)
    for name in ("user.name", "user.email"):  # they may be set for this repository alone
        if value := _git(ROOT, "config", "--get", "--default", "", name):
            _git(clone, "config", name, value)
    _set_version(clone, version)
    notes = _move_changes(clone, version)
    _run(clone, sys.executable, "-m", "build", "--outdir", dist, clone)
    (dist / f"notes-{version}.md").write_text(notes)
    _git(clone, "commit", "--quiet", "--message", f"Version {version}", "--", VERSION_FILE, CHANGELOG)
    _git(clone, "tag", "--annotate", f"v{version}", "--message", f"h2a-batch {version}")
    target = output or (None if dry_run else ROOT / "dist")
    for path in sorted(dist.iterdir()):
        print(f"{target / path.name if target else path.name}: {path.stat().st_size:,} bytes")
    if target:
        shutil.copytree(dist, target, dirs_exist_ok=True)
    if dry_run:
        print(f"dry run: {version} could be released; nothing was changed")
        return
    _git(ROOT, "fetch", "--quiet", clone, f"refs/tags/v{version}:refs/tags/v{version}")
    _git(ROOT, "merge", "--quiet", "--ff-only", f"v{version}")
    print(f"committed and tagged v{version}; to publish it: git push --follow-tags")


def _set_version(clone: Path, version: str) -> None:
    path = clone / VERSION_FILE
    path.write_text(_VERSION.sub(f'__version__ = "{version}"', path.read_text(), count=1))


def _move_changes(clone: Path, version: str) -> str:
    """Give what is unreleased its version, date and link, and return it as the release's notes."""
    path = clone / CHANGELOG
    changes = _search(_UNRELEASED, CHANGELOG, clone)[1].strip()
    heading = f"## [{version}] - {datetime.now(timezone.utc):%Y-%m-%d}"
    text = _UNRELEASED.sub(lambda _: f"## [Unreleased]\n\n{heading}\n\n{changes}\n\n", path.read_text(), count=1)
    links = rf"[Unreleased]: \1v{version}...HEAD" + "\n" + rf"[{version}]: \1\2...v{version}"
    path.write_text(_LINK.sub(links, text, count=1))
    return f"# h2a-batch {version}\n\n{changes}\n"


def _search(pattern: re.Pattern[str], name: str, root: Path) -> re.Match[str]:
    """What a release changes in a file; the file has to have it."""
    found = pattern.search((root / name).read_text())
    if found is None:
        raise ReleaseError(f"{name}: has nothing of the form {pattern.pattern!r}")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _git(place: Path, *words: object) -> str:
    return _run(place, "git", *words).strip()


def _run(place: Path, *words: object) -> str:
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    if done.returncode:
        last = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-1:]
        raise ReleaseError(f"{' '.join(command[:4])} failed: {''.join(last)}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
