"""The report: earlier results as one HTML page that needs no network, no other file and no server.

The page holds a small picture of everything (so it can be mailed or archived alone) and names the full ones by
their path relative to it, which a browser finds as long as the page stays where it was written. Its order is that
of a reader's patience: what a person sees first, the names of all photos, the script, and then the pictures, a
chunk of pairs a block; a browser shows the page long before it has come to the last of them.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import os
import shutil
import tempfile
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import IO
from urllib.parse import quote

from h2a_batch import __version__
from h2a_batch.errors import StorageError, UsageError
from h2a_batch.files import replacing
from h2a_batch.ledger import NOBODY
from h2a_batch.machine import available_cores
from h2a_batch.pictures import Picture, Piece, Row, Size, by_photo, draw, pieces
from h2a_batch.results import DONE, FAILED, PENDING, Item, state_of

REPORT_SUFFIXES = (".html", ".htm")
PAIRS_IN_CHUNK = 32
_SIDE = 160  # pixels of a small picture's longest side
_WEBP = {"quality": 70, "method": 2}  # a portrait takes 3 kB and 4 ms; the slower methods save a tenth
_MARK = b'<meta name="generator" content="h2a-batch'
_MARK_WITHIN = 1024  # bytes
_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # not the marks of writing direction: each name is isolated on the page
_TABLE = "<table><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table>"


@dataclass
class _Column:
    """What became of the photos in one column: their states, seconds of work on what was converted, bytes of it."""

    heading: str
    states: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    faces: int = 0
    outputs: int = 0
    size: int = 0

    def add(self, items: Sequence[Item]) -> None:
        """Count a photo by its items, one of each of its rows; an output of the whole photo is in all of them."""
        state = state_of(items)
        self.states[state] += 1
        self.seconds += max(item.seconds for item in items) if state == DONE else 0.0
        for item in {item.output: item for item in items if item.output}.values():
            self.faces += item.faces
            self.outputs += 1
            self.size += item.output_size

    @property
    def done(self) -> int:
        """Photos that were converted, with all their faces."""
        return self.states[DONE]

    @property
    def pace(self) -> str:
        """The mean of what a photo took; many are on their way at once, so a run takes less than their sum."""
        return f"{self.seconds / self.done:.2f} s" if self.done else "\u2013"

    @property
    def weight(self) -> str:
        """The mean size of an output."""
        return f"{self.size / self.outputs / 1000:,.0f} kB" if self.outputs else "\u2013"


def check_report(path: Path) -> None:
    """Make the folder of a report, and make sure that the report will lie over nothing but another report.

    Raises:
        UsageError: the name is not one of a page, a file of other origin has it, or it cannot be written.
    """
    if path.suffix.lower() not in REPORT_SUFFIXES:
        raise UsageError(f"{path}: not the name of a page", "let it end in .html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise UsageError(f"{path}: a folder has this name", "choose another name for the report")
        if path.is_file():
            with open(path, "rb") as file:
                if _MARK not in file.read(_MARK_WITHIN):
                    raise UsageError(f"{path}: the file exists", "choose another name for the report")
    except OSError as error:
        raise UsageError(f"{path}: the report cannot be written ({error.strerror})") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: the report cannot be written (no permission)")


def write_report(
    rows: Iterable[Row],
    path: Path,
    *,
    headings: Sequence[str] = ("After",),
    title: str = "Before and after",
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write results as one HTML page, whole or not at all, at constant memory.

    Args:
        rows: for each photo, or each face of it, what became of it, an item for each heading:
            ``read_columns(inputs, outs)``, or ``((item,) for item in items)``. All items of a row have one source, and
            a photo's rows follow each other. Pulled as the page grows, so a caller can show progress or stop by what
            it yields; an exception in it leaves no page.
        path: the page; an earlier report is replaced, see `check_report`.
        headings: names of the columns, such as the models that are compared.
        facts: what else the top of the page should say, in this order: ``{"Model": "anime-256", ...}``.

    Raises:
        UsageError: as `check_report`.
        StorageError: the page cannot be written; what was there before is still there.
        ValueError: a row has not an item for each heading.
    """
    check_report(path)
    columns = [_Column(heading) for heading in headings]
    place = os.path.abspath(path.parent)
    try:
        # without names, so that nothing is left behind whatever happens; beside the page, where there must be room
        with tempfile.TemporaryFile(dir=place) as index, tempfile.TemporaryFile(dir=place) as chunks:
            with closing(_prepared(rows, place, columns)) as pairs:
                _spool(pairs, index, chunks)
            with replacing(path) as page:
                _assemble(page, index, chunks, _texts(title, facts or {}, columns))
    except OSError as error:
        raise StorageError(
            f"{path}: the report cannot be written ({error.strerror or error})", "free space there, or choose another"
        ) from error


