"""The report: earlier results as one HTML page that needs no network, no other file and no server.

The page holds a small copy of every picture, so that one can mail or archive it alone. It names the full pictures by
their path relative to it, and a browser finds them as long as the page stays where it was written. Its order follows
the reader's patience: first what a person sees, then the names of all photos, the script, and the pictures in blocks
of `PAIRS_IN_CHUNK` rows. A browser shows the page long before it has read the last block.
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
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import IO
from urllib.parse import quote

from h2a_batch.errors import StorageError, UsageError
from h2a_batch.gallery.pictures import Picture, Piece, Size, by_photo, draw, pieces
from h2a_batch.gallery.results import Item, Items, Tally
from h2a_batch.gallery.sheet import check_writable, top_of
from h2a_batch.gallery.text.typeset import printable
from h2a_batch.ledger import DONE, FAILED, NOBODY, PENDING
from h2a_batch.machine import available_cores
from h2a_batch.places import replacing
from h2a_batch.version import __version__

REPORT_SUFFIXES = (".html", ".htm")
PAIRS_IN_CHUNK = 32
_SIDE = 160  # pixels: the longest side of a small picture
_WEBP = {"quality": 70, "method": 2}  # a portrait takes 3 kB and 4 ms; slower methods save a tenth of the bytes
_MARK = b'<meta name="generator" content="h2a-batch'
_MARK_WITHIN = 1024  # bytes from the start
_TABLE = "<table><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table>"


@dataclass
class _Column:
    """A column of pictures: its heading, how they were made, and the counts of its photos."""

    heading: str
    facts: Mapping[str, str]
    tally: Tally = field(default_factory=Tally)

    @property
    def weight(self) -> str:
        """The mean size of an output, for people."""
        tally = self.tally
        return f"{tally.size / tally.outputs / 1000:,.0f} kB" if tally.outputs else "\u2013"

    def count(self, state: str) -> str:
        """Return the number of photos in a state, for people."""
        return f"{self.tally.states[state]:,}"


def check_report(path: Path, outs: Iterable[Path] = ()) -> None:
    """Make the folder of a report, and check that the report replaces nothing but another report.

    Args:
        path: the report.
        outs: as for `check_writable`.

    Raises:
        UsageError: the name is not that of a page, a file of other origin has it, or it cannot be written.
    """
    if path.suffix.lower() not in REPORT_SUFFIXES:
        raise UsageError(f"{path}: not the name of a page", "let it end in .html")
    check_writable(Path(os.path.abspath(path)), outs, "report")
    try:
        if path.is_dir():
            raise UsageError(f"{path}: a folder has this name", "choose another name for the report")
        if path.is_file():
            with open(path, "rb") as file:
                if _MARK not in file.read(_MARK_WITHIN):
                    raise UsageError(f"{path}: the file exists", "choose another name for the report")
    except OSError as error:
        raise UsageError(f"{path}: the report cannot be written ({error.strerror})") from error


def write_report(
    rows: Iterable[Items],
    path: Path,
    *,
    headings: Sequence[str] = ("After",),
    title: str = "Before and after",
    facts: Mapping[str, str] | None = None,
    details: Sequence[Mapping[str, str]] = (),
    outs: Sequence[Path] = (),
) -> None:
    """Write results as one HTML page, whole or not at all, at constant memory.

    Args:
        rows: for each photo, or each face of it, an item for each heading: ``read_columns(inputs, outs)``, or
            ``((item,) for item in items)``. All items of a row have one photo, and a photo's rows follow each other.
            It pulls the rows as it grows, so that a caller can show progress or stop. An exception leaves no page.
        path: the page; it replaces an earlier report, see `check_report`.
        headings: the names of the columns, such as the models that are compared.
        title: the title of the page.
        facts: what else the top of the page says, in this order: ``{"Model": "anime-256", ...}``.
        details: the same for each of several columns, for the table that compares them.
        outs: as for `check_writable`.

    Raises:
        UsageError: as `check_report`.
        StorageError: the page cannot be written; an earlier page is still there.
        ValueError: a row lacks an item, or ``details`` an entry, for a heading.
    """
    check_report(path, outs)
    columns = [
        _Column(heading, known) for heading, known in zip(headings, details or [{}] * len(headings), strict=True)
    ]
    place = os.path.abspath(path.parent)
    try:
        # files without names, so that nothing stays behind whatever happens; beside the page, where there must be room
        with tempfile.TemporaryFile(dir=place) as index, tempfile.TemporaryFile(dir=place) as chunks:
            with closing(_prepared(rows, place, columns)) as pairs:
                _spool(pairs, index, chunks)
            with replacing(path, top_of(path, outs)) as page:
                _assemble(page, index, chunks, _texts(title, facts or {}, columns))
    except OSError as error:
        raise StorageError(
            f"{path}: the report cannot be written ({error.strerror or error})", "free space there, or choose another"
        ) from error


def _prepared(rows: Iterable[Items], place: str, columns: list[_Column]) -> Generator[tuple[str, str], None, None]:
    """Yield each row as two texts of JSON, for the index and for its chunk; draw a few photos ahead of their turn."""
    waiting: deque[Future[list[tuple[str, str]]]] = deque()
    workers = available_cores()
    with ThreadPoolExecutor(workers, thread_name_prefix="report") as pool:
        try:
            for photo in by_photo(rows):
                for column, items in zip(columns, zip(*photo, strict=True), strict=True):
                    column.tally.add(items, len(photo))
                waiting.append(pool.submit(_photo, photo, place))
                if len(waiting) > 4 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _photo(rows: Sequence[Items], place: str) -> list[tuple[str, str]]:
    """Return the rows of a photo: the index gets name, face, bytes and outcome, the chunk gets the pictures."""
    drawn = draw(rows, (_SIDE, _SIDE))
    return [
        (
            _json([printable(row[0].name), row[0].face, row[0].source_size, *(_outcome(item) for item in row)]),
            _json([_shot(*pair, drawn.extent, place) for pair in zip(pieces(row), pictures, strict=True)]),
        )
        for row, pictures in zip(rows, drawn.rows, strict=True)
    ]


def _outcome(item: Item) -> object:
    """Return bytes and faces of an output, the reason of a failure, False for a photo without a face, or None."""
    if item.state == DONE:
        return [item.output_size, item.faces]
    return (printable(item.error) or "failed") if item.state == FAILED else False if item.state == NOBODY else None


def _shot(piece: Piece, picture: Picture | None, extent: Size | None, place: str) -> list[object]:
    """Return a picture's small copy and its URL, each empty where there is none; then the square that it shows."""
    path, face = piece
    if path is None or not path.is_file():
        return ["", ""]
    shot: list[object] = [_small(picture) if picture else "", _link(path, place)]
    if face and extent:
        shot.append([*(round(value, 2) for value in (face.x, face.y, face.side, face.angle)), *extent])
    return shot


