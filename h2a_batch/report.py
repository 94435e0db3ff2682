"""The report: earlier results as one HTML page that needs no network, no other file and no server.

The page holds a small picture of everything (so it can be mailed or archived alone) and names the full ones by
their path relative to it, which a browser finds as long as the page stays where it was written. Its order is that
of a reader's patience: what a person sees first, the names of all photos, the script, and then the pictures, a
chunk of photos a block; a browser shows the page long before it has come to the last of them.
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
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import IO
from urllib.parse import quote

from h2a_batch import __version__
from h2a_batch.errors import PhotoError, StorageError, UsageError
from h2a_batch.files import replacing
from h2a_batch.image import thumbnail
from h2a_batch.machine import available_cores
from h2a_batch.results import DONE, FAILED, Item, Items
from h2a_batch.typeset import printable

REPORT_SUFFIXES = (".html", ".htm")
PHOTOS_IN_CHUNK = 32
_SIDE = 160  # pixels of a small picture's longest side
_WEBP = {"quality": 70, "method": 2}  # a portrait takes 3 kB and 4 ms; the slower methods save a tenth
_MARK = b'<meta name="generator" content="h2a-batch'
_MARK_WITHIN = 1024  # bytes
_TABLE = "<table><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table>"


@dataclass
class _Column:
    """What became of the photos in one column: counts, and bytes of what was converted."""

    heading: str
    facts: Mapping[str, str]
    done: int = 0
    failed: int = 0
    pending: int = 0
    size: int = 0

    def add(self, item: Item) -> None:
        if item.state == DONE:
            self.done += 1
            self.size += item.output_size
        elif item.state == FAILED:
            self.failed += 1
        else:
            self.pending += 1

    @property
    def weight(self) -> str:
        """The mean size of an output."""
        return f"{self.size / self.done / 1000:,.0f} kB" if self.done else "\u2013"


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
    rows: Iterable[Items],
    path: Path,
    *,
    headings: Sequence[str] = ("After",),
    title: str = "Before and after",
    facts: Mapping[str, str] | None = None,
    details: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write results as one HTML page, whole or not at all, at constant memory.

    Args:
        rows: for each photo what became of it, an item for each heading: ``read_columns(inputs, outs)``, or
            ``((item,) for item in items)``. All items of a row have one source. Pulled as the page grows, so a
            caller can show progress or stop by what it yields; an exception in it leaves no page.
        path: the page; an earlier report is replaced, see `check_report`.
        headings: names of the columns, such as the models that are compared.
        facts: what else the top of the page should say, in this order: ``{"Model": "anime-256", ...}``.
        details: the same of each of several columns, for the table that compares them.

    Raises:
        UsageError: as `check_report`.
        StorageError: the page cannot be written; what was there before is still there.
        ValueError: a row has not an item, or ``details`` has none, for each heading.
    """
    check_report(path)
    columns = [
        _Column(heading, known) for heading, known in zip(headings, details or [{}] * len(headings), strict=True)
    ]
    place = os.path.abspath(path.parent)
    try:
        # without names, so that nothing is left behind whatever happens; beside the page, where there must be room
        with tempfile.TemporaryFile(dir=place) as index, tempfile.TemporaryFile(dir=place) as chunks:
            with closing(_prepared(rows, place, columns)) as pieces:
                count = _spool(pieces, index, chunks)
            with replacing(path) as page:
                _assemble(page, index, chunks, _texts(title, facts or {}, columns, count))
    except OSError as error:
        raise StorageError(
            f"{path}: the report cannot be written ({error.strerror or error})", "free space there, or choose another"
        ) from error


