"""A file as it would be with some of its bytes replaced: decoders then do not meet what was cut out."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Patch:
    """New bytes for a stretch of a file.

    Args:
        start: the first byte of the stretch.
        end: the byte behind it.
        data: what stands there instead; of any length, also none.
    """

    start: int
    end: int
    data: bytes = b""


def patched(file: BinaryIO, patches: Sequence[Patch]) -> BinaryIO:
    """Return a file for reading with these patches; the given file stays as it is.

    Args:
        file: open for reading.
        patches: of two that overlap, the one that begins later counts for nothing.
    """
    return io.BufferedReader(_Patched(file, sorted(patches, key=lambda patch: patch.start)))


class _Patched(io.RawIOBase):
    """Stretches of a file and of patches, one behind the other."""

    def __init__(self, file: BinaryIO, patches: Sequence[Patch]) -> None:
        super().__init__()
        self._file = file
        end = file.seek(0, io.SEEK_END)
        self._pieces: list[tuple[int, int, bytes | None]] = []  # where it begins there, its length, a patch's bytes
        known = 0
        for patch in patches:
            if patch.start < known or patch.start > end:
                continue
            self._pieces += [(known, patch.start - known, None), (0, len(patch.data), patch.data)]
            known = patch.end
        self._pieces.append((known, max(0, end - known), None))
        self._starts = [0]
        for _, length, _ in self._pieces:
            self._starts.append(self._starts[-1] + length)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        if base + offset < 0:
            raise OSError("a place before the start of the file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._at >= self._starts[-1]:
            return 0
        number = bisect_right(self._starts, self._at) - 1
        start, length, data = self._pieces[number]
        inside = self._at - self._starts[number]
        count = min(len(buffer), length - inside)
        if data is None:
            self._file.seek(start + inside)
            read = self._file.read(count)
        else:
            read = data[inside : inside + count]
        buffer[: len(read)] = read
        self._at += len(read)
        return len(read)