def _small(picture: Picture) -> str:
    """Return a small picture as WebP in base64."""
    data = io.BytesIO()
    picture.image.save(data, "WEBP", **_WEBP)
    return base64.b64encode(data.getvalue()).decode("ascii")


def _link(path: Path, place: str) -> str:
    """Return a file's URL relative to the page's folder; all but plain letters and slashes is escaped byte by byte."""
    return quote(os.fsencode(os.path.relpath(path, place)))


def _json(value: object) -> str:
    """Return JSON that may stand in a script element, where neither an end tag nor a comment may begin."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _spool(pairs: Iterable[tuple[str, str]], index: IO[bytes], chunks: IO[bytes]) -> None:
    """Write the rows into index and chunks."""
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
    """Fill the template: texts at once, the two large parts as streams."""
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
    """Return the texts for the places of the template, as HTML."""
    style, script = _asset("report.css"), _asset("report.js") + _asset("report_pair.js")
    known = dict(facts)
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
        "settings": _json({"headings": [printable(column.heading) for column in columns], "chunk": PAIRS_IN_CHUNK}),
    }


def _counts(columns: list[_Column]) -> str:
    """Return the counts for the top of the page; where models are compared, the number of photos alone."""
    first = columns[0].tally
    count = columns[0].tally.states.total()
    parts = [f"<b>{count:,}</b> photo{'s' * (count != 1)}"]
    if len(columns) == 1:
        if first.faces:
            parts.append(f"<b>{first.faces:,}</b> face{'s' * (first.faces != 1)}")
        parts.append(f"<b>{first.states[DONE]:,}</b> converted")
        if first.states[FAILED]:
            parts.append(f'<b class="alarm">{first.states[FAILED]:,}</b> failed')
        if first.states[NOBODY]:
            parts.append(f"<b>{first.states[NOBODY]:,}</b> without a face")
        if first.states[PENDING]:
            parts.append(f"<b>{first.states[PENDING]:,}</b> not converted yet")
    return "".join(f"<li>{part}</li>" for part in parts)


def _comparison(columns: list[_Column]) -> str:
    """Return a table of the columns' facts and counts, as HTML."""
    lines = {
        name: [column.facts.get(name, "\u2013") for column in columns]
        for name in dict.fromkeys(chain.from_iterable(column.facts for column in columns))
    }
    lines["Converted"] = [column.count(DONE) for column in columns]
    if any(column.tally.faces for column in columns):
        lines["Faces converted"] = [f"{column.tally.faces:,}" for column in columns]
    lines["Failed"] = [column.count(FAILED) for column in columns]
    if any(column.tally.states[NOBODY] for column in columns):
        lines["No face found"] = [column.count(NOBODY) for column in columns]
    lines["Not converted yet"] = [column.count(PENDING) for column in columns]
    lines["Size of an output"] = [column.weight for column in columns]
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th>{"".join(f"<td>{_text(value)}</td>" for value in values)}</tr>'
        for name, values in lines.items()
    )
    return _TABLE.format("".join(f'<th scope="col">{_text(column.heading)}</th>' for column in columns), body)


def _text(text: str) -> str:
    return html.escape(printable(text))


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    """Return the text of a file of this package."""
    return resources.files("h2a_batch.gallery").joinpath(name).read_text(encoding="utf-8")
