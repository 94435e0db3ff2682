"""Typesetting: one line of text in any script, cleaned, cut to its room, each letter in a font that has it.

A letter that no font has becomes an escape, never an empty box. This module puts right-to-left runs in order, and
Pillow's libraqm shapes them; without that library they are reversed, and Arabic letters stay unjoined.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from PIL import ImageDraw, features

from h2a_batch.gallery.text.bidi import levels
from h2a_batch.gallery.text.fonts import Typeface, base_face, face_for

ELLIPSIS = "\u2026"
_JOINERS = "\u200c\u200d"
_MIRRORED = str.maketrans("()[]{}<>\u00ab\u00bb", ")(][}{><\u00bb\u00ab")
_SHAPES = features.check("raqm")
_undrawn: set[str] = set()  # letters that no font had, in all lines so far

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Span:
    """Letters that one typeface draws, in the order in which they are stored."""

    face: Typeface
    text: str


@dataclass(frozen=True)
class Line:
    """A line of text that is ready to be drawn.

    Args:
        spans: from left to right.
        size: of the font, in pixels.
        width: of the line, in pixels.
        text: the whole text, also where it was cut, its letters from left to right.
    """

    spans: tuple[Span, ...]
    size: int
    width: float
    text: str

    def draw(self, canvas: ImageDraw.ImageDraw, x: float, baseline: float, colour: Colour) -> None:
        """Draw the line; `x` is its left end, `baseline` its height, both in pixels."""
        for span in self.spans:
            font = span.face.at(self.size)
            canvas.text((x, baseline), span.text, colour, font, anchor="ls")
            x += font.getlength(span.text)


def line(text: str, size: int, room: float, bold: bool = False, from_end: bool = False) -> Line:
    """Set text as a line no wider than `room` pixels; leave out the middle of a text that is too long.

    Args:
        text: any text; it is cleaned by `printable`.
        size: of the font, in pixels.
        room: the greatest width, in pixels.
        bold: whether to set it in bold.
        from_end: whether to leave out the beginning instead, as is best for paths.
    """
    clusters = _clusters(printable(unicodedata.normalize("NFC", text)))
    whole = _set(clusters, size, bold)
    if whole.width <= room or not clusters:
        return whole
    least, most = 0, len(clusters) - 1  # how many clusters to keep
    while least < most:
        kept = (least + most + 1) // 2
        if _set(_shortened(clusters, kept, from_end), size, bold).width <= room:
            least = kept
        else:
            most = kept - 1
    return replace(_set(_shortened(clusters, least, from_end), size, bold), text=whole.text)


def paragraph(text: str, size: int, room: float, lines: int, bold: bool = False) -> list[Line]:
    """Break text at its spaces into at most `lines` lines; cut the last line where there is more."""
    words = text.split()
    done: list[Line] = []
    while words and len(done) < lines - 1:
        count = 1
        while count < len(words) and line(" ".join(words[: count + 1]), size, 1e9, bold).width <= room:
            count += 1
        done.append(line(" ".join(words[:count]), size, room, bold))
        words = words[count:]
    if words:
        done.append(_ended(words, size, room, bold))
    return done


def undrawn() -> str:
    """Return a line that names the letters without a font, and the remedy; an empty text where there were none."""
    if not _undrawn:
        return ""
    example = min(_undrawn)
    name = unicodedata.name(example, f"U+{ord(example):04X}").lower()
    number = f"{len(_undrawn)} letter{'s' * (len(_undrawn) > 1)}"
    return f"no font here has {number} of the names, such as {name}: written as escapes; install a Noto font for them"


def _ended(words: list[str], size: int, room: float, bold: bool) -> Line:
    """Return the last line: as many words as fit, and an ellipsis where there are more."""
    for count in range(len(words), 0, -1):
        text = " ".join(words[:count]) + (ELLIPSIS if count < len(words) else "")
        made = line(text, size, 1e9, bold)
        if made.width <= room:
            return made
    return line(words[0], size, room, bold)


def _shortened(clusters: Sequence[str], kept: int, from_end: bool) -> list[str]:
    tail = kept if from_end else kept // 2
    return [*clusters[: kept - tail], ELLIPSIS, *clusters[len(clusters) - tail :]]


def printable(text: str) -> str:
    """Return text as valid Unicode on one line: with escapes for control characters, marks of direction and bytes
    that are no UTF-8."""
    return "".join(_escape(letter) if _is_hidden(letter) else letter for letter in text)


def _is_hidden(letter: str) -> bool:
    """Tell whether a letter is invisible and yet has an effect; joiners of emoji and letters do not count."""
    if letter in _JOINERS or "\U000e0020" <= letter <= "\U000e007f":
        return False
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escape(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte of a name that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def _clusters(text: str) -> list[str]:
    """Return letters with their marks, joiners and skin tones: units that a cut never tears apart."""
    clusters: list[str] = []
    for letter in text:
        joined = bool(clusters) and clusters[-1][-1] == "\u200d"
        if clusters and (joined or _extends(letter)):
            clusters[-1] += letter
        else:
            clusters.append(letter)
    return clusters


def _extends(letter: str) -> bool:
    return (
        letter in _JOINERS
        or unicodedata.category(letter).startswith("M")
        or _is_tone(letter)
        or "\U000e0020" <= letter <= "\U000e007f"
    )


def _is_optional(letter: str) -> bool:
    """Tell whether a font without this letter may leave it out."""
    return letter in _JOINERS or "\ufe00" <= letter <= "\ufe0f" or _is_tone(letter) or letter >= "\U000e0020"


def _is_tone(letter: str) -> bool:
    return "\U0001f3fb" <= letter <= "\U0001f3ff"


def _set(clusters: Sequence[str], size: int, bold: bool) -> Line:
    """Set clusters as one line, however wide."""
    runs = groupby(zip(clusters, levels(clusters), strict=True), key=lambda pair: pair[1] > 0)
    spans = tuple(span for leftwards, run in runs for span in _spans(run, leftwards, bold))
    width = sum(span.face.at(size).getlength(span.text) for span in spans)
    return Line(spans, size, width, "".join(_from_left(span.text) for span in spans))


def _spans(run: Iterable[tuple[str, int]], leftwards: bool, bold: bool) -> list[Span]:
    """Return a run of clusters and their levels, all in one direction, as spans from left to right."""
    placed: list[tuple[Typeface, str, int]] = []
    for cluster, level in run:
        before = placed[-1][0] if placed else None
        placed.append((*_placed(cluster, before, bold), level))
    groups = groupby(placed, key=lambda part: (part[0], part[2]))
    spans = [Span(face, _visual([text for _, text, _ in group], level)) for (face, level), group in groups]
    return spans[::-1] if leftwards else spans


def _placed(cluster: str, before: Typeface | None, bold: bool) -> tuple[Typeface, str]:
    """Return a cluster with its typeface: a space takes its neighbour's, a cluster without a font becomes an escape."""
    if len(cluster) > 1:  # the fonts have no colours, so skin tones make no difference
        cluster = cluster[0] + "".join(letter for letter in cluster[1:] if not _is_tone(letter))
    needed = cluster[0] + "".join(letter for letter in cluster[1:] if not _is_optional(letter))
    if cluster == " " and before is not None and before.covers(" "):
        return before, cluster
    emoji = "\ufe0f" in cluster
    face = (face_for(f"{needed}\ufe0f", bold) if emoji else None) or face_for(needed, bold)
    if face is None:
        _undrawn.update(needed)
        return base_face(bold), "".join(map(_escape, cluster))
    return face, "".join(letter for letter in cluster if face.covers(letter))


def _visual(texts: list[str], level: int) -> str:
    """Return a span's text as Pillow draws it: in logical order where Pillow shapes it, else in visual order."""
    text = "".join(texts)
    if level != 1 or (_SHAPES and _has_rtl(text)):
        return text
    return "".join(texts[::-1]).translate(_MIRRORED)


def _from_left(text: str) -> str:
    return "".join(_clusters(text)[::-1]).translate(_MIRRORED) if _SHAPES and _has_rtl(text) else text


def _has_rtl(text: str) -> bool:
    return any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)
