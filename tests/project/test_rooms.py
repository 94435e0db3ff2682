"""Rooms: nobody imports past a room's face, its ``__init__``. Which room may use which is `.importlinter`'s."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

HOUSES = ("h2a_batch", "train")
COMMANDS = ("h2a_batch.command", "train.commands")  # each of their files is a command, and its own face
FILES = sorted(path for top in (*HOUSES, "scripts") for path in (ROOT / top).rglob("*.py"))


def is_room(name: str) -> bool:
    return (ROOT / name.replace(".", "/") / "__init__.py").is_file()


def offered(room: str) -> set[str]:
    """What the room's face names for others: its `__all__`."""
    face = ast.parse((ROOT / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    for node in face.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def room_of(module: str) -> str:
    """The room that it lies in; a folder in a room which has no face of its own belongs to that room."""
    room = module.rpartition(".")[0]
    return room_of(room) if room.count(".") > 1 and not offered(room) else room


def imported(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of each import of a house; no name for a whole module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names if alias.name.split(".")[0] in HOUSES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in HOUSES:
            yield from ((node.lineno, str(node.module), alias.name) for alias in node.names)


def trespasses(path: Path) -> Iterator[str]:
    """The imports of a file that go past the face of a room which the file does not lie in."""
    home = f"{'.'.join(path.relative_to(ROOT).parent.parts)}."
    for line, module, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        where, room = f"{path.relative_to(ROOT)}:{line}", room_of(module)
        if room in COMMANDS or module in COMMANDS or home.startswith(f"{module}."):
            continue
        if room not in ("", *HOUSES) and not home.startswith(f"{room}."):
            yield f"{where} imports {module}, past the face of {room}"
        elif name and is_room(module) and module not in HOUSES and name not in offered(module):
            yield f"{where} imports {name}, which the face of {module} does not name"


@pytest.mark.parametrize("house", HOUSES)
def test_every_room_says_what_it_is_for(house: str) -> None:
    faces = [path for path in (ROOT / house).rglob("__init__.py") if path.parent != ROOT / house]
    assert len(faces) > 5
    for face in faces:
        assert ast.get_docstring(ast.parse(face.read_text(encoding="utf-8"))), f"{face}: no word on what is in there"


def test_nobody_imports_past_a_face() -> None:
    assert [text for path in FILES for text in trespasses(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from train.networks.layers import conv2d",
        "from train.networks import layers",
        "import train.networks.layers",
        "from train.networks import nothing_of_that_name",
        "from h2a_batch.places.files import replacing",
    ],
)
def test_who_does_is_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for house in HOUSES:
        (tmp_path / house).symlink_to(ROOT / house)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "scripts" / "new.py"
    file.parent.mkdir()
    file.write_text(f"def work() -> None:\n    {line}\n")
    assert len(list(trespasses(file))) == 1
    file.write_text("from train.networks import conv2d\nfrom h2a_batch import convert_folder\nimport train.toml\n")
    assert not list(trespasses(file))
