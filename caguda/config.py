"""The YAML of an experiment as frozen models: every key is known, typed and checked before anything runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from caguda.errors import UserError

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
BatchNorm = Literal["train", "frozen"]


class Section(BaseModel):
    """A part of the YAML: unchangeable, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Street(Section):
    """The generated street scenes: how many, how large, and how far the target differs from the source."""

    seed: int
    height: Positive = 128
    width: Positive = 256
    source_frames: Positive
    target_frames: Positive
    evaluation_frames: Positive
    strength: Fraction
    photo: Fraction


class Domain(Section):
    """One set of frames: its layout on disk, its folder below `data_root`, and which part of it is used."""

    layout: Literal["gta5", "cityscapes", "folder"]
    root: str = "."
    split: str | None = None
    images: str = "images"
    labels: str | None = "labels"
    list: str | None = None
    skip: tuple[str, ...] = ()


class ClassEntry(Section):
    """One category of a table of one's own: the value in the label files, its name and its colour."""

    id: Annotated[int, Field(ge=0, le=65535)]
    name: str
    color: tuple[int, int, int]


class Network(Section):
    """The segmentation network: encoder, f_D and classifier."""

    name: Literal["small"]
    width: Positive
    blocks: tuple[Positive, Positive, Positive, Positive]
    feature_channels: Positive


class Optimiser(Section):
    """How weights are updated."""

    name: Literal["sgd", "adamw"]
    learning_rate: Annotated[float, Field(gt=0.0)]
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 1e-4
    poly_power: NonNegative = 0.9


class Augmentation(Section):
    """What is done to a training frame; its labels go through the same geometry."""

    flip: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    color_jitter: NonNegative = 0.0
    blur: NonNegative = 0.0
    noise: NonNegative = 0.0


class Training(Section):
    """One run of the training loop."""

    iterations: Positive
    batch_size: Positive
    optimiser: Optimiser
    batch_norm: BatchNorm
    augmentation: Augmentation = Augmentation()


class WarmUp(Training):
    """Adversarial global alignment of the two domains."""

    adversarial_weight: NonNegative
    discriminator_learning_rate: Annotated[float, Field(gt=0.0)]
    discriminator_width: Positive = 64
    target_statistics: bool


class LossWeights(Section):
    """The weights of Eq. 12: lambda1 on both distance losses, lambda2 on each cross entropy of a pseudo-label."""

    distance: NonNegative
    anchor_cross_entropy: NonNegative
    probability_cross_entropy: NonNegative


class Stages(Training):
    """The K stages of Algorithm 1."""

    count: Positive
    target_augmentation: Augmentation = Augmentation()
    target_statistics: bool


class Labels(Section):
    """ATI and PLA: the thresholds, and in how many parts the labels are made."""

    margin: NonNegative
    margin_unit: Literal["absolute", "mean_anchor_distance"]
    p0: Fraction
    parts: Positive = 1


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Configuration(Section):
    """A whole experiment."""

    experiment: Name
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    data_root: str
    street: Street | None = None
    classes: Literal["cityscapes19"] | tuple[ClassEntry, ...]
    ignore: tuple[int, ...] = (255,)
    source: Domain
    target: Domain
    evaluation: Domain
    network: Network
    pretrain: Training
    warmup: WarmUp
    labels: Labels
    stages: Stages
    recipes: dict[Name, LossWeights]
    save_every: Positive = 50
    workers: Annotated[int, Field(ge=0)] = 0
    threads: Positive = 1

    @model_validator(mode="after")
    def _class_table_is_consistent(self) -> Configuration:
        if isinstance(self.classes, str):
            return self
        ids = [entry.id for entry in self.classes]
        names = [entry.name for entry in self.classes]
        for what, values in (("id", ids), ("name", names)):
            twice = sorted({str(v) for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"classes: every {what} must occur once, found {', '.join(twice)} twice")
        if not 2 <= len(ids) <= 254:
            raise ValueError(f"classes: a table needs 2 to 254 categories, found {len(ids)}")
        both = sorted(set(ids) & set(self.ignore))
        if both:
            raise ValueError(f"ignore: value {both[0]} is a category and cannot be ignored too")
        return self

    @property
    def root(self) -> Path:
        """The folder that all datasets' roots are relative to."""
        return Path(self.data_root)

    def domain_root(self, domain: Domain) -> Path:
        """The folder of one set of frames."""
        return self.root / domain.root


def _one_line(error: ValidationError, path: Path) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "the file"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown key"
        elif item["type"] == "missing":
            message = "this key is required"
        else:
            message = f"{message}, found {item['input']!r}" if item["type"] != "value_error" else message
        lines.append(f"{key}: {message}")
    return f"{path}: " + "; ".join(lines)


def parse_configuration(values: Any, path: Path) -> Configuration:
    """The validated experiment of a mapping; `path` is where it came from, for messages."""
    if not isinstance(values, dict):
        raise UserError(f"{path}: the file must hold keys and values, found {type(values).__name__}")
    try:
        configuration = Configuration.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(error, path)) from None
    expanded = os.path.expandvars(configuration.data_root)
    if "$" in expanded:
        raise UserError(
            f"{path}: data_root: {configuration.data_root} names an environment variable that is not set; "
            "set it, or give the folder with --config data_root=FOLDER"
        )
    return configuration.model_copy(update={"data_root": expanded})


def load_configuration(path: Path) -> Configuration:
    """The validated experiment of a YAML file (or of the JSON that the workflow writes)."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: the configuration cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: this is not YAML: {' '.join(str(error).split())}") from None
    return parse_configuration(values, path)
