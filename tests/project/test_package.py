"""The wheel that is built from this repository, used where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, names)):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_package_model_and_card_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    models = {f"h2a_batch/models/{name}.{kind}" for name in ("anime-256", "centerface") for kind in ("mindir", "json")}
    assert models | {"h2a_batch/py.typed"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"h2a_batch"}
    assert any(name.endswith("licenses/NOTICE") for name in names)


def test_the_wheel_works_outside_the_checkout(wheel: Path, photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, wheel]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    script = (
        "import h2a_batch; from h2a_batch import inference as i;print(h2a_batch.__file__, i.find_model('anime-256'))"
    )
    where = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert where.stdout.count(str(place)) == 2, where.stdout + where.stderr
    command = [sys.executable, "-m", "h2a_batch", photos, tmp_path / "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "6 converted" in done.stderr, done.stderr


def test_nothing_of_the_product_imports_the_training_side() -> None:
    script = (
        "import sys, h2a_batch.command.convert;"
        "print([m for m in sys.modules if m.split('.')[0] in ('train', 'mindspore')])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
