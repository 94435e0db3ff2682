"""Draws docs/house.svg: the rooms of h2a_batch by their own imports, the lowest at the bottom. --check compares only.

An arrow goes from a room to one that it imports from; what follows from other arrows is left out.
"""

from __future__ import annotations

import ast
import re
import sys
from html import escape
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOUSE, PICTURE = ROOT / "h2a_batch", ROOT / "docs" / "house.svg"
WIDTH, BOX, HEIGHT, GAP = 860, 330, 62, 34  # pixels
STYLE = """
text { font: 13px sans-serif; fill: #1a1a2e; text-anchor: middle }
.name { font-weight: bold; font-size: 15px }
rect { fill: #eef2ff; stroke: #6366f1; stroke-width: 1.5; rx: 8 }
path { fill: none; stroke: #94a3b8; stroke-width: 1.5; marker-end: url(#head) }
"""


def rooms() -> dict[str, str]:
    """Return the rooms, and the first words of what each says of itself."""
    found = {}
    for file in sorted(HOUSE.glob("*/__init__.py")):
        sentence = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
        found[file.parent.name] = re.split(r"[.;:]", sentence.partition(": ")[2])[0]
    return found


def imports(names: dict[str, str]) -> dict[str, set[str]]:
    """Return for each room the rooms that it imports from."""
    arrows: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for file in (HOUSE / name).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("h2a_batch."):
                    other = str(node.module).split(".")[1]
                    if other in names and other != name:
                        arrows[name].add(other)
    return arrows


def floors(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the rooms by floors, from the ground: each stands above all that it imports from."""

    def floor(name: str) -> int:
        return 1 + max(map(floor, arrows[name]), default=-1)

    levels = {name: floor(name) for name in arrows}
    return [sorted(name for name in levels if levels[name] == level) for level in range(max(levels.values()) + 1)]


def reduced(arrows: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows that do not follow from others."""

    def reaches(start: str, end: str) -> bool:
        return any(other == end or reaches(other, end) for other in arrows[start])

    return [
        (name, other)
        for name, others in sorted(arrows.items())
        for other in sorted(others)
        if not any(reaches(between, other) for between in others - {other})
    ]


def draw() -> str:
    """Return the picture."""
    names = rooms()
    arrows = imports(names)
    levels = floors(arrows)
    height = len(levels) * (HEIGHT + GAP) + GAP
    middle = {}
    for level, row in enumerate(levels):
        for place, name in enumerate(row):
            x = WIDTH * (2 * place + 1) // (2 * len(row))
            middle[name] = x, height - GAP - HEIGHT // 2 - level * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The rooms of h2a_batch, each above those that it imports from</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" style="fill:#94a3b8;stroke:none;marker-end:none"/></marker></defs>',
        f'<rect x="0" y="0" width="{WIDTH}" height="{height}" style="fill:#ffffff;stroke:none"/>',
    ]
    for name, other in reduced(arrows):
        (x, y), (end_x, end_y) = middle[name], middle[other]
        y, end_y = y + HEIGHT // 2, end_y - HEIGHT // 2
        bend = (end_y - y) // 2
        parts.append(f'<path d="M{x},{y} C{x},{y + bend} {end_x},{end_y - bend} {end_x},{end_y}"/>')
    for name, (x, y) in middle.items():
        parts.append(f'<rect x="{x - BOX // 2}" y="{y - HEIGHT // 2}" width="{BOX}" height="{HEIGHT}"/>')
        lines = wrapped(names[name])
        parts.append(f'<text class="name" x="{x}" y="{y - 9 if len(lines) > 1 else y - 4}">{name}</text>')
        for number, line in enumerate(lines):
            parts.append(f'<text x="{x}" y="{y + (7 if len(lines) > 1 else 14) + 15 * number}">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def wrapped(text: str, most: int = 46) -> list[str]:
    """Return a sentence in one line, or in two of about one length."""
    if len(text) <= most:
        return [text]
    words = text.split()
    cut = min(range(1, len(words)), key=lambda n: abs(len(" ".join(words[:n])) - len(" ".join(words[n:]))))
    return [" ".join(part) for part in (words[a:b] for a, b in pairwise((0, cut, len(words))))]


def main() -> int:
    picture = draw()
    if sys.argv[1:] == ["--check"]:
        return int(PICTURE.read_text() != picture)
    PICTURE.write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
