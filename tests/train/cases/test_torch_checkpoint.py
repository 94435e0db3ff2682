"""Checkpoints of pytorch-CycleGAN-and-pix2pix: recognised, converted, equal to PyTorch's forward pass, or refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from train_support import PHOTOS, Array, forward

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")

from train.__main__ import main  # noqa: E402
from train.commands import import_torch  # noqa: E402
from train.commands.export import read_card  # noqa: E402
from train.config import Config  # noqa: E402
from train.export.generator import read_pictures  # noqa: E402
from train.foreign.torch_checkpoint import TorchGenerator  # noqa: E402
from train.models.cyclegan import CycleGAN  # noqa: E402
from train.networks import build_generator  # noqa: E402
from train.pytorch import generators as torch_generators  # noqa: E402
from train.run.start import start_from  # noqa: E402
from train.weights import WeightsError, load_network, network_arrays, read_weights  # noqa: E402

RESNET_6 = TorchGenerator("resnet_6blocks", 8, "instance", affine=False, bias=True)
RESNET_9 = replace(RESNET_6, net_g="resnet_9blocks")
UNET = replace(RESNET_6, net_g="unet_256")
BATCH = {"norm": "batch", "affine": True, "bias": False}
GENERATORS = {
    "resnet_6blocks": RESNET_6,
    "resnet_9blocks with dropout": replace(RESNET_9, dropout=True),
    "unet_256": UNET,
    "batch norm": replace(RESNET_6, **BATCH),
    "unet_256 with batch norm": replace(UNET, **BATCH),
    "no norm": replace(RESNET_6, norm="none", bias=False),
    "affine, zeros without padding layers": replace(RESNET_6, affine=True, padding="zeros", pad_layers=False),
}


def trained(generator: TorchGenerator) -> torch.nn.Module:
    """Convolutions as `init_weights` makes them, Normal(0.02); everything else a value that matters."""
    numbers = torch.Generator().manual_seed(0)
    module = torch_generators.build(generator)
    for name, value in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(value.shape, generator=numbers)
        if name.endswith("running_var"):
            value.copy_(0.1 + noise**2)
        elif value.ndim == 4:
            value.copy_(0.02 * noise)
        else:
            value.copy_(0.1 * noise + name.endswith("weight"))
    return module.eval()


def photos(count: int = 1) -> Array:
    """(count, 3, 256, 256) in [-1, 1]"""
    pixels = {"width": 256, "height": 256, "layout": "NCHW", "order": "RGB"}
    pictures = np.stack(read_pictures(PHOTOS, {"input": pixels})[:count])
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32) / 127.5 - 1


def imported(out: Path, name: str = "ema") -> ms.nn.Cell:
    """What `export` makes of the weights and the card."""
    card = read_card(out.with_suffix(".toml"))["generator"]
    cell = build_generator(card["network"], **card["options"])
    load_network(cell, read_weights(out)[name])
    return cell


@pytest.mark.parametrize("name", GENERATORS)
@torch.inference_mode()
def test_an_imported_generator_computes_what_pytorch_computes(name: str, tmp_path: Path, capsys) -> None:
    module, out = trained(GENERATORS[name]), tmp_path / "new" / "g.npz"
    torch.save(module.state_dict(), tmp_path / "latest_net_G_A.pth")
    assert main(["import-torch", str(tmp_path / "latest_net_G_A.pth"), str(out)]) == 0
    said = capsys.readouterr()
    assert GENERATORS[name].net_g in said.out
    assert said.err == ""
    assert ("frozen statistics" in said.out) == ("batch norm" in name)
    assert ("frozen statistics" in out.with_suffix(".toml").read_text()) == ("batch norm" in name)
    x = photos()
    expected = module(torch.from_numpy(x)).numpy()
    assert expected.std() > 0.01
    assert np.abs(forward(imported(out), x) - expected).max() < 2e-4  # measured: up to 8e-5


def test_names_and_sizes_are_those_of_the_repository() -> None:
    """Read off models/networks.py there; the numbers of parameters are those that its training prints."""
    names = {n: set(torch_generators.build(g).state_dict()) for n, g in GENERATORS.items()}
    assert {"model.1.bias", "model.10.conv_block.5.bias", "model.16.bias", "model.23.bias"} <= names["resnet_6blocks"]
    assert {"model.18.conv_block.6.weight", "model.22.bias", "model.26.bias"} <= names["resnet_9blocks with dropout"]
    innermost = "model.model.1" + ".model.3" * 6 + ".model"
    assert {f"{innermost}.1.bias", f"{innermost}.3.weight", "model.model.3.bias"} <= names["unet_256"]
    assert f"{innermost}.4.running_var" in names["unet_256 with batch norm"]
    for generator, millions in ((RESNET_9, "11.378"), (replace(UNET, **BATCH), "54.414")):
        with torch.device("meta"):
            full = torch_generators.build(replace(generator, width=64))
        assert f"{sum(p.numel() for p in full.parameters()) / 1e6:.3f}" == millions


@torch.inference_mode()
def test_older_files_are_read(tmp_path: Path) -> None:
    """The format before PyTorch 1.6, DataParallel's names, half precision, and statistics that PyTorch 0.3 saved."""
    module = trained(UNET)
    state = {f"module.{name}": value.half() for name, value in module.state_dict().items()}
    for norm, channels in (("model.model.1.model.2", 16), ("model.model.1.model.6", 8)):
        state |= {f"module.{norm}.running_{kind}": torch.ones(channels) for kind in ("mean", "var")}
        state[f"module.{norm}.num_batches_tracked"] = torch.tensor(3)
    torch.save(state, tmp_path / "g.pth", _use_new_zipfile_serialization=False)
    assert main(["import-torch", str(tmp_path / "g.pth"), str(tmp_path / "g.npz")]) == 0
    x = photos()
    expected = module.half().float()(torch.from_numpy(x)).numpy()
    assert np.abs(forward(imported(tmp_path / "g.npz"), x) - expected).max() < 2e-4


