"""Which model a config means, and what follows from that."""

from __future__ import annotations

import dataclasses

from train.config import FINE, Config
from train.models.distill import Distillation
from train.models.fine import FineTraining
from train.models.model import Model
from train.models.unpaired import Unpaired
from train.parallel import ALONE, Workers


def build(config: Config, workers: Workers = ALONE) -> Model:
    """The model that a config means, freshly initialised: the fine half; where there is a teacher, a distillation."""
    if config.generator == FINE:
        return FineTraining(config, workers)
    return Distillation(config, workers) if config.teacher else Unpaired(config, workers)


def wanted_pictures(config: Config) -> Config:
    """A distillation from nothing but the teacher's pictures reads faces alone: there may be no domain B.

    The fine half by itself reads anime alone.
    """
    if config.generator == FINE and not config.coarse:
        return dataclasses.replace(config, domain_a=config.domain_b)
    faces = bool(config.teacher) and config.reals == "teacher"
    return dataclasses.replace(config, domain_b=config.domain_a) if faces else config


def kind(config: Config) -> str:
    """What a run of this config is, in words; runs of two kinds do not go on from one another."""
    if config.generator == FINE:
        return "the fine half"
    return "a distillation, from --teacher" if config.teacher else "CycleGAN, without a teacher"
