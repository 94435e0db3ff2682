"""The PatchGAN discriminator of pix2pix (arXiv 1611.07004, section 3.2.2 and appendix 6.1.2), as a MindSpore cell."""

from __future__ import annotations

from mindspore import nn

from train.networks.layers import InstanceNorm, LeakyReLU, patch_conv


class PatchDiscriminator(nn.SequentialCell):
    """The 70x70 PatchGAN: C64-C128-C256-C512 and a one-channel convolution, no sigmoid (for the LSGAN loss).

    (N, 3, H, W) in [-1, 1] -> (N, 1, H/8 - 2, W/8 - 2) unbounded scores, one for each 70x70 patch: 30x30 for 256x256.
    `width` is ndf: 64 in the papers (pix2pix appendix 6.1.2, CycleGAN appendix 7.2), 40 in the shipped weights. Two
    4x4 convolutions of stride 1 close it, and the first layer has no norm. `inputs` is 6 for the conditional one of
    pix2pix, which sees input and output joined.
    """

    def __init__(self, width: int = 64, inputs: int = 3) -> None:
        cells: list[nn.Cell] = [patch_conv(inputs, width, 2), LeakyReLU(0.2)]
        for inputs, outputs, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            cells += [patch_conv(inputs * width, outputs * width, stride), InstanceNorm(outputs * width)]
            cells.append(LeakyReLU(0.2))
        super().__init__(*cells, patch_conv(8 * width, 1, 1))
