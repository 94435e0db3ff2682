"""A trained generator as the equal network that is exported: the same function, arranged for inference on a CPU.

Rewrites, each exact algebra, so that only rounding differs (about 2e-6 in [-1, 1]):

1. No bias in front of an instance norm: the norm subtracts the mean, and the bias with it.
2. Channels last. MindSpore Lite runs its CPU convolutions on (N, H, W, C) and puts a transpose before and after each.
   Here everything between two convolutions works on (N, H, W, C), too, between explicit transposes; Lite cancels them
   against its own, and only the two at the ends of the network remain.
3. Sub-pixel convolution (arXiv 1609.05158; the equality: 1609.07009). A transposed 4x4 convolution of stride 2 is a
   3x3 convolution that makes the four pixels of each 2x2 cell ("phases") as channels, phase-major, and an interleaving
   of them. The 3x3 form has 2.25 times the multiply-accumulates, but Lite has a fast (Winograd) kernel for it and
   none for transposed ones. A zero-padded convolution that follows is rewritten to read and write phases, so that
   only its three output channels are interleaved at full size. In the U-Net it pays only where the picture is large
   and the kernels are small: at its outermost levels.
4. Phases at the ends of a network, where pictures have three channels: a large first convolution with stride 2 makes
   the four pixels of a cell, and the strided one behind it reads them as they are; a large last one makes twelve
   channels, not three, which leave most of a vector of Lite's empty.
5. Means in two stages, of each row and then of these. Lite adds up in plain order, where the last of 65,536 numbers
   finds three digits gone: with one sum a network is several times further from MindSpore.
6. In `coarse-to-fine` means over cells are a convolution, and bilinear enlargement is two products of matrices.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from train.export.inference.chain import chain_form, is_block
from train.export.inference.fine import CoarseToFineForm, FineFirst
from train.export.inference.unet import UNetForm
from train.networks import CoarseToFine, FineGenerator, UNetGenerator

__all__ = ["inference_form", "is_block"]


def inference_form(generator: nn.Cell) -> nn.Cell:
    """The equal inference network of a generator from `train.networks`; the generator is not changed.

    (N, 3, H, W) in [-1, 1] -> what the generator gives. Raises TrainError for layers without a known form.
    """
    if isinstance(generator, CoarseToFine):
        return CoarseToFineForm(generator).set_train(False)
    if isinstance(generator, FineGenerator):
        return FineFirst(generator).set_train(False)
    form = UNetForm(generator) if isinstance(generator, UNetGenerator) else chain_form(generator)
    return _InferenceGenerator(form).set_train(False)


class _InferenceGenerator(nn.Cell):
    """A network on (N, H, W, C) behind the (N, C, H, W) interface of a generator."""

    def __init__(self, form: nn.Cell) -> None:
        super().__init__()
        self.layers = form

    def construct(self, x: Tensor) -> Tensor:
        return ops.transpose(self.layers(ops.transpose(x, (0, 2, 3, 1))), (0, 3, 1, 2))