@torch.inference_mode()
def test_a_batch_norm_can_be_taken_as_it_is_in_training(tmp_path: Path) -> None:
    """test.py there, without --eval, normalises each picture by its own statistics."""
    module = trained(replace(UNET, **BATCH))
    torch.save(module.state_dict(), tmp_path / "g.pth")
    assert main(["import-torch", str(tmp_path / "g.pth"), str(tmp_path / "g.npz"), "--norm", "instance"]) == 0
    x = photos()
    expected = np.concatenate([module.train()(torch.from_numpy(picture[None])).numpy() for picture in x])
    assert np.abs(forward(imported(tmp_path / "g.npz"), x) - expected).max() < 2e-4


@torch.inference_mode()
def test_padding_can_be_said_where_the_names_do_not_show_it(tmp_path: Path) -> None:
    module = trained(replace(RESNET_6, padding="zeros"))
    torch.save(module.state_dict(), tmp_path / "g.pth")
    assert main(["import-torch", str(tmp_path / "g.pth"), str(tmp_path / "g.npz"), "--padding", "zeros"]) == 0
    x = photos()
    assert np.abs(forward(imported(tmp_path / "g.npz"), x) - module(torch.from_numpy(x)).numpy()).max() < 2e-4


def test_mindspores_own_checkpoint_holds_the_same(tmp_path: Path, capsys) -> None:
    """It is read by `fit`'s start and by `export`, whose MINDIR runs on MindSpore Lite; and by MindSpore itself."""
    torch.save(trained(RESNET_6).state_dict(), tmp_path / "g.pth")
    for out in ("plain.npz", "g.ckpt"):
        assert main(["import-torch", str(tmp_path / "g.pth"), str(tmp_path / out), "--as", "gab"]) == 0
    npz, ckpt = (read_weights(tmp_path / name)["gab"] for name in ("plain.npz", "g.ckpt"))
    assert npz.keys() == ckpt.keys()
    assert all(np.array_equal(array, ckpt[layer]) for layer, array in npz.items())
    model = CycleGAN(Config(name="resnet", generator="resnet-6", generator_options={"width": 8}, d_width=8))
    start_from(tmp_path / "g.ckpt", model)
    for name in ("gab", "ema"):
        arrays = network_arrays(model.networks()[name])
        assert all(np.array_equal(arrays[f"{name}.{layer}"], array) for layer, array in npz.items())
    parameters = {parameter.name: parameter.shape for parameter in model.networks()["gab"].get_parameters()}
    assert {name: p.shape for name, p in ms.load_checkpoint(str(tmp_path / "g.ckpt")).items()} == parameters
    capsys.readouterr()
    arguments = [
        "--weights",
        str(tmp_path / "g.ckpt"),
        "--network",
        "gab",
        "--card",
        str(tmp_path / "g.toml"),
        str(tmp_path),
    ]
    assert main(["export", *arguments]) == 0, capsys.readouterr().err
    assert (tmp_path / "g.mindir").exists()


