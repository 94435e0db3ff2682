"""Inference: models and their cards, run on MindSpore Lite."""

from h2a_batch.inference.card import (
    DETECTOR,
    FaceRule,
    card_of,
    check_detector_card,
    find_model,
    identify,
    known_models,
    name_of_shipped,
    read_card,
)
from h2a_batch.inference.generator import DEFAULT_MODEL, Generator, load_runtime, one_line, resolve_device
from h2a_batch.inference.optimised import cache_folder, load
from h2a_batch.inference.weights import check_weights

__all__ = [
    "DEFAULT_MODEL",
    "DETECTOR",
    "FaceRule",
    "Generator",
    "cache_folder",
    "card_of",
    "check_detector_card",
    "check_weights",
    "find_model",
    "identify",
    "known_models",
    "load",
    "load_runtime",
    "name_of_shipped",
    "one_line",
    "read_card",
    "resolve_device",
]
