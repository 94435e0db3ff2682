"""Apart: decodes a suspicious photo in a process of its own, while its faces are looked for in this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO

from h2a_batch.convert.photo import Photo, Wish
from h2a_batch.faces import Face
from h2a_batch.photos import Limits, Look, Pixels, read_apart

Decode = Callable[[BinaryIO, Wish, Look, str], Photo]


def decode_apart(decode: Decode, file: BinaryIO, wish: Wish, look: Look, sha256: str, limits: Limits) -> Photo:
    """Return what `decode`, a function of a module, returns for its arguments in a process of its own.

    The process does not load MindSpore Lite: it sends the small pictures in which faces are sought.

    Raises:
        PhotoError: as `decode`; or the photo exceeds its limits (``too-large``, ``hostile``).
        MemoryError: the machine lacks the memory for a photo within its limits.
    """
    search = wish.search
    there = replace(wish, search=search and replace(search, find=_nobody))

    def answer(question: tuple[Pixels, float]) -> list[Face]:
        return search.find(*question) if search else []

    photo: Photo = read_apart(_there, (decode, there, look, sha256), file, limits, look, answer)
    return photo


def _there(file: BinaryIO, ask: Callable[[Any], Any], decode: Decode, wish: Wish, look: Look, sha256: str) -> Photo:
    """Decode a photo in the other process; the parent finds its faces."""

    def find(picture: Pixels, smallest: float) -> list[Face]:
        faces: list[Face] = ask((picture, smallest))
        return faces

    return decode(file, replace(wish, search=wish.search and replace(wish.search, find=find)), look, sha256)


def _nobody(picture: Pixels, smallest: float) -> list[Face]:
    return []
