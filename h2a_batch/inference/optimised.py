"""The graph of a model as MindSpore Lite's converter optimises it: made once, kept in the user's cache.

MindSpore Lite passes over the graph hundreds of times whenever it loads a MINDIR. The converter makes these passes
once: its file loads in a fraction of the time, and gives the same numbers. Whatever prevents that, the model still
loads from its own file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from h2a_batch.places import Scratch, replacing, sha256_of

_SMALL = 1 << 20  # bytes; a smaller model loads in no time as it is
_KEPT = 16  # optimised models that the cache keeps
_PATIENCE = 120.0  # seconds for a conversion; it takes one or two
_WAY = 1  # the version of this conversion: another number makes other files
_NAME = re.compile(r"[0-9a-f]{32}-[^-]+-\d+-[0-9a-f]{32}\.mindir")  # digest of the model, versions, own digest
_CHILD = "H2A_BATCH_CONVERTS"  # in the environment of a process that converts
_turn = threading.Lock()
_refused: set[str] = set()  # this process failed to convert these models, and does not try again


def load(lite: Any, path: Path, context: Any) -> Any:
    """Load a MINDIR file, from the cache where possible.

    Args:
        lite: the package `mindspore_lite`.
        path: the MINDIR file.
        context: the `mindspore_lite.Context` for the model.

    Returns:
        a `mindspore_lite.Model`.

    Raises:
        RuntimeError: MindSpore Lite cannot load the file.
    """
    cached = optimised(lite, path) if context.target == ["cpu"] else None  # other devices optimise in other ways
    if cached:
        with contextlib.suppress(RuntimeError):
            return _build(lite, cached, context)
    return _build(lite, path, context)


def optimised(lite: Any, path: Path) -> Path | None:
    """Return the file of a model's optimised graph, made now where there is none; None where it cannot be made.

    Its name holds the digest of the model, the version of MindSpore Lite and its own digest: a damaged file is unused.
    """
    try:
        if _CHILD in os.environ or path.stat().st_size < _SMALL:
            return None
        model = path.read_bytes()
        stem = f"{hashlib.sha256(model).hexdigest()[:32]}-{lite.__version__}-{_WAY}"
        with _turn:
            found = _find(stem)
            if found or stem in _refused:
                return found
            _refused.add(stem)
            with _alone(_folder()) as alone:  # another process may convert: do without rather than wait
                made = (_find(stem) or _make(stem, model)) if alone else None
            _refused.discard(stem)
            return made
    except (OSError, RuntimeError, subprocess.SubprocessError):  # no home, a full disk, no converter
        return None


def cache_folder() -> Path:
    """Return the folder of optimised models: under XDG_CACHE_HOME where that is set, else under ~/.cache."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "h2a-batch" / "optimised"


def _folder() -> Path:
    """Return the cache, and make it where it is missing.

    Raises:
        PermissionError: other users could put files into it.
    """
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder}: others may write there")
    return folder


def _find(stem: str) -> Path | None:
    """Return the optimised graph in the cache that has this stem and is whole; None where there is none."""
    for path in _folder().glob(f"{stem}-*.mindir"):
        with contextlib.suppress(OSError):  # a folder, or somebody else's
            if path == _named(stem, sha256_of(path)):
                os.utime(path)  # the cache drops the least recently used first
                return path
            path.unlink()
    return None


def _make(stem: str, model: bytes) -> Path:
    """Convert a model, keep the result in the cache, and drop the least recently used files beyond `_KEPT`."""
    with Scratch() as work:
        source = Path(work, "model.mindir")
        target = Path(work, "made.mindir")
        source.write_bytes(model)
        _convert_apart(source, target)
        content = target.read_bytes()
    kept = _named(stem, hashlib.sha256(content).hexdigest())
    for begun in kept.parent.glob(".h2a-*.part"):  # killed processes left these
        begun.unlink()
    with replacing(kept) as file:
        file.write(content)
    ours = [path for path in kept.parent.iterdir() if _NAME.fullmatch(path.name)]
    for old in sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
        old.unlink()
    return kept


def _convert_apart(source: Path, target: Path) -> None:
    """Convert in a process of its own, since the converter writes to stdout and may fail in any way.

    Raises:
        OSError, subprocess.SubprocessError: the process cannot start, fails, or takes too long.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("no Python to be called")
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    subprocess.run(
        [sys.executable, "-m", __name__, str(source), str(target)],
        cwd=source.parent,
        env=os.environ | {"GLOG_v": "4", "PYTHONPATH": paths, _CHILD: "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_PATIENCE,
        check=True,
    )


def _named(stem: str, digest: str) -> Path:
    return cache_folder() / f"{stem}-{digest[:32]}.mindir"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Yield whether no other process converts."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks: a second conversion only costs time
            pass
        yield True


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
