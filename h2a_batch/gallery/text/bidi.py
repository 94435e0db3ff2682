"""Writing directions on one line: the rules of Unicode (UAX #9) for text without marks of direction."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_BRACKETS = {")": "(", "]": "[", "}": "{"}
_SIDES = {"L": "L", "R": "R", "EN": "R", "AN": "R"}  # the direction for which a letter or number counts


def levels(clusters: Sequence[str]) -> list[int]:
    """Return the direction of each part of a line that reads from left to right.

    Args:
        clusters: letters with their marks, in the order in which they are stored.

    Returns:
        for each cluster 0 (rightwards), 1 (leftwards) or 2 (a number among letters that go leftwards).
    """
    kinds = _numbers([unicodedata.bidirectional(cluster[0]) for cluster in clusters])
    _set_brackets(clusters, kinds)
    _set_neutrals(kinds)
    return [{"L": 0, "R": 1}.get(kind, 2) for kind in kinds]


def _numbers(kinds: list[str]) -> list[str]:
    """Set and return the kinds: letters (L, R), numbers with their signs (EN, AN), the rest neutral (W1-W7)."""
    strong = "L"
    for place, kind in enumerate(kinds):
        strong = kind if kind in ("L", "R", "AL") else strong
        if kind == "EN" and strong == "AL":
            kinds[place] = "AN"
    for place in range(1, len(kinds) - 1):
        before, kind, after = kinds[place - 1 : place + 2]
        if before == after and ((before == "EN" and kind in ("ES", "CS")) or (before == "AN" and kind == "CS")):
            kinds[place] = before
    for places, step in ((range(1, len(kinds)), -1), (range(len(kinds) - 2, -1, -1), 1)):
        for place in places:
            if kinds[place] == "ET" and kinds[place + step] == "EN":
                kinds[place] = "EN"
    strong = "L"
    for place, kind in enumerate(kinds):
        kinds[place] = kind = "R" if kind == "AL" else kind
        strong = kind if kind in ("L", "R") else strong
        if kind == "EN" and strong == "L":
            kinds[place] = "L"
    return kinds


def _set_brackets(clusters: Sequence[str], kinds: list[str]) -> None:
    """Set the direction of each pair of brackets: that of its content, or of the text before it (N0)."""
    pairs: list[tuple[int, int]] = []
    waiting: list[int] = []
    for place, cluster in enumerate(clusters):
        if cluster in _BRACKETS.values():
            waiting.append(place)
        elif opening := _BRACKETS.get(cluster):
            found = [number for number, start in enumerate(waiting) if clusters[start] == opening]
            if found:
                pairs.append((waiting[found[-1]], place))
                del waiting[found[-1] :]
    for start, end in sorted(pairs):
        inside = {_SIDES[kind] for kind in kinds[start + 1 : end] if kind in _SIDES}
        if "L" in inside:
            kinds[start] = kinds[end] = "L"
        elif inside:
            before = (_SIDES[kind] for kind in reversed(kinds[:start]) if kind in _SIDES)
            kinds[start] = kinds[end] = next(before, "L")


def _set_neutrals(kinds: list[str]) -> None:
    """Set neutral kinds: leftwards where both neighbours are, else the direction of the line (N1, N2)."""
    before = "L"
    for place, kind in enumerate(kinds):
        if kind not in _SIDES:
            after = next((_SIDES[other] for other in kinds[place + 1 :] if other in _SIDES), "L")
            kinds[place] = kind = "R" if before == after == "R" else "L"
        before = _SIDES[kind]
