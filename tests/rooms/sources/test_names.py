from __future__ import annotations

import os
import random
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from h2a_batch.sources.names import MAX_NAME, assign, variants

# any name that a Linux folder can hold, bytes that are no UTF-8 among them
_PART = st.binary(min_size=1, max_size=120).map(lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_")))
_WORD = st.sampled_from(["a", "A", "b", "\u00e9", "e\u0301", "\u5c71\u7530", "x.y", " ", "a~2"])
_SUFFIX = st.sampled_from([".jpg", ".JPG", ".png", ".jpeg", ".tiff", "", ".txt"])
_NAMES = st.sets(st.one_of(_PART, st.tuples(_WORD, _SUFFIX).map("".join)), max_size=12)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def test_a_plain_name_keeps_its_stem() -> None:
    assert assign(["a.jpg", "b.JPEG"], "", "png") == {"a.jpg": "a.png", "b.JPEG": "b.png"}
    assert assign(["a.jpg"], "_anime", "webp") == {"a.jpg": "a_anime.webp"}


def test_names_that_would_collide_keep_their_own_suffix() -> None:
    assert assign(["a.jpg", "a.png"], "", "png") == {"a.jpg": "a.jpg.png", "a.png": "a.png.png"}


def test_a_name_that_differs_only_in_case_gets_a_number() -> None:
    names = assign(["A.jpg", "a.jpg"], "", "png")
    assert len({_folded(output) for output in names.values()}) == 2


def test_a_file_without_an_image_suffix_keeps_its_whole_name() -> None:
    assert assign(["J. Smith"], "", "png") == {"J. Smith": "J. Smith.png"}


def test_a_sub_folder_keeps_its_name() -> None:
    assert assign(["a.jpg"], "", "png", reserved=["a.png"]) == {"a.jpg": "a~2.png"}


@given(_NAMES, st.sampled_from(["", "_anime", "-" + "x" * 60]), st.sampled_from(["png", "jpg", "webp"]))
def test_outputs_never_collide_and_always_fit(names: set[str], suffix: str, format: str) -> None:
    outputs = assign(names, suffix, format)
    assert set(outputs) == names
    assert len({_folded(output) for output in outputs.values()}) == len(names)
    for output in outputs.values():
        assert len(os.fsencode(output)) <= MAX_NAME
        assert output.endswith(f".{format}") and "/" not in output


@given(_NAMES, st.randoms())
def test_the_order_of_the_folder_does_not_matter(names: set[str], chance: random.Random) -> None:
    shuffled = sorted(names)
    chance.shuffle(shuffled)
    assert assign(shuffled, "", "png") == assign(sorted(names), "", "png")


def test_variants_stay_within_the_limit() -> None:
    names = variants("\u5c71" * 83 + ".png")
    for _, name in zip(range(12), names, strict=False):
        assert len(os.fsencode(name)) <= MAX_NAME and name.endswith(".png")
