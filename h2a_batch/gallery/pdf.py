"""A PDF of pictures, one a page, written as it grows: it keeps only the places of its objects in memory.

Each page is a JPEG, unchanged, with invisible text above it, so that a reader can search for a name.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

_CATALOG, _PAGES, _INFO, _FONT, _CID_FONT, _TO_UNICODE, _DESCRIPTOR = range(1, 8)  # objects; those of pages follow


@dataclass(frozen=True)
class Words:
    """Text that a search finds where it lies on a page.

    Args:
        text: the text.
        x: the left end of its baseline, in pixels.
        baseline: the height of its baseline from the top, in pixels.
        size: of the letters, in pixels.
        width: in pixels.
    """

    text: str
    x: float
    baseline: float
    size: int
    width: float


class PdfWriter:
    """Writes a PDF to a binary file, page by page; `close` makes it whole.

    Args:
        file: open for writing, at its start.
        title: the title of the document.
    """

    def __init__(self, file: BinaryIO, title: str) -> None:
        self._file = file
        self._places: dict[int, int] = {}
        self._pages: list[int] = []
        self._put(b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n")
        # the list of pages is written last, but its number among the objects is taken now
        self._places[_PAGES] = 0
        self._object(
            _CATALOG, b"<< /Type /Catalog /Pages %d 0 R /ViewerPreferences << /DisplayDocTitle true >> >>" % _PAGES
        )
        made = time.strftime("D:%Y%m%d%H%M%SZ", time.gmtime()).encode()
        self._object(_INFO, b"<< /Title %s /Producer (h2a-batch) /CreationDate (%s) >>" % (_text(title), made))
        self._font()

    def page(self, jpeg: bytes, pixels: tuple[int, int], points: tuple[float, float], words: Iterable[Words]) -> None:
        """Add a page that a picture fills.

        Args:
            jpeg: an RGB picture as the bytes of a JPEG file.
            pixels: the width and height of the picture.
            points: the width and height of the page, 72 to an inch.
            words: the text on the page.
        """
        image, content, page = (len(self._places) + number for number in (1, 2, 3))
        about = b"/Type /XObject /Subtype /Image /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /DCTDecode"
        self._stream(image, about + b" /Width %d /Height %d" % pixels, jpeg)
        drawing = b"q %.2f 0 0 %.2f 0 0 cm /I Do Q\n" % points + _drawn(words, pixels, points)
        self._stream(content, b"/Filter /FlateDecode", zlib.compress(drawing))
        resources = b"<< /XObject << /I %d 0 R >> /Font << /F %d 0 R >> >>" % (image, _FONT)
        box = b"[0 0 %.2f %.2f]" % points
        body = b"/Type /Page /Parent %d 0 R /MediaBox %s /Contents %d 0 R /Resources %s"
        self._object(page, b"<< " + body % (_PAGES, box, content, resources) + b" >>")
        self._pages.append(page)

    def close(self) -> None:
        """Write the list of pages and the table of objects, which are known only at the end."""
        kids = b" ".join(b"%d 0 R" % page for page in self._pages)
        self._object(_PAGES, b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(self._pages), kids))
        start = self._file.tell()
        count = len(self._places) + 1
        self._put(b"xref\n0 %d\n0000000000 65535 f \n" % count)
        for number in range(1, count):
            self._put(b"%010d 00000 n \n" % self._places[number])
        trailer = b"<< /Size %d /Root %d 0 R /Info %d 0 R >>" % (count, _CATALOG, _INFO)
        self._put(b"trailer\n%s\nstartxref\n%d\n%%%%EOF\n" % (trailer, start))

    def _font(self) -> None:
        """Write a font without glyphs whose codes are UTF-16: it serves to find text, not to show it."""
        about = b"/Type /Font /Subtype /Type0 /BaseFont /Helvetica /Encoding /Identity-H"
        self._object(_FONT, b"<< %s /DescendantFonts [%d 0 R] /ToUnicode %d 0 R >>" % (about, _CID_FONT, _TO_UNICODE))
        about = b"/Type /Font /Subtype /CIDFontType2 /BaseFont /Helvetica /DW 500 /CIDToGIDMap /Identity"
        system = b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >>"
        self._object(_CID_FONT, b"<< %s %s /FontDescriptor %d 0 R >>" % (about, system, _DESCRIPTOR))
        shape = (
            b"/Flags 32 /FontBBox [0 -200 1000 800] /ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 /StemV 80"
        )
        self._object(_DESCRIPTOR, b"<< /Type /FontDescriptor /FontName /Helvetica %s >>" % shape)
        ranges = [b"<%02x00> <%02xff> <%02x00>" % (high, high, high) for high in range(256)]
        blocks = (ranges[first : first + 64] for first in range(0, 256, 64))
        mapping = b"".join(b"%d beginbfrange\n%s\nendbfrange\n" % (len(block), b"\n".join(block)) for block in blocks)
        cmap = (
            b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /U def /CMapType 2 def\n"
            b"1 begincodespacerange <0000> <ffff> endcodespacerange\n" + mapping + b"endcmap end end\n"
        )
        self._stream(_TO_UNICODE, b"/Filter /FlateDecode", zlib.compress(cmap))

    def _stream(self, number: int, about: bytes, data: bytes) -> None:
        self._object(number, b"<< %s /Length %d >>\nstream\n%s\nendstream" % (about, len(data), data))

    def _object(self, number: int, body: bytes) -> None:
        self._places[number] = self._file.tell()
        self._put(b"%d 0 obj\n%s\nendobj\n" % (number, body))

    def _put(self, data: bytes) -> None:
        self._file.write(data)


def _drawn(words: Iterable[Words], pixels: tuple[int, int], points: tuple[float, float]) -> bytes:
    """Return the operators that place text invisibly, stretched to its width in the picture."""
    across, down = points[0] / pixels[0], points[1] / pixels[1]
    parts = [b"BT 3 Tr"]
    for word in words:
        codes = word.text.encode("utf-16-be", "replace")
        natural = 0.5 * word.size * len(codes) / 2  # every glyph is half as wide as the font is high
        if codes and word.width > 0:
            stretch, size = 100 * word.width / natural, word.size * down
            place = (word.x * across, points[1] - word.baseline * down)
            parts.append(
                b"/F %.2f Tf %.2f Tz 1 0 0 1 %.2f %.2f Tm <%s> Tj" % (size, stretch, *place, codes.hex().encode())
            )
    return b"\n".join([*parts, b"ET"])


def _text(text: str) -> bytes:
    return b"<feff%s>" % text.encode("utf-16-be", "replace").hex().encode()