def _prepared(rows: Iterable[Row], place: str, columns: list[_Column]) -> Generator[tuple[str, str], None, None]:
    """Each row as two pieces of JSON, for the index and for its chunk; a few photos are made ahead of their turn."""
    waiting: deque[Future[list[tuple[str, str]]]] = deque()
    workers = available_cores()
    with ThreadPoolExecutor(workers, thread_name_prefix="report") as pool:
        try:
            for photo in by_photo(rows):
                for column, items in zip(columns, zip(*photo, strict=True), strict=True):
                    column.add(items)
                waiting.append(pool.submit(_photo, photo, place))
                if len(waiting) > 4 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _photo(rows: Sequence[Row], place: str) -> list[tuple[str, str]]:
    """The rows of a photo: the index knows name, face, bytes and what became of it, the chunk has the pictures."""
    drawn = draw(rows, (_SIDE, _SIDE))
    return [
        (
            _json([_shown(row[0].name), row[0].face, row[0].source_size, *(_outcome(item) for item in row)]),
            _json([_shot(*pair, drawn.extent, place) for pair in zip(pieces(row), pictures, strict=True)]),
        )
        for row, pictures in zip(rows, drawn.rows, strict=True)
    ]


def _outcome(item: Item) -> object:
    """Seconds, bytes and faces of an output, the reason of a failure, false where no face is, or nothing yet."""
    if item.state == DONE:
        return [round(item.seconds, 3), item.output_size, item.faces]
    return (_shown(item.error) or "failed") if item.state == FAILED else False if item.state == NOBODY else None


def _shot(piece: Piece, picture: Picture | None, extent: Size | None, place: str) -> list[object]:
    """A picture's small copy and its URL, each empty where there is none; then the square of it that is to be seen."""
    path, face = piece
    if path is None or not path.is_file():
        return ["", ""]
    shot: list[object] = [_small(picture) if picture else "", _link(path, place)]
    if face and extent:
        shot.append([*(round(value, 2) for value in (face.x, face.y, face.side, face.angle)), *extent])
    return shot


def _small(picture: Picture) -> str:
    """A small picture as WebP in base64."""
    data = io.BytesIO()
    picture.image.save(data, "WEBP", **_WEBP)
    return base64.b64encode(data.getvalue()).decode("ascii")


def _link(path: Path, place: str) -> str:
    """The URL of a file, relative to the page's folder; all but plain letters and slashes is escaped, byte by byte."""
    return quote(os.fsencode(os.path.relpath(path, place)))


