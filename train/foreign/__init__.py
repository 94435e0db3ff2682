"""Foreign: what other projects trained, read as plain arrays, without their frameworks and without MindSpore."""

from train.foreign.efficientnet import (
    FEATURE_SIZE,
    Block,
    Convolution,
    Network,
    load_weights,
    normalised,
    weights_file,
)
from train.foreign.torch_checkpoint import (
    UNET_DEPTH,
    Arrays,
    TorchGenerator,
    card_draft,
    convert,
    recognise,
    unwrapped,
    used,
)

__all__ = [
    "FEATURE_SIZE",
    "UNET_DEPTH",
    "Arrays",
    "Block",
    "Convolution",
    "Network",
    "TorchGenerator",
    "card_draft",
    "convert",
    "load_weights",
    "normalised",
    "recognise",
    "unwrapped",
    "used",
    "weights_file",
]
