from __future__ import annotations

import json
import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PHOTOS
from PIL import Image

from h2a_batch.errors import BusyError, LedgerError, UsageError
from h2a_batch.gallery.target import claim_sheet
from h2a_batch.ledger import CURRENT, claim, status
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import Output, Task
from h2a_batch.ledger.table import write_table
from h2a_batch.places import sha256_of, temporary_path
from h2a_batch.sources import LEDGER_FOLDER, Scan, Source, scan


def _source(path: Path, output: str = "a.png") -> Source:
    status = path.stat()
    return Source(path, os.path.realpath(path), output, status.st_size, status.st_mtime_ns)


def _make(ledger: Ledger, source: Source, overwrite: bool = False, originals: list[str] | None = None) -> Task:
    """Convert as the pipeline does, as far as the ledger sees it; each content gives an output of its own size."""
    task = claim(ledger, source, overwrite, originals or [])
    assert task is not None
    task.output.parent.mkdir(parents=True, exist_ok=True)
    side = 16 + int(sha256_of(source.path)[:2], 16)
    Image.effect_noise((side, side), 50).save(task.output)
    ledger.done(task, sha256_of(source.path), [Output(task.name, task.output.stat().st_size)], 0.1)
    return task


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(sorted(PHOTOS.glob("*.jpg"))[0].read_bytes())
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def is_current(ledger: Ledger, source: Source) -> bool:
    return status(ledger, source, ledger.key).kind == CURRENT


def _open(out: Path, settings: str = "{}") -> Ledger:
    return Ledger(out, settings)


