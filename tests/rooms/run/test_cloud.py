"""Object stores: the real command and model against a real S3 endpoint on loopback."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from composites import group
from conftest import PHOTOS, Command, tree
from PIL import Image
from store_support import Bucket, free_port, needs_store, served, throttled

from h2a_batch import FileResult, convert_folder
from h2a_batch.errors import PhotoError, UsageError
from h2a_batch.ledger import mirror
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.ledger.records import Output
from h2a_batch.places import Address, Remote, address, at
from h2a_batch.sources.source import Source

pytestmark = [pytest.mark.slow, needs_store]
PORTRAITS = sorted(PHOTOS.glob("*.jpg"))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "moto.log"


@pytest.fixture(scope="module")
def endpoint(log: Path) -> Iterator[str]:
    with served(log.parent) as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of its own, also for what runs in this process."""
    bucket = Bucket(endpoint, f"photos-{uuid.uuid4().hex[:8]}", tmp_path / "state")
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


def test_a_bucket_becomes_another_prefix_and_only_news_are_done_again(
    bucket: Bucket, photos: Path, tmp_path: Path, h2a: Command, log: Path
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
    outputs = {line["input"]: line["output"] for line in lines}
    assert outputs[bucket.url("in/A000210.jpg")] == bucket.url("out/here/A000210.png")
    made = bucket.tree("out/here")
    assert made.pop("photo without a suffix.png") == made["A000210.png"]
    assert made == tree(tmp_path / "local") and {"party-1.png", "party-3.png", "sub/B000711.png"} <= set(made)
    assert bucket.tree("in") == before
    table = csv.DictReader(io.StringIO(bucket.get("out/here/.h2a-batch/report.csv").decode()))
    assert {row["input"] for row in table if row["state"] == "failed"} == {bucket.url("in/broken.jpg")}

    head = bucket.client.head_object(Bucket=bucket.name, Key="out/here/A000210.png")
    assert head["ContentType"] == "image/png"

    bucket.delete("in/broken.jpg")
    bucket.delete("in/photo without a suffix")
    start = log.stat().st_size
    again = bucket.run(h2a, bucket.url("in/"), bucket.url("out/here"))
    assert again.returncode == 0 and "0 converted, 7 skipped, 0 failed" in again.stderr, again.stderr
    asked = [line.split('"')[1] for line in log.read_text()[start:].splitlines() if f"/{bucket.name}" in line]
    assert asked and not any(f"/{bucket.name}/in/" in line for line in asked), "no photo is read"
    assert not any(line.startswith("PUT") and "running.json" not in line for line in asked), "nothing new to be kept"
    with Image.open(PORTRAITS[1]) as image, io.BytesIO() as data:
        image.rotate(180).save(data, "JPEG")
        bucket.put(f"in/{PORTRAITS[0].name}", data.getvalue())
    bucket.delete("out/here/party-2.png")
    bucket.put("in/A000365.jpg", PORTRAITS[1].read_bytes())  # touched, and the same
    bucket.put("out/here/sub/B000589.png", PORTRAITS[2].read_bytes())  # edited: kept
    seen: list[FileResult] = []
    convert_folder(bucket.url("in"), bucket.url("out/here"), on_file=seen.append)
    news = {bucket.url(f"in/{name}.jpg") for name in ("A000210", "party")}
    assert {str(result.path) for result in seen if result.state == "converted"} == news
    assert bucket.get("out/here/sub/B000589.png") == PORTRAITS[2].read_bytes()
    assert bucket.get("out/here/party-2.png") == made["party-2.png"]


def test_from_a_folder_to_a_bucket_and_back(bucket: Bucket, photos: Path, tmp_path: Path, h2a: Command) -> None:
    convert_folder(photos, tmp_path / "local")
    there = [convert_folder(photos, bucket.url("out")) for _ in range(2)]
    assert bucket.tree("out") == tree(tmp_path / "local") and (there[0].converted, there[1].skipped) == (6, 6)
    bucket.put_tree(photos, "in")
    bucket.put("in//etc/two.jpg", PORTRAITS[0].read_bytes())
    back = bucket.run(h2a, bucket.url("in"), tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "local")
    assert back.returncode == 1 and "in//etc/two.jpg: its key has two slashes" in back.stderr
    bucket.delete("in//etc/two.jpg")
    assert convert_folder(bucket.url("in"), tmp_path / "out").skipped == 6
    one = convert_folder([bucket.url("in/A000210.jpg"), photos / "A000365.jpg"], tmp_path / "named")
    assert one.exit_code == 0 and set(tree(tmp_path / "named")) == {"A000210.png", "A000365.png"}


def test_in_place_originals_and_foreign_objects_are_kept(bucket: Bucket, photos: Path) -> None:
    bucket.put_tree(photos, "in")
    bucket.put("in/A000210_anime.png", b"\x89PNG\r\n\x1a\n of somebody's")
    bucket.put("in/a.JPG", PORTRAITS[0].read_bytes())
    bucket.put("in/A.jpg", PORTRAITS[1].read_bytes())
    before = bucket.tree("in")
    for _ in range(2):
        done = convert_folder(bucket.url("in").replace("s3", "s3a"), bucket.url("in"), overwrite=True)
        assert (done.converted, done.skipped, done.failed) == (8, 0, 1)
    after = bucket.tree("in")
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 8
    bucket.put("out/A000365.png", b"somebody's")
    seen: list[FileResult] = []
    convert_folder(bucket.url("in/A000365.jpg"), bucket.url("out"), dry_run=True, on_file=seen.append)
    assert [result.kind for result in seen] == ["exists"] and bucket.get("out/A000365.png") == b"somebody's"


def test_killed_and_resumed_here_or_on_another_machine(
    bucket: Bucket, many: Path, tmp_path: Path, h2a: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sorted(many.iterdir())[30:]:
        path.unlink()
    convert_folder(many, tmp_path / "undisturbed")
    wanted = {name: data for name, data in tree(tmp_path / "undisturbed").items() if name != "029.png"}
    bucket.put_tree(many, "in")
    process = bucket.start(bucket.url("in"), bucket.url("out"), "-q")
    _wait_for_objects(bucket, "out", 3)
    process.send_signal(signal.SIGSTOP)  # so that it has not ended before the others have begun
    second = bucket.run(h2a, bucket.url("in"), bucket.url("out"))
    assert second.returncode == 2 and f"process {process.pid}" in second.stderr, second.stderr
    elsewhere = bucket.run(h2a, bucket.url("in"), bucket.url("out"), XDG_STATE_HOME=str(tmp_path / "other"))
    assert elsewhere.returncode == 2 and f"process {process.pid} on" in elsewhere.stderr, elsewhere.stderr
    assert len(elsewhere.stderr.splitlines()) == 1
    process.kill()
    process.wait()
    left = bucket.tree("out")
    assert len(left) < 29 and left.items() <= wanted.items()
    bucket.put("out/029.png", b"somebody's")  # since then, and so not of that run

    resumed = bucket.start(bucket.url("in"), bucket.url("out"), "-q")  # with the ledger that is here
    _wait_for_objects(bucket, "out", len(left) + 4)
    resumed.kill()
    resumed.wait()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    monkeypatch.setattr(mirror, "_ALIVE", 0.0)  # as if some minutes had passed
    seen: list[FileResult] = []
    last = convert_folder(bucket.url("in"), bucket.url("out"), on_file=seen.append)
    assert (last.converted, last.failed, last.exist) == (29, 0, 1)
    assert [str(result.path) for result in seen if result.kind == "exists"] == [bucket.url("in/029.jpg")]
    assert bucket.tree("out") == {**wanted, "029.png": b"somebody's"}
    assert set(bucket.tree("out/.h2a-batch", hidden=True)) == {"ledger.sqlite", "report.csv"}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "third"))
    third = convert_folder(bucket.url("in"), bucket.url("out"))
    assert (third.converted, third.skipped, third.failed) == (0, 30, 0)


