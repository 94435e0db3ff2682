"""Weights files: every array used once, shapes checked, the same file back."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from train_support import shake

from train.__main__ import main
from train.networks import FastGenerator, PatchDiscriminator
from train.weights import WeightsError, load_network, network_arrays, read_weights, write_weights


def small() -> FastGenerator:
    return FastGenerator((8, 8, 16), 1, 8)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", {"gab": shake(small(), 1), "da": shake(PatchDiscriminator(4), 2)})
    networks = read_weights(tmp_path / "w.npz")
    generator, discriminator = small(), PatchDiscriminator(4)
    load_network(generator, networks["gab"])
    load_network(discriminator, networks["da"])
    write_weights(tmp_path / "again.npz", {"gab": generator, "da": discriminator})
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "w.npz").read_bytes()


def test_names_are_those_of_the_twin() -> None:
    names = set(network_arrays(small()))
    assert {"m.0.0.weight", "m.0.1.bias", "m.3.a.0.weight", "m.3.b.1.weight", "m.4.0.bias", "m.7.weight"} <= names
    assert {"0.weight", "3.weight", "11.bias"} <= set(network_arrays(PatchDiscriminator(4)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("m.0.0.bias"), "the file lacks m.0.0.bias"),
        (lambda a: a.update({"m.9.weight": np.zeros(3)}), "the file has unknown m.9.weight"),
        (lambda a: a.update({"m.0.0.bias": np.zeros(9)}), r"m.0.0.bias is \(9,\), the network wants \(8,\)"),
        (lambda a: a.update({"m.0.1.weight": np.zeros((1, 8, 1, 1))}), r"the network wants \(8,\)"),
        (lambda a: a.update({"m.0.0.bias": np.full(8, np.nan)}), "m.0.0.bias holds NaN"),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(change, message: str) -> None:
    arrays, cell = network_arrays(shake(small(), 3)), small()
    change(arrays)
    before = network_arrays(cell)
    with pytest.raises(WeightsError, match=message):
        load_network(cell, arrays)
    assert all(np.array_equal(before[name], array) for name, array in network_arrays(cell).items())


def test_files_that_hold_no_weights_are_named(tmp_path: Path) -> None:
    broken, single, loose, pickled = (tmp_path / f"{name}.npz" for name in ("broken", "single", "loose", "pickled"))
    broken.write_bytes(b"PK\x03\x04 not a zip")
    with open(single, "wb") as file:
        np.save(file, np.zeros(3))
    np.savez(loose, weight=np.zeros(3))
    np.savez(pickled, **{"gab.m.0": np.array([{}], dtype=object)})
    for path in (broken, single, loose, pickled, tmp_path / "missing.npz", tmp_path):
        with pytest.raises(WeightsError, match=path.name):
            read_weights(path)


def test_a_bundle_holds_both_halves_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = {"gab": small(), "gba": small(), "ema": small(), "da": PatchDiscriminator(4), "db": PatchDiscriminator(4)}
    for name, chosen in (("coarse", cells), ("fine", {"gab": cells["gab"], "ema": cells["ema"]})):
        write_weights(tmp_path / f"{name}.npz", chosen)
    files = ("--coarse", str(tmp_path / "coarse.npz"), "--fine", str(tmp_path / "fine.npz"))
    assert main(["bundle", *files, str(tmp_path / "new" / "bundle.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "new" / "bundle.zip") as archive:
        archive.extractall(tmp_path / "out")
    for name in ("coarse.npz", "fine.npz"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()
    swapped = ("--coarse", str(tmp_path / "fine.npz"), "--fine", str(tmp_path / "coarse.npz"))
    assert main(["bundle", *swapped, str(tmp_path / "other.zip")]) == 2
    assert "fine.npz: lacks the network 'gba'" in capsys.readouterr().err and not (tmp_path / "other.zip").exists()
