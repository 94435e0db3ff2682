"""The cache of optimised models: the same numbers as without it, and nothing that goes wrong with it is seen."""

from __future__ import annotations

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

from h2a_batch import optimised
from h2a_batch.faces import Detector
from h2a_batch.generator import Generator, load_runtime

MODEL = ROOT / "models" / "anime-256.mindir"
GRAY = np.full((1, 3, 256, 256), 0.25, np.float32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "h2a-batch" / "models"


def _run() -> np.ndarray:
    return Generator(MODEL, device="cpu").run(GRAY)


def _make(path: Path = MODEL) -> Path | None:
    return optimised.optimised(load_runtime(), path)


def _no_converter(*arguments: object, **keywords: object) -> None:
    raise AssertionError("it was converted")


def test_both_models_give_the_same_numbers_with_and_without_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    portrait = np.asarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3)), np.uint8)
    fast, looked = _run(), [values.tobytes() for values in Detector()._run(portrait)]
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert np.array_equal(_run(), fast) and [values.tobytes() for values in Detector()._run(portrait)] == looked


def test_a_model_is_converted_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _make()
    assert made and list(cache.iterdir()) == [made]
    monkeypatch.setattr(subprocess, "run", _no_converter)
    assert _make() == made
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: _make(), range(4))) == [made] * 4


@pytest.mark.parametrize("damage", [b"", b"\0" * 1000])
def test_a_damaged_file_is_made_again(cache: Path, damage: bytes) -> None:
    expected, made = _run(), _make()
    assert made
    made.chmod(0o600)
    made.write_bytes(made.read_bytes()[:-1000] + damage)
    assert np.array_equal(_run(), expected)
    assert len(list(cache.iterdir())) == 1


def test_processes_that_convert_at_once_do_not_disturb_each_other(cache: Path) -> None:
    code = f"from pathlib import Path; from h2a_batch import Generator; Generator(Path({str(MODEL)!r}), device='cpu')"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert cache.is_dir() and not list(cache.glob("work-*"))
    made = _make()
    assert made and made.is_file()


@pytest.mark.parametrize("place", ["/dev/null", "relative"])
def test_without_a_place_for_it_models_load_as_they_are(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.chdir(tmp_path)
    assert _make() is None and _run().shape == GRAY.shape
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("python", ["/bin/false", "/nonexistent/python"])
def test_without_a_converter_models_load_as_they_are(cache: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python)
    assert _make() is None and _run().shape == GRAY.shape
    assert not list(cache.iterdir())


def test_a_file_that_the_runtime_does_not_take_is_passed_over(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = cache / "wrong.mindir"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"no model")
    monkeypatch.setattr(optimised, "optimised", lambda lite, path: wrong)
    assert _run().shape == GRAY.shape


def test_other_devices_do_not_use_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(optimised, "_build", lambda lite, path, context: loaded.append(path))
    lite = load_runtime()
    context = lite.Context()
    context.target = ["ascend"]
    optimised.load(lite, MODEL, context)
    assert loaded == [MODEL] and not cache.exists()


def test_the_cache_stays_small(cache: Path) -> None:
    cache.mkdir(parents=True)
    for number in range(20):
        old = cache / f"{number}.mindir"
        old.write_bytes(b"another model")
        os.utime(old, (1_000_000 + number, 1_000_000 + number))
    (cache / "work-killed").mkdir()
    os.utime(cache / "work-killed", (1_000_000, 1_000_000))
    made = _make()
    assert made
    assert {path.name for path in cache.iterdir()} == {made.name, *(f"{number}.mindir" for number in range(5, 20))}


def test_the_first_run_of_a_user_prints_nothing_more(cache: Path, h2a: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(next((ROOT / "tests" / "photos").glob("*.jpg")), tmp_path / "in" / "a.jpg")
    done = h2a(tmp_path / "in", tmp_path / "out", "--json")
    assert done.returncode == 0 and len(list(cache.glob("*.mindir"))) == 2
    assert all(json.loads(line) for line in done.stdout.splitlines())
    assert "CONVERT" not in done.stderr and "rror" not in done.stderr