def _shown(text: str) -> str:
    """Text that is valid Unicode on one line: control characters, and bytes that are no UTF-8, become escapes."""
    return "".join(_escaped(letter) if unicodedata.category(letter) in _UNSHOWN else letter for letter in text)


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def _json(value: object) -> str:
    """JSON that may stand in a script element, where neither an end tag nor a comment may begin."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _spool(pairs: Iterable[tuple[str, str]], index: IO[bytes], chunks: IO[bytes]) -> None:
    """Write rows to their two places."""
    count = 0
    for count, (entry, pictures) in enumerate(pairs, 1):
        number, first = divmod(count - 1, PAIRS_IN_CHUNK)
        opening = f'<script type="application/json" id="chunk{number}">[\n' if first == 0 else ",\n"
        closing = "\n]</script>\n" if first == PAIRS_IN_CHUNK - 1 else ""
        index.write(f"{',' if count > 1 else ''}\n{entry}".encode())
        chunks.write(f"{opening}{pictures}{closing}".encode())
    if count % PAIRS_IN_CHUNK:
        chunks.write(b"\n]</script>\n")


def _assemble(page: IO[bytes], index: IO[bytes], chunks: IO[bytes], texts: Mapping[str, str]) -> None:
    """Fill the template: texts at once, the two that may be large as streams."""
    streams: dict[str, IO[bytes]] = {"index": index, "chunks": chunks}
    for number, part in enumerate(_asset("report.html").split("@@")):
        if number % 2 == 0:
            page.write(part.encode())
        elif part in streams:
            streams[part].seek(0)
            shutil.copyfileobj(streams[part], page, 1 << 16)
        else:
            page.write(texts[part].encode())


def _texts(title: str, facts: Mapping[str, str], columns: list[_Column]) -> dict[str, str]:
    """What goes into the template's places, as HTML."""
    style, script = _asset("report.css"), _asset("report.js") + _asset("report_pair.js")
    known = dict(facts)
    if len(columns) == 1 and columns[0].done:
        known["A photo took"] = f"{columns[0].pace} on average"
    known["Page made"] = time.strftime("%Y-%m-%d %H:%M")
    return {
        "policy": "; ".join(
            (
                "default-src 'none'",
                f"script-src '{_digest(script)}'",
                f"style-src '{_digest(style)}'",
                "img-src 'self' file: data:",  # the full pictures, from a disk or from wherever the page is served
                "base-uri 'none'",
                "form-action 'none'",
                "require-trusted-types-for 'script'",
            )
        ),
        "version": _text(__version__),
        "title": _text(title),
        "style": style,
        "script": script,
        "counts": _counts(columns),
        "facts": "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(fact)}</dd></div>" for name, fact in known.items()),
        "columns": _comparison(columns) if len(columns) > 1 else "",
        "settings": _json({"headings": [_shown(column.heading) for column in columns], "chunk": PAIRS_IN_CHUNK}),
    }


def _counts(columns: list[_Column]) -> str:
    """One line for the top of the page; where several models are compared the table has their counts."""
    first, count = columns[0], columns[0].states.total()
    parts = [f"<b>{count:,}</b> photo{'s' * (count != 1)}"]
    if len(columns) == 1:
        if first.faces:
            parts.append(f"<b>{first.faces:,}</b> face{'s' * (first.faces != 1)}")
        parts.append(f"<b>{first.done:,}</b> converted")
        if first.states[FAILED]:
            parts.append(f'<b class="alarm">{first.states[FAILED]:,}</b> failed')
        if first.states[NOBODY]:
            parts.append(f"<b>{first.states[NOBODY]:,}</b> without a face")
        if first.states[PENDING]:
            parts.append(f"<b>{first.states[PENDING]:,}</b> not converted yet")
    return "".join(f"<li>{part}</li>" for part in parts)


def _comparison(columns: list[_Column]) -> str:
    lines: list[tuple[str, Callable[[_Column], str]]] = [
        ("Converted", lambda column: f"{column.done:,}"),
        ("Failed", lambda column: f"{column.states[FAILED]:,}"),
        ("Not converted yet", lambda column: f"{column.states[PENDING]:,}"),
        ("A photo took, on average", lambda column: column.pace),
        ("Size of an output", lambda column: column.weight),
    ]
    if any(column.states[NOBODY] for column in columns):
        lines.insert(2, ("No face found", lambda column: f"{column.states[NOBODY]:,}"))
    if any(column.faces for column in columns):
        lines.insert(1, ("Faces", lambda column: f"{column.faces:,}"))
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{show(column)}</td>" for column in columns)}</tr>'
        for name, show in lines
    )
    return _TABLE.format("".join(f'<th scope="col">{_text(column.heading)}</th>' for column in columns), body)


def _text(text: str) -> str:
    return html.escape(_shown(text))


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    """A part of the page that lies in the package."""
    return resources.files("h2a_batch").joinpath(name).read_text(encoding="utf-8")