def _prepared(rows: Iterable[Items], place: str, columns: list[_Column]) -> Generator[tuple[str, str], None, None]:
    """Each row as two pieces of JSON, for the index and for its chunk; a few are made ahead of their turn."""
    waiting: deque[Future[tuple[str, str]]] = deque()
    workers = available_cores()
    with ThreadPoolExecutor(workers, thread_name_prefix="report") as pool:
        try:
            for row in rows:
                for column, item in zip(columns, row, strict=True):
                    column.add(item)
                waiting.append(pool.submit(_row, row, place))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _row(row: Items, place: str) -> tuple[str, str]:
    """The index knows name, bytes and what became of a photo; the chunk has its pictures, the photo's own first."""
    index = [printable(row[0].name), row[0].source_size, *(_outcome(item) for item in row)]
    files = [row[0].source, *(item.output for item in row)]
    return _json(index), _json([_picture(file, place) for file in files])


def _outcome(item: Item) -> object:
    """Bytes of an output, the reason of a failure, or nothing where neither is there yet."""
    if item.state == DONE:
        return item.output_size
    return (printable(item.error) or "failed") if item.state == FAILED else None


def _picture(path: Path | None, place: str) -> list[str]:
    """A picture's small copy and its URL, each empty where there is none."""
    if path is None or not path.is_file():  # what is no file, such as a pipe, may never end
        return ["", ""]
    return [_small(path), _link(path, place)]


def _small(path: Path) -> str:
    """A picture small, as WebP in base64; empty where it cannot be read."""
    data = io.BytesIO()
    try:
        thumbnail(path, _SIDE).save(data, "WEBP", **_WEBP)
    except PhotoError:
        return ""
    return base64.b64encode(data.getvalue()).decode("ascii")


def _link(path: Path, place: str) -> str:
    """The URL of a file, relative to the page's folder; all but plain letters and slashes is escaped, byte by byte."""
    return quote(os.fsencode(os.path.relpath(path, place)))


def _json(value: object) -> str:
    """JSON that may stand in a script element, where neither an end tag nor a comment may begin."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _spool(pieces: Iterable[tuple[str, str]], index: IO[bytes], chunks: IO[bytes]) -> int:
    """Write rows to their two places, and return how many there were."""
    count = 0
    for count, (entry, pictures) in enumerate(pieces, 1):
        number, first = divmod(count - 1, PHOTOS_IN_CHUNK)
        opening = f'<script type="application/json" id="chunk{number}">[\n' if first == 0 else ",\n"
        closing = "\n]</script>\n" if first == PHOTOS_IN_CHUNK - 1 else ""
        index.write(f"{',' if count > 1 else ''}\n{entry}".encode())
        chunks.write(f"{opening}{pictures}{closing}".encode())
    if count % PHOTOS_IN_CHUNK:
        chunks.write(b"\n]</script>\n")
    return count


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


def _texts(title: str, facts: Mapping[str, str], columns: list[_Column], count: int) -> dict[str, str]:
    """What goes into the template's places, as HTML."""
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
        "counts": _counts(columns, count),
        "facts": "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(fact)}</dd></div>" for name, fact in known.items()),
        "columns": _comparison(columns) if len(columns) > 1 else "",
        "settings": _json({"headings": [printable(column.heading) for column in columns], "chunk": PHOTOS_IN_CHUNK}),
    }


def _counts(columns: list[_Column], count: int) -> str:
    """One line for the top of the page; where several models are compared the table has their counts."""
    parts = [f"<b>{count:,}</b> photo{'s' * (count != 1)}"]
    if len(columns) == 1:
        (column,) = columns
        parts.append(f"<b>{column.done:,}</b> converted")
        if column.failed:
            parts.append(f'<b class="alarm">{column.failed:,}</b> failed')
        if column.pending:
            parts.append(f"<b>{column.pending:,}</b> not converted yet")
    return "".join(f"<li>{part}</li>" for part in parts)


def _comparison(columns: list[_Column]) -> str:
    lines = {
        name: [column.facts.get(name, "\u2013") for column in columns]
        for name in dict.fromkeys(chain.from_iterable(column.facts for column in columns))
    }
    lines["Converted"] = [f"{column.done:,}" for column in columns]
    lines["Failed"] = [f"{column.failed:,}" for column in columns]
    lines["Not converted yet"] = [f"{column.pending:,}" for column in columns]
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
    """A part of the page that lies in the package."""
    return resources.files("h2a_batch").joinpath(name).read_text(encoding="utf-8")
