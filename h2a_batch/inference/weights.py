"""The weights of a MINDIR file: tells whether there is NaN among them, before MindSpore Lite runs the model.

An answer does not tell: the last function of most generators, tanh, makes NaN a -1, which is black.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from h2a_batch.errors import ModelError

# of MindSpore's mind_ir.proto: a ModelProto has its graph in 7, a GraphProto its parameters in 3, a TensorProto
# the type of its numbers in 2 and their bytes in 9
_GRAPH, _PARAMETER, _TYPE, _BYTES = 7, 3, 2, 9
_FLOATS: dict[int, type[np.floating[Any]]] = {1: np.float32, 10: np.float16, 11: np.float64}
_BLOCK = 1 << 22  # bytes that are looked at together


def check_weights(path: Path) -> None:
    """Check that there is no NaN among the weights of a model.

    A file in another form than MINDIR passes: MindSpore Lite will say what it thinks of it.

    Raises:
        ModelError: there is.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            is_broken = any(_has_nan(data, *place) for place in _weights(data))
    except (OSError, ValueError, IndexError):
        return
    if is_broken:
        raise ModelError(f"{path}: some of its weights are not numbers (NaN)", "train or export it again")


def _weights(data: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Yield type, start and end of each tensor of weights; raise ValueError or IndexError where this is no MINDIR."""
    for graph in _inside(data, 0, len(data), _GRAPH):
        for parameter in _inside(data, *graph, _PARAMETER):
            kinds = [value for number, value, _ in _fields(data, *parameter) if number == _TYPE]
            for place in _inside(data, *parameter, _BYTES):
                yield kinds[-1] if kinds else 0, *place


def _has_nan(data: mmap.mmap, kind: int, start: int, end: int) -> bool:
    if kind not in _FLOATS:
        return False
    blocks = (data[begin : min(begin + _BLOCK, end)] for begin in range(start, end, _BLOCK))
    return any(bool(np.isnan(np.frombuffer(block, _FLOATS[kind])).any()) for block in blocks)


def _inside(data: mmap.mmap, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each field of a message that has this number and a length."""
    for number, begin, close in _fields(data, start, end):
        if number == wanted and close is not None:
            yield begin, close


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield the fields of a protobuf message: the number, and start and end of the content, or a value and None."""
    while start < end:
        key, start = _varint(data, start)
        form = key & 7
        if form == 0:
            value, start = _varint(data, start)
            yield key >> 3, value, None
        elif form == 2:
            length, start = _varint(data, start)
            if length > end - start:
                raise ValueError("it is cut short")
            yield key >> 3, start, start + length
            start += length
        elif form in (1, 5):
            start += 8 if form == 1 else 4
        else:
            raise ValueError("no protobuf message")


def _varint(data: mmap.mmap, start: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
        if shift > 63:
            raise ValueError("no number")
