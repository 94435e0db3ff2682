"""Places in object stores: what is named, what a listing shows, and stores of other kinds than S3."""

from __future__ import annotations

import pickle
import uuid
from pathlib import Path

import pytest
from conftest import tree
from hypothesis import given
from hypothesis import strategies as some

from h2a_batch import convert_folder
from h2a_batch.errors import UsageError
from h2a_batch.store import Item, Level, Remote, find, levels, listing, place, put

NAMES = some.lists(some.text("ab.-(1 \u00e9", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


def _item(key: str) -> Item:
    return Item(key, 1, 0.0, "")


@given(some.sets(NAMES, max_size=30))
def test_every_object_is_in_its_folder_and_each_folder_comes_once(keys: set[str]) -> None:
    ordered = sorted(keys, key=str.encode)
    found = list(levels(map(_item, ordered), lambda above, name: False))
    assert sorted(item.key for level in found for item in level.items) == sorted(keys)
    assert len({level.path for level in found}) == len(found)
    for level in found:
        assert all(item.key.rpartition("/")[0] == level.path.rstrip("/") for item in level.items)
        below = {other.path[len(level.path) :] for other in found if other.path.startswith(level.path)}
        assert level.folders == {path.split("/")[0] for path in below if path}
    places = [level.path for level in found]
    assert all(
        places.index(path) <= places.index(above) for path in places for above in places if path.startswith(above)
    )


def test_what_is_passed_over_is_not_kept() -> None:
    def passes(above: Level, name: str) -> bool:
        above.passed = above.passed or name == "mark"
        return name == "left"

    found = levels(map(_item, ["a.jpg", "left/b.jpg", "left/c/d.jpg", "out/mark/x", "out/y.jpg"]), passes)
    assert [item.key for level in found for item in level.items] == ["a.jpg"]


def test_an_object_that_changes_twice_in_a_second_is_told_apart() -> None:
    one, other = Item("a", 1, 1e9, '"x"'), Item("a", 1, 1e9, '"y"')
    assert one.stamp != other.stamp and one.stamp // 1_000_000_000 == other.stamp // 1_000_000_000 == 1e9


def test_places(tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    assert place(str(tmp_path)) == tmp_path and place("a:b") == Path("a:b") and place(f"file://{tmp_path}") == tmp_path
    found = place("S3://bucket/a folder/", "http://127.0.0.1:1/")
    assert found == Remote("s3://bucket/a folder", "http://127.0.0.1:1") == pickle.loads(pickle.dumps(found))
    assert str(found / "b.jpg") == "s3://bucket/a folder/b.jpg" and (found / "b.jpg").parent == found
    for wrong in ("s3://", "s3:///key"):
        with pytest.raises(UsageError, match="names no bucket"):
            place(wrong)


def test_any_store_that_fsspec_knows(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    base = place(f"memory://{uuid.uuid4().hex}")
    assert isinstance(base, Remote)
    for name, data in tree(photos).items():
        put(base / "in" / name, data)
    first = convert_folder(f"{base}/in", f"{base}/out")
    assert (first.converted, first.failed) == (6, 0)
    keys = {item.key for item in listing(base / "out")}
    assert {"A000210.png", "sub/B000711.png", ".h2a-batch/ledger.sqlite"} <= keys
    again = convert_folder(f"{base}/in", f"{base}/out")
    assert (again.converted, again.skipped) == (0, 6)
    assert find(base / "out" / "A000210.png") and not find(base / "out" / "A0002")
