"""Runs on a Ray cluster of two nodes on this machine: the real command, nodes and drivers killed while it works."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from composites import group, scenery
from conftest import PHOTOS, ROOT, Command, command_line, leftovers, tree
from PIL import Image

from h2a_batch import convert_folder
from h2a_batch.errors import UsageError
from h2a_batch.ledger.ledger import Ledger
from h2a_batch.places import files
from h2a_batch.places.files import remove_temporaries, replacing, temporary_path

pytestmark = pytest.mark.slow
COUNT = 49  # photos, the last one of three people
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.add_node(**NODE)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of portraits that all differ, and of a group of three."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "sub").mkdir()
    names = sorted(PHOTOS.glob("*.jpg"))
    for number in range(COUNT - 1):
        with Image.open(names[number % len(names)]) as image:
            image.rotate(number // len(names)).save(folder / "sub" / f"{number:03d}.jpg", quality=85)
    group(folder / "group.jpg", 0, 1, 2)
    return folder


@pytest.fixture(scope="module")
def local(many: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run without a cluster makes of them."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    out = tmp_path_factory.mktemp("local")
    assert convert_folder(many, out).exit_code == 0
    return tree(out)


def start(cluster: Any, cwd: Path, *arguments: object) -> subprocess.Popen[str]:
    """The real command, its photos told on its standard output as they are done."""
    command = command_line(*arguments, "--json", "--ray", cluster.address)
    with open(cwd / "errors", "w") as errors:
        return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=errors, text=True)


def read(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next JSON lines of so many photos."""
    assert process.stdout is not None
    return list(islice((line for line in process.stdout if "event" not in json.loads(line)), count))


def rest(process: subprocess.Popen[str], cwd: Path) -> tuple[list[str], str]:
    """The JSON lines that are left, and all of standard error, at the command's end."""
    lines = read(process, 10_000)
    process.wait(200)
    return lines, (cwd / "errors").read_text()


def told(output: str) -> list[dict[str, Any]]:
    """JSON lines of photos without their times, in the order of the photos."""
    lines = ({**json.loads(line), "seconds": None} for line in output.splitlines())
    return sorted((line for line in lines if "event" not in line), key=lambda line: str(line["input"]))


def said(errors: str) -> list[str]:
    """The lines of standard error, but for one that a busy machine may add."""
    return [line for line in errors.splitlines() if not line.endswith("; waiting")]


def recorded(out: Path) -> list[tuple[object, ...]]:
    with Ledger(out, "{}", read_only=True) as ledger:
        return [(row.source, row.sha256, row.output, row.output_size, row.state, row.error) for row in ledger.rows()]


