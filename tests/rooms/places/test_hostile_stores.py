"""Stores that are silent, slow or flip bytes, and keys that cannot be names: a line each, and nothing wrong is kept."""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PHOTOS, Command, tree
from hostile_store import Change, flipped, gate, silent
from hypothesis import given
from hypothesis import strategies as some
from store_support import Bucket, needs_store, served

from h2a_batch.errors import PhotoError, UsageError
from h2a_batch.places import Remote, address, at, find, get, listing, put, why_no_path
from h2a_batch.places.client import DamagedError, DeniedError, FaultError, HopelessError, patience
from h2a_batch.places.objects import download, upload
from h2a_batch.places.tries import again

PORTRAITS = sorted(PHOTOS.glob("*.jpg"))
SHORT = {"H2A_STORE_PATIENCE": "0.1"}  # 3 seconds for some bytes, 6 for a try: where a store is silent
BRIEF = {"H2A_STORE_PATIENCE": "0.3"}  # so much longer, since all has to come on a busy machine


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("store")) as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of its own, also for what runs in this process, which soon gives up."""
    bucket = Bucket(endpoint, f"photos-{uuid.uuid4().hex[:8]}", tmp_path / "state")
    for name, value in {**bucket.environment, **BRIEF}.items():
        monkeypatch.setenv(name, value)
    return bucket


def _at(bucket: Bucket, endpoint: str, key: str) -> Remote:
    found = address(bucket.url(key), endpoint)
    assert isinstance(found, Remote)
    return found


def _once(verb: str, ending: str) -> Change:
    """Flip a bit in the first body of each path."""
    seen: Counter[str] = Counter()

    def change(command: str, path: str, body: bytes) -> bytes:
        plain = path.partition("?")[0]
        if command == verb and plain.endswith(ending):
            seen[path] += 1
            return flipped(body) if seen[path] == 1 else body
        return body

    return change


def _always(verb: str, ending: str) -> Change:
    """Flip a bit in each body."""

    def change(command: str, path: str, body: bytes) -> bytes:
        return flipped(body) if command == verb and path.partition("?")[0].endswith(ending) else body

    return change


@given(some.text(max_size=300))
def test_a_key_is_a_path_just_where_it_leads_to_itself(key: str) -> None:
    why = why_no_path(key)
    parts = key.split("/")
    if why is None:
        assert "\0" not in key and not {".", ".."} & set(parts) and "" not in parts[:-1]
        assert all(len(part.encode()) <= 255 for part in parts)
    else:
        assert "\n" not in why and key


@pytest.mark.parametrize(
    "key", ["/a", "a//b", "a/../b", "..", "./a", "a\0b", "a\nb", "a\x1bb", "a\x7f", "a\x85", "é" * 128, "\ud800", "x/."]
)
def test_keys_that_cannot_be_paths(key: str) -> None:
    assert why_no_path(key)


@pytest.mark.parametrize("key", ["a", "a/b.jpg", "a/", "...", ".a", "é" * 127 + "a", " ", "a\\b", "a\u202eb"])
def test_keys_that_can_be_paths(key: str) -> None:
    assert why_no_path(key) is None


def test_only_what_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2A_STORE_PATIENCE", "0.01")
    for kind, tries in ((ConnectionError, 5), (DamagedError, 5), (FaultError, 5), (DeniedError, 1)):
        calls: list[int] = []

        def fail(kind: type[OSError] = kind, calls: list[int] = calls) -> None:
            calls.append(1)
            raise kind(5, "no")

        with pytest.raises(OSError, match="no"):
            again(fail)
        assert len(calls) == tries, kind
    for wrong in ("0", "many", "nan", "-1"):
        monkeypatch.setenv("H2A_STORE_PATIENCE", wrong)
        with pytest.raises(UsageError, match="H2A_STORE_PATIENCE"):
            patience()


def test_a_client_that_cannot_ask_is_not_asked_again() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise LookupError("no such thing")

    with pytest.raises(HopelessError):
        again(fail)
    assert len(calls) == 1


@needs_store
@pytest.mark.slow
def test_a_store_that_accepts_and_never_answers_is_given_up(tmp_path: Path, photos: Path, h2a: Command) -> None:
    with silent() as nobody:
        variables = Bucket.__new__(Bucket)
        variables.endpoint, variables.state = nobody, tmp_path / "state"
        for words in ((photos, "s3://bucket/out"), ("s3://bucket/in", tmp_path / "out")):
            started = time.monotonic()
            done = variables.run(h2a, *words, **SHORT)
            assert done.returncode == 2 and "cannot be reached" in done.stderr, done.stderr
            assert len(done.stderr.splitlines()) == 1 and time.monotonic() - started < 100


@needs_store
@pytest.mark.slow
@pytest.mark.parametrize("verb", ["GET", "PUT"])
def test_a_store_that_falls_silent_ends_the_run_and_the_next_goes_on(
    verb: str, bucket: Bucket, photos: Path, h2a: Command
) -> None:
    bucket.put_tree(photos, "in")
    passed: Counter[str] = Counter()
    ending = ".jpg" if verb == "GET" else ".png"
    silence = [True]

    def request(command: str, path: str, body: bytes) -> bytes | None:
        is_photo = command == verb and path.endswith(ending)
        passed[command] += is_photo
        return None if silence and is_photo and passed[command] > 2 else body

    with gate(bucket.endpoint, request) as door:
        words = (bucket.url("in"), bucket.url("out"), "-q", "--endpoint", door)
        done = bucket.run(h2a, *words, **SHORT)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "it goes on from here" in done.stderr and "Traceback" not in done.stderr
        silence.clear()
        again = bucket.run(h2a, *words)
    assert again.returncode == 0 and len(bucket.tree("out")) == 6, again.stderr


@needs_store
@pytest.mark.slow
def test_a_store_that_sends_a_byte_now_and_then_is_given_up(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("in/a.jpg", PORTRAITS[0].read_bytes())
    monkeypatch.setenv("H2A_STORE_PATIENCE", "0.1")
    with gate(bucket.endpoint, slow=True) as door:
        started = time.monotonic()
        with pytest.raises(ConnectionError, match="in time"):
            get(_at(bucket, door, "in/a.jpg"))
        assert time.monotonic() - started < 60


@needs_store
@pytest.mark.slow
def test_bytes_that_flip_once_are_read_and_written_again(
    bucket: Bucket, photos: Path, tmp_path: Path, h2a: Command
) -> None:
    bucket.put_tree(photos, "in")
    plain = bucket.run(h2a, bucket.url("in"), bucket.url("plain"))
    assert plain.returncode == 0, plain.stderr
    for strict in (False, True):
        out = f"out-{strict}"
        with gate(bucket.endpoint, _once("PUT", ".png"), _once("GET", ".jpg"), strict) as door:
            done = bucket.run(h2a, bucket.url("in"), bucket.url(out), "--endpoint", door)
        assert done.returncode == 0 and "6 converted" in done.stderr, done.stderr
        assert bucket.tree(out) == bucket.tree("plain")


@needs_store
@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "kind", "strict"), [("GET", "unreadable", 0), ("PUT", "output", 0), ("PUT", "output", 1)]
)
def test_bytes_that_always_flip_fail_their_photo_and_no_other(
    verb: str, kind: str, strict: int, bucket: Bucket, photos: Path, tmp_path: Path, h2a: Command
) -> None:
    bucket.put_tree(photos, "in")
    change = _always(verb, "A000210.jpg" if verb == "GET" else "A000210.png")
    ways = {"answer": change} if verb == "GET" else {"request": change}
    with gate(bucket.endpoint, strict=bool(strict), **ways) as door:
        done = bucket.run(h2a, bucket.url("in"), bucket.url("out"), "--json", "--endpoint", door, **BRIEF)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [(line["input"], line["kind"]) for line in lines if line["state"] == "failed"]
    assert failed == [(bucket.url("in/A000210.jpg"), kind)] and done.returncode == 1, done.stderr
    assert "5 converted" in done.stderr and "A000210.png" not in bucket.tree("out")
    again = bucket.run(h2a, bucket.url("in"), bucket.url("out"), "--endpoint", bucket.endpoint)
    assert again.returncode == 0 and "1 converted, 5 skipped" in again.stderr, again.stderr


@needs_store
@pytest.mark.slow
def test_an_output_that_was_there_stays_where_the_store_refuses_the_new_one(bucket: Bucket) -> None:
    bucket.put("a.png", b"of before")
    with (
        gate(bucket.endpoint, _always("PUT", ".png"), strict=True) as door,
        pytest.raises(PhotoError, match="cannot be written"),
    ):
        at(_at(bucket, door, "a.png")).write(b"of now")
    assert bucket.get("a.png") == b"of before"


@needs_store
@pytest.mark.slow
def test_a_store_that_fails_at_one_object_is_asked_again_and_then_only_that_photo_fails(
    bucket: Bucket, photos: Path, h2a: Command
) -> None:
    bucket.put_tree(photos, "in")
    asked: Counter[str] = Counter()

    def fails(verb: str, path: str) -> bool:
        if verb != "GET" or not path.endswith(".jpg"):
            return False
        asked[path] += 1
        return asked[path] == 1 or path.endswith("A000210.jpg")

    with gate(bucket.endpoint, fails=fails) as door:
        done = bucket.run(h2a, bucket.url("in"), bucket.url("out"), "--endpoint", door)
    assert done.returncode == 1 and "5 converted, 0 skipped, 1 failed" in done.stderr, done.stderr
    assert "in/A000210.jpg: the object cannot be read: Our fault" in done.stderr
    assert max(asked.values()) == 5 and min(asked.values()) == 2


@needs_store
@pytest.mark.slow
def test_bodies_that_are_cut_short_or_too_long_are_not_taken(bucket: Bucket) -> None:
    bucket.put("a.jpg", b"0123456789")
    for change in (lambda verb, path, body: body[:-1], lambda verb, path, body: body + b"x"):
        with gate(bucket.endpoint, answer=change) as door, pytest.raises(OSError, match="checksum"):
            get(_at(bucket, door, "a.jpg"))


@needs_store
@pytest.mark.slow
def test_the_copy_of_the_ledger_is_checked_on_both_ways(
    bucket: Bucket, photos: Path, tmp_path: Path, h2a: Command
) -> None:
    bucket.put_tree(photos, "in")
    flips = [True]
    change = _always("PUT", "ledger.sqlite")

    def request(verb: str, path: str, body: bytes) -> bytes:
        return (change(verb, path, body) or b"") if flips else body

    for strict in (False, True):
        with gate(bucket.endpoint, request, strict=strict) as door:
            words = (bucket.url("in"), bucket.url(f"out-{strict}"), "-q", "--endpoint", door)
            flips.append(True)
            done = bucket.run(h2a, *words, **BRIEF)
            assert done.returncode == 1 and "the ledger cannot be copied there" in done.stderr, done.stderr
            assert len(done.stderr.splitlines()) == 1
            flips.clear()
            assert bucket.run(h2a, *words).returncode == 0, "it goes on from here"


@needs_store
@pytest.mark.slow
def test_a_ledger_that_comes_damaged_is_not_gone_on_with(
    bucket: Bucket, photos: Path, tmp_path: Path, h2a: Command
) -> None:
    bucket.put_tree(photos, "in")
    words = (bucket.url("in"), bucket.url("out"), "-q", "--endpoint")
    assert bucket.run(h2a, *words, bucket.endpoint).returncode == 0
    before = bucket.get("out/.h2a-batch/ledger.sqlite")
    with gate(bucket.endpoint, answer=_always("GET", "ledger.sqlite")) as door:
        done = bucket.run(h2a, *words, door, XDG_STATE_HOME=str(tmp_path / "other"), **BRIEF)
    assert done.returncode == 2 and "other bytes came" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and bucket.get("out/.h2a-batch/ledger.sqlite") == before


@needs_store
@pytest.mark.slow
def test_a_large_file_goes_in_parts_and_each_is_checked(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from h2a_batch.places import transfer

    monkeypatch.setattr(transfer, "PART", 5 << 20)
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(bytes(range(256)) * (11 << 12))
    flips: list[str] = []

    def once(verb: str, path: str, body: bytes) -> bytes:
        if verb == "PUT" and "partNumber=2" in path and not flips:
            flips.append(path)
            return flipped(body)
        return body

    with gate(bucket.endpoint, once) as door:
        upload(file, _at(bucket, door, "file"))
    assert flips and bucket.get("file") == file.read_bytes()
    with gate(bucket.endpoint, answer=_once("GET", "file")) as door:
        download(_at(bucket, door, "file"), back)
    assert back.read_bytes() == file.read_bytes()
    with gate(bucket.endpoint, answer=_always("GET", "file")) as door, pytest.raises(DamagedError):
        download(_at(bucket, door, "file"), back)
    with gate(bucket.endpoint, _always("PUT", "file")) as door, pytest.raises(DamagedError):
        upload(file, _at(bucket, door, "other-file"))
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads"), "no parts are left there"


@needs_store
@pytest.mark.slow
def test_a_listing_without_an_end_is_left(bucket: Bucket) -> None:
    bucket.put("in/a.jpg", b"1")

    def truncated(verb: str, path: str, body: bytes) -> bytes:
        return body.replace(b"<IsTruncated>false", b"<IsTruncated>true")

    def first_again(verb: str, path: str, body: bytes) -> bytes:
        return body

    with gate(bucket.endpoint, first_again, truncated) as door:
        found: list[object] = []
        work = threading.Thread(target=lambda: found.extend(listing(_at(bucket, door, "in"))), daemon=True)
        work.start()
        work.join(60)
        assert not work.is_alive()


@needs_store
@pytest.mark.slow
@pytest.mark.parametrize("to_disk", [True, False])
def test_keys_that_cannot_be_names_fail_with_a_line_each_and_the_run_goes_on(
    to_disk: bool, bucket: Bucket, tmp_path: Path, h2a: Command
) -> None:
    photo = PORTRAITS[0].read_bytes()
    odd = [
        "nul\0.jpg",
        "nul.jpg\0",
        "esc\x1b[31m.jpg",
        "del\x7f.jpg",
        "x/../../up.jpg",
        "./here.jpg",
        "n" * 300 + ".jpg",
    ]
    odd += ["é" * 130 + "/folder.jpg", "two//slashes.jpg", "c1\x9b.jpg", "x\0y/a.jpg"]
    bucket.put_all({f"in/{key}": photo for key in ["fine.jpg", "sub/fine.jpg", *odd]})
    bucket.put("in/notes\0.txt", b"no photo")
    out = tmp_path / "out" if to_disk else bucket.url("out")
    for first in (True, False):
        done = bucket.run(h2a, bucket.url("in"), out, "--json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        failed = {line["input"]: line["kind"] for line in lines if line["state"] == "failed"}
        assert failed == {bucket.url(f"in/{key}"): "unsupported" for key in odd}
        counts = f"{2 if first else 0} converted, {0 if first else 2} skipped, {len(odd)} failed"
        assert done.returncode == 1 and counts in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    made = tree(tmp_path / "out") if to_disk else bucket.tree("out")
    assert set(made) == {"fine.png", "sub/fine.png"}
    assert not (tmp_path / "up.png").exists()
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


@needs_store
@pytest.mark.slow
def test_objects_with_keys_that_cannot_be_names_in_out_are_left_alone(
    bucket: Bucket, photos: Path, h2a: Command
) -> None:
    bucket.put("out/nul\0.png", b"somebody's")
    done = bucket.run(h2a, photos, bucket.url("out"))
    assert done.returncode == 0 and bucket.get("out/nul\0.png") == b"somebody's", done.stderr
    assert find(_at(bucket, bucket.endpoint, "out/A000210.png"))
    put(_at(bucket, bucket.endpoint, "empty"), b"")
    assert get(_at(bucket, bucket.endpoint, "empty")) == b""
