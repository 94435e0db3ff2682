"""What the tests share: real portraits, the real command, and pictures of every awkward kind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PHOTOS = HERE / "photos"  # public-domain portraits of members of the US Congress
SHARED = ROOT.parent / "shared"

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def command_line(*arguments: object) -> list[str]:
    """The real command, as this interpreter starts it."""
    return [sys.executable, "-m", "h2a_batch", *map(str, arguments)]


@pytest.fixture
def h2a(tmp_path: Path) -> Command:
    """Run ``h2a-batch`` in a folder outside the checkout and return what it printed and its exit code."""

    def run(*arguments: object, **keywords: object) -> subprocess.CompletedProcess[str]:
        settings = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300, "errors": "replace"}
        return subprocess.run(command_line(*arguments), **{**settings, **keywords})  # type: ignore[call-overload]

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of six portraits, two of them in a sub-folder."""
    folder = tmp_path / "in"
    names = sorted(PHOTOS.glob("*.jpg"))
    for number, name in enumerate(names):
        target = folder / "sub" / name.name if number >= 4 else folder / name.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, target)
    return folder


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of 60 portraits that all differ."""
    folder = tmp_path / "many"
    folder.mkdir()
    names = sorted(PHOTOS.glob("*.jpg"))
    for number in range(60):
        with Image.open(names[number % len(names)]) as image:
            image.rotate(number // len(names), expand=False).save(folder / f"{number:03d}.jpg", quality=85)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """All visible files below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def leftovers(folder: Path) -> list[Path]:
    """Temporary files of writes that never ended."""
    return [Path(base, name) for base, _, names in os.walk(folder) for name in names if name.endswith(".part")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first, so that none of them is left for the end, when the other workers are idle."""
    longest = ("test_train_cases.py", "test_cluster.py", "test_cloud.py", "test_soak.py")
    items.sort(key=lambda item: item.path.name not in longest)