def test_what_a_dead_run_left_is_told_from_what_is_of_others(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = address(bucket.url("out"))
    assert isinstance(out, Remote)
    with Ledger(out, "{}") as ledger:  # two faces of a photo, whose own name is kept for it
        task = ledger.start(_source(out, "p"), "p.png")
        for name in ("p-1.png", "p-2.png"):
            ledger.reserve(task, name)
            at(out / name).write(b"first")
        ledger.done(task, "0", [Output("p-1.png", 5), Output("p-2.png", 5)], 0.1)
    dead = Ledger(out, '{"faces": "off"}')
    for name in ("p.png", "p-1.png", "q.png"):
        at(out / name).write(b"and again")
    dead._release()  # as if killed: nothing that it knew was copied to OUT
    bucket.put("out/p-2.png", b"edited since")
    bucket.put("out/r.png", b"somebody's")
    body = {"Bucket": bucket.name, "Key": "out/copy.png", "CopySource": f"{bucket.name}/out/q.png"}
    bucket.client.copy_object(**body)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    monkeypatch.setattr(mirror, "_ALIVE", 0.0)
    with Ledger(out, "{}") as ledger:
        sizes = {name: ledger.size(f"{name}.png") for name in ("p", "p-1", "p-2", "q", "r", "copy")}
        assert sizes == {"p": None, "p-1": None, "p-2": 12, "q": None, "r": 10, "copy": 9}
        assert ledger.is_output(out / "q.png") and not ledger.is_output(out / "r.png")
    with Ledger(out, "{}") as ledger:  # nobody made them anew: they are still known
        assert ledger.size("q.png") is None and ledger.size("r.png") == 10
    dead._holding.end(lost=True)
    with pytest.raises(PhotoError, match="not UTF-8"):
        at(out / os.fsdecode(b"latin-\xe9.png")).write(b"")


def _source(out: Address, name: str) -> Source:
    return Source(out / f"{name}.jpg", f"s3://elsewhere/{name}.jpg", f"{name}.png", 1, 1)


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
    source, nobody = bucket.url("in"), f"http://127.0.0.1:{free_port()}"
    for inputs, out, settings, words in (
        (source, "s3://no-such-bucket-here/out", {}, "there is no such bucket"),
        ("s3://no-such-bucket-here/in", "out", {}, "there is no such bucket"),
        (bucket.url("typo"), "out", {}, "no such object, and none below it"),
        (source, bucket.url("in/A000210.jpg"), {}, "OUT is an object"),
        (photos, "s3://", {}, "names no bucket"),
        (photos, bucket.url("out"), {"endpoint": nobody}, nobody),
        (photos, bucket.url("out"), {"endpoint": "nowhere"}, "--endpoint nowhere"),
        (photos, "nonsense://bucket/out", {}, "not a kind of store"),
        (photos, bucket.url("out"), {"report": "."}, "--report is for folders"),
        (photos, bucket.url("out"), {"contact_sheet": "a.jpg"}, "--contact-sheet is for folders"),
        (source, "out", {"on_success": "delete"}, "--on-success is for folders"),
        (source, "out", {"watch": True}, "--watch is for folders"),
        (source, f"obs://{bucket.name}/out", {}, "name the same store here"),
    ):
        with pytest.raises(UsageError) as error:
            convert_folder(inputs, out, **settings)  # type: ignore[arg-type]
        assert words in str(error.value) and "\n" not in str(error.value), error.value
    done = bucket.run(h2a, bucket.url("typo"), bucket.url("out"))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
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


def test_thousands_of_keys_come_page_by_page(bucket: Bucket, photos: Path, log: Path) -> None:
    names = [f"{number % 7}/{number:04d}.png" for number in range(2050)]
    bucket.put_all({f"in/{name}": b"\x89PNG" for name in names})
    start = log.stat().st_size
    seen: list[FileResult] = []
    convert_folder(bucket.url("in"), bucket.url("out"), dry_run=True, on_file=seen.append)
    assert {str(result.path) for result in seen} == {bucket.url(f"in/{name}") for name in names}
    assert {result.state for result in seen} == {"planned"}
    pages = [line for line in log.read_text()[start:].splitlines() if "max-keys=1000" in line and "prefix=in" in line]
    assert len(pages) == 3 and not bucket.tree("out", hidden=True), "a dry run writes nothing"
    (photos / "6").mkdir()
    (photos / "A000210.jpg").rename(photos / "6" / "2043.jpg")  # the name of one on the last page
    seen.clear()
    convert_folder(photos, bucket.url("in"), dry_run=True, on_file=seen.append)
    assert [result.path.name for result in seen if result.kind == "exists"] == ["2043.jpg"]


def test_obs_is_spoken_over_s3_and_a_busy_store_is_waited_for(bucket: Bucket, photos: Path, h2a: Command) -> None:
    bucket.put_tree(photos, "in")
    keys = {"OBS_ACCESS_KEY_ID": "a-key", "OBS_SECRET_ACCESS_KEY": "a-secret", "AWS_ACCESS_KEY_ID": ""}
    url = f"obs://{bucket.name}"
    with throttled(bucket.endpoint, 4) as busy:
        done = bucket.run(h2a, f"{url}/in", f"{url}/out", "--endpoint", busy, **keys)
    assert done.returncode == 0 and "6 converted" in done.stderr and len(bucket.tree("out")) == 6, done.stderr


def _wait_for_objects(bucket: Bucket, prefix: str, count: int) -> None:
    end = time.monotonic() + 120
    while len([name for name in bucket.tree(prefix) if name.endswith(".png")]) < count:
        assert time.monotonic() < end, "no outputs came"
        time.sleep(0.1)
