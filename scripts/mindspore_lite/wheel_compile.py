"""Compiles `_c_lite_wrapper` and `_c_lite_converter` for the running interpreter."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wheel_common import HERE, BuildError, say

# Each module's sources and the libraries it is linked to.
MODULES = {
    "_c_lite_wrapper": (
        ("c_lite_wrapper.cc", "context.cc", "model_file.cc"),
        ("-l:libmindspore-extendrt_python.so",),
    ),
    "_c_lite_converter": (("converter.cc",), ("-l:libmindspore_converter.so", "-l:libmindspore_core.so")),
}
# The runtime has libstdc++'s old std::string. -O1: the work is done in the runtime, so compile time counts.
FLAGS = ("-O1", "-g0", "-fPIC", "-std=c++17", "-fvisibility=hidden", "-D_GLIBCXX_USE_CXX11_ABI=0", "-Wall")
# The runtime's libraries find each other through DT_RPATH, which DT_RUNPATH would switch off.
LINK = ("-Wl,--disable-new-dtags,-rpath,$ORIGIN", "-Wl,--allow-shlib-undefined", "-s")


def find_compiler() -> list[str]:
    """The C++ compiler's command: ``$CXX``, else ``g++``; raises BuildError where there is none."""
    command = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    if shutil.which(command[0]) is None:
        raise BuildError(
            f"the C++ compiler {command[0]} is missing: `apt-get install g++` (Debian, Ubuntu) "
            "or `dnf install gcc-c++` (Fedora, RHEL), then run this again"
        )
    return command


def find_python_headers(folders: list[Path] | None = None) -> list[Path]:
    """The folders that hold Python.h and pyconfig.h; raises BuildError where Python.h is missing.

    Args:
        folders: where to look; the running interpreter's own include folders when None.
    """
    if folders is None:
        folders = [Path(sysconfig.get_path("include")), Path(sysconfig.get_path("platinclude"))]
    if not any((folder / "Python.h").is_file() for folder in folders):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise BuildError(
            f"Python.h of CPython {version} is missing: `apt-get install python{version}-dev` (Debian, "
            f"Ubuntu) or `dnf install python{version}-devel` (Fedora, RHEL), then run this again"
        )
    return folders


def compile_modules(compiler: list[str], includes: list[Path], libraries: Path, work: Path) -> list[Path]:
    """Compile and link the modules into `libraries`, beside the runtime they belong to.

    Args:
        compiler: the compiler's command.
        includes: the header folders.
        libraries: the unpacked wheel's `mindspore_lite/lib`.
        work: a folder for object files.

    Raises:
        BuildError: the compiler failed; its own output is on stderr.
    """
    say(f"compiling {' and '.join(MODULES)} for CPython {sys.version_info.major}.{sys.version_info.minor}")
    common = [*compiler, *FLAGS, *(f"-isystem{folder}" for folder in includes), f"-I{HERE}"]
    objects = {source: work / f"{Path(source).stem}.o" for sources, _ in MODULES.values() for source in sources}
    commands = [[*common, "-c", str(HERE / source), "-o", str(target)] for source, target in objects.items()]
    with ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(_run, commands))
    modules = []
    for name, (sources, needed) in MODULES.items():
        modules.append(libraries / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}")
        parts = [str(objects[source]) for source in sources]
        _run([*compiler, "-shared", "-o", str(modules[-1]), *parts, f"-L{libraries}", *needed, *LINK])
    return modules


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        raise BuildError(
            f"{command[0]} failed ({done.returncode}), see above: it must know C++17 (g++ 8 or later) "
            "and have about 1 GB of free memory"
        )
