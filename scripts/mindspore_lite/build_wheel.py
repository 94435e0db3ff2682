"""Builds a MindSpore Lite wheel for the running interpreter, and prints the wheel's path on stdout.

PyPI has MindSpore Lite 2.0.0 for CPython 3.7 only. Its native libraries do not depend on Python, save one
small module, which this rebuilds from source (see README.md). The result is cached per user and interpreter:

    pip install "$(python scripts/mindspore_lite/build_wheel.py)"
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

from wheel_common import HERE, LITE_VERSION, BuildError, cache_folder, only_one, say, work_folder
from wheel_compile import compile_modules, find_compiler, find_python_headers
from wheel_inputs import LITE, PYBIND11, adopt, obtain
from wheel_pack import LIBRARIES, check_loads, pack, unpack, wheel_name

FIRST_PYTHON, LAST_PYTHON = (3, 10), (3, 12)
KEPT_WHEELS = 3  # per interpreter: one for each checkout that is in use, older ones are deleted


@dataclass(frozen=True)
class Platform:
    """What decides whether the runtime can work here."""

    system: str
    machine: str
    libc: str
    implementation: str
    python: tuple[int, int]

    @staticmethod
    def current() -> Platform:
        """The running interpreter's platform."""
        try:
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        except (AttributeError, ValueError):  # musl, macOS, Windows
            libc = ""
        python = (platform.python_implementation(), sys.version_info[:2])
        return Platform(platform.system(), platform.machine(), libc, *python)

    def require(self) -> None:
        """Raise BuildError where there is no MindSpore Lite to rebuild for this platform."""
        fits = self.system == "Linux" and self.machine == "x86_64" and self.libc.startswith("glibc")
        if fits and self.implementation == "CPython" and FIRST_PYTHON <= self.python <= LAST_PYTHON:
            return
        here = f"{self.implementation} {'.'.join(map(str, self.python))} on {self.system} {self.machine}"
        here += "" if self.libc.startswith("glibc") or self.system != "Linux" else " without glibc"
        raise BuildError(
            f"no MindSpore Lite wheel for {here}: there is one for CPython 3.10 to 3.12 on Linux x86_64 with "
            "glibc; use one of those, or install the vendor's mindspore_lite wheel for this platform "
            "(aarch64, Ascend, other Pythons: https://www.mindspore.cn/lite), which h2a-batch uses unchanged"
        )


def wheel_version() -> str:
    """MindSpore Lite's version, with a local part that changes with this tool's files: pip then upgrades."""
    digest = hashlib.sha256()
    for path in sorted(HERE.iterdir()):
        if path.suffix in (".py", ".cc", ".h"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update("\0".join([str(sysconfig.get_config_var("SOABI")), platform.libc_ver()[1]]).encode())
    return f"{LITE_VERSION}+h2a{digest.hexdigest()[:10]}"


def build(folder: Path, *, force: bool = False, original: Path | None = None) -> Path:
    """Return this interpreter's wheel, from the cache or newly built.

    Args:
        folder: the cache folder.
        force: build although the cache has it.
        original: the cp37 wheel where it was already downloaded.

    Raises:
        BuildError: platform, tool, download or compilation is at fault; the message says what to do.
    """
    Platform.current().require()
    version = wheel_version()
    wheel = folder / "wheels" / wheel_name(version)
    with only_one(folder):
        if not force and wheel.is_file():
            wheel.touch()
            return wheel
        compiler, headers = find_compiler(), find_python_headers()
        downloads = folder / "downloads"
        lite = adopt(original, LITE, downloads) if original else obtain(LITE, downloads)
        pybind11 = obtain(PYBIND11, downloads)
        wheel.parent.mkdir(exist_ok=True)
        with work_folder(folder) as work:
            _make(lite, pybind11, compiler, headers, version, work / wheel.name)
            (work / wheel.name).replace(wheel)  # on one file system: others see a whole wheel or none
        _prune(wheel)
    return wheel


def _make(lite: Path, pybind11: Path, compiler: list[str], headers: list[Path], version: str, target: Path) -> None:
    work = target.parent
    tree = work / "tree"
    unpack(lite, tree)
    with zipfile.ZipFile(pybind11) as archive:
        archive.extractall(work, [name for name in archive.namelist() if name.startswith("pybind11/")])
    includes = [work / "pybind11" / "include", *headers, tree / "mindspore_lite"]
    for module in compile_modules(compiler, includes, tree / LIBRARIES, work):
        check_loads(module)
    pack(tree, version, target)


def _prune(wheel: Path) -> None:
    tag = wheel.name.split("-", 2)[2]
    same = sorted(wheel.parent.glob(f"*-{tag}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in same[KEPT_WHEELS:]:
        old.unlink(missing_ok=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build a MindSpore Lite wheel for this Python; prints its path.")
    parser.add_argument("--force", action="store_true", help="build although the cache has the wheel")
    parser.add_argument("--output", type=Path, metavar="DIR", help="copy the wheel to DIR, print that path")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help=f"{LITE.filename}, already downloaded")
    return parser.parse_args()


def main() -> int:
    """Run the command line; returns the exit code."""
    arguments = _arguments()
    try:
        wheel = build(cache_folder(), force=arguments.force, original=arguments.wheel)
        if arguments.output:
            arguments.output.mkdir(parents=True, exist_ok=True)
            wheel = Path(shutil.copy2(wheel, arguments.output))
    except BuildError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        where = error.filename or cache_folder()
        say(f"error: {where}: {error.strerror or error} (XDG_CACHE_HOME says where the cache is)")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    print(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
