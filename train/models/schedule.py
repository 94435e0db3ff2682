"""What of a CycleGAN's loss changes with the step: the factors of its terms."""

from __future__ import annotations

from train.config import Config

BACKWARD_STRUCTURE = 0.5  # of the other direction's own structure: faces made of anime matter less


def factors_at(config: Config, step: int, structure: float) -> dict[str, float]:
    """By the names of GENERATOR_LOSSES; `structure`: the controller's factor, of no use where that term is off."""
    cycle, identity = config.cycle_at(step), config.identity_at(step)
    structure = structure if config.own_structure else 0.0
    return {
        "cycle_a": cycle,
        "cycle_b": config.cycle_b * cycle,
        "identity_a": identity,
        "identity_b": identity,
        "luminance": config.luminance_at(step),
        "structure_a": structure,
        "structure_b": BACKWARD_STRUCTURE * structure,
        "colour": config.own_colour,
        "projected": config.projected,
    }
