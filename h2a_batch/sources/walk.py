"""Walk: finds the photos of folders on a disk, whatever links and other files are there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from h2a_batch.places import LINKED, at, listed, open_file, open_in, resolved
from h2a_batch.sources.names import ASIDE, assign, forms
from h2a_batch.sources.source import LEDGER_FOLDER, Folder, Found, Ignored, Scan, Unusable, source_at, why_ignored

_HIDDEN_SECONDS = 60.0
LEADS_OUT = "a link that leads out of the input"
# browsers, sync clients and copying programs give these names to files that they have not finished
_UNFINISHED = frozenset(
    ".part .partial .crdownload .download .opdownload .tmp .temp .filepart .upload .uploading .aria2 .!qb .!ut".split()
)


class Walk:
    """A walk over folders that always ends, whatever links there are.

    Args:
        how: how to look for photos.
        roots: the real paths of the input folders.
        entered: as for `scan`.
    """

    def __init__(self, how: Scan, roots: list[str], entered: Callable[[str], None] = lambda real: None) -> None:
        self.how = how
        self.entered = entered
        self.roots = roots
        self.out = at(how.out).real
        self.linked: set[str] = set()

    def tree(self, root: Folder) -> Iterator[Found]:
        """Yield the photos of a folder, then of its sub-folders; a stack, since folders nest deeper than calls."""
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            below: list[Folder] = []
            yield from self.look(folder, below)
            waiting += reversed(below)

    def look(self, folder: Folder, below: list[Folder]) -> Iterator[Found]:
        """Yield the photos of one folder, and add the sub-folders to look at next to `below`."""
        try:
            with listed(folder.real) as (handle, entries):  # keep the names alone: a folder may hold a million
                kinds = {entry.name: _kind(entry) for entry in entries}
                hidden = [name for name in kinds if name.endswith(ASIDE) and _is_old(handle, name)]
                ignored = {name: why for name in kinds if (why := self._why_ignored(folder, name, kinds[name], handle))}
        except OSError as error:
            if error.errno not in LINKED:
                yield Unusable(Path(folder.path), "unreadable", f"the folder cannot be read: {error.strerror}")
            elif not self.how.watching:  # a watch meets the link in the folder above
                yield Unusable(Path(folder.path), "changed", "a link took the place of this folder; it is not followed")
            return
        for name in hidden:
            own = name[1:].removesuffix(ASIDE)[:-9]
            what = f"a photo that a killed run hid, as {own}; run again with that run's OUT, or rename it"
            yield Unusable(Path(folder.path, name), "hidden", what)
        folders = sorted((name for name, kind in kinds.items() if kind in "DL"), key=os.fsencode)
        yield from self._files(kinds, ignored, folder, folders)
        if self.how.recursive:
            for name in folders:
                path = os.path.join(folder.path, name)
                link = kinds[name] == "L"
                inner = Folder(
                    path,
                    resolved(path) if link else os.path.join(folder.real, name),
                    os.path.join(folder.relative, name),
                )
                if link and self.how.watching:
                    if self._leads_out(inner.real):
                        yield Ignored(Path(path), LEADS_OUT)
                elif self._enters(inner, link):
                    below.append(inner)

    def _files(
        self, kinds: dict[str, str], ignored: dict[str, str], folder: Folder, reserved: Sequence[str]
    ) -> Iterator[Found]:
        """Yield the photos among the files of a folder, and the ignored files.

        Args:
            kinds: what `_kind` says of each name in the folder.
            ignored: the names of files to ignore, with the reasons.
            folder: the folder.
            reserved: the names of its sub-folders.
        """
        photos: dict[str, str] = {}  # names, and where links lead
        places = ((folder.real, self.out), (folder.path, str(self.how.out)))
        inside_out = any((place + os.sep).startswith(out + os.sep) for place, out in places)
        for name in sorted((name for name, kind in kinds.items() if kind not in "DL"), key=os.fsencode):
            path = Path(folder.path, name)
            link = resolved(os.path.join(folder.real, name)) if kinds[name] == "K" else ""
            reason = ignored.get(name)
            if not reason and (path in self.how.exclude or (inside_out and self.how.is_output(path))):
                reason = "an output of this program"
            if not reason and self.how.watching:
                reason = self._why_left(path, link)
            if reason:
                yield Ignored(path, reason)
            else:
                photos[name] = link
        for name, output in assign(photos, self.how.suffix, self.how.format, reserved).items():
            real = os.path.join(folder.real, name)
            also = [os.path.join(folder.relative, form) for form in forms(name, self.how.suffix, self.how.format)]
            yield source_at(Path(folder.path, name), real, os.path.join(folder.relative, output), also, photos[name])

    def _why_ignored(self, folder: Folder, name: str, kind: str, handle: int) -> str | None:
        """Return why a file is passed over without a message; None for folders, photos and what claims to be one."""
        if kind in "DL":
            return None

        def head() -> bytes:
            try:
                target = os.path.join(folder.real, name)
                with open_in(handle, name) if kind == "F" else open_file(resolved(target)) as file:
                    return file.read(32)
            except OSError:
                return b""

        return why_ignored(name, kind, head)

    def _why_left(self, path: Path, link: str) -> str | None:
        """Return why a watch leaves alone a file, or a link to one, that a run would take; None where it takes it."""
        if path.suffix.lower() in _UNFINISHED:
            return "not complete yet"
        return LEADS_OUT if link and self._leads_out(link) else None

    def _leads_out(self, real: str) -> bool:
        return not any((real + os.sep).startswith(root + os.sep) for root in self.roots)

    def _enters(self, folder: Folder, link: bool) -> bool:
        """Tell whether to enter a folder: not a hidden one, the OUT of a run, or a link back into the inputs."""
        if os.path.basename(folder.path).startswith(".") or folder.real in (self.out, *self.how.avoid):
            return False
        if os.path.isdir(os.path.join(folder.path, LEDGER_FOLDER)):
            return False
        if not link:
            return True
        if folder.real in self.linked or any(_related(folder.real, root) for root in self.roots):
            return False
        self.linked.add(folder.real)
        self.entered(folder.real)
        return True


def _is_old(folder: int, name: str) -> bool:
    """Tell whether a file has had its name for longer than a run hides a photo."""
    try:
        return time.time() - os.lstat(name, dir_fd=folder).st_ctime > _HIDDEN_SECONDS
    except OSError:
        return False


def _related(one: str, other: str) -> bool:
    """Tell whether one of two real paths contains the other."""
    return os.path.commonpath([one, other]) in (one, other)


def _kind(entry: os.DirEntry[str]) -> str:
    """Return D for a folder, L for a link to one, F for a file, K for a link to one, N for a dead link, else O."""
    try:
        if entry.is_dir():
            return "L" if entry.is_symlink() else "D"
        if entry.is_file():
            return "K" if entry.is_symlink() else "F"
        if entry.is_symlink():
            entry.stat()
        return "O"
    except OSError:  # a link that leads nowhere, or to itself
        return "N"
