"""The start file of ModelArts, with folders in place of OBS: jobs, their data sets, stopping and starting again."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS, ROOT, Command, leftovers
from PIL import Image

FOLDER = ROOT / "scripts" / "modelarts"
START = FOLDER / "start.py"
PORTRAITS = sorted(PHOTOS.glob("*.jpg"))
JOB = ("--config", "smoke", "--domain_a", "trainA", "--domain_b=trainB")
ADDED_BY_MODELARTS = ("--init_method=tcp://10.0.0.1:6666", "--num_gpus", "1", "--device_num=1")

needs_mindspore = pytest.mark.skipif(
    find_spec("mindspore") is None, reason="needs MindSpore: pip install -e '.[train]'"
)
needs_lite = pytest.mark.skipif(find_spec("mindspore_lite") is None, reason="needs MindSpore Lite")

# Stands in for the OBS service: what lies in obs://BUCKET is in the folder BUCKET of the variable OBS.
MOXING = """
import os, shutil
class file:
    def local(path):
        return os.environ["OBS"] + path[5:] if path.startswith("obs:/") else path
    def exists(path):
        return os.path.exists(file.local(path))
    def is_directory(path):
        return os.path.isdir(file.local(path))
    def copy(source, target):
        shutil.copyfile(file.local(source), file.local(target))
    def copy_parallel(source, target):
        assert file.is_directory(source)
        shutil.copytree(file.local(source), file.local(target), dirs_exist_ok=True)
"""
OBSUTIL = """#!/bin/bash
set -eu
local() { echo "$OBS/${1#obs://}"; }
case $1 in
  sync) mkdir -p "$(local "$3")"; cp -r "$2/." "$(local "$3")" ;;
  cp) mkdir -p "$(dirname "$(local "$3")")"; cp "$2" "$(local "$3")" ;;
  mkdir) mkdir -p "$(local "$2")" ;;
  *) exit 3 ;;
esac
"""


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A data set: portraits, and the same upside down as the other domain."""
    folder = tmp_path / "faces"
    for name in ("trainA", "trainB"):
        (folder / name).mkdir(parents=True)
    for path in PORTRAITS:
        shutil.copyfile(path, folder / "trainA" / path.name)
        with Image.open(path) as image:
            image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(folder / "trainB" / path.name)
    return folder


def command(*arguments: object, start: Path = START) -> list[str]:
    return [sys.executable, str(start), *map(str, arguments)]


def job(base: Path, *arguments: object, start: Path = START, **variables: object) -> subprocess.CompletedProcess[str]:
    """A job that has ended, started elsewhere than in the checkout and with a cache of its own."""
    cache = () if "--cache" in arguments else ("--cache", base / "cache")
    return subprocess.run(
        command(*arguments, *cache, start=start),
        cwd=base,
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=600,
    )


def step_in(folder: Path) -> int:
    with np.load(folder / "checkpoint.npz") as file:
        return int(json.loads(str(file["about"]))["step"])