def processes(name: str) -> list[int]:
    """Those of the cluster by what Ray calls them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if title.startswith(name):
            found.append(int(folder.name))
    return found


def test_all_is_as_on_one_machine(cluster: Any, tmp_path: Path, h2a: Command) -> None:
    portraits = sorted(PHOTOS.glob("*.jpg"))
    for number in range(3):
        group(tmp_path / "in" / f"group-{number}.jpg", *range(number + 1))
    (tmp_path / "in" / "sub").mkdir()
    for photo in portraits:
        (tmp_path / "in" / "sub" / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "in" / "group-1.png").write_bytes(portraits[0].read_bytes())
    (tmp_path / "in" / "half.jpg").write_bytes(portraits[0].read_bytes()[:5000])
    (tmp_path / "in" / os.fsdecode(b"latin-\xe9.jpg")).write_bytes(portraits[1].read_bytes())
    scenery(900, 600).save(tmp_path / "in" / "hills.jpg")
    for place in ("one", "all"):
        (tmp_path / place / "out").mkdir(parents=True)
        (tmp_path / place / "out" / "group-2-1.png").write_bytes(b"mine")
    here = h2a(tmp_path / "in", "out", "--json", "--no-face", "skip", cwd=tmp_path / "one")
    there = h2a(tmp_path / "in", "out", "--json", "--no-face", "skip", "--ray", cluster.address, cwd=tmp_path / "all")
    assert here.returncode == there.returncode == 1, there.stderr
    assert tree(tmp_path / "all") == tree(tmp_path / "one")
    assert told(there.stdout.replace("/all/", "/one/")) == told(here.stdout)
    assert recorded(tmp_path / "all" / "out") == recorded(tmp_path / "one" / "out")
    lines = [[line for line in done.stderr.splitlines() if "half.jpg" in line] for done in (here, there)]
    assert lines[0] == lines[1] and len(said(there.stderr)) == len(said(here.stderr))
    assert {path.name for path in (tmp_path / "all" / "out" / ".h2a-batch").iterdir()} == {
        path.name for path in (tmp_path / "one" / "out" / ".h2a-batch").iterdir()
    }
    (tmp_path / "in" / "half.jpg").unlink()
    again = h2a(tmp_path / "in", "out", "--no-face", "skip", "--ray", cluster.address, cwd=tmp_path / "all")
    assert again.returncode == 0 and again.stderr.startswith("0 converted, 12 skipped, 0 failed"), again.stderr


def test_a_node_and_a_process_that_are_killed_cost_nothing(
    cluster: Any, many: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    node = cluster.add_node(**NODE)
    process = start(cluster, tmp_path, many, "out")
    first = read(process, 8)
    cluster.remove_node(node, allow_graceful=False)
    first += read(process, 2)
    workers = processes("ray::Node")
    assert len(workers) >= 2, "one on each node"
    os.kill(workers[0], signal.SIGKILL)
    lines, errors = rest(process, tmp_path)
    assert process.returncode == 0, errors
    photos = [json.loads(line)["input"] for line in first + lines]
    assert len(photos) == len(set(photos)) == COUNT, "each is told once, and nothing else is on standard output"
    *lost, summary, table = said(errors)
    assert len(lost) == 2 and all("a node of the Ray cluster was lost; the" in line for line in lost), errors
    assert summary.startswith(f"{COUNT} converted (") and ", 0 skipped, 0 failed in " in summary
    assert table.startswith("table: ")
    assert tree(tmp_path / "out") == local and leftovers(tmp_path) == []


def test_a_driver_that_ends_goes_on_where_it_was(
    cluster: Any, many: Path, local: dict[str, bytes], tmp_path: Path, h2a: Command
) -> None:
    process = start(cluster, tmp_path, many, "out", "--limit", COUNT - 10)
    first = read(process, 2)
    process.send_signal(signal.SIGINT)
    lines, errors = rest(process, tmp_path)
    assert process.returncode == 130 and "interrupted; run the same command again" in errors, errors
    made = 2 + len(lines)
    counts = [len(json.loads(line).get("outputs", "1")) for line in first + lines]
    assert len(tree(tmp_path / "out")) == sum(counts), "what was in flight was finished"
    assert made < COUNT - 10, "and no more begun"
    assert leftovers(tmp_path) == []
    assert {state for _, _, _, _, state, _ in recorded(tmp_path / "out")} <= {"done", "started"}

    process = start(cluster, tmp_path, many, "out")
    read(process, made + 5)
    orphans = processes("ray::Node")
    process.kill()
    rest(process, tmp_path)
    done = h2a(many, "out", "--json", "--ray", cluster.address)
    assert done.returncode == 0, done.stderr
    states = [line["state"] for line in told(done.stdout)]
    assert states.count("skipped") >= made and len(states) == COUNT and "failed" not in states
    assert tree(tmp_path / "out") == local and leftovers(tmp_path) == []
    assert orphans and not set(orphans) & set(processes("ray::Node")), "those of a dead driver end"


def test_a_watch_converts_what_comes(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    process = start(cluster, tmp_path, "in", "out", "--watch", "--settle", 0, "--max-idle", 60)
    for number, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))[:3]):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(photo.read_bytes())
        assert json.loads(read(process, 1)[0])["state"] == "converted"
    process.send_signal(signal.SIGTERM)
    rest(process, tmp_path)
    assert process.returncode == 0 and len(tree(tmp_path / "out")) == 3


@contextlib.contextmanager
def other_nodes(cluster: Any, *mounts: str) -> Iterator[None]:
    """A node for each of these commands, which change what it sees of the disk."""
    ray = f"'{sys.executable}' -m ray.scripts.scripts start --block --num-cpus 1 --object-store-memory {80 << 20}"
    with contextlib.ExitStack() as stack:
        for mount in mounts:  # not at once: on a busy machine they take too long for Ray then
            script = f"{mount} && exec {ray} --address {cluster.address} --disable-usage-stats"
            node = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
            stack.callback(node.communicate, timeout=60)
            stack.callback(node.terminate)
            assert node.stdout is not None and any("Ray runtime started" in line for line in node.stdout)
        yield


def test_nodes_that_cannot_do_the_work_are_not_used(
    cluster: Any, many: Path, local: dict[str, bytes], tmp_path: Path, h2a: Command
) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no permission to hide a folder from a process")
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    for kind in ("mindir", "json"):  # that no node has
        shutil.copyfile(ROOT / "models" / f"anime-256.{kind}", tmp_path / f"mine.{kind}")
    options = ("--model", "mine.mindir", "--size", 128, "--format", "jpg", "--workers", "2:1:1")
    no_in, no_out = f"mount -t tmpfs none '{many}'", f"mount -t tmpfs none '{out}'"
    full = f"mount --bind '{out}/sub' '{out}/sub' && mount -o remount,ro,bind '{out}/sub'"
    with other_nodes(cluster, no_in, no_out, full):
        done = h2a(many, "out", *options, "--ray", cluster.address)
    assert done.returncode == 0 and len(tree(out)) == len(local) and leftovers(out) == [], done.stderr
    for path in out.rglob("*.jpg"):
        with Image.open(path) as image:
            assert max(image.size) == 128
    said = "this node of the Ray cluster is not used: "
    assert f"{said}it does not see {many}" in done.stderr
    assert f"{said}{out}: it sees no such folder, or another one" in done.stderr
    assert said in done.stderr and "cannot be written (Read-only file system)" in done.stderr
    assert f"{COUNT} converted (" in done.stderr and ", 0 skipped, 0 failed" in done.stderr


def test_a_node_that_is_cut_off_and_its_successor_both_leave_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kept = tmp_path / "a.png", tmp_path / ".h2a-0123456789abcdef.part"
    with replacing(path) as cut_off:
        cut_off.write(b"wh")
        cut_off.flush()
        monkeypatch.setattr(files, "_writer", "-0a1b2c3d")
        with replacing(path) as successor:
            successor.write(b"whole")
        assert path.read_bytes() == b"whole"
        cut_off.write(b"ole")
    assert path.read_bytes() == b"whole" and os.listdir(tmp_path) == ["a.png"]
    for file in (kept, temporary_path(path), temporary_path(path, ""), temporary_path(path, "-4e5f6071")):
        file.write_bytes(b"half")
    remove_temporaries([path, tmp_path / "gone" / "b.png"])
    assert sorted(os.listdir(tmp_path)) == [kept.name, "a.png"]


def test_a_cluster_that_is_not_there_is_one_line(photos: Path, tmp_path: Path, h2a: Command) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    done = h2a(photos, "out", "--ray", "127.0.0.1:9")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("h2a-batch: --ray 127.0.0.1:9: ")
    for address in ("ray://127.0.0.1:10001", "photos"):
        with pytest.raises(UsageError, match=f"^--ray {address}: "):
            convert_folder(photos, tmp_path / "out", ray=address)
    assert not (tmp_path / "out").exists()


def test_without_the_package_it_is_named(photos: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['ray'] = None;from h2a_batch.command.convert import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, photos, tmp_path / "out", "--ray"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--ray needs the package ray; pip install 'h2a-batch[ray]'" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def opens(process: int, file: Path) -> bool:
    """Whether a process has a file open."""
    try:
        return any(os.readlink(link) == str(file) for link in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return False


def test_a_photo_that_nodes_die_with_fails_and_costs_no_other(cluster: Any, tmp_path: Path) -> None:
    """As one that takes all memory: whoever reads it is killed."""
    deadly = tmp_path / "in" / "deadly.png"
    deadly.parent.mkdir()
    noise = np.random.default_rng(1).integers(0, 255, (3500, 3500, 3), np.uint8)  # a second to read
    Image.fromarray(noise).save(deadly, compress_level=1)
    for number, name in enumerate(sorted(PHOTOS.glob("*.jpg")) * 2):
        shutil.copyfile(name, deadly.with_name(f"{number:02d}.jpg"))
    process = start(cluster, tmp_path, "in", "out")
    killed = []
    while process.poll() is None:
        for worker in processes("ray::Node"):
            if worker not in killed and opens(worker, deadly):
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)
        time.sleep(0.01)
    lines, errors = rest(process, tmp_path)
    results = {Path(line["input"]).name: line for line in map(json.loads, lines)}
    assert process.returncode == 1 and len(killed) == 3, errors
    assert (
        results.pop("deadly.png")["message"] == "the process that converted it ended 3 times; convert it without --ray"
    )
    assert len(results) == 12 and all(line["state"] == "converted" for line in results.values()), errors
    assert leftovers(tmp_path) == []


def test_a_cluster_that_goes_away_ends_the_run_with_a_line(
    cluster: Any, many: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    """The last one, since it takes the cluster of all."""
    for folder in range(40):  # so many that no machine is done before the loss is noticed
        shutil.copytree(many / "sub", tmp_path / "in" / str(folder), copy_function=os.link)
    process = start(cluster, tmp_path, "in", "out")
    read(process, 3)
    started = time.monotonic()
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    _, errors = rest(process, tmp_path)
    assert process.returncode == 1 and "the Ray cluster went away; run again when it is back" in errors, errors
    assert time.monotonic() - started < 60
    for name, data in tree(tmp_path / "out").items():
        assert data == local[f"sub/{Path(name).name}"]
