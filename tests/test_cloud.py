"""Object stores: the real command and model against a real S3 endpoint on loopback."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PHOTOS, Command, tree
from PIL import Image
from store_support import KEYS, Bucket, free_port, needs_store, served
from test_portraits import group

from h2a_batch import convert_folder, mirror

pytestmark = [pytest.mark.slow, needs_store]
PORTRAITS = sorted(PHOTOS.glob("*.jpg"))


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("store")) as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path) -> Bucket:
    return Bucket(endpoint, f"photos-{uuid.uuid4().hex[:8]}", tmp_path / "state")


def test_a_bucket_becomes_another_prefix_and_only_news_are_done_again(
    bucket: Bucket, photos: Path, tmp_path: Path, h2a: Command
) -> None:
    group(photos / "party.jpg", 0, 1, 2)
    local = convert_folder(photos, tmp_path / "local")
    bucket.put_tree(photos, "in")
    bucket.put("in/notes.txt", b"not a picture")
    bucket.put("in/sub/", b"")  # as consoles make folders
    bucket.put("in/photo without a suffix", PORTRAITS[0].read_bytes())
    bucket.put("in/broken.jpg", PORTRAITS[0].read_bytes()[:5000])
    before = bucket.tree("in")
    done = bucket.run(h2a, bucket.url("in"), bucket.url("out/here"), "--json", "--endpoint", bucket.endpoint)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert f"{local.converted + 1} converted (3 faces), 0 skipped, 1 failed" in done.stderr, done.stderr
    failed = [line for line in lines if line["state"] == "failed"]
    assert [(line["input"], line["kind"]) for line in failed] == [(bucket.url("in/broken.jpg"), "truncated")]
    assert {line["output"] for line in lines if line["input"] == bucket.url("in/A000210.jpg")} == {
        bucket.url("out/here/A000210.png")
    }
    made = bucket.tree("out/here")
    assert made.pop("photo without a suffix.png") == made["A000210.png"]
    assert made == tree(tmp_path / "local") and {"party-1.png", "party-3.png", "sub/B000711.png"} <= set(made)
    assert bucket.tree("in") == before
    table = csv.DictReader(io.StringIO(bucket.get("out/here/.h2a-batch/report.csv").decode()))
    assert {row["input"] for row in table if row["state"] == "failed"} == {bucket.url("in/broken.jpg")}

    bucket.delete("in/broken.jpg")
    again = bucket.run(h2a, bucket.url("in/"), bucket.url("out/here"))
    assert again.returncode == 0 and "0 converted, 8 skipped, 0 failed" in again.stderr, again.stderr
    with Image.open(PORTRAITS[1]) as image, io.BytesIO() as data:
        image.rotate(180).save(data, "JPEG")
        bucket.put(f"in/{PORTRAITS[0].name}", data.getvalue())
    bucket.delete("out/here/party-2.png")
    bucket.put("in/A000365.jpg", PORTRAITS[1].read_bytes())  # touched, and the same
    bucket.put("out/here/sub/B000589.png", PORTRAITS[2].read_bytes())  # edited: kept
    third = bucket.run(h2a, bucket.url("in"), bucket.url("out/here"), "--json")
    states = {json.loads(line)["input"]: json.loads(line)["state"] for line in third.stdout.splitlines()}
    assert {name for name, state in states.items() if state == "converted"} == {
        bucket.url("in/A000210.jpg"),
        bucket.url("in/party.jpg"),
    }, third.stdout
    assert bucket.get("out/here/sub/B000589.png") == PORTRAITS[2].read_bytes()
    assert bucket.get("out/here/party-2.png") == made["party-2.png"]


def test_from_a_folder_to_a_bucket_and_back(bucket: Bucket, photos: Path, tmp_path: Path, h2a: Command) -> None:
    convert_folder(photos, tmp_path / "local")
    there = bucket.run(h2a, photos, bucket.url("out"))
    assert there.returncode == 0 and bucket.tree("out") == tree(tmp_path / "local"), there.stderr
    assert "6 skipped" in bucket.run(h2a, photos, bucket.url("out")).stderr
    bucket.put_tree(photos, "in")
    bucket.put("in//etc/two.jpg", PORTRAITS[0].read_bytes())
    back = bucket.run(h2a, bucket.url("in"), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "local")
    assert back.returncode == 1 and "in//etc/two.jpg: its key has two slashes" in back.stderr
    bucket.delete("in//etc/two.jpg")
    assert "6 skipped" in bucket.run(h2a, bucket.url("in"), tmp_path / "out").stderr
    one = bucket.run(h2a, bucket.url("in/A000210.jpg"), photos / "A000365.jpg", tmp_path / "named")
    assert one.returncode == 0 and set(tree(tmp_path / "named")) == {"A000210.png", "A000365.png"}, one.stderr


def test_in_place_originals_and_foreign_objects_are_kept(bucket: Bucket, photos: Path, h2a: Command) -> None:
    bucket.put_tree(photos, "in")
    bucket.put("in/A000210_anime.png", b"\x89PNG\r\n\x1a\n of somebody's")
    before = bucket.tree("in")
    for _ in range(2):
        done = bucket.run(h2a, bucket.url("in"), bucket.url("in"), "--overwrite")
        assert "6 converted, 0 skipped, 1 failed" in done.stderr, done.stderr
    after = bucket.tree("in")
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 6
    bucket.put("out/A000365.png", b"somebody's")
    kept = bucket.run(h2a, bucket.url("in"), bucket.url("out"), "--json", "--dry-run")
    assert '"exists"' in kept.stdout and bucket.get("out/A000365.png") == b"somebody's", kept.stdout


def test_killed_and_resumed_here_or_on_another_machine(
    bucket: Bucket, many: Path, tmp_path: Path, h2a: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_folder(many, tmp_path / "undisturbed")
    bucket.put_tree(many, "in")
    process = bucket.start(bucket.url("in"), bucket.url("out"), "-q")
    _wait_for_objects(bucket, "out", 8)
    process.send_signal(signal.SIGSTOP)  # so that it has not ended before the others have begun
    second = bucket.run(h2a, bucket.url("in"), bucket.url("out"))
    assert second.returncode == 2 and f"process {process.pid}" in second.stderr, second.stderr
    elsewhere = bucket.run(h2a, bucket.url("in"), bucket.url("out"), XDG_STATE_HOME=str(tmp_path / "other"))
    assert elsewhere.returncode == 2 and f"process {process.pid} on" in elsewhere.stderr, elsewhere.stderr
    assert len(elsewhere.stderr.splitlines()) == 1
    process.kill()
    process.wait()
    left = bucket.tree("out")
    assert len(left) < 60 and all(data == (tmp_path / "undisturbed" / name).read_bytes() for name, data in left.items())

    resumed = bucket.start(bucket.url("in"), bucket.url("out"), "-q")  # with the ledger that is here
    _wait_for_objects(bucket, "out", len(left) + 8)
    resumed.kill()
    resumed.wait()
    for name, value in {**KEYS, "XDG_STATE_HOME": str(tmp_path / "another")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mirror, "_ALIVE", 0.0)  # as if some minutes had passed
    seen = []
    last = convert_folder(
        bucket.url("in"), bucket.url("out"), endpoint=bucket.endpoint, on_file=lambda result: seen.append(result.kind)
    )
    assert (last.failed, last.exist) == (0, 0) and "exists" not in seen
    assert bucket.tree("out") == tree(tmp_path / "undisturbed")
    assert set(bucket.tree("out/.h2a-batch", hidden=True)) == {"ledger.sqlite", "report.csv"}
    third = bucket.run(h2a, bucket.url("in"), bucket.url("out"), XDG_STATE_HOME=str(tmp_path / "third"))
    assert third.returncode == 0 and "0 converted, 60 skipped, 0 failed" in third.stderr, third.stderr


def test_an_endpoint_that_goes_away_stops_the_run_and_the_next_goes_on(
    many: Path, tmp_path: Path, h2a: Command
) -> None:
    with served(tmp_path) as address:
        gone = Bucket(address, "photos", tmp_path / "state")
        process = gone.start(many, gone.url("out"), "-q")
        _wait_for_objects(gone, "out", 3)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and len(errors.splitlines()) == 1, errors
    assert "cannot be written" in errors and "it goes on from here" in errors and "Traceback" not in errors


def test_what_cannot_be_used_is_one_line_and_exit_code_2(bucket: Bucket, photos: Path, h2a: Command) -> None:
    bucket.put_tree(photos, "in")
    nobody = f"http://127.0.0.1:{free_port()}"
    for arguments, words in (
        ([bucket.url("in"), "s3://no-such-bucket-here/out"], "there is no such bucket"),
        (["s3://no-such-bucket-here/in", "out"], "there is no such bucket"),
        ([bucket.url("typo"), "out"], "no such object, and none below it"),
        ([bucket.url("in"), bucket.url("in/A000210.jpg")], "OUT is an object"),
        ([photos, "s3://"], "names no bucket"),
        ([photos, bucket.url("out"), "--endpoint", nobody], nobody),
        ([photos, bucket.url("out"), "--endpoint", "nowhere"], "--endpoint nowhere"),
        ([photos, "nonsense://bucket/out"], "not a kind of store"),
        ([photos, bucket.url("out"), "--report", "."], "--report is for folders"),
        ([photos, bucket.url("out"), "--contact-sheet", "a.jpg"], "--contact-sheet is for folders"),
        ([bucket.url("in"), "out", "--on-success", "delete"], "--on-success is for folders"),
        ([bucket.url("in"), "out", "--watch"], "--watch is for folders"),
    ):
        done = bucket.run(h2a, *arguments)
        assert done.returncode == 2 and words in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr
    obs = bucket.run(h2a, photos, "obs://bucket/out", AWS_ENDPOINT_URL="")
    assert obs.returncode == 2 and "--endpoint https://obs." in obs.stderr and len(obs.stderr.splitlines()) == 1
    assert not bucket.tree("out", hidden=True)


def test_wrong_credentials_and_none_are_one_line(tmp_path: Path, photos: Path, h2a: Command) -> None:
    with served(tmp_path, INITIAL_NO_AUTH_ACTION_COUNT="1") as address:
        closed = Bucket(address, "photos", tmp_path / "state")
        wrong = closed.run(h2a, photos, closed.url("out"))
        assert wrong.returncode == 2 and "access is denied" in wrong.stderr, wrong.stderr
        none = closed.run(h2a, photos, closed.url("out"), AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
        assert none.returncode == 2 and "no credentials were found" in none.stderr, none.stderr
        assert len(wrong.stderr.splitlines()) == len(none.stderr.splitlines()) == 1


def test_thousands_of_keys_come_page_by_page(bucket: Bucket, h2a: Command) -> None:
    tiny = PORTRAITS[0].read_bytes()[:100]
    names = [f"{number % 7}/{number:04d}.jpg" for number in range(2300)]
    bucket.put_all({f"in/{name}": tiny for name in names})
    done = bucket.run(h2a, bucket.url("in"), bucket.url("out"), "--dry-run")
    assert done.returncode == 0 and f"{len(names)} to convert" in done.stderr, done.stderr
    shown = {line.partition(" -> ")[0] for line in done.stdout.splitlines()}
    assert shown == {bucket.url(f"in/{name}") for name in names}
    assert not bucket.tree("out", hidden=True), "a dry run writes nothing"
    bucket.put_all({f"out/{name}": tiny for name in names})
    full = bucket.run(h2a, bucket.url("in"), bucket.url("out"), "--dry-run", "--format", "jpg", "--json")
    assert {json.loads(line)["kind"] for line in full.stdout.splitlines()} == {"exists"}


def test_obs_is_spoken_over_s3(bucket: Bucket, photos: Path, h2a: Command) -> None:
    bucket.put_tree(photos, "in")
    keys = {"OBS_ACCESS_KEY_ID": "a-key", "OBS_SECRET_ACCESS_KEY": "a-secret", "AWS_ACCESS_KEY_ID": ""}
    place = f"obs://{bucket.name}"
    done = bucket.run(h2a, f"{place}/in", f"{place}/out", "--endpoint", bucket.endpoint, **keys)
    assert done.returncode == 0 and "6 converted" in done.stderr and len(bucket.tree("out")) == 6, done.stderr


def _wait_for_objects(bucket: Bucket, prefix: str, count: int) -> None:
    end = time.monotonic() + 120
    while len([name for name in bucket.tree(prefix) if name.endswith(".png")]) < count:
        assert time.monotonic() < end, "no outputs came"
        time.sleep(0.1)
