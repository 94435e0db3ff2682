"""The real command, started as a user starts it."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import random
import shlex
import shutil
import signal
import sqlite3
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest
from composites import bomb
from conftest import PHOTOS, ROOT, Command, command_line, leftovers, tree
from PIL import Image

PORTRAITS = sorted(PHOTOS.glob("*.jpg"))


def _broken_folder(folder: Path) -> set[str]:
    """A dozen kinds of broken files, and the names under which they should be reported."""
    good = PORTRAITS[0].read_bytes()
    png = io.BytesIO()
    Image.new("RGB", (300, 300), "red").save(png, "PNG")
    tiff = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(tiff, "TIFF", compression="tiff_lzw")
    webp = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(webp, "WEBP")
    files = {
        "01 empty.jpg": b"",
        "02 truncated.jpg": good[: len(good) // 2],
        "03 truncated.png": png.getvalue()[: len(png.getvalue()) // 2],
        "04 truncated.webp": webp.getvalue()[:300],
        "05 truncated.tif": tiff.getvalue()[: len(tiff.getvalue()) // 2],
        "06 text.jpg": b"Dear diary, this is not a picture.",
        "07 header only.jpg": good[:20],
        "08 garbage in the middle.png": png.getvalue()[:60] + os.urandom(200) + png.getvalue()[260:],
        "09 bomb.png": bomb(60000, 60000),
        "10 zeros.gif": b"\0" * 5000,
        "11 page.html.jpg": b"<!DOCTYPE html><html>403 Forbidden</html>",
        "12 header.bmp": b"BM" + b"\xff" * 12 + b"\x28\0\0\0" + b"\xff" * 60,
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    os.symlink("nowhere.jpg", folder / "13 link.jpg")
    return {*files, "13 link.jpg"}


def _wait_for(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def _start(*arguments: object, **keywords: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        command_line(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords
    )


def test_a_folder_is_converted_and_the_summary_says_so(h2a: Command, photos: Path, tmp_path: Path) -> None:
    done = h2a(photos, tmp_path / "out", "--contact-sheet", tmp_path / "out" / "sheet.jpg")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "6 converted, 0 skipped, 0 failed" in done.stderr and "photos/s" in done.stderr
    assert "report.csv" in done.stderr and "sheet.jpg" in done.stderr
    assert all(line.startswith(("6 converted", "table:", "contact sheet:")) for line in done.stderr.splitlines()), (
        "the libraries' own log must not reach the user"
    )
    assert len(tree(tmp_path / "out")) == 7


@pytest.mark.slow
def test_bad_files_are_named_and_good_ones_converted(h2a: Command, photos: Path, tmp_path: Path) -> None:
    bad = _broken_folder(photos)
    shutil.copyfile(photos / "A000210.jpg", photos / "really a jpeg.png")
    (photos / "notes.txt").write_text("not a picture, and does not claim to be")
    (photos / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    done = h2a(photos, tmp_path / "out")
    assert done.returncode == 1
    assert f"7 converted, 0 skipped, {len(bad)} failed, 2 other files ignored" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(str(photos))]
    assert len(lines) == len(bad), done.stderr
    for name in bad:
        assert sum(line.startswith(f"{photos / name}: ") for line in lines) == 1, name
    assert "Traceback" not in done.stderr and "WARNING" not in done.stderr
    assert "178 million pixels" in done.stderr
    assert not leftovers(tmp_path)
    again = h2a(photos, tmp_path / "out")
    assert again.returncode == 1 and f"0 converted, 7 skipped, {len(bad)} failed" in again.stderr


@pytest.mark.slow
def test_json_has_a_line_for_each_file(h2a: Command, photos: Path, tmp_path: Path) -> None:
    (photos / "new\nline.jpg").write_bytes(b"")
    done = h2a(photos, tmp_path / "out", "--json", "-q")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(line["state"] for line in lines) == ["converted"] * 6 + ["failed"]
    failed = next(line for line in lines if line["state"] == "failed")
    assert failed["kind"] == "empty" and failed["input"].endswith("new\nline.jpg") and failed["output"] is None
    assert len(done.stderr.splitlines()) == 1 and "\\n" in done.stderr
    states = {json.loads(line)["state"] for line in h2a(photos, tmp_path / "out", "--json").stdout.splitlines()}
    assert states == {"skipped", "failed"}


def test_a_dry_run_lists_and_makes_nothing(h2a: Command, photos: Path, tmp_path: Path) -> None:
    done = h2a(photos, tmp_path / "out", "--dry-run", "--format", "webp")
    assert done.returncode == 0 and not (tmp_path / "out").exists()
    assert (
        f"{photos / 'sub' / 'B000589.jpg'} -> {tmp_path / 'out' / 'sub' / 'B000589.webp'}" in done.stdout.splitlines()
    )
    assert len(done.stdout.splitlines()) == 6 and "6 to convert" in done.stderr
    h2a(photos, tmp_path / "out", "--limit", "2")
    before = sorted((tmp_path / "out").rglob("*"))
    assert len(h2a(photos, tmp_path / "out", "--dry-run").stdout.splitlines()) == 4
    assert sorted((tmp_path / "out").rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/no/such/folder", "out"], "no such file or folder"),
        (["in", "out", "--size", "huge"], "--size huge"),
        (["in", "out", "--model", "nobody"], "no model named 'nobody'"),
        (["in", "out", "--model", "in/A000210.jpg"], "not a .mindir file"),
        (["in", "out", "--workers", "many"], "--workers many"),
        (["in", "out", "--contact-sheet", "sheet.doc"], "--contact-sheet"),
        (["in", "out", "--device", "cuda"], "--device cuda"),
        (["in"], "no input"),
        (["in", "/proc/none/out"], "/proc/none/out"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    h2a: Command, photos: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = h2a(*arguments)
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_explained(h2a: Command, photos: Path, tmp_path: Path) -> None:
    if Path("/dev/davinci_manager").exists():
        pytest.skip("this machine has an Ascend device")
    done = h2a(photos, tmp_path / "out", "--device", "ascend:0")
    assert done.returncode == 2 and "--device cpu" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_version_and_help(h2a: Command) -> None:
    assert h2a("--version").stdout.startswith("h2a-batch 0.")
    text = h2a("--help").stdout
    assert all(group in text for group in ("output:", "running:", "behaviour:"))


def test_a_c_locale_does_not_matter(h2a: Command, photos: Path, tmp_path: Path) -> None:
    (photos / "A000210.jpg").rename(photos / "\u5c71\u7530.jpg")
    (photos / "\u592a\u90ce.jpg").write_bytes(b"")
    (photos / os.fsdecode(b"latin-\xe9.jpg")).write_bytes(b"")
    locale = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = h2a(photos, tmp_path / "out", "-v", "--json", env=locale)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (tmp_path / "out" / "\u5c71\u7530.png").exists()


def test_options_may_stand_anywhere(h2a: Command, photos: Path, tmp_path: Path) -> None:
    done = h2a(photos, "--format", "jpg", tmp_path / "out", "--limit", "1")
    assert done.returncode == 0 and list((tmp_path / "out").glob("*.jpg"))


def test_a_contact_sheet_never_replaces_a_photo(h2a: Command, photos: Path, tmp_path: Path) -> None:
    before = tree(photos)
    done = h2a(photos, tmp_path / "out", "--overwrite", "--contact-sheet", photos / "A000210.jpg")
    assert done.returncode == 2 and "choose another name" in done.stderr and tree(photos) == before


def test_a_model_that_does_not_load_leaves_no_trace(h2a: Command, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mindir").write_bytes((ROOT / "models" / "anime-256.mindir").read_bytes()[:50_000])
    done = h2a(photos, tmp_path / "out", "--model", tmp_path / "cut.mindir")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_readers_that_go_away_end_the_run_quietly(photos: Path, tmp_path: Path) -> None:
    command = " ".join(map(shlex.quote, command_line(photos, tmp_path / "out", "--json")))
    done = subprocess.run(["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert done.stdout.strip() in ("0", "130") and done.stderr.count("\n") <= 2 and "rror" not in done.stderr
    closed = subprocess.run(["bash", "-c", f"{command} 2>&- >/dev/null"], timeout=60)
    assert closed.returncode == 0 and len(tree(tmp_path / "out")) == 6


def test_an_unreachable_input_is_one_line(h2a: Command, tmp_path: Path) -> None:
    for inputs in (tmp_path / ("x" * 300), "/proc/1/cwd/none"):
        done = h2a(inputs, tmp_path / "out")
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "report this" not in done.stderr


def test_a_terminal_shows_a_bar(photos: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(command_line(photos, tmp_path / "out"), stderr=theirs, stdout=theirs)
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 4096):
            text += chunk
    except OSError:  # Linux ends a terminal so
        pass
    assert process.wait(60) == 0
    assert b"6/6" in text and b"photo/s" in text and b"6 converted" in text


@pytest.mark.slow
def test_two_runs_on_one_folder_do_not_mix(many: Path, tmp_path: Path, h2a: Command) -> None:
    first = _start(many, tmp_path / "out", "-q")
    _wait_for(lambda: list((tmp_path / "out").glob("*.png")))
    second = h2a(many, tmp_path / "out")
    assert second.returncode == 2 and f"process {first.pid}" in second.stderr
    assert first.wait(120) == 0 and len(tree(tmp_path / "out")) == 60


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_what_is_in_flight(many: Path, tmp_path: Path, h2a: Command, number: signal.Signals) -> None:
    process = _start(many, tmp_path / "out")
    _wait_for(lambda: list((tmp_path / "out").glob("*.png")))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; run the same command again" in errors and "Traceback" not in errors
    assert not leftovers(tmp_path)
    done = len(tree(tmp_path / "out"))
    assert 0 < done < 60
    with sqlite3.connect(tmp_path / "out" / ".h2a-batch" / "ledger.sqlite") as db:
        assert db.execute("SELECT count(*) FROM files WHERE state = 'done'").fetchone() == (done,)
    again = h2a(many, tmp_path / "out")
    assert f"{60 - done} converted, {done} skipped, 0 failed" in again.stderr


@pytest.mark.slow
def test_killed_while_outputs_are_made_again_with_other_settings(many: Path, tmp_path: Path, h2a: Command) -> None:
    out, chance = tmp_path / "out", random.Random(3)
    assert h2a(many, tmp_path / "undisturbed", "--size", "200").returncode == 0
    assert h2a(many, out).returncode == 0
    for _ in range(5):
        process = _start(many, out, "--size", "200", "-q")
        time.sleep(chance.uniform(1.5, 3))
        process.kill()
        process.wait()
    done = h2a(many, out, "--size", "200")
    assert done.returncode == 0 and "other origin" not in done.stderr, done.stderr
    assert tree(out) == tree(tmp_path / "undisturbed") and not leftovers(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True], ids=["out", "in-place"])
def test_killed_ten_times_and_resumed_ends_as_if_undisturbed(
    many: Path, tmp_path: Path, h2a: Command, in_place: bool
) -> None:
    undisturbed = tmp_path / "undisturbed"
    suffix = ["--suffix", "_anime"]
    assert h2a(many, undisturbed, *suffix).returncode == 0
    originals = tree(many)
    out = many if in_place else tmp_path / "out"
    chance = random.Random(7)
    for _ in range(10):
        process = _start(many, out, *suffix, "-q")
        _wait_for(lambda: (out / ".h2a-batch" / "lock").exists())
        time.sleep(chance.uniform(0.2, 2.5))
        process.kill()
        process.wait()
        for name, data in tree(out).items():
            if name not in originals:
                assert data == (undisturbed / name).read_bytes(), f"{name} is not whole"
    done = h2a(many, out, *suffix)
    assert done.returncode == 0, done.stderr
    assert tree(out) == ({**originals, **tree(undisturbed)} if in_place else tree(undisturbed))
    assert not leftovers(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_stops_the_run_and_the_next_goes_on(many: Path, tmp_path: Path, h2a: Command) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this container may not mount")
    try:
        full = h2a(many, disk / "out")
        assert full.returncode == 1 and "Traceback" not in full.stderr
        assert "space" in full.stderr.splitlines()[-1], full.stderr
        assert not leftovers(disk)
        for path in (disk / "out").glob("*.png"):
            with Image.open(path) as image:
                image.load()
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        done = h2a(many, disk / "out")
        assert done.returncode == 0 and len(tree(disk / "out")) == 60
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_permissions_are_explained(photos: Path, tmp_path: Path, h2a: Command) -> None:
    (photos / "A000210.jpg").chmod(0)
    done = h2a(photos, tmp_path / "out")
    assert done.returncode == 1 and "no permission to read the file" in done.stderr


def test_a_folder_in_the_way_of_an_output_costs_one_file(photos: Path, tmp_path: Path, h2a: Command) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file where a folder should be")
    done = h2a(photos, tmp_path / "out")
    assert done.returncode == 1 and "4 converted, 0 skipped, 2 failed" in done.stderr


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(many: Path, tmp_path: Path) -> None:
    def peak(limit: int, out: Path) -> int:
        script = (
            "import resource, sys; from h2a_batch.command.convert import main; code = main(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
        )
        command = command_line(many, out, "--limit", limit, "-q", "--workers", "1:1:1")
        command[1:3] = ["-c", script]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    few, all_of_them = peak(5, tmp_path / "a"), peak(60, tmp_path / "b")
    assert all_of_them < few + 20_000, "kilobytes"


def test_the_launcher_runs_from_anywhere(photos: Path, tmp_path: Path) -> None:
    if not (ROOT / ".venv").exists():
        pytest.skip("scripts/test makes the environment that the launcher uses")
    link = tmp_path / "h2a"
    link.symlink_to(ROOT / "scripts" / "h2a-batch")
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for arguments, words in ((["in", "out"], "6 converted"), (["in", "out"], "6 skipped")):
        done = subprocess.run([link, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=usual)
        assert done.returncode == 0 and words in done.stderr, done.stderr


def test_compiled_files_of_the_wheel_tool_do_not_disturb_the_launcher(tmp_path: Path) -> None:
    """Python leaves a folder beside the tool's sources; what the environment depends on is files alone."""
    cache = ROOT / "scripts" / "mindspore_lite" / "__pycache__"
    made = not cache.exists()
    cache.mkdir(exist_ok=True)
    try:
        script = f'set -euo pipefail; . "{ROOT}/scripts/environment.sh"; fingerprint ""'
        done = subprocess.run(["bash", "-c", script, ROOT / "scripts" / "test"], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip() and not done.stderr, done.stderr
    finally:
        if made:
            cache.rmdir()
