"""The YAML of an experiment as frozen models: every key is known, typed and checked before anything runs."""

from __future__ import annotations

import difflib
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from caguda.errors import UserError

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Factor = Annotated[float, Field(gt=0.0)]
Seed = Annotated[int, Field(ge=0)]
LabelValue = Annotated[int, Field(ge=0, le=65535)]
ColorValue = Annotated[int, Field(ge=0, le=255)]
BatchNorm = Literal["train", "frozen"]
FOLDERS = {"pretrain", "warmup", "control", "oracle", "data", "log", "benchmark"}


class Section(BaseModel):
    """A part of the YAML: unchangeable, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_known_keys_only(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                raise ValueError(f"{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
        return values


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

    @model_validator(mode="after")
    def _fits_its_layout(self) -> Domain:
        if self.layout != "cityscapes":
            if self.split is not None:
                raise ValueError(f"split: layout {self.layout} has no splits, found {self.split!r}; use the key list")
        elif self.split is None:
            raise ValueError("split: layout cityscapes needs the name of a split: train, val or test")
        elif self.images != "images" or self.labels not in ("labels", None):
            raise ValueError(
                "images, labels: layout cityscapes has folders of its own, leave the keys out (or labels: null)"
            )
        return self


class ClassEntry(Section):
    """One category of a table of one's own: the value in the label files, its name and its colour."""

    id: LabelValue
    name: Annotated[str, Field(min_length=1)]
    color: tuple[ColorValue, ColorValue, ColorValue]


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
    scale: tuple[Factor, Factor] = (1.0, 1.0)
    crop: tuple[Positive, Positive] | None = None
    color_jitter: NonNegative = 0.0
    blur: NonNegative = 0.0

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Augmentation:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: the smaller factor comes first, found {list(self.scale)}")
        return self


class Training(Section):
    """One run of the training loop."""

    iterations: Positive
    batch_size: Positive
    optimiser: Optimiser
    batch_norm: BatchNorm
    target_statistics: bool = False
    augmentation: Augmentation = Augmentation()


class WarmUp(Training):
    """Adversarial global alignment of the two domains."""

    adversarial_weight: NonNegative
    discriminator_learning_rate: Annotated[float, Field(gt=0.0)]
    discriminator_width: Positive = 64


class LossWeights(Section):
    """The weights of Eq. 12: lambda1 on both distance losses, lambda2 on each cross entropy of a pseudo-label."""

    distance: NonNegative
    anchor_cross_entropy: NonNegative
    probability_cross_entropy: NonNegative


class Stages(Training):
    """The K stages of Algorithm 1."""

    count: Positive
    target_augmentation: Augmentation = Augmentation()


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
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    data_root: str
    street: Street | None = None
    classes: Literal["cityscapes19"] | tuple[ClassEntry, ...]
    ignore: tuple[LabelValue, ...] = (255,)
    source: Domain
    target: Domain
    evaluation: Domain
    network: Network
    pretrain: Training
    warmup: WarmUp
    labels: Labels
    stages: Stages
    recipes: Annotated[dict[Name, LossWeights], Field(min_length=1)]
    save_every: Positive = 50
    workers: Annotated[int, Field(ge=0)] = 0
    threads: Positive = 1

    @model_validator(mode="after")
    def _class_table_is_consistent(self) -> Configuration:
        if isinstance(self.classes, str):
            if self.ignore != (255,):
                raise ValueError("ignore: cityscapes19 knows its void values, leave the key out or list the classes")
            return self
        ids = [entry.id for entry in self.classes]
        _each_once("classes: every id", ids)
        _each_once("classes: every name", [entry.name for entry in self.classes])
        if not 2 <= len(ids) <= 254:
            raise ValueError(f"classes: a table needs 2 to 254 categories, found {len(ids)}")
        if both := sorted(set(ids) & set(self.ignore)):
            raise ValueError(f"ignore: value {both[0]} is a category and cannot be ignored too")
        return self

    @model_validator(mode="after")
    def _runs_are_possible(self) -> Configuration:
        _each_once("seeds: every seed", self.seeds)
        for name, domain in (("source", self.source), ("evaluation", self.evaluation)):
            if domain.labels is None:
                raise ValueError(f"{name}.labels: the {name} set needs labels, only the target can do without")
        if taken := sorted(FOLDERS & self.recipes.keys()):
            raise ValueError(f"recipes: {taken[0]} is a folder of other results, choose another name")
        return self

    @property
    def root(self) -> Path:
        """The folder that all datasets' roots are relative to."""
        return Path(self.data_root)

    def domain_root(self, domain: Domain) -> Path:
        """The folder of one set of frames."""
        return self.root / domain.root


def _each_once(what: str, values: Sequence[Hashable]) -> None:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{what} must occur once, found more than once: {', '.join(twice)}")


def _complaint(item: ErrorDetails) -> str:
    """One fault of the YAML: its key and what is wrong with it."""
    location = [part for part in item["loc"] if not str(part).startswith(("tuple[", "literal["))]
    key = ".".join(str(part) for part in location)
    if item["type"] == "value_error":
        return ".".join(part for part in (key, item["msg"].removeprefix("Value error, ")) if part)
    if item["type"] == "missing":
        return f"{key}: this key is required"
    hint = "; put it in quotes" if item["type"] == "string_type" and isinstance(item["input"], int | float) else ""
    return f"{key}: {item['msg']}, found {item['input']!r}{hint}"


def _one_line(error: ValidationError, path: Path) -> str:
    """All faults of a YAML on one line; of a class table only those of the form that it has, a name or a list."""
    faults = [
        _complaint(item)
        for item in error.errors()
        if not (item["type"] == "literal_error" and item["loc"][0] == "classes" and isinstance(item["input"], list))
        and not (item["type"] == "tuple_type" and item["loc"][0] == "classes" and isinstance(item["input"], str))
    ]
    return f"{path}: " + "; ".join(faults)


def parse_configuration(values: Any, path: Path) -> Configuration:
    """The validated experiment of a mapping; `path` is where it came from, for messages."""
    if values is None:
        raise UserError(f"{path}: the configuration is empty")
    if not isinstance(values, dict):
        raise UserError(f"{path}: the file must hold keys and values, found {type(values).__name__}")
    try:
        configuration = Configuration.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(error, path)) from None
    expanded = os.path.expandvars(os.path.expanduser(configuration.data_root))
    if "$" in expanded:
        raise UserError(
            f"{path}: data_root: {configuration.data_root} names an environment variable that is not set; "
            "set it, or give the folder with --config data_root=FOLDER"
        )
    return configuration.model_copy(update={"data_root": expanded})


def _double_keys(node: Any) -> list[str]:
    """The keys that occur more than once in a mapping of a YAML tree; the loader would keep the last in silence."""
    children = node.value if isinstance(node, yaml.CollectionNode) else []
    keys: list[str] = []
    if isinstance(node, yaml.MappingNode):
        keys = [str(key.value) for key, _ in children]
        children = [child for _, child in children]
    return [key for key in keys if keys.count(key) > 1] + [key for child in children for key in _double_keys(child)]


def load_configuration(path: Path) -> Configuration:
    """The validated experiment of a YAML file (or of the JSON that the workflow writes)."""
    try:
        text = path.read_text(encoding="utf-8")
        values, double = yaml.safe_load(text), _double_keys(yaml.compose(text, Loader=yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"{path}: the configuration cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: the configuration must be text in UTF-8") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: this is not YAML: {' '.join(str(error).split())}") from None
    if double:
        raise UserError(f"{path}: {double[0]}: this key occurs twice in one section, remove one of the two")
    return parse_configuration(values, path)
