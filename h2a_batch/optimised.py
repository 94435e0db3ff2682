"""A model's graph as MindSpore Lite's converter has optimised it: made once, kept in the user's cache.

Lite passes over the graph of a MINDIR hundreds of times whenever it loads one. What its converter writes has these
passes behind it, loads in a seventh of the time, and gives the same numbers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from h2a_batch.files import sha256_of

_SMALL = 1 << 20  # bytes; a smaller model loads in no time as it is
_KEPT = 16  # optimised models in the cache
_DIGITS = 32  # of a digest in a name
_PATIENCE = 600.0  # seconds for a conversion
_ours = threading.Lock()  # threads that load one model wait for one conversion


def load(lite: Any, path: Path, context: Any) -> Any:
    """A `mindspore_lite.Model` of a MINDIR file, by way of the cache where that is possible.

    Args:
        lite: the `mindspore_lite` package.
        path: the MINDIR file.
        context: the `mindspore_lite.Context` to run it in.

    Raises:
        RuntimeError: MindSpore Lite cannot load it.
    """
    cached = optimised(lite, path) if context.target == ["cpu"] else None  # other devices optimise otherwise
    if cached:
        with contextlib.suppress(RuntimeError):
            return _build(lite, cached, context)
    return _build(lite, path, context)


def optimised(lite: Any, path: Path) -> Path | None:
    """The file of a model's optimised graph; None where there is none and none can be made.

    Its name tells the model's digest, MindSpore Lite's version and its own digest, so a file that is damaged, or
    belongs to another model or version, is never taken.
    """
    try:
        if path.stat().st_size < _SMALL:
            return None
        with _ours:
            stem = f"{sha256_of(path)[:_DIGITS]}-{lite.__version__}"
            return _find(stem) or _make(path, stem)
    except (OSError, RuntimeError, AttributeError, subprocess.SubprocessError):  # no home, a full disk, no converter
        return None


def cache_folder() -> Path:
    """Where optimised models are kept: under XDG_CACHE_HOME where that is set, else under ~/.cache."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "h2a-batch" / "models"


def _find(stem: str) -> Path | None:
    for path in cache_folder().glob(f"{stem}-*.mindir"):
        if path == _named(stem, path):
            with contextlib.suppress(OSError):
                os.utime(path)  # those used least lately are dropped first
            return path
        path.unlink()
    return None


def _make(path: Path, stem: str) -> Path:
    """Convert a model, in a process of its own, as the converter writes to stdout."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=folder) as work:
        made = Path(work) / "model.mindir"
        command = [sys.executable, "-m", __name__, str(path.resolve()), str(made)]
        home, quiet = Path(__file__).parents[1], os.environ | {"GLOG_v": "4"}
        subprocess.run(command, cwd=home, env=quiet, capture_output=True, timeout=_PATIENCE, check=True)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        kept = _named(stem, made)
        made.replace(kept)
    _drop_old(folder)
    return kept


def _named(stem: str, content: Path) -> Path:
    return cache_folder() / f"{stem}-{sha256_of(content)[:_DIGITS]}.mindir"


def _drop_old(folder: Path) -> None:
    """Drop what was used least lately, and what conversions left that were killed."""
    used = {path: path.stat().st_mtime for path in folder.iterdir()}
    models = [path for path in used if path.suffix == ".mindir"]
    for old in sorted(models, key=used.__getitem__, reverse=True)[_KEPT:]:
        old.unlink(missing_ok=True)
    for work in used.keys() - models:
        if used[work] < time.time() - 2 * _PATIENCE:
            shutil.rmtree(work, ignore_errors=True)


def _build(lite: Any, path: Path, context: Any) -> Any:
    model = lite.Model()
    model.build_from_file(str(path), lite.ModelType.MINDIR, context)
    return model


def _convert(source: str, target: str) -> None:
    import mindspore_lite

    converter = mindspore_lite.Converter()
    converter.optimize = "general"
    converter.save_type = mindspore_lite.ModelType.MINDIR
    converter.convert(mindspore_lite.FmkType.MINDIR, source, target.removesuffix(".mindir"))


if __name__ == "__main__":
    _convert(sys.argv[1], sys.argv[2])
