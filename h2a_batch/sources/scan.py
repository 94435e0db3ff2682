"""Scan: finds the photos below the inputs by their content, and gives each the natural name of its output."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial

from h2a_batch.errors import UsageError
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
    resolved,
    why_no_path,
)
from h2a_batch.sources.names import assign, forms, is_image_name, variants
from h2a_batch.sources.source import (
    LEDGER_FOLDER,
    Folder,
    Found,
    Ignored,
    Scan,
    Source,
    Unusable,
    of_size,
    source_at,
    why_ignored,
)
from h2a_batch.sources.walk import Walk


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
        path, identity = keys[key], at(keys[key]).identity
        link = resolved(identity) if os.path.islink(identity) else ""
        yield source_at(path, identity, output, forms(key, how.suffix, how.format), link)


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
        head = None if path.suffix else partial(at(path).head, 32)
        reason = why_ignored(path.name, "F", head)
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
        yield of_size(Source(path, path.url, folder + output, item.size, item.stamp, tuple(also)))
