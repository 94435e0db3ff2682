"""Sources: finds the photos below the inputs by their content, and gives each the natural name of its output."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from h2a_batch.errors import UsageError
from h2a_batch.photos import sniff
from h2a_batch.places import (
    Address,
    AnyAddress,
    Item,
    Level,
    Remote,
    absolute,
    at,
    has_any,
    levels,
    listing,
    why_no_path,
)
from h2a_batch.sources.names import assign, forms, is_image_name, variants

LEDGER_FOLDER = ".h2a-batch"
_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store"})
# raw files begin like TIFF but hold sensor data; most of them have a JPEG of the same picture beside them
_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 "
    ".rwl .sr2 .srf .srw .x3f".split()
)
# browsers, sync clients and copying programs give these names to files that they have not finished
_UNFINISHED = frozenset(
    ".part .partial .crdownload .download .opdownload .tmp .temp .filepart .upload .uploading .aria2 .!qb .!ut".split()
)
LEADS_OUT = "a link that leads out of the input"
_MOST_BYTES = 1 << 30  # of an object: it is held in memory


@dataclass(frozen=True)
class Source:
    """A photo to convert.

    Args:
        path: the address by which the walk reached it.
        real: its identity: the path with the links of its folders resolved, or the URL.
        output: the natural path of its output, relative to OUT.
        size: in bytes.
        mtime_ns: the time of the last change, in nanoseconds; of an object see `Item.stamp`.
        also: paths that were natural for its output while other files lay beside it.
    """

    path: Address
    real: str
    output: str
    size: int
    mtime_ns: int
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unusable:
    """Something that was named as a photo or claims to be one, and cannot be reached or used."""

    path: Address
    kind: str
    message: str


@dataclass(frozen=True)
class Ignored:
    """A file that this program leaves alone, such as a hidden file, camera raw, or no image at all."""

    path: Address
    reason: str


Found = Source | Unusable | Ignored


@dataclass(frozen=True)
class Scan:
    """How to look for photos.

    Args:
        suffix: as in `Options`, for the names of outputs.
        format: as in `Options`, for the names of outputs.
        recursive: whether to go into sub-folders.
        out: OUT; the walk passes it over inside an input.
        is_output: tells whether an earlier run wrote a path in OUT.
        exclude: files to pass over, such as the contact sheet.
        avoid: real paths of folders to pass over, such as the archive.
        watching: whether to leave alone links that lead out of the inputs, and files named as unfinished.
    """

    suffix: str
    format: str
    recursive: bool
    out: Address
    is_output: Callable[[Address], bool] = lambda path: False
    exclude: frozenset[Path] = frozenset()
    avoid: frozenset[str] = frozenset()
    watching: bool = False


@dataclass(frozen=True)
class Folder:
    """A folder to look into.

    Args:
        path: the path by which the walk reached it.
        real: the path with all links resolved.
        relative: where its outputs go, relative to OUT.
    """

    path: str
    real: str
    relative: str


def check_inputs(inputs: Sequence[AnyAddress], recursive: bool = True) -> list[AnyAddress]:
    """Return the inputs as absolute addresses, each once, without those that a walk over another input meets.

    Raises:
        UsageError: there is no input, or one cannot be reached.
    """
    if not inputs:
        raise UsageError("no input", "name a folder or files of photos, then the folder for the results")
    for path in inputs:
        at(path).check_input()
    unique = {at(path).real: absolute(path) for path in reversed(inputs)}
    return [path for name, path in reversed(unique.items()) if not _is_met(name, unique, recursive)]


def _is_met(name: str, inputs: Mapping[str, Address], recursive: bool) -> bool:
    """Tell whether a walk over another input meets this one."""
    for other in inputs:
        inner = name[len(other) + 1 :].split(os.sep)
        if name.startswith(other + os.sep) and (recursive or (len(inner) == 1 and not at(inputs[name]).is_folder())):
            return not any(part.startswith(".") for part in inner)
    return False


def scan(inputs: Sequence[Address], how: Scan, entered: Callable[[str], None] = lambda real: None) -> Iterator[Found]:
    """Yield all photos below the inputs, folder by folder in sorted order.

    A folder alone maps to OUT itself. Of several inputs each folder maps to a sub-folder of its name; files map to OUT.

    Args:
        inputs: as `check_inputs` returns them.
        how: how to look for photos.
        entered: called with the real path of each linked folder that the walk enters: its files are originals, too.
    """
    files = [path for path in inputs if not at(path).is_folder()]
    folders = [path for path in inputs if at(path).is_folder()]
    walk = Walk(how, [at(folder).real for folder in folders if not at(folder).far], entered)
    yield from _files_named(files, how, {folder.name for folder in folders} if len(inputs) > 1 else set())
    for path, folder in zip(folders, roots(folders, len(inputs) > 1), strict=True):
        remote = at(path).remote
        yield from _objects(remote, folder.relative, how) if remote else walk.tree(folder)


def roots(folders: Sequence[Address], several: bool) -> Iterator[Folder]:
    """Yield the input folders with their places below OUT: OUT itself, or of several inputs a sub-folder each."""
    used: set[str] = set()
    for folder in folders:
        name = next(name for name in variants(folder.name or "root") if name not in used)
        used.add(name)
        yield Folder(str(folder), at(folder).real, name if several else "")


def _files_named(files: Sequence[Address], how: Scan, reserved: set[str]) -> Iterator[Found]:
    """Yield the files that the user named: they count as photos whatever their name, even when it occurs twice."""
    rank = {path: number for number, path in enumerate(files)}
    keys: dict[str, Address] = {}
    for path in sorted(files, key=lambda path: (os.fsencode(path.name), rank[path])):
        keys[next(name for name in variants(path.name) if name not in keys)] = path
    for key, output in assign(keys, how.suffix, how.format, reserved).items():
        yield _source(keys[key], at(keys[key]).identity, output, forms(key, how.suffix, how.format))


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
            with os.scandir(folder.path) as entries:  # keep the names alone: a folder may hold a million
                kinds = {entry.name: _kind(entry) for entry in entries}
        except OSError as error:
            yield Unusable(Path(folder.path), "unreadable", f"the folder cannot be read: {error.strerror}")
            return
        folders = sorted((name for name, kind in kinds.items() if kind in "DL"), key=os.fsencode)
        yield from self._files(kinds, folder, folders)
        if self.how.recursive:
            for name in folders:
                path = os.path.join(folder.path, name)
                link = kinds[name] == "L"
                inner = Folder(
                    path,
                    os.path.realpath(path) if link else os.path.join(folder.real, name),
                    os.path.join(folder.relative, name),
                )
                if link and self.how.watching:
                    if self._leads_out(inner.real):
                        yield Ignored(Path(path), LEADS_OUT)
                elif self._enters(inner, link):
                    below.append(inner)

    def _files(self, kinds: dict[str, str], folder: Folder, reserved: Sequence[str]) -> Iterator[Found]:
        """Yield the photos among the files of a folder, and the ignored files; `kinds` maps names to `_kind`."""
        photos = []
        places = ((folder.real, self.out), (folder.path, str(self.how.out)))
        inside_out = any((place + os.sep).startswith(out + os.sep) for place, out in places)
        for name in sorted((name for name, kind in kinds.items() if kind not in "DL"), key=os.fsencode):
            path = Path(folder.path, name)
            reason = _why_ignored(path, kinds[name])
            if not reason and (path in self.how.exclude or (inside_out and self.how.is_output(path))):
                reason = "an output of this program"
            if not reason and self.how.watching:
                reason = self._why_left(path, kinds[name])
            if reason:
                yield Ignored(path, reason)
            else:
                photos.append(name)
        for name, output in assign(photos, self.how.suffix, self.how.format, reserved).items():
            real = os.path.join(folder.real, name)
            also = [os.path.join(folder.relative, form) for form in forms(name, self.how.suffix, self.how.format)]
            yield _source(Path(folder.path, name), real, os.path.join(folder.relative, output), also)

    def _why_left(self, path: Path, kind: str) -> str | None:
        """Return why a watch leaves a file alone that a run would take; None where it takes it, too."""
        if path.suffix.lower() in _UNFINISHED:
            return "not complete yet"
        return LEADS_OUT if kind == "K" and self._leads_out(os.path.realpath(path)) else None

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
        return "N" if entry.is_symlink() and not os.path.exists(entry.path) else "O"
    except OSError:  # a link that leads to itself
        return "N"


def _why_ignored(path: Address, kind: str) -> str | None:
    """Return why a file is passed over without a message; None for a photo, or a file that claims to be one."""
    name = path.name.lower()
    if name in _JUNK:
        return "made by the system"
    if name.startswith("."):
        return "hidden"
    if kind == "O":
        return "not a file"
    if is_image_name(name):
        return None
    if os.path.splitext(name)[1] in _RAW:
        return "camera raw"
    if path.suffix and at(path).far:  # a look inside costs a request: only names without a suffix get one
        return "not an image"
    return None if sniff(at(path).head(32)) else "not an image"


def _objects(root: Remote, relative: str, how: Scan) -> Iterator[Found]:
    """Yield the photos below a prefix, folder by folder; a folder comes after its sub-folders."""

    def passes(above: Level, name: str) -> bool:
        """Tell whether to pass a folder over: a hidden one, OUT, or any sub-folder where they are not asked for."""
        if above.path and not above.passed:  # is this OUT of another run? Some names come before its ledger's
            above.passed = name == LEDGER_FOLDER or (name < "." and has_ledger(above.path))
        inner = f"{root}/{above.path}{name}"
        return name.startswith(".") or not how.recursive or inner == str(how.out)

    @lru_cache(maxsize=64)
    def has_ledger(folder: str) -> bool:
        return how.recursive and has_any(root / f"{folder}{LEDGER_FOLDER}")

    odd: list[Unusable] = []

    def named() -> Iterator[Item]:
        for item in listing(root):
            if why := why_no_path(item.key):
                if _may_be_photo(item.key, how):
                    odd.append(Unusable(root / item.key, "unsupported", f"its key {why}; rename it"))
            else:
                yield item

    try:
        for level in levels(named(), passes):
            yield from _objects_of(level, root, relative, how)
    except OSError as error:
        yield Unusable(root, "unreadable", f"the objects cannot be listed: {error.strerror}; run again")
    yield from odd


def _may_be_photo(key: str, how: Scan) -> bool:
    """Tell by its name alone whether an object would be looked at, if its key could be a path."""
    name = "".join(character for character in key.rpartition("/")[2] if character.isprintable())
    known = is_image_name(name) or not os.path.splitext(name)[1]
    return bool(name) and known and (how.recursive or "/" not in key)


def _objects_of(level: Level, root: Remote, relative: str, how: Scan) -> Iterator[Found]:
    """Yield the photos of one folder of a store."""
    photos: dict[str, Item] = {}
    inside_out = f"{root}/{level.path}".startswith(f"{how.out}/")
    for item in level.items:
        path = root / item.key
        reason = _why_ignored(path, "F")
        if not reason and inside_out and how.is_output(path):
            reason = "an output of this program"
        if reason:
            yield Ignored(path, reason)
        else:
            photos[path.name] = item
    folder = os.path.join(relative, level.path)
    for name, output in assign(photos, how.suffix, how.format, level.folders).items():
        item = photos[name]
        also = [folder + form for form in forms(name, how.suffix, how.format)]
        path = root / item.key
        yield _of_size(Source(path, path.url, folder + output, item.size, item.stamp, tuple(also)))


def _source(path: Address, real: str, output: str, also: Sequence[str]) -> Source | Unusable:
    """Return the photo at an address, or why it cannot be used."""
    place = at(path)
    try:
        found = place.stat()
    except OSError as error:
        what = "a link that leads nowhere" if os.path.islink(str(path)) else f"it cannot be reached ({error.strerror})"
        return Unusable(path, "unreadable" if place.far else "vanished", what)
    if found is None:
        what = "a link that leads nowhere" if os.path.islink(str(path)) else "there is no such file any more"
        return Unusable(path, "vanished", what)
    if not found.regular:
        return Unusable(path, "not-an-image", "not a file")
    return _of_size(Source(path, real, output, found.size, found.changed, tuple(also)))


def _of_size(source: Source) -> Source | Unusable:
    """Return a photo, or why it is too large: an object is held in memory."""
    if at(source.path).far and source.size > _MOST_BYTES:
        what = f"the object has {source.size:,} bytes, and at most {_MOST_BYTES:,} are read"
        return Unusable(source.path, "too-large", what)
    return source