def test_broken_checkpoints_of_mindspore_are_named(tmp_path: Path) -> None:
    ms.save_checkpoint([{"name": "weight", "data": ms.Tensor(np.zeros(3, np.float32))}], str(tmp_path / "loose.ckpt"))
    whole = (tmp_path / "loose.ckpt").read_bytes()
    (tmp_path / "short.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    (tmp_path / "empty.ckpt").touch()
    for name in ("loose", "short", "text", "empty", "missing"):
        with pytest.raises(WeightsError, match=f"{name}.ckpt: "):
            read_weights(tmp_path / f"{name}.ckpt")


class MakesFolder:
    """When it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def bad_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[object, str]]:
    """What is saved, and what is said of it."""
    good = trained(RESNET_6).state_dict()
    batch = trained(replace(RESNET_6, **BATCH)).state_dict()
    discriminator = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4), torch.nn.LeakyReLU(), torch.nn.Conv2d(8, 1, 4))
    without = {name: value for name, value in good.items() if name != "model.10.conv_block.5.bias"}
    seven = {name.replace("model.10.", "model.99."): value for name, value in good.items() if ".10." in name}
    zero = {
        name.replace("conv_block.5", "conv_block.3").replace("conv_block.1.", "conv_block.0."): value
        for name, value in good.items()
    }
    with monkeypatch.context() as patch:
        patch.setattr(torch_generators, "UNET_DEPTH", 7)
        unet_128 = trained(UNET).state_dict()
    return {
        "code.pth": ({"a": MakesFolder(folder / "made")}, "it holds pickled code (posix.mkdir), which is never run"),
        "module.pth": (torch.nn.Conv2d(3, 8, 3), "it holds pickled code (torch.nn.modules.conv.Conv2d)"),
        "nested.pth": ({"state_dict": good}, "not a state dict"),
        "list.pth": ([1, 2], "not a state dict"),
        "none.pth": ({}, "no weights of convolutions, not a generator"),
        "d.pth": (discriminator.state_dict(), "a discriminator, not a generator"),
        "other.pth": (torch.nn.Conv2d(3, 8, 3).state_dict(), "other weights, not a generator"),
        "unet.pth": (unet_128, "a U-Net of 7 levels (unet_128)"),
        "blocks.pth": (good | seven, "a ResNet of 7 blocks"),
        "zero.pth": (zero, "padded with zeros and outer layers by reflection"),
        "lacks.pth": (without, "it lacks model.10.conv_block.5.bias"),
        "more.pth": (good | {"model.2.weight": torch.ones(8)}, "lacks model.10.conv_block.2.bias"),
        "shape.pth": (good | {"model.4.bias": torch.ones(9)}, "model.4.bias is (9,)"),
        "gray.pth": (good | {"model.1.weight": torch.ones(8, 1, 7, 7)}, "a generator of 1 to 3 channels"),
        "unclear.pth": (batch | {"model.1.bias": torch.ones(8)}, "say --norm batch or --norm instance"),
        "nan.pth": (good | {"model.4.bias": torch.full((16,), torch.nan)}, "m.1.0.bias holds NaN"),
    }


def test_files_that_cannot_be_imported_cost_one_clear_line(tmp_path: Path, capsys, monkeypatch) -> None:
    cases = bad_files(tmp_path, monkeypatch)
    for name, (content, _) in cases.items():
        torch.save(content, tmp_path / name)
    messages = {name: message for name, (_, message) in cases.items()}
    whole = tmp_path / "whole.bin"
    for new in (True, False):
        torch.save(trained(RESNET_6).state_dict(), whole, _use_new_zipfile_serialization=new)
        (tmp_path / f"short-{new}.pth").write_bytes(whole.read_bytes()[:-5000])
        messages[f"short-{new}.pth"] = "cut short, or not a checkpoint of PyTorch"
    (tmp_path / "photo.pth").write_bytes(next(PHOTOS.glob("*.jpg")).read_bytes())
    messages |= {"photo.pth": "cut short, or not a checkpoint", "missing.pth": "no such file", ".": "no such file"}
    for name, message in messages.items():
        assert main(["import-torch", str(tmp_path / name), str(tmp_path / "out" / "g.npz")]) == 2, name
        said = capsys.readouterr().err
        assert message in said, name
        assert said.startswith("train import-torch: ")
        assert said.count("\n") == 1
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_or_in_vain(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(trained(RESNET_6).state_dict(), tmp_path / "g.pth")
    command = ["import-torch", str(tmp_path / "g.pth"), str(tmp_path / "g.npz")]
    (tmp_path / "g.toml").write_text("described by hand")
    assert main(command) == 2
    assert "g.toml: is there already" in capsys.readouterr().err
    (tmp_path / "g.toml").unlink()
    assert main([*command[:2], str(tmp_path / "g.onnx")]) == 2
    assert "must end in .npz or .ckpt" in capsys.readouterr().err
    monkeypatch.setattr(import_torch, "MAX_DIFFERENCE", 1e-12)
    assert main(command) == 2
    assert "MindSpore differs from PyTorch by" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["g.pth"]
    monkeypatch.setattr(import_torch, "find_spec", lambda name: None)
    assert main(command) == 2
    assert "pip install 'h2a-batch[torch]'" in capsys.readouterr().err
