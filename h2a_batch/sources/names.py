"""Names of outputs: one for each photo of a folder, the same in every run, never two alike."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .tif .tiff .gif .avif .heic .heif .hif".split()
)
ASIDE = ".h2a-aside"  # ends the hidden name that a photo has for the moment of its disposal
MAX_NAME = 255  # bytes of one name on every common file system


def assign(names: Iterable[str], suffix: str, format: str, reserved: Iterable[str] = ()) -> dict[str, str]:
    """Return an output name for each photo name of one folder.

    ``a.jpg`` gives ``a.png``. Where several photos would give one name (``a.jpg`` and ``a.png``, or names
    that differ only in case), each keeps its whole name: ``a.jpg.png``, ``a.png.png``.

    Args:
        names: the names of the photos of one folder.
        suffix: the text behind the stem, as in ``a_anime.png``.
        format: the suffix of the output without its dot.
        reserved: names that no output may take (those of sub-folders).

    Returns:
        a dictionary from each photo's name to its output's name, sorted by the former.
    """
    ordered = sorted(names, key=os.fsencode)
    plain = {name: forms(name, suffix, format)[0] for name in ordered}
    uses = Counter(_key(output) for output in plain.values())
    taken = {_key(name) for name in reserved}
    result = {}
    for name in sorted(ordered, key=lambda name: uses[_key(plain[name])] > 1):  # the undisputed first
        wanted = plain[name] if uses[_key(plain[name])] == 1 else forms(name, suffix, format)[1]
        result[name] = next(name for name in variants(wanted) if _key(name) not in taken)
        taken.add(_key(result[name]))
    return {name: result[name] for name in ordered}


def forms(name: str, suffix: str, format: str) -> tuple[str, str]:
    """Return two output names of a photo: one for a stem of its own, one for a stem that it shares with others."""
    return _output(stem_of(name), suffix, format), _output(name, suffix, format)


def variants(name: str) -> Iterator[str]:
    """Yield the name itself, then ``name~2``, ``name~3``, ... before its suffix, each within `MAX_NAME` bytes."""
    yield name
    stem, dot = os.path.splitext(name)
    for number in range(2, 1_000_000):
        yield _fitted(stem, f"~{number}{dot}")


def numbered(name: str, number: int) -> str:
    """Return the output name of a face: ``name-1.png``, ``name-2.png``, ... where the photo's is ``name.png``."""
    stem, dot = os.path.splitext(name)
    return _fitted(stem, f"-{number}{dot}")


def is_image_name(name: str) -> bool:
    """Tell whether a name has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def stem_of(name: str) -> str:
    """Return a name without the suffix of an image; return any other name unchanged."""
    return os.path.splitext(name)[0] if is_image_name(name) else name


def _output(stem: str, suffix: str, format: str) -> str:
    return _fitted(stem, f"{suffix}.{format}")


def _fitted(stem: str, tail: str) -> str:
    """Join stem and tail; cut a stem that is too long and mark it with a hash of the whole."""
    if len(os.fsencode(stem + tail)) <= MAX_NAME:
        return stem + tail
    tail = f"~{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}{tail}"
    room = MAX_NAME - len(os.fsencode(tail))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem + tail


def _key(name: str) -> str:
    """Return one key for all names that are the same to a file system which ignores case or composes accents."""
    return unicodedata.normalize("NFC", name).casefold()
