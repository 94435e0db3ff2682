"""Earlier runs, read back: real runs with the real model, and nothing but the ledger to know them by."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import PHOTOS, command_line
from PIL import Image
from report_support import crowd, group

from h2a_batch import FileResult, convert_folder
from h2a_batch.errors import UsageError
from h2a_batch.gallery.results import Item, read_columns, read_photos, read_results, summarise
from h2a_batch.ledger.records import DONE, FAILED, NOBODY, PENDING

__all__ = ["crowd"]  # a fixture

PORTRAIT = sorted(PHOTOS.glob("*.jpg"))[0]


def _snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder, hidden files and times of change too."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def _named(items: list[Item]) -> dict[str, Item]:
    return {item.name: item for item in items}


@pytest.mark.parametrize("settings", [{}, {"suffix": "_anime", "format": "webp"}], ids=["plain", "suffix"])
def test_every_photo_has_the_output_that_the_run_made_of_it(
    photos: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    with Image.open(PORTRAIT) as image:
        image.save(photos / "A000210.png")  # two photos that would get one name
    (tmp_path / "more").mkdir()
    shutil.copyfile(PORTRAIT, tmp_path / "more" / "x.jpg")
    inputs, out = [photos, tmp_path / "more", photos / "sub" / "B000589.jpg"], tmp_path / "out"
    made: list[FileResult] = []
    convert_folder(inputs, out, on_file=made.append, **settings)
    before = _snapshot(out)
    items = list(read_results(inputs, out))
    assert {item.source: item.output for item in items} == {result.path: result.output for result in made}
    assert len(items) == 8 and all(item.state == DONE and item.output_size and item.seconds > 0 for item in items)
    assert all(item.output_size == item.output.stat().st_size for item in items if item.output)
    assert {item.name for item in items} >= {"in/A000210.png", "in/sub/B000711.jpg", "more/x.jpg"}
    (facts,) = summarise(inputs, [out])
    assert (facts.photos, facts.done, facts.model) == (8, 8, "anime-256")
    assert facts.words["Format"] == settings.get("format", "png").upper()
    assert _snapshot(out) == before, "reading leaves no trace"


def test_what_failed_and_what_is_still_to_do(photos: Path, tmp_path: Path) -> None:
    (photos / "cut.jpg").write_bytes(PORTRAIT.read_bytes()[:3000])
    out = tmp_path / "out"
    convert_folder(photos, out)
    (out / "A000210.png").unlink()
    with Image.open(photos / "A000365.jpg") as image:
        image.rotate(90).save(photos / "A000365.jpg")
    shutil.copyfile(PORTRAIT, photos / "new.jpg")
    items = _named(list(read_results([photos], out)))
    assert items["cut.jpg"].state == FAILED and "ends too early" in items["cut.jpg"].error
    pending = {name for name, item in items.items() if item.state == PENDING}
    assert pending == {"A000210.jpg", "A000365.jpg", "new.jpg"}
    (facts,) = summarise([photos], [out])
    assert (facts.done, facts.failed, facts.pending) == (4, 1, 3)
    assert len(list(read_results([photos], out, recursive=False))) == 6


def test_a_photo_edited_in_its_size_is_not_done(photos: Path, tmp_path: Path) -> None:
    convert_folder(photos, tmp_path / "out")
    edited, touched = photos / "A000210.jpg", photos / "A000365.jpg"
    data = bytearray(edited.read_bytes())
    data[-200] ^= 1
    edited.write_bytes(data)
    for path in (edited, touched):
        os.utime(path, (1, 1))
    items = _named(list(read_results([photos], tmp_path / "out")))
    assert items["A000210.jpg"].state == PENDING and items["A000365.jpg"].state == DONE
    assert summarise([photos], [tmp_path / "out"])[0].pending == 1


def test_in_place_outputs_and_sheets_are_no_photos(photos: Path, tmp_path: Path) -> None:
    convert_folder(photos, photos, contact_sheet=photos / "sheet.jpg")
    items = _named(list(read_results([photos], photos)))
    assert set(items) == {path.name for path in PHOTOS.glob("A*.jpg")} | {"sub/B000589.jpg", "sub/B000711.jpg"}
    assert items["sub/B000589.jpg"].output == photos / "sub" / "B000589_anime.png"
    convert_folder(photos, tmp_path / "out", limit=4)
    rows = list(read_columns([photos], [tmp_path / "out", photos]))
    assert [len(row) for row in rows] == [2] * len(rows)
    assert {row[1].name for row in rows} >= set(items)


def test_photos_that_were_moved_are_known_by_their_content(photos: Path, tmp_path: Path) -> None:
    convert_folder(photos, tmp_path / "out", suffix="_x")
    os.rename(photos, tmp_path / "archive")
    os.rename(tmp_path / "out", tmp_path / "elsewhere")
    before = _snapshot(tmp_path / "elsewhere")
    items = _named(list(read_results([tmp_path / "archive"], tmp_path / "elsewhere")))
    assert all(item.state == DONE for item in items.values())
    assert items["sub/B000711.jpg"].output == tmp_path / "elsewhere" / "sub" / "B000711_x.png"
    assert _snapshot(tmp_path / "elsewhere") == before


@pytest.mark.slow
def test_several_settings_in_one_folder_are_told_apart(photos: Path, tmp_path: Path) -> None:
    convert_folder(photos, tmp_path / "out", size="128", limit=2)
    convert_folder(photos, tmp_path / "out", limit=6)
    convert_folder(photos, tmp_path / "out", size="64", limit=1)
    (facts,) = summarise([photos], [tmp_path / "out"])
    assert [(setting.fields["size"], setting.photos) for setting in facts.settings] == [("model", 5), ("64", 1)]
    assert facts.model == "anime-256" and facts.words["Size"] == "as the model gives it"


@pytest.mark.slow
def test_a_run_may_be_looked_at_while_it_works_and_after_a_kill(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(command_line(many, out, "-q"), stderr=subprocess.PIPE)
    seen: list[int] = []
    while process.poll() is None:
        if (out / ".h2a-batch" / "ledger.sqlite").exists():
            seen.append(sum(item.state == DONE for item in read_results([many], out)))
            if len(seen) > 3 and seen[-1] > 20:
                process.kill()
    assert process.wait() in (0, -9) and process.stderr and process.stderr.read() == b""
    assert seen == sorted(seen) and seen[-1] > 20
    assert sum(item.state == DONE for item in read_results([many], out)) >= seen[-1]
    assert convert_folder(many, out).failed == 0
    assert sum(item.state == DONE for item in read_results([many], out)) == 60


def test_a_folder_without_a_run_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run of h2a-batch"):
        next(read_results([photos], tmp_path))
    with pytest.raises(UsageError, match="no such file"):
        next(read_results([tmp_path / "none"], tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.slow
def test_each_face_is_an_item_and_a_photo_without_one_is_told(crowd: Path) -> None:
    items = list(read_results([crowd / "in"], crowd / "crop"))
    assert [item.label for item in items] == [
        "cut off.jpg",
        *("group.jpg, face 1", "group.jpg, face 2", "group.jpg, face 3"),
        *("nobody.png", "one.jpg", "portrait.jpg"),
    ]
    assert [item.state for item in items] == [FAILED, DONE, DONE, DONE, NOBODY, DONE, DONE]
    assert [item.output.name for item in items if item.output] == [
        *("group-1.png", "group-2.png", "group-3.png"),
        *("one-1.png", "portrait.png"),
    ]
    for item, known in zip(items[1:4], group()[1], strict=True):
        assert item.frame and item.output and item.output_size == item.output.stat().st_size
        assert abs(item.frame.x - known.x) < known.width / 3 and abs(item.frame.y - known.y) < known.width / 3
        assert abs(item.frame.angle - known.angle) < 15, "of the photo as one holds it, not as it lies in the file"
    assert items[5].frame and items[6].frame is None
    (facts,) = summarise([crowd / "in"], [crowd / "crop"])
    assert (facts.photos, facts.done, facts.failed, facts.nobody, facts.pending) == (5, 3, 1, 1, 0)
    assert (facts.faces, facts.rows, facts.settings[0].photos) == (4, 7, 3)
    (facts,) = summarise([crowd / "in"], [crowd / "paste"])
    assert (facts.photos, facts.done, facts.faces, facts.rows) == (5, 3, 5, 5), "put back: a row for each photo"
    assert facts.words["Faces"] == "put back into the photo"


def test_a_face_whose_output_is_gone_is_still_to_do(crowd: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(crowd / "crop", out)
    (out / "group-2.png").unlink()
    items = {item.label: item for item in read_results([crowd / "in"], out)}
    states = [items[f"group.jpg, face {number}"].state for number in (1, 2, 3)]
    assert states == [DONE, PENDING, DONE] and items["group.jpg, face 2"].output is None
    (facts,) = summarise([crowd / "in"], [out])
    assert (facts.done, facts.pending, facts.faces, facts.rows) == (2, 1, 3, 7)
    assert convert_folder(crowd / "in", out, no_face="skip").converted == 1
    assert summarise([crowd / "in"], [out])[0].pending == 0


@pytest.mark.slow
def test_an_output_cut_short_is_to_be_made_again_for_readers_and_runs_alike(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_folder(photos, out)
    short, edited = out / "A000210.png", out / "sub" / "B000589.png"
    short.write_bytes(short.read_bytes()[:-100])
    Image.new("RGB", (300, 300), "blue").save(edited)
    items = _named(list(read_results([photos], out)))
    assert [name for name, item in items.items() if item.state == PENDING] == ["A000210.jpg"]
    assert items["sub/B000589.jpg"].output == edited, "what somebody edited is the photo's output"
    made: list[FileResult] = []
    convert_folder(photos, out, on_file=made.append)
    assert [result.path.name for result in made if result.state == "converted"] == ["A000210.jpg"]
    assert [result.path.name for result in made if result.kind == "exists"] == ["B000589.jpg"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"suffix": "_anime", "format": "jpg"}], ids=["plain", "suffix"])
def test_a_photo_that_was_renamed_is_another_photo_for_readers_and_runs_alike(
    photos: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    out = tmp_path / "out"
    convert_folder(photos, out, **settings)
    (photos / "A000210.jpg").rename(photos / "renamed.jpg")
    (photos / "sub" / "B000589.jpg").rename(photos / "B000589.jpg")
    items = _named(list(read_results([photos], out)))
    waiting = {name for name, item in items.items() if item.state == PENDING}
    assert waiting == {"renamed.jpg", "B000589.jpg"}
    made: list[FileResult] = []
    convert_folder(photos, out, on_file=made.append, **settings)
    assert {str(result.path.relative_to(photos)) for result in made if result.state == "converted"} == waiting
    assert all(item.state == DONE for item in read_results([photos], out))


def test_a_face_is_beside_the_same_face_of_other_runs(crowd: Path, tmp_path: Path) -> None:
    few, low = tmp_path / "few", tmp_path / "low"
    convert_folder(crowd / "in", few, max_faces=1, no_face="skip")
    convert_folder(crowd / "in", low, min_face=90, no_face="skip")
    outs = [few, crowd / "off", crowd / "crop", low]
    photos = {rows[0][0].name: rows for rows in read_photos([crowd / "in"], outs)}
    assert [len(rows) for rows in photos.values()] == [1, 3, 1, 1, 1]
    rows = photos["group.jpg"]
    assert [[item.label for item in row] for row in rows] == [[f"group.jpg, face {n}"] * 4 for n in (1, 2, 3)]
    assert [[item.output.name if item.output else item.state for item in row] for row in rows] == [
        [NOBODY, "group.png", "group-1.png", "group-1.png"],
        ["group-1.png", "group.png", "group-2.png", "group-2.png"],
        [NOBODY, "group.png", "group-3.png", "group-3.png"],
    ]
    assert [item.output.name if item.output else item.state for item in photos["nobody.png"][0]] == [
        *(NOBODY, "nobody.png", NOBODY, NOBODY),
    ]
    assert {facts.rows for facts in summarise([crowd / "in"], outs)} == {7}
    assert [facts.faces for facts in summarise([crowd / "in"], outs)] == [2, 0, 4, 4]
    both = list(read_columns([crowd / "in"], [crowd / "paste", crowd / "off"]))
    assert len(both) == 5 and not any(item.frame or item.face for row in both for item in row)