def test_an_output_is_current_until_anything_changes(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        assert not is_current(ledger, _source(photo))
        task = _make(ledger, _source(photo))
        assert is_current(ledger, _source(photo))
        assert not is_current(ledger, _source(photo, "b.png"))
    with _open(out) as ledger:
        assert is_current(ledger, _source(photo))
        os.utime(photo, ns=(1, 1))
        assert is_current(ledger, _source(photo)), "touched, but of the same content"
        photo.write_bytes(photo.read_bytes()[:-1] + b"x")
        assert not is_current(ledger, _source(photo))
        _make(ledger, _source(photo))
        task.output.unlink()
        assert not is_current(ledger, _source(photo))
    with _open(out, '{"other": 1}') as ledger:
        assert not is_current(ledger, _source(photo))


def test_a_namesake_that_comes_or_goes_costs_no_second_conversion(out: Path, photo: Path) -> None:
    both = ("a.png", "a.jpg.png")
    alone, beside = (replace(_source(photo), output=name, also=both) for name in both)
    with _open(out) as ledger:
        task = _make(ledger, alone)
        assert is_current(ledger, beside)
        photo.write_bytes(photo.read_bytes()[:-1] + b"x")
        changed = replace(_source(photo), output="a.jpg.png", also=both)
        assert not is_current(ledger, changed)
        again = claim(ledger, changed, overwrite=False, originals=[])
        assert again is not None and again.name == task.name, "it keeps the name that it has"


def test_an_output_cut_short_is_made_again_and_one_edited_by_hand_is_kept(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        task = _make(ledger, _source(photo))
        task.output.write_bytes(task.output.read_bytes()[:40])
        assert not is_current(ledger, _source(photo))
        assert claim(ledger, _source(photo), overwrite=False, originals=[]) is not None
        _make(ledger, _source(photo))
        Image.new("RGB", (300, 300), "blue").save(task.output)
        assert not is_current(ledger, _source(photo))
        assert claim(ledger, _source(photo), overwrite=False, originals=[]) is None
        assert claim(ledger, _source(photo), overwrite=True, originals=[]) is not None


def test_a_file_of_other_origin_is_replaced_only_when_told(out: Path, photo: Path) -> None:
    out.mkdir()
    (out / "a.png").write_bytes(b"somebody's")
    with _open(out) as ledger:
        assert claim(ledger, _source(photo), overwrite=False, originals=[]) is None
        task = claim(ledger, _source(photo), overwrite=True, originals=[])
        assert task is not None and task.name == "a.png"


def test_an_original_is_never_the_output_even_with_overwrite(photo: Path) -> None:
    (photo.parent / "a.png").write_bytes(b"an original")
    originals = [str(photo.parent)]
    with _open(photo.parent) as ledger:
        for _ in range(2):
            task = claim(ledger, _source(photo), True, originals)
            assert task is not None and task.name == "a~2.png"
        assert ledger.is_output(photo.parent / "a~2.png") and not ledger.is_output(photo.parent / "a.png")


def test_an_edited_output_is_kept_in_place_too(photo: Path) -> None:
    originals = [str(photo.parent)]
    with _open(photo.parent) as ledger:
        task = _make(ledger, _source(photo, "a_anime.png"), originals=originals)
        Image.new("RGB", (300, 300), "blue").save(task.output)
        assert claim(ledger, _source(photo, "a_anime.png"), False, originals) is None
        again = claim(ledger, _source(photo, "a_anime.png"), True, originals)
        assert again is not None and again.name == "a_anime.png"


def test_a_photo_is_never_overwritten_through_a_link(tmp_path: Path, photo: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    original = photo.rename(archive / "b.png")
    (photo.parent / "b.png").symlink_to(original)
    with _open(archive) as ledger:
        task = claim(ledger, _source(photo.parent / "b.png", "b.png"), True, [str(photo.parent)])
        assert task is not None and task.name == "b~2.png"


def test_what_was_killed_while_being_made_again_is_made_again(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        _make(ledger, _source(photo))
    with _open(out, '{"size": 200}') as ledger:
        task = claim(ledger, _source(photo), False, [])
        assert task is not None
        Image.new("RGB", (200, 200), "green").save(task.output)  # and killed before it was recorded
    with _open(out, '{"size": 200}') as ledger:
        assert not is_current(ledger, _source(photo))
        assert claim(ledger, _source(photo), False, []) is not None


def test_an_output_outlives_its_photo(tmp_path: Path, out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        _make(ledger, _source(photo))
    other = tmp_path / "card-2" / "a.jpg"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes() + b"\0")
    photo.unlink()
    with _open(out) as ledger:
        assert not is_current(ledger, _source(other))
        assert _make(ledger, _source(other)).name == "a~2.png"


def test_an_output_of_other_settings_stays_its_owners(tmp_path: Path, out: Path, photo: Path) -> None:
    other = tmp_path / "other" / "a.jpg"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes() + b"\0")
    with _open(out) as ledger:
        assert _make(ledger, _source(photo, "a.png")).name == "a.png"
        assert _make(ledger, _source(photo, "a.webp")).name == "a.webp"
        assert _make(ledger, _source(other, "a.png")).name == "a~2.png"
        assert _make(ledger, _source(photo, "a.png")).name == "a.png"


def test_a_name_that_was_only_claimed_is_not_ours(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        task = claim(ledger, _source(photo), False, [])
        assert task is not None
        ledger.failed(task, "the file ends too early", 0.1)
        Image.new("RGB", (20, 20)).save(out / "a.png")  # made by hand meanwhile
        assert claim(ledger, _source(photo), False, []) is None
        assert not ledger.is_output(out / "a.png")


def test_a_contact_sheet_takes_nobodys_file(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        _make(ledger, _source(photo, "sheet.jpg"))
        for taken in (photo, out / "sheet.jpg"):
            with pytest.raises(UsageError, match="another name for the sheet"):
                claim_sheet(ledger, taken, True)
        claim_sheet(ledger, out / "page.jpg", False)
        software = Image.Exif()
        software[0x0131] = "h2a-batch sheet"
        Image.new("RGB", (9, 9)).save(out / "page.jpg", exif=software)
        claim_sheet(ledger, out / "page.jpg", False)
        task = claim(ledger, _source(photo, "page.jpg"), True, [])
        assert task is not None and task.name == "page~2.jpg"


def test_two_inputs_from_different_runs_never_share_an_output(tmp_path: Path, out: Path, photo: Path) -> None:
    other = tmp_path / "other" / "a.jpg"
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes() + b"\0")
    with _open(out) as ledger:
        assert _make(ledger, _source(photo)).name == "a.png"
        assert _make(ledger, _source(other)).name == "a~2.png"
        assert is_current(ledger, _source(photo)) and is_current(ledger, _source(other))


def test_an_input_folder_that_was_moved_is_recognised(tmp_path: Path, out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        _make(ledger, _source(photo))
    moved = tmp_path / "elsewhere"
    photo.parent.rename(moved)
    with _open(out) as ledger:
        assert is_current(ledger, _source(moved / "a.jpg"))


def test_names_that_are_no_utf8_survive(tmp_path: Path, out: Path, photo: Path) -> None:
    name = os.fsdecode(b"latin-\xe9.jpg")
    odd = photo.rename(tmp_path / name)
    with _open(out) as ledger:
        _make(ledger, _source(odd, os.fsdecode(b"latin-\xe9.png")))
        assert is_current(ledger, _source(odd, os.fsdecode(b"latin-\xe9.png")))
        assert [row.source for row in ledger.rows()] == [str(odd)]
        assert b"latin-\xe9.png" in write_table(ledger).read_bytes()


def test_a_second_run_on_the_same_folder_is_told_so(out: Path) -> None:
    with _open(out), pytest.raises(BusyError, match=str(os.getpid())):
        _open(out)
    _open(out).__exit__(None, None, None)


def test_a_damaged_or_newer_ledger_is_refused(out: Path) -> None:
    _open(out).__exit__(None, None, None)
    path = out / LEDGER_FOLDER / "ledger.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="newer"):
        _open(out)
    path.write_bytes(b"this is not a database at all, whatever its name" * 100)
    with pytest.raises(LedgerError, match="damaged"):
        _open(out)


def test_leftovers_of_a_killed_run_are_removed(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        task = claim(ledger, _source(photo), overwrite=False, originals=[])
        assert task is not None
        temporary_path(task.output).write_bytes(b"half")
    with _open(out) as ledger:
        ledger.clean()
        assert not temporary_path(task.output).exists()
        assert ledger.is_output(out / "a.png"), "a name on record is known as an output from before it was made"


def test_looking_changes_nothing(out: Path, photo: Path) -> None:
    with Ledger(out, "{}", read_only=True) as ledger:
        assert claim(ledger, _source(photo), overwrite=False, originals=[]) is not None
    assert not out.exists()


def test_no_photo_costs_a_look_at_all_others(out: Path, photo: Path) -> None:
    with _open(out) as ledger:
        statements: list[str] = []
        ledger._db._db.set_trace_callback(statements.append)
        _make(ledger, _source(photo))
        assert is_current(ledger, _source(photo))
        ledger.rename(os.path.realpath(photo), "/elsewhere")
        ledger.rename_outputs(os.path.realpath(photo), "/elsewhere")
        ledger._db._db.set_trace_callback(None)
        asked = [line for line in statements if line.split()[0] in ("SELECT", "UPDATE", "DELETE")]
        plans = [row[3] for line in asked for row in ledger._db._db.execute(f"EXPLAIN QUERY PLAN {line}")]
        assert len(asked) > 5 and plans and not [plan for plan in plans if plan.startswith("SCAN")]


def test_what_version_0_1_0_made_is_taken_over(tmp_path: Path) -> None:
    """By that version from A000210.jpg and sub/B000589.jpg of the tests' photos, which lay in another place."""
    out, photos = tmp_path / "out", tmp_path / "in"
    shutil.copytree(Path(__file__).with_name("out-0.1.0"), out)
    (photos / "sub").mkdir(parents=True)
    for name in ("A000210.jpg", "sub/B000589.jpg"):
        shutil.copyfile(PHOTOS / Path(name).name, photos / name)
    with Ledger(out, "{}", read_only=True) as ledger:
        settings = json.dumps(ledger.settings(next(iter(ledger.rows())).settings), sort_keys=True)
    with Ledger(out, settings) as ledger:
        how = Scan(suffix="", format="png", recursive=True, out=out, is_output=ledger.is_output)
        found = list(scan([photos], how))
        assert len(found) == 2 and all(isinstance(photo, Source) and is_current(ledger, photo) for photo in found)
        assert {row.source for row in ledger.rows()} == {os.path.realpath(photo.path) for photo in found}
