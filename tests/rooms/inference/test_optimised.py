"""The cache of optimised models: the same numbers as without it, and nothing that goes wrong with it is seen."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Command

from h2a_batch.faces.detector import Detector
from h2a_batch.inference import optimised
from h2a_batch.inference.generator import Generator, load_runtime

MODEL = ROOT / "models" / "anime-256.mindir"
GRAY = np.full((1, 3, 256, 256), 0.25, np.float32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(optimised, "_refused", set())
    return tmp_path / "cache" / "h2a-batch" / "optimised"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were loaded."""
    paths: list[Path] = []
    build = optimised._build

    def follow(lite: Any, path: Path, context: Any) -> Any:
        model = build(lite, path, context)
        paths.append(path)
        return model

    monkeypatch.setattr(optimised, "_build", follow)
    return paths


def _run() -> np.ndarray:
    return Generator(MODEL, device="cpu").run(GRAY)


def _make(path: Path = MODEL) -> Path | None:
    return optimised.optimised(load_runtime(), path)


def _models(cache: Path) -> list[Path]:
    return list(cache.glob("*.mindir"))


def _no_converter(*arguments: object, **keywords: object) -> None:
    raise AssertionError("it was converted")


@pytest.mark.slow
def test_both_models_give_the_same_numbers_with_and_without_it(
    cache: Path, loaded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.asarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3)), np.uint8)
    fast, looked = _run(), [values.tobytes() for values in Detector()._run(picture)]
    assert sorted(loaded) == sorted(_models(cache)) and len(loaded) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert np.array_equal(_run(), fast) and [values.tobytes() for values in Detector()._run(picture)] == looked
    assert loaded[2:] == [MODEL, MODEL.with_name("centerface.mindir")]


def test_a_model_is_converted_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _make()
    assert made and _models(cache) == [made]
    monkeypatch.setattr(subprocess, "run", _no_converter)
    assert _make() == made
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: _make(), range(4))) == [made] * 4


def test_another_model_of_that_name_is_another_model(cache: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.mindir"
    shutil.copy(MODEL, model)
    first = _make(model)
    shutil.copy(MODEL.with_name("centerface.mindir"), model)
    second = _make(model)
    assert first and second and first.name[:32] != second.name[:32] and first.stat().st_size > second.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("damage", [slice(None, -1000), slice(None, None)])  # cut off; a weight that is another
def test_a_damaged_file_is_made_again(cache: Path, loaded: list[Path], damage: slice) -> None:
    expected, made = _run(), _make()
    assert made
    content = bytearray(made.read_bytes())
    content[len(content) // 2] ^= 0x40
    made.chmod(0o600)
    made.write_bytes(content[damage])
    assert np.array_equal(_run(), expected)
    assert _models(cache) == loaded[1:], "the file made again was loaded"
    assert hashlib.sha256(loaded[1].read_bytes()).hexdigest()[:32] in loaded[1].name


@pytest.mark.slow
def test_what_cannot_be_read_is_passed_over(cache: Path) -> None:
    made = _make()
    assert made
    (cache / f"{made.name[:-36]}{'0' * 32}.mindir").mkdir()
    made.unlink()
    again = _make()
    assert again and again.is_file()


@pytest.mark.slow
def test_processes_that_convert_at_once_do_not_disturb_each_other(cache: Path) -> None:
    code = f"from h2a_batch import Generator; Generator({str(MODEL)!r}, device='cpu')"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert _models(cache) == [_make()]


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_is_not_trusted(cache: Path, mode: int) -> None:
    cache.mkdir(parents=True)
    cache.chmod(mode)
    assert _make() is None and not _models(cache)


@pytest.mark.parametrize("place", ["/dev/null", "relative"])
def test_without_a_place_for_it_models_load_as_they_are(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.chdir(tmp_path)
    assert _make() is None and _run().shape == GRAY.shape
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("python", ["/bin/false", "/nonexistent/python", None])
def test_without_a_converter_models_load_as_they_are(
    cache: Path, loaded: list[Path], python: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    assert _make() is None and _run().shape == GRAY.shape
    assert not _models(cache) and loaded == [MODEL]
    monkeypatch.setattr(subprocess, "run", _no_converter)
    assert _make() is None, "it is not tried again"


def test_a_file_that_the_runtime_does_not_take_is_passed_over(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = cache / "wrong.mindir"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"no model")
    monkeypatch.setattr(optimised, "optimised", lambda lite, path: wrong)
    assert _run().shape == GRAY.shape


def test_other_devices_do_not_use_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    monkeypatch.setattr(optimised, "_build", lambda lite, path, context: loaded.append(path))
    lite = load_runtime()
    context = lite.Context()
    context.target = ["ascend"]
    optimised.load(lite, MODEL, context)
    assert loaded == [MODEL] and not cache.exists()


def test_the_cache_stays_small_and_nothing_else_is_touched(cache: Path) -> None:
    cache.mkdir(parents=True)
    names = [f"{number:032x}-2.0.0-1-{number:032x}.mindir" for number in range(20)]
    for number, name in enumerate([*names, "mine.mindir", "mine.txt"]):
        (cache / name).write_bytes(b"another model")
        os.utime(cache / name, (1_000_000 + number, 1_000_000 + number))
    (cache / ".h2a-killed.part").write_bytes(b"begun")
    made = _make()
    assert made
    assert {path.name for path in cache.iterdir()} == {made.name, *names[5:], "mine.mindir", "mine.txt", "lock"}


@pytest.mark.slow
def test_the_first_run_of_a_user_prints_nothing_more(cache: Path, h2a: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(next((ROOT / "tests" / "photos").glob("*.jpg")), tmp_path / "in" / "a.jpg")
    done = h2a(tmp_path / "in", tmp_path / "out", "--json")
    assert done.returncode == 0 and len(_models(cache)) == 2
    assert all(json.loads(line) for line in done.stdout.splitlines())
    assert "CONVERT" not in done.stderr and "rror" not in done.stderr
