"""Where a job's files come from and go to: a folder, or OBS by Huawei's MoXing (obs://, s3://)."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from h2a_batch.places import replacing

URLS = ("obs://", "s3://")
MOXING = "/home/ma-user/modelarts/package/moxing_framework-*.whl"  # where ModelArts puts it in images without it
# What `fit` needs to go on and `export` to work; all of the state is in the checkpoint.
RUN_FILES = ("checkpoint.npz", "weights.npz", "config.toml", "card.toml", "about.json", "log.csv")

Signature = tuple[int, int, int]  # inode, size, time of the last change


class JobError(Exception):
    """What ends the job, in one line for its log."""


def say(text: str) -> None:
    print(f"modelarts: {text}", flush=True)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def is_url(place: str) -> bool:
    return place.startswith(URLS)


def below(place: str, name: str) -> str:
    return f"{place.rstrip('/')}/{name}"


def on_obs(action: str, *paths: str) -> Any:
    """`moxing.file.ACTION(*paths)`; JobError, in one line, for whatever goes wrong there."""
    try:
        import moxing
    except ImportError as error:
        raise JobError(f"{paths[0]}: needs MoXing, and {one_line(error)}; on ModelArts: pip install {MOXING}") from None
    try:
        return getattr(moxing.file, action)(*paths)
    except Exception as error:  # MoXing's errors have no base class of their own
        raise JobError(f"OBS, {action} {' '.join(paths)}: {type(error).__name__}: {one_line(error)}") from error


def fetch(place: str, folder: Path) -> Path:
    """What lies at `place` as a local file or folder: itself, or a copy in `folder` if it is a URL."""
    if not is_url(place):
        if not Path(place).exists():
            raise JobError(f"{place}: no such file or folder")
        return Path(place)
    place = place.rstrip("/")
    if not on_obs("exists", place):
        raise JobError(f"{place}: no such file or folder in OBS")
    folder.mkdir(parents=True, exist_ok=True)
    if on_obs("is_directory", place):
        on_obs("copy_parallel", place, str(folder))
        return folder
    target = folder / place.rpartition("/")[2]
    on_obs("copy", place, str(target))
    return target


def fetch_run(place: str, folder: Path) -> bool:
    """The files of an earlier job's run into `folder`; False if `place` has no checkpoint."""
    found = [name for name in RUN_FILES if _is_there(below(place, name))]
    if RUN_FILES[0] not in found:
        return False
    for name in found:
        if is_url(place):
            on_obs("copy", below(place, name), str(folder / name))
        else:
            shutil.copyfile(Path(place, name), folder / name)
    return True


def _is_there(place: str) -> bool:
    return bool(on_obs("exists", place)) if is_url(place) else Path(place).is_file()


def store(folder: Path, place: str) -> None:
    """All files below `folder` to `place`; each is replaced as a whole, in OBS by the service itself."""
    if is_url(place):
        on_obs("copy_parallel", str(folder), place.rstrip("/"))
        return
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        target = Path(place, file.relative_to(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as source, replacing(target) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)


class Mirror:
    """Keeps `place` up to date with a run's folder: `copy()` now, and in a `with` block every so many minutes."""

    def __init__(self, folder: Path, place: str, minutes: float) -> None:
        self.folder, self.place, self.minutes = folder, place, minutes
        self._copied: dict[str, Signature] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="mirror", daemon=True)

    def copy(self) -> None:
        """Copies the files that have changed since the last time; JobError or OSError if that fails."""
        with tempfile.TemporaryDirectory(prefix="copy-", dir=self.folder.parent) as name:
            staged = {}
            for file in sorted(self.folder.rglob("*")):
                relative = str(file.relative_to(self.folder))
                hidden = file.name.startswith(".")  # not written to its end yet
                if not hidden and file.is_file() and _signature(file) != self._copied.get(relative):
                    staged[relative] = _stage(file, Path(name, relative))
            if staged:
                store(Path(name), self.place)
                self._copied |= staged

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(60 * self.minutes):
            try:
                self.copy()
            except (JobError, OSError) as error:
                say(f"not copied, tried again in {self.minutes:g} minutes: {one_line(error)}")


def _stage(file: Path, target: Path) -> Signature:
    """What `file` is now, as `target`; its signature is taken first, so that a change during the copy is seen later."""
    signature = _signature(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if file.suffix == ".npz":  # large, and only ever replaced, so that a second name keeps this state of it
            os.link(file, target)
            return _signature(target)
    except OSError:  # a file system without links
        pass
    shutil.copyfile(file, target)
    return signature


def _signature(file: Path) -> Signature:
    state = file.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns
