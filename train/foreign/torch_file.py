"""Tensors of a PyTorch file, read without PyTorch and without running pickled code.

The format is the one `torch.save` wrote before PyTorch 1.6 (torch/serialization.py, `_legacy_load`): a magic number, a
protocol version, the sizes of the machine, the pickled object, the keys of its storages, then each storage: its length
as int64 and its numbers. Of the pickle, only the names that a state dict needs are followed.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from train.errors import TrainError

Arrays = dict[str, NDArray[np.float32]]

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Storage:
    key: str
    type: np.dtype[Any]


@dataclass(frozen=True)
class _Slot:
    """A tensor, before its storage is read; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _slot(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Slot:
    return _Slot(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Knows tensors, dicts and numbers, and refuses every other name, so that nothing of the file is run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _slot
        if module == "torch" and name in TYPES:
            return TYPES[name]
        raise pickle.UnpicklingError(f"it holds pickled code ({module}.{name}), which is never run")

    def persistent_load(self, saved: Any) -> _Storage:
        _, kind, key, *_ = saved
        return _Storage(str(key), kind)


def read_state(path: Path) -> Arrays:
    """The float32 tensors of a state dict by their names; others, such as counters of batches, are left out.

    Raises:
        TrainError: the file is not there, is broken, is of the newer format, or holds anything but tensors.
    """
    try:
        with path.open("rb") as file:
            slots, storages = _read(file)
            return {
                name: _tensor(slot, storages[slot.storage.key])
                for name, slot in slots.items()
                if slot.storage.type == np.float32
            }
    except Exception as error:  # of any kind: it depends on where the bytes stop making sense
        raise TrainError(f"{path}: not a state dict in PyTorch's older format ({error})") from error


def _read(file: BinaryIO) -> tuple[dict[str, _Slot], dict[str, NDArray[Any]]]:
    if (_Unpickler(file).load(), _Unpickler(file).load()) != (MAGIC, PROTOCOL):
        raise ValueError("another magic number")
    _Unpickler(file).load()  # the machine: PyTorch reads little-endian, whatever it says
    slots = _Unpickler(file).load()
    types = {slot.storage.key: slot.storage.type for slot in slots.values()}
    storages = {}
    for key in _Unpickler(file).load():
        length = int(np.frombuffer(file.read(8), "<i8")[0])
        storages[key] = np.frombuffer(file.read(length * types[key].itemsize), types[key], length)
    return slots, storages


def _tensor(slot: _Slot, storage: NDArray[Any]) -> NDArray[np.float32]:
    """Its numbers in rows; the strides may be any, as those of a transposed tensor, but stay inside the storage."""
    last = slot.offset + sum((length - 1) * step for length, step in zip(slot.shape, slot.strides, strict=True))
    if min(slot.offset, *slot.shape, *slot.strides, 0) < 0 or last >= len(storage):
        raise ValueError("a tensor beyond its storage")
    strides = [step * storage.itemsize for step in slot.strides]
    view = np.lib.stride_tricks.as_strided(storage[slot.offset :], slot.shape, strides, writeable=False)
    return np.array(view, np.float32, order="C")
