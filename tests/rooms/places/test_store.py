"""Places in object stores: what is named, what a listing shows, and stores of other kinds than S3."""

from __future__ import annotations

import pickle
import threading
import uuid
from pathlib import Path

import pytest
from conftest import tree
from hypothesis import given
from hypothesis import strategies as some

from h2a_batch import convert_folder
from h2a_batch.command.sheet import main as sheet
from h2a_batch.errors import StorageError, UsageError
from h2a_batch.ledger import mirror
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.places import Item, Level, Remote, address, find, get, levels, listing, put
from h2a_batch.sources import Ignored, Scan, Unusable, scan

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
    assert (
        address(str(tmp_path)) == tmp_path
        and address("a:b") == Path("a:b")
        and address(f"file://{tmp_path}") == tmp_path
    )
    found = address("S3://bucket/a folder/", "http://127.0.0.1:1/")
    assert found == Remote("s3://bucket/a folder", "http://127.0.0.1:1") == pickle.loads(pickle.dumps(found))
    assert str(found / "b.jpg") == "s3://bucket/a folder/b.jpg" and (found / "b.jpg").parent == found
    assert address("s3a://bucket/a") == address("s3://bucket/a"), "an object has one name"
    for wrong in ("s3://", "s3:///key"):
        with pytest.raises(UsageError, match="names no bucket"):
            address(wrong)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """A store in this process."""
    pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = address(f"memory://{uuid.uuid4().hex}")
    assert isinstance(found, Remote)
    return found


def test_any_store_that_fsspec_knows(photos: Path, base: Remote) -> None:
    for name, data in tree(photos).items():
        put(base / "in" / name, data)
    first = convert_folder(f"{base}/in", f"{base}/out")
    assert (first.converted, first.failed) == (6, 0)
    keys = {item.key for item in listing(base / "out")}
    assert {"A000210.png", "sub/B000711.png", ".h2a-batch/ledger.sqlite"} <= keys
    again = convert_folder(f"{base}/in", f"{base}/out")
    assert (again.converted, again.skipped) == (0, 6)
    assert find(base / "out" / "A000210.png") and not find(base / "out" / "A0002")


def test_an_out_below_in_is_passed_over_whatever_its_folders_are_called(base: Remote, tmp_path: Path) -> None:
    for key in ("a.jpg", "x/(1)/a.png", "x/b.png", "x/.h2a-batch/ledger.sqlite", "y/(1)/c.jpg", "y/../d.jpg"):
        put(base / key, b"")
    how = Scan(suffix="", format="png", recursive=True, out=tmp_path / "out")
    found = [item for item in scan([base], how) if not isinstance(item, Ignored)]
    assert isinstance(found.pop(), Unusable), "y/../d.jpg is no path"
    assert [str(item.path)[len(str(base)) + 1 :] for item in found] == ["y/(1)/c.jpg", "a.jpg"]


def test_a_ledger_that_did_not_change_is_not_copied_again(base: Remote) -> None:
    copies = []
    for name in ("anime", "anime", "another"):
        with Ledger(base, "{}") as ledger:
            ledger.name_model("0", name)
        copies.append(find(base / ".h2a-batch" / "ledger.sqlite"))
    assert copies[0] and copies[0] == copies[1] != copies[2]


def test_a_run_that_was_taken_for_dead_stops(base: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = base / ".h2a-batch" / "running.json"
    with pytest.raises(StorageError, match="another run took over"), Ledger(base, "{}") as slept:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
        monkeypatch.setattr(mirror, "_ALIVE", 0.0)
        with Ledger(base, "{}") as other:
            other.name_model("0", "of the other")
            before = get(mark)
        slept.name_model("0", "too late")
        slept._holding._copy()  # type: ignore[union-attr]
        slept._holding._sign()  # type: ignore[union-attr]
        assert not find(mark) and before, "it does not write there any more"
    with Ledger(base, "{}", read_only=True) as ledger:
        assert ledger.model_name("0") == "of the other" and not find(mark)


def test_a_ledger_that_is_missing_here_is_fetched_again(base: Remote, tmp_path: Path) -> None:
    with Ledger(base, "{}") as ledger:
        ledger.name_model("0", "known")
    next((tmp_path / "state").rglob("ledger.sqlite")).unlink()
    with Ledger(base, "{}") as ledger:
        assert ledger.model_name("0") == "known"


def test_a_start_that_fails_leaves_no_mark(base: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(where: Remote) -> None:
        raise PermissionError(1, "no listing for you")

    monkeypatch.setattr(mirror, "listing", refuse)
    with pytest.raises(UsageError, match="cannot be listed"):
        Ledger(base, "{}")
    assert not find(base / ".h2a-batch" / "running.json")


def test_folders_and_stores_go_together(photos: Path, base: Remote) -> None:
    portrait = sorted(photos.rglob("*.jpg"))[0]
    put(base / "in" / "last.jpg", portrait.read_bytes())
    done: list[int] = []
    inputs, out = [portrait, str(base / "in")], str(base / "out")
    work = threading.Thread(target=lambda: done.append(convert_folder(inputs, out).converted), daemon=True)
    work.start()
    work.join(120)
    assert done == [2]


def test_sheets_are_made_of_folders(capsys: pytest.CaptureFixture[str]) -> None:
    assert sheet(["s3://bucket/in", "s3://bucket/out", "sheet.pdf"]) == 2
    assert capsys.readouterr().err.startswith("h2a-sheet: s3://bucket/in: sheets are made of folders")
