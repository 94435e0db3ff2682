"""Models: what a run trains, networks and their step: CycleGAN, a distillation, the fine half."""

from train.models.choice import build, kind, wanted_pictures
from train.models.cyclegan import FEATURES, CycleGAN
from train.models.model import Model
from train.models.schedule import factors_at

__all__ = [
    "FEATURES",
    "CycleGAN",
    "Model",
    "build",
    "factors_at",
    "kind",
    "wanted_pictures",
]