@pytest.mark.slow
@needs_mindspore
@needs_lite
def test_a_stopped_job_goes_on_when_it_is_started_again_and_exports(tmp_path: Path, faces: Path, h2a: Command) -> None:
    shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path, "faces")
    out, cache = tmp_path / "out", tmp_path / "cache"
    places = ("--data_url", tmp_path / "data.zip", "--train_url", out, "--cache", cache)
    endless = ("--steps=100000", "--sync_minutes", 0.02, *ADDED_BY_MODELARTS)
    with subprocess.Popen(
        command(*places, *JOB, *endless), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(600):
            if (out / "checkpoint.npz").exists() or process.poll() is not None:
                break
            time.sleep(0.2)
        copied = step_in(out)  # while the job runs
        process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130, printed + errors
    assert f"ignored: {' '.join(ADDED_BY_MODELARTS)}\n" in printed
    assert "Traceback" not in errors
    last = step_in(out)
    assert last >= copied >= 1 and int((out / "log.csv").read_text().splitlines()[-1].split(",")[0]) == last
    assert not (out / "models").exists() and list(cache.iterdir()) == []

    done = job(tmp_path, *places, *JOB, "--steps", last + 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert step_in(out) == last + 1
    assert json.loads((out / "about.json").read_text())["resumed_at"] == last
    assert (out / "samples" / "losses.png").exists() and (out / "weights.npz").exists()
    models = sorted((out / "models").glob("*.mindir"))
    assert [model.name for model in models] == ["smoke-b2a.mindir", "smoke.mindir"]
    cards = [json.loads(model.with_suffix(".json").read_text()) for model in models]
    assert [card["weights"]["network"] for card in cards] == ["ema_ba", "ema"]
    assert leftovers(out) == [] and list(cache.iterdir()) == []
    for model in models:
        painted = h2a(PORTRAITS[0], tmp_path / model.stem, "--model", model)
        assert painted.returncode == 0, painted.stderr
        assert len(list((tmp_path / model.stem).glob("*.png"))) == 1


@pytest.mark.slow
@needs_mindspore
def test_what_upload_puts_into_a_bucket_trains_there(tmp_path: Path, faces: Path) -> None:
    """From an empty bucket, on a machine without MindSpore Lite and then with a broken one: the run is kept."""
    checkout, bucket = copy_of_the_checkout(tmp_path), tmp_path / "obs" / "my-bucket"
    (tmp_path / "obsutil").write_text(OBSUTIL)
    (tmp_path / "obsutil").chmod(0o755)
    uploaded = subprocess.run(
        [checkout / "scripts" / "modelarts" / "upload", "my-bucket", "--data", faces],
        env={**os.environ, "OBS": str(tmp_path / "obs"), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert uploaded.returncode == 0, uploaded.stderr
    code = bucket / "h2a-batch" / "code"
    assert (code / "pip-requirements.txt").is_file() and (bucket / "h2a-batch" / "output").is_dir()
    assert not (code / "train" / "notes.txt").exists()  # not known to git

    places = {"data_url": "obs://my-bucket/h2a-batch/data/faces/", "train_url": "obs://my-bucket/h2a-batch/output/"}
    out = bucket / "h2a-batch" / "output"
    for name, text in {
        "moxing/__init__.py": MOXING,
        "without/sitecustomize.py": "import sys\nsys.modules['mindspore_lite'] = None\n",
        "broken/mindspore_lite.py": "raise ImportError('libmindspore-lite.so: cannot open shared object file')\n",
    }.items():
        (tmp_path / "path" / name).parent.mkdir(parents=True)
        (tmp_path / "path" / name).write_text(text)
    for kind in ("without", "broken"):
        path = os.pathsep.join(str(tmp_path / "path" / name) for name in (".", kind))
        environment = {**places, "OBS": tmp_path / "obs", "PYTHONPATH": path}
        done = job(tmp_path, *JOB, start=code / "scripts" / "modelarts" / "start.py", **environment)
        assert step_in(out) == 2, done.stdout + done.stderr
        assert not (out / "models").exists()
        if kind == "without":
            assert done.returncode == 0, done.stderr
            assert "no MindSpore Lite in this image" in done.stdout
            assert "python -m train export --weights RUN/weights.npz --card RUN/card.toml" in done.stdout
        else:
            assert done.returncode == 1, done.stderr
            assert "libmindspore-lite.so: cannot open" in done.stderr and "Traceback" not in done.stderr
            assert json.loads((out / "about.json").read_text())["resumed_at"] == 2  # fetched, nothing left to train


def copy_of_the_checkout(base: Path) -> Path:
    """What git would have after a commit of everything, and a file that it does not know."""
    checkout = base / "checkout"
    for name in ("train", "h2a_batch", "scripts"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "NOTICE"):
        shutil.copyfile(ROOT / name, checkout / name)
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=checkout, check=True, capture_output=True)
    (checkout / "train" / "notes.txt").write_text("mine")
    return checkout


@pytest.mark.slow
@needs_mindspore
def test_several_workers_are_started_as_msrun_expects(tmp_path: Path) -> None:
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from job_processes import fit_command
command = fit_command(["--set", "name=a b", "--device", "Ascend"], 8, "logs")
assert command[:3] == [sys.executable, "-m", "mindspore.parallel.cluster.run"], command
sys.argv = command[2:]
from mindspore.parallel.cluster.run import get_args
from mindspore.parallel.cluster.process_entity._utils import _generate_cmd
given = get_args()
print(given.worker_num, given.local_worker_num, given.join, given.log_dir)
print(_generate_cmd(given.task_script, given.task_script_args, 0, {}, False))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, FOLDER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[:2] == [
        "8 8 True logs",
        str(["python", "-m", "train", "fit", "--set", "name=a b", "--device", "Ascend"]),
    ], done.stderr


def evil_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "data.zip", "w") as file:
        file.write(PORTRAITS[0], "trainA/a.jpg")
        file.writestr("../evil", "out")


def linked_zip(folder: Path) -> None:
    entry = zipfile.ZipInfo("trainA")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(folder / "data.zip", "w") as file:
        file.writestr(entry, "/etc")


def evil_tar(folder: Path) -> None:
    with tarfile.open(folder / "data.tar.gz", "w:gz") as file:
        entry = tarfile.TarInfo(f"{folder}/evil")
        entry.size = 3
        file.addfile(entry, BytesIO(b"out"))


def linked_tar(folder: Path) -> None:
    with tarfile.open(folder / "data.tar", "w") as file:
        entry = tarfile.TarInfo("trainA")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
        file.addfile(entry)


def cut_zip(folder: Path) -> None:
    shutil.make_archive(str(folder / "whole"), "zip", PHOTOS)
    (folder / "data.zip").write_bytes((folder / "whole.zip").read_bytes()[:100_000])
    (folder / "whole.zip").unlink()


def two_archives(folder: Path) -> None:
    evil_zip(folder)
    evil_tar(folder)


def other_names(folder: Path) -> None:
    shutil.copytree(PHOTOS, folder / "trainC")


@needs_mindspore
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (evil_zip, "data.zip: ../evil would be written outside of the data's folder"),
        (linked_zip, "data.zip: trainA is a link"),
        (evil_tar, "/evil would be written outside of the data's folder"),
        (linked_tar, "data.tar: trainA is a link or a device"),
        (cut_zip, "data.zip: not a whole archive"),
        (
            two_archives,
            "no folder trainA with pictures, nor one zip or tar that has it (there are data.tar.gz, data.zip)",
        ),
        (other_names, "no folder trainA with pictures"),
    ],
)
def test_data_that_cannot_be_used_is_told_in_a_line(make, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    given = tmp_path / "given"
    given.mkdir()
    make(given)
    before = sorted(tmp_path.rglob("*"))
    done = job(tmp_path, *JOB, "--data_url", given, "--train_url", tmp_path / "out")
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert sorted({*tmp_path.rglob("*")} - {*before}) == [tmp_path / n for n in ("cache", "out", "out/job.json")]


@needs_mindspore
@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ((), {}, "needs --data_url and --train_url"),
        (("--data_url", "none", "--train_url", "out"), {}, "none: no such file or folder"),
        (
            ("--data_url", "obs://b/d", "--train_url", "out"),
            {},
            "obs://b/d: needs MoXing, and No module named 'moxing'",
        ),
        (("--data_url", "d", "--train_url", "obs://b/o"), {}, "obs://b/o/checkpoint.npz: needs MoXing"),
        (("--data_url", "d", "--train_url", "file/out"), {}, "Not a directory"),
        (("--data_url", "d", "--train_url", "out", "--steps", "many"), {}, "steps = 'many': must be int"),
        (("--data_url", "d", "--train_url", "out", "--config", "other"), {}, "other: no such file"),
        (("--data_url", "d", "--train_url", "out", "--workers", "0"), {}, "--workers must be 1 or more"),
        (("--data_url", "d", "--train_url", "out"), {"MA_NUM_HOSTS": 2}, "works on one node"),
    ],
)
def test_a_job_that_cannot_start_says_why_in_a_line(
    arguments: tuple[str, ...], variables: dict[str, object], message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = job(tmp_path, *arguments, **variables)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1


@needs_mindspore
def test_of_the_copies_that_modelarts_starts_only_the_first_works(tmp_path: Path) -> None:
    done = job(tmp_path, "--data_url", "d", "--train_url", "out", RANK_ID=3, RANK_SIZE=8, ASCEND_DEVICE_ID=3)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the first one does the work" in done.stdout and list(tmp_path.iterdir()) == []


def test_the_start_file_is_read_by_the_python_of_older_images() -> None:
    """So that it can say which Python it needs, where a syntax error would say nothing."""
    assert ast.parse(START.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_upload_shows_its_commands_and_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    checkout = copy_of_the_checkout(tmp_path)
    (tmp_path / "bin").mkdir()
    obsutil = tmp_path / "bin" / "obsutil"
    obsutil.write_text(f"#!/bin/bash\ntouch {tmp_path}/called\n")
    obsutil.chmod(0o755)
    (tmp_path / "my faces.v2.zip").write_bytes(b"")

    def upload(*arguments: str, path: str = f"{tmp_path}/bin:{os.environ['PATH']}") -> subprocess.CompletedProcess[str]:
        script = str(checkout / "scripts" / "modelarts" / "upload")
        environment = {**os.environ, "PATH": path}
        return subprocess.run([script, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = upload("obs://my-bucket/", "--data", "my faces.v2.zip", "--folder", "faces/1", "--dry-run")
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("obsutil ")]
    assert [line.split()[1] for line in commands] == ["sync", "cp", "mkdir", "mkdir"]
    assert commands[0].split()[3] == "obs://my-bucket/faces/1/code"
    assert r"my\ faces.v2.zip obs://my-bucket/faces/1/data/my-faces/my\ faces.v2.zip" in commands[1]
    assert "obs://my-bucket/faces/1/code/scripts/modelarts/start.py" in done.stdout
    assert not (tmp_path / "called").exists()
    for arguments, message in {
        (): "needs a bucket",
        ("My_Bucket",): "My_Bucket: a bucket has",
        ("my-bucket", "--data", "none"): "--data none: no such file",
        ("my-bucket", "--data"): "--data needs a value",
        ("my-bucket", "--quick"): "unknown option --quick",
        ("my-bucket", "--folder", "../x y"): "--folder ../x y: has only",
    }.items():
        refused = upload(*arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert message in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "called").exists()
    missing = upload("my-bucket", path="/usr/bin:/bin")
    assert missing.returncode == 2 and "obsutil: not found" in missing.stderr
