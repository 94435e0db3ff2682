"""The configuration of a training run: one frozen dataclass, one TOML file, any field set from the command line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.errors import TrainError
from train.toml import read_toml, value_of

KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "dict[str, Any]": (dict,)}
GANS = ("lsgan", "vanilla")
REALS = ("teacher", "domain_b")
DISTILLATION = {"pool": 0}  # defaults that are others with a teacher: pix2pix has no pool
DIFFAUGMENT = ("color", "translation", "cutout")  # the policies of `train.losses`
AFFINE, JITTER = (
    ("turn", "zoom", "shift"),
    ("contrast", "brightness", "saturation", "gray"),
)  # of `train.data`
AT_LEAST_1 = (
    *("size", "d_width", "d_scales", "batch", "steps", "luminance_cell", "projected_size"),
    *("identity_every", "log_every", "sample_every", "save_every", "collapse_steps", "distill_layers"),
)
NOT_NEGATIVE = (
    *("score_every", "decay_steps", "pool", "rate", "d_rate", "cycle", "identity", "luminance", "luminance_start"),
    *("d_width_a", "cycle_start", "cycle_steps", "cycle_b", "cycle_noise", "identity_start", "identity_steps"),
    *("own_structure", "own_colour", "projected", "projected_rate", "warmup_steps", "ema_warmup"),
    *("adversarial", "recon", "distill"),
    *("agreement", "features", "patch", "photos", "gan_start", "gan_steps"),
)
FINE = "fine"  # the generator that is trained otherwise than the rest
JOINED = "coarse-to-fine"  # what it is the second half of
SHARES = ("flip", "beta1", "beta2", "ema", "ema_start", "rate_floor", "identity_share", "own_structure")


@dataclass(frozen=True)
class Config:
    """Defaults are those of the CycleGAN paper (section 4 and appendix 7.1), with the generator of this project."""

    name: str
    # Data: the folder, and its folders of the two domains. Relative to where the command runs.
    data: str = ""
    domain_a: str = "trainA"
    domain_b: str = "trainB"
    size: int = 256
    smallest_crop: float = 0.89  # of the side; 256 / 286 in the paper's code
    flip: float = 0.5  # the probability
    # In place of the crop: turn (radians), zoom ([least, most]), shift (of half the side); mirrored outside
    affine_a: dict[str, Any] = field(default_factory=dict)
    affine_b: dict[str, Any] = field(default_factory=dict)
    # Of faces: contrast, brightness, saturation change by up to so much; gray is the probability of no colour at all
    jitter_a: dict[str, Any] = field(default_factory=dict)
    # Networks
    generator: str = "fast"
    generator_options: dict[str, Any] = field(default_factory=dict)
    d_width: int = 64
    d_width_a: int = 0  # of the discriminators of domain A; 0: as `d_width`
    d_scales: int = 1  # discriminators a domain, each at half the size of the one before (pix2pixHD)
    diffaugment: str = ""  # "color,translation,cutout" or some of them
    start: str = ""  # weights (.npz) to start from
    # Distillation (`train.models`), if there is a teacher: its weights, which network of them, and that one's kind
    teacher: str = ""
    teacher_network: str = "ema"
    teacher_generator: str = "resnet-9"
    teacher_options: dict[str, Any] = field(default_factory=dict)
    reals: str = "teacher"  # of the discriminator: the teacher's pictures, or those of domain_b
    adversarial: float = 1.0
    recon: float = 10.0
    distill: float = 0.01
    distill_layers: int = 4
    # The fine half (`train.models`), which is what `generator = "fine"` trains; of its loss 0 leaves a term out
    crop: int = 128  # pixels a side of what a step sees
    coarse: str = ""  # weights of the coarse half, whose pictures of faces are half of each batch; "": there are none
    coarse_options: dict[str, Any] = field(default_factory=dict)
    agreement: float = 1.0
    features: float = 0.1
    patch: float = 1.0  # of the PatchGAN, times `adversarial`; `projected` is that of the other discriminator
    photos: float = 1.0  # of both, for what is made of faces
    gan_start: int = 300  # the step from which `adversarial` grows linearly from 0
    gan_steps: int = 300  # to its full size
    # Loss
    gan: str = "lsgan"
    cycle: float = 10.0
    cycle_start: float = 0.0  # goes linearly to `cycle` in `cycle_steps`; 0 of those: `cycle` from the first step
    cycle_steps: int = 0
    cycle_b: float = 1.0  # of the cycle from B, times `cycle`
    cycle_noise: float = 0.0  # standard deviation of what is added to the pictures that go back round the cycle
    identity: float = 5.0
    identity_start: float = 0.0  # as `cycle_start`
    identity_steps: int = 0
    identity_every: int = 1
    identity_share: float = 1.0  # of the batch, whose identity loss is taken; at least one picture
    luminance: float = 0.0
    luminance_start: float = 0.0  # falls to 0, at least `luminance`, in `luminance_steps`; with `start` it is 0
    luminance_steps: int = 2500
    luminance_cell: int = 16  # pixels a side, over which luminance is averaged
    own_structure: float = 0.0  # the correlation to hold (`train.losses`); 0: off
    own_colour: float = 0.0
    projected: float = 0.0  # of the projected discriminator of domain B (`train.networks`)
    projected_size: int = 96  # to which pictures are enlarged for its features
    pool: int = 50
    # Optimisation
    steps: int = 200_000
    decay_steps: int = 100_000  # the last ones, in which the rate falls linearly to 0, at least `rate_floor`
    rate_floor: float = 0.0  # times `rate`
    warmup_steps: int = 0  # the first ones, in which the rate rises linearly from 0
    batch: int = 1
    rate: float = 2e-4
    d_rate: float = 1.0  # times `rate`
    projected_rate: float = 1.0  # times `rate`
    beta1: float = 0.5
    beta2: float = 0.999
    ema: float = 0.998
    ema_start: float = 0.95  # in the first `ema_start_steps`
    ema_start_steps: int = 500
    ema_warmup: int = 0  # in place of those: at most (1 + step) / (ema_warmup + step)
    seed: int = 0
    # The run
    log_every: int = 10
    sample_every: int = 500
    save_every: int = 1000
    score_every: int = 0  # 0: no scores, and no best.npz
    score_pictures: int = 100  # of each domain
    samples: int = 8
    collapse_steps: int = 300  # ends the run after so many collapsed ones in a row

    def __post_init__(self) -> None:
        for name in AT_LEAST_1:
            _require(getattr(self, name) >= 1, name, self, "must be 1 or more")
        for name in NOT_NEGATIVE:
            _require(getattr(self, name) >= 0, name, self, "must not be negative")
        _require(self.gan in GANS, "gan", self, f"must be one of {', '.join(GANS)}")
        _require(self.reals in REALS, "reals", self, f"must be one of {', '.join(REALS)}")
        parts = set(filter(None, self.diffaugment.split(",")))
        _require(parts <= set(DIFFAUGMENT), "diffaugment", self, f"must be of {', '.join(DIFFAUGMENT)}, with commas")
        _require(0 < self.smallest_crop <= 1, "smallest_crop", self, "must be above 0, at most 1")
        for name in SHARES:
            _require(0 <= getattr(self, name) <= 1, name, self, "must be between 0 and 1")
        _require(self.score_pictures >= 2, "score_pictures", self, "must be 2 or more")
        _require(self.decay_steps <= self.steps, "decay_steps", self, f"must not be more than steps ({self.steps})")
        _require(self.size % 16 == 0, "size", self, "must be divisible by 16")
        _require(self.size % self.luminance_cell == 0, "luminance_cell", self, f"must divide size ({self.size})")
        _require(self.projected_size % 32 == 0, "projected_size", self, "must be divisible by 32")
        own = "own_structure" if self.own_structure else "own_colour"
        if getattr(self, own):
            _require(self.batch >= 2, own, self, "needs a batch of 2 or more, whose mean picture is taken away")
            _require(self.size % 32 == 0, own, self, f"needs a size divisible by 32, not {self.size}")
        _require(self.coarse == "" or self.generator == FINE, "coarse", self, f"is for generator = {FINE!r} alone")
        if self.generator == FINE:
            _check_fine(self)
        for name, known in (("affine_a", AFFINE), ("affine_b", AFFINE), ("jitter_a", JITTER)):
            self._check_table(name, known)

    def _check_table(self, name: str, known: tuple[str, ...]) -> None:
        """Of an augmentation: numbers that are not negative, and `zoom`, which is two of them."""
        table = getattr(self, name)
        _require(set(table) <= set(known), name, self, f"must be of {', '.join(known)}")
        for key, value in table.items():
            if key == "zoom":
                pair = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
                _require(pair and 0 < value[0] <= value[1], name, self, "zoom must be [least, most], above 0")
            else:
                _require(_is_number(value) and value >= 0, name, self, f"{key} must be a number, not negative")
        _require(table.get("gray", 0) <= 1, name, self, "gray must be between 0 and 1")

    def rate_at(self, step: int) -> float:
        """Rises linearly, is constant, falls linearly in the last `decay_steps`; steps count from 1."""
        rising = min(1.0, step / max(self.warmup_steps, 1))
        falling = min(1.0, max(self.rate_floor, (self.steps + 1 - step) / (self.decay_steps + 1)))
        return self.rate * rising * falling

    def gan_at(self, step: int) -> float:
        """The factor of the GAN terms of the fine half."""
        grown = (step - self.gan_start) / max(self.gan_steps, 1)
        return self.adversarial * min(1.0, max(0.0, grown))

    def cycle_at(self, step: int) -> float:
        return _between(self.cycle_start, self.cycle, step, self.cycle_steps)

    def identity_at(self, step: int) -> float:
        """The factor of the identity loss; 0 in the steps that leave it out."""
        if step % self.identity_every:
            return 0.0
        return _between(self.identity_start, self.identity, step, self.identity_steps)

    def luminance_at(self, step: int) -> float:
        start = self.luminance_start if not self.start else 0.0
        falling = 0.0 if self.luminance_steps < 1 else start * (1 - step / self.luminance_steps)
        return max(self.luminance, falling)

    def ema_at(self, step: int) -> float:
        if self.start:
            return self.ema
        if self.ema_warmup:
            return min(self.ema, (1 + step) / (self.ema_warmup + step))
        return self.ema if step > self.ema_start_steps else self.ema_start

    def toml(self) -> str:
        """What `read_config` reads back as the same."""
        fields = dataclasses.asdict(self)
        tables = {name: fields.pop(name) for name, value in list(fields.items()) if isinstance(value, dict)}
        lines = [f"{name} = {_toml(value)}" for name, value in fields.items()]
        for table, options in tables.items():
            lines += ["", f"[{table}]"] * bool(options)
            lines += [f"{name} = {_toml(value)}" for name, value in options.items()]
        return "\n".join(lines) + "\n"


def read_config(path: Path, settings: Iterable[str] = ()) -> Config:
    """The TOML file with `field=value` settings laid over it; `generator_options.blocks=6` reaches into the table."""
    try:
        fields = read_toml(path)
    except FileNotFoundError:
        raise TrainError(f"{path}: no such file") from None
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise TrainError(f"--set {setting}: must be FIELD=VALUE")
        table, dot, option = name.strip().partition(".")
        target = fields.setdefault(table, {}) if dot else fields
        if not isinstance(target, dict):
            raise TrainError(f"--set {setting}: {table!r} is not a table")
        target[option if dot else table] = value_of(value.strip())
    return config_from(fields, path)


def config_from(fields: Mapping[str, Any], origin: object) -> Config:
    known = {f.name: str(f.type) for f in dataclasses.fields(Config)}
    for name, value in fields.items():
        if name not in known:
            raise TrainError(f"{origin}: unknown field {name!r}; known are {', '.join(known)}")
        if not isinstance(value, KINDS[known[name]]) or isinstance(value, bool):
            raise TrainError(f"{origin}: {name} = {value!r}: must be {known[name]}")
    if "name" not in fields:
        raise TrainError(f"{origin}: needs a name")
    fields = {**DISTILLATION, **fields} if fields.get("teacher") else fields
    given: dict[str, Any] = {n: float(value) if known[n] == "float" else value for n, value in fields.items()}
    return Config(**given)


def _check_fine(config: Config) -> None:
    _require(config.teacher == "", "teacher", config, f"is not for generator = {FINE!r}")
    _require(config.crop % 32 == 0, "crop", config, "must be divisible by 32")
    _require(0 < config.crop <= config.size, "crop", config, f"must be above 0, at most size ({config.size})")
    _require(config.batch >= 2 or not config.coarse, "coarse", config, "needs a batch of 2 or more")


def _between(start: float, end: float, step: int, steps: int) -> float:
    """From start to end in so many steps, linearly; the end from there on."""
    return end if step >= steps else start + (end - start) * step / steps


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _require(holds: bool, name: str, config: Config, message: str) -> None:
    if not holds:
        raise TrainError(f"{name} = {getattr(config, name)!r}: {message}")
