"""The letters of contact sheets: every script that file names are written in."""

from __future__ import annotations

import lzma
import os
import unicodedata
from pathlib import Path

import pytest

from h2a_batch.gallery.text import fonts
from h2a_batch.gallery.text.typeset import line, undrawn

NAMES = {
    "latin": "\u00c9l\u00e9onore \u017b\u00d3\u0141\u0106.jpg",
    "greek": "\u0395\u03bb\u03bb\u03ac\u03b4\u03b1.jpg",
    "cyrillic": "\u0424\u043e\u0442\u043e.jpg",
    "chinese": "\u5c71\u7530 \u592a\u90ce \u8bde\u8a95.jpg",
    "japanese": "\u3072\u3089\u304c\u306a\u30ab\u30bf\u30ab\u30ca.jpg",
    "korean": "\uae40\ucca0\uc218 \uac00\uc871.jpg",
    "arabic": "\u0635\u0648\u0631\u0629 \u0627\u0644\u0639\u0627\u0626\u0644\u0629 2024.jpg",
    "hebrew": "\u05ea\u05de\u05d5\u05e0\u05d4 (2) \u05e9\u05dc.jpg",
    "hindi": "\u0935\u093f\u0935\u093e\u0939.jpg",
    "thai": "\u0e07\u0e32\u0e19\u0e41\u0e15\u0e48\u0e07.jpg",
    "emoji": "party \U0001f389\U0001f469\u200d\U0001f52c\U0001f44d\U0001f3fd\u2764\ufe0f.jpg",
    "decomposed": "e\u0301te\u0301.jpg",
}


@pytest.mark.parametrize("script", NAMES)
def test_every_script_is_drawn_with_letters_of_its_own(script: str) -> None:
    made = line(NAMES[script], 20, 1000)
    assert "\\" not in made.text, "nothing had to be escaped"
    wanted = {letter for letter in unicodedata.normalize("NFC", NAMES[script]) if not _is_mark(letter)}
    assert wanted <= set(made.text)
    for span in made.spans:
        box = bytes(span.face.at(40).getmask("\U0010fffe"))  # what a font draws where it has no glyph
        for letter in filter(str.isalnum, span.text):
            assert bytes(span.face.at(40).getmask(letter)) != box, f"{letter!r} in {span.face.name}"


def _is_mark(letter: str) -> bool:
    return letter in "\u200d\ufe0f" or "\U0001f3fb" <= letter <= "\U0001f3ff"


def test_right_to_left_names_read_from_the_right() -> None:
    arabic, hebrew = line(NAMES["arabic"], 20, 1000), line(NAMES["hebrew"], 20, 1000)
    assert arabic.text == "2024 \u0629\u0644\u0626\u0627\u0639\u0644\u0627 \u0629\u0631\u0648\u0635.jpg"
    assert hebrew.text == "\u05dc\u05e9 (2) \u05d4\u05e0\u05d5\u05de\u05ea.jpg"
    for name, seen in (  # as libraqm sets them in one font
        ("\u05ea\u05de\u05d5\u05e0\u05d4_2024.jpg", "2024_\u05d4\u05e0\u05d5\u05de\u05ea.jpg"),
        ("\u0635\u0648\u0631\u0629_2024.jpg", "2024_\u0629\u0631\u0648\u0635.jpg"),
        ("\u0635\u0648\u0631\u0629-2024.jpg", "2024-\u0629\u0631\u0648\u0635.jpg"),
        ("\u05ea\u05de\u05d5\u05e0\u05d4 2024-05-12.jpg", "2024-05-12 \u05d4\u05e0\u05d5\u05de\u05ea.jpg"),
        ("\u0635\u0648\u0631\u0629 2024-05.jpg", "05-2024 \u0629\u0631\u0648\u0635.jpg"),
        ("IMG_2024 \u0635\u0648\u0631\u0629.jpg", "IMG_2024 \u0629\u0631\u0648\u0635.jpg"),
        ("\u05ea\u05de\u05d5\u05e0\u05d4 (2).jpg", "(2) \u05d4\u05e0\u05d5\u05de\u05ea.jpg"),
        ("\u05ea\u05de\u05d5\u05e0\u05d4 (2 a).jpg", "\u05d4\u05e0\u05d5\u05de\u05ea (2 a).jpg"),
        ("\u05e6\u05d9\u05dc\u05d5\u05dd.12.jpg", "12.\u05dd\u05d5\u05dc\u05d9\u05e6.jpg"),
        ("\u05e6\u05d9\u05dc\u05d5\u05dd 50%.jpg", "50% \u05dd\u05d5\u05dc\u05d9\u05e6.jpg"),
    ):
        assert line(name, 20, 1000).text == seen, ascii(name)
        assert set("".join(span.text for span in line(name, 20, 1000).spans)) == set(seen), "all of it is drawn"
    shortened = line("\u0635\u0648\u0631\u0629" * 9 + " 2024.jpg", 20, 200)
    assert [span.text for span in shortened.spans][:2] == ["2024", "\u2026"], "cut, the number is still the end"
    joined = line("\u0628\u0628\u0628", 40, 1000).width
    apart = sum(line(letter, 40, 1000).width for letter in "\u0628\u0628\u0628")
    assert joined < 0.9 * apart, "letters are joined"


def test_what_no_font_can_draw_is_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_DATA_DIRS"):
        monkeypatch.setenv(name, str(tmp_path))
    fonts._installed_files.cache_clear()
    try:
        texts = {"\u1019.jpg": r"\u1019.jpg", "new\nline": r"new\nline", "\u202egpj": r"\u202egpj"}
        for name, shown in {**texts, os.fsdecode(b"latin-\xe9"): r"latin-\xe9"}.items():
            assert line(name, 20, 1000).text == shown
        assert "such as myanmar letter ma" in undrawn(), "and that is said, once"
    finally:
        fonts._installed_files.cache_clear()


def test_an_installed_font_draws_what_the_bundled_ones_lack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = (Path(fonts.__file__).parent / "fonts" / "NotoSansThai.ttf.xz").read_bytes()
    (tmp_path / "fonts" / "truetype").mkdir(parents=True)
    (tmp_path / "fonts" / "truetype" / "Thai.ttf").write_bytes(lzma.decompress(data))
    (tmp_path / "fonts" / "broken.ttf").write_bytes(lzma.decompress(data)[:500])
    (tmp_path / "fonts" / "empty.otf").write_bytes(b"")
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    monkeypatch.setattr(fonts, "_OTHERS", ())
    fonts._installed_files.cache_clear()
    try:
        made = line(NAMES["thai"], 20, 1000)
        assert "\\" not in made.text and any(span.face.name.endswith("Thai.ttf") for span in made.spans)
    finally:
        fonts._installed_files.cache_clear()


def test_long_names_are_cut_to_the_room_there_is() -> None:
    for name in ("x" * 240 + ".jpg", NAMES["arabic"] * 9, NAMES["chinese"] * 9, NAMES["emoji"] * 9):
        for room in (5, 40, 300):
            made = line(name, 16, room)
            assert made.width <= room or len(made.spans) <= 1, "at least the ellipsis"
    cut = line("IMG_2041 the whole family at the lake.jpg", 16, 150)
    assert cut.spans[0].text.startswith("IMG") and cut.spans[-1].text.endswith(".jpg")
    assert cut.text == "IMG_2041 the whole family at the lake.jpg", "a search still finds all of it"
