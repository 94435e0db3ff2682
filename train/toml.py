"""TOML: reading files of it, and the draft of a card for `export`, in which people have to say what only they know."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.errors import TrainError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and fields of a file.

    Raises:
        TrainError: it is not TOML.
    """
    try:
        fields: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return fields
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainError(f"{path}: not a TOML file: {error}") from error


def value_of(text: str) -> Any:
    """A value as TOML writes it, or the text itself: a word without quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def card_text(
    name: str, description: str, size: int, generator: Mapping[str, object], options: Mapping[str, object], weights: str
) -> str:
    """A generator for size x size RGB in [-1, 1]; `weights`: the lines of that table, as TOML."""
    side = f'width = {size}\nheight = {size}\nlayout = "NCHW"\norder = "RGB"\nrange = [-1.0, 1.0]\n'
    return (
        f'name = {toml(name)}\ndescription = {toml(description)}\nframing = "pad"\n\n'
        f"[input]\n{side}mean = [0, 0, 0]\nstd = [1, 1, 1]\n\n[output]\n{side}\n"
        f"[generator]\n{lines(generator)}\n[generator.options]\n{lines(options)}\n[weights]\n{weights}"
    )


def lines(fields: Mapping[str, object]) -> str:
    """A line for each field."""
    return "".join(f"{name} = {toml(value)}\n" for name, value in fields.items())


def toml(value: object) -> str:
    """A value as TOML; a file name may hold bytes that are no text: they become question marks."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name} = {toml(item)}' for name, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
