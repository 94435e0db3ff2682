from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from h2a_batch import machine
from h2a_batch.errors import UsageError
from h2a_batch.inference.card import FaceRule
from h2a_batch.options import Options, Workers, with_settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "tiff"},
        {"quality": 0},
        {"quality": 101},
        {"size": "large"},
        {"size": "0"},
        {"fit": "zoom"},
        {"suffix": "../x"},
        {"device": "gpu"},
        {"device": "ascend:x"},
        {"batch_size": 0},
        {"limit": 0},
        {"faces": "all"},
        {"min_face": 3},
        {"max_faces": 0},
        {"no_face": "keep"},
        {"contact_sheet": Path("sheet.doc")},
    ],
)
def test_a_wrong_value_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--" + next(iter(wrong)).replace("_", "-")):
        Options(**wrong)


RULE = astuple(FaceRule())


def test_only_what_decides_the_bytes_is_in_the_settings() -> None:
    settings = Options().settings("abc", "pad", RULE)
    assert Options(workers=Workers(1, 2, 3), overwrite=True, limit=5).settings("abc", "pad", RULE) == settings
    assert Options(quality=50).settings("abc", "pad", RULE) == settings  # PNG has no quality
    for other in (Options(format="jpg"), Options(size="512"), Options(fit="crop"), Options(keep_metadata=True)):
        assert other.settings("abc", "pad", RULE) != settings
    assert Options().settings("abd", "pad", RULE) != settings
    without, narrow = Options(faces="off"), Options(faces="off", min_face=90)
    assert without.settings("abc", "pad", astuple(FaceRule(0.4))) == narrow.settings("abc", "pad", RULE)
    for other in (Options(faces="paste"), Options(min_face=90), Options(max_faces=1), Options(no_face="skip")):
        assert other.settings("abc", "pad", RULE) != settings


def test_workers_are_parsed() -> None:
    assert Workers.parse("1:2:3") == Workers(1, 2, 3)
    assert Workers.parse("4") == Workers(0, 4, 0)
    assert Workers.parse(":4:") == Workers(0, 4, 0)
    for wrong in ("1:2", "a", "-1", "1:2:3:4"):
        with pytest.raises(UsageError):
            Workers.parse(wrong)


def test_open_workers_are_filled_and_given_ones_kept() -> None:
    filled = Workers(0, 3, 0).filled("cpu")
    assert filled.generator == 3 and filled.decode >= 1 and filled.encode >= 1
    assert Workers(0, 0, 0).filled("cpu").generator == machine.available_cores()
    assert Workers(0, 0, 0).filled("ascend:0").generator == 1


def test_a_container_quota_limits_the_cores(tmp_path: Path) -> None:
    group = tmp_path / "app" / "job"
    group.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("0::/app/job\n")
    (group / "cpu.max").write_text("max 100000\n")
    assert machine._cgroup_quota(tmp_path, own) is None
    (tmp_path / "app" / "cpu.max").write_text("150000 100000\n")
    assert machine._cgroup_quota(tmp_path, own) == 1.5
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine._cgroup_quota(tmp_path, own) == 0.5


def test_a_container_limit_on_memory_is_seen(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/\n")
    assert machine._cgroup_memory(tmp_path, own) == []
    (tmp_path / "memory.max").write_text("900000000\n")
    (tmp_path / "memory.current").write_text("100000000\n")
    assert machine._cgroup_memory(tmp_path, own) == [800_000_000]
    assert machine.available_memory() > 0


def test_python_callers_may_write_plain_values() -> None:
    options = with_settings(Options(), {"size": 512, "workers": "1:2:1", "contact_sheet": "sheet.jpg"})
    assert (options.size, options.workers, options.contact_sheet) == ("512", Workers(1, 2, 1), Path("sheet.jpg"))
    with pytest.raises(UsageError, match="no option is named colour"):
        with_settings(Options(), {"colour": 1})
    with pytest.raises(UsageError, match="wrong type"):
        with_settings(Options(), {"quality": "high"})
