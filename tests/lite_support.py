"""What the tests of MindSpore Lite share: a graph written by hand, its result by numpy, child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "scripts" / "mindspore_lite"
BUILD = TOOL / "build_wheel.py"

FLOAT, INT64, STRING, TENSORS, TUPLE = 1, 7, 8, 19, 20  # of mind_ir.proto

Floats = NDArray[np.float32]


def varint(value: int) -> bytes:
    """A protobuf varint."""
    parts = []
    while True:
        value, low = value >> 7, value & 0x7F
        parts.append(low | (0x80 if value else 0))
        if not value:
            return bytes(parts)


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protobuf message of (number, value) fields: int as varint, text and bytes with their length."""
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += varint(number << 3) + varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            data += varint(number << 3 | 2) + varint(len(content)) + content
    return data


def tensor(shape: tuple[int, ...], *more: tuple[int, int | str | bytes]) -> bytes:
    """A TensorProto of float32."""
    return message(*((1, dim) for dim in shape), (2, FLOAT), *more)


def attribute(name: str, value: int | str | tuple[int, ...]) -> bytes:
    """An AttributeProto: an integer, a text, or a tuple of integers."""
    if isinstance(value, int):
        return message((1, name), (3, value), (16, INT64))
    if isinstance(value, str):
        return message((1, name), (5, value), (16, STRING))
    return message((1, name), (16, TUPLE), *((17, message((10, item), (16, INT64))) for item in value))


@dataclass(frozen=True)
class ConvTanh:
    """tanh(3x3 convolution of the input, zero padding) as a MINDIR: small, but it computes something.

    With ReLU and a scale of 1e38 it gives infinity for what is bright, and numbers for gray.

    `channels` in, as many out; images of `size` x `size`; one in a batch.
    """

    channels: int = 3
    size: int = 16
    last: str = "Tanh"  # or ReLU
    scale: float = 1.0  # of the weights

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the input and the output."""
        return 1, self.channels, self.size, self.size

    @property
    def weight(self) -> Floats:
        """The convolution's weights, the same each time."""
        shape = (self.channels, self.channels, 3, 3)
        weight = np.random.default_rng(1).normal(0, 0.2 / self.channels**0.5, shape)
        return (weight if self.scale == 1 else np.full(shape, self.scale)).astype(np.float32)

    def input(self, seed: int = 0, batch: int = 1) -> Floats:
        """A batch of noise."""
        return np.random.default_rng(seed).uniform(-1, 1, (batch, *self.shape[1:])).astype(np.float32)

    def expected(self, x: Floats) -> Floats:
        """The graph's result, in float64 and by numpy alone."""
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        total = np.zeros(x.shape)
        height, width = x.shape[2:]
        for row, column in np.ndindex(3, 3):
            window = padded[:, :, row : row + height, column : column + width]
            total += np.einsum("nchw,oc->nohw", window, self.weight[:, :, row, column])
        result: Floats = np.tanh(total).astype(np.float32)
        return result

    def mindir(self, version: int = 1) -> bytes:
        """The file's content, with any `mind_ir_version`."""
        conv = [
            attribute("kernel_size", (3, 3)),
            attribute("mode", 1),
            attribute("out_channel", self.channels),
            attribute("pad", (1, 1, 1, 1)),
            attribute("pad_mode", "pad"),
            attribute("format", "NCHW"),
            attribute("pad_list", (1, 1, 1, 1)),
            attribute("groups", 1),
            attribute("group", 1),
            attribute("stride", (1, 1, 1, 1)),
            attribute("dilation", (1, 1, 1, 1)),
        ]
        weight = self.weight
        graph = message(
            (1, self._node("g:conv", "REF::Conv2D:1", "g:x", "g:w")),
            (1, self._node("g:y", f"REF::{self.last}:2", "g:conv")),
            (2, "g"),
            (3, tensor(weight.shape, (7, "g:w"), (9, weight.tobytes()))),
            (5, message((1, "g:x"), (2, tensor(self.shape)))),
            (6, message((1, "g:y"), (2, tensor(self.shape)))),
        )
        primitives = [
            message((1, "Conv2D:1"), (2, "Conv2D"), *((3, one) for one in conv), (4, "conv2d"), (5, 1)),
            message((1, f"{self.last}:2"), (2, self.last), (4, self.last.lower()), (5, 1)),
        ]
        head = ((1, "0.1.1"), (2, "MindSpore"), (5, "2.0.0"), (7, graph), (10, 1))
        return message(*head, *((12, one) for one in primitives), (13, version))

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.write_bytes(self.mindir())
        return path

    def _node(self, name: str, operator: str, *inputs: str) -> bytes:
        shape = message((1, "shape"), (12, tensor(self.shape)), (16, TENSORS))
        return message(*((1, one) for one in inputs), (2, name), (3, name), (4, operator), (5, shape), (7, name))


def run_python(code: str, *arguments: object, python: str | Path = sys.executable, **environment: str) -> str:
    """Run code in a fresh interpreter and return its stdout; a signal or an error fails the test."""
    done = subprocess.run(
        [str(python), "-c", code, *map(str, arguments)],
        env={**os.environ, "GLOG_v": "4", **environment},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )
    assert done.returncode == 0, f"it ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout
