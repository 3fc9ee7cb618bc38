"""The YAML of an experiment as frozen models: every key is known, typed and checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, create_model, model_validator

from caguda.config_frames import (
    Augmentation,
    ClassEntry,
    Domain,
    Factor,
    Few,
    Fraction,
    LabelValue,
    NonNegative,
    Positive,
    Section,
    Seed,
    Street,
)
from caguda.config_network import NetworkSettings, network_classes, one_of
from caguda.kinds import load_plugins

BatchNorm = Literal["train", "frozen"]
Unit = Literal["absolute", "mean_anchor_distance"]
Pixels = Literal["all", "correct"]
Bound = Literal["control", "oracle"]
FOLDERS = {"pretrain", "warmup", "control", "oracle", "data", "check", "check-test", "packed", "log", "benchmark", "state",
           "tables", "lock"}  # fmt: skip
OTHERS = re.compile(r"ablation-.*|sweep-.*|(seed|stage)\d+")


def _each_once(what: str, values: Sequence[Hashable]) -> None:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{what} must occur once, found more than once: {', '.join(twice)}")


class Optimiser(Section):
    """How weights are updated; the learning rate falls to 0 at `poly_iterations`, the end of the training if absent."""

    name: Literal["sgd", "adamw"]
    learning_rate: Annotated[float, Field(gt=0.0)]
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 1e-4
    poly_power: NonNegative = 0.9
    poly_iterations: Positive | None = None


class Training(Section):
    """One run of the training loop; `batch_size` counts the images of all processes, `accumulate` batches per update."""

    iterations: Positive
    batch_size: Few
    accumulate: Few = 1
    optimiser: Optimiser
    batch_norm: BatchNorm
    target_statistics: bool = False
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _schedule_covers_the_training(self) -> Training:
        length = self.optimiser.poly_iterations
        if length is not None and length < self.iterations:
            raise ValueError(f"optimiser.poly_iterations: must reach the training's {self.iterations}, found {length}")
        return self


class WarmUp(Training):
    """Adversarial global alignment of the two domains."""

    adversarial_weight: NonNegative
    discriminator_learning_rate: Annotated[float, Field(gt=0.0)]
    discriminator_width: Few = 64
    discriminator_input: Literal["softmax", "features"] = "softmax"


class Anchors(Section):
    """CAC, Eq. 4: which pixels make an anchor, what it is the mean of, and whether every stage makes its own."""

    pixels: Pixels = "all"
    mean: Literal["pixels", "images"] = "pixels"
    min_pixels: Positive = 1
    every_stage: bool = True

    @model_validator(mode="after")
    def _minimum_is_per_image(self) -> Anchors:
        if self.mean == "pixels" and self.min_pixels > 1:
            raise ValueError(f"min_pixels: a minimum per image needs mean: images, found {self.min_pixels} without it")
        return self


class Labels(Section):
    """ATI and PLA: the thresholds."""

    margin: NonNegative
    margin_unit: Unit
    p0: Fraction


class Losses(Section):
    """The readings of Eq. 2 and 8 to 11 that a recipe may choose."""

    reduction: Literal["mean", "sum"] = "mean"
    distance: Literal["l2", "squared_l2", "class_mean"] = "l2"
    distance_pixels: Pixels = "all"
    distance_unit: Unit = "mean_anchor_distance"
    target_resolution: Literal["features", "image"] = "features"


class Recipe(Section):
    """The weights of Eq. 12: lambda1 on both distance losses, lambda2 on each cross entropy of a pseudo-label.

    Then what an ablation departs from: whose labels the target's distance loss has, the model that the first stage
    starts from, and whether pseudo-labels are renewed once a stage or, by the network in training, at every iteration.
    """

    distance: NonNegative
    anchor_cross_entropy: NonNegative
    probability_cross_entropy: NonNegative
    distance_labels: Literal["anchor", "probability"] = "anchor"
    start: Literal["warmup", "pretrain"] = "warmup"
    renewed: Literal["stage", "iteration"] = "stage"


class Stages(Training):
    """The K stages of Algorithm 1."""

    count: Few
    target_augmentation: Augmentation = Augmentation()


class Inference(Section):
    """How a finished network is asked about a frame: at these scales, each also mirrored with `flip`."""

    scales: Annotated[tuple[Factor, ...], Field(min_length=1)] = (1.0,)
    flip: bool = False

    @model_validator(mode="after")
    def _scales_differ(self) -> Inference:
        _each_once("scales: every scale", self.scales)
        return self


class Compute(Section):
    """How the machine is used; of these, `threads`, `processes`, `precision`, `tf32` and `compile` change last digits.

    And `inference_batch_size` the statistics of batch normalisation that are estimated on the target.
    """

    threads: Few = 1
    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    processes: Few = 1
    parts: Few = 1
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    tf32: bool = False
    compile: bool = False
    recompute_activations: bool = False
    inference_batch_size: Few = 8
    save_every: Positive = 50


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]


class Configuration(Section):
    """A whole experiment."""

    experiment: Name
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    data_root: str
    plugins: tuple[str, ...] = ()
    cache: bool = False
    street: Street | None = None
    start_from: dict[Literal["pretrain", "warmup"], str] = Field(default_factory=dict)
    classes: Literal["cityscapes19", "cityscapes16", "cityscapes13"] | tuple[ClassEntry, ...]
    ignore: tuple[LabelValue, ...] = (255,)
    source: Domain
    target: Domain
    evaluation: Domain
    test: Domain | None = None
    network: SerializeAsAny[NetworkSettings]  # with the keys of a network that only a plugin knows
    pretrain: Training
    warmup: WarmUp
    anchors: Anchors = Anchors()
    labels: Labels
    losses: Losses = Losses()
    stages: Stages
    recipes: Annotated[dict[Name, Recipe], Field(min_length=1)]
    bounds: tuple[Bound, ...] = ("control", "oracle")
    inference: Inference = Inference()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _class_table_is_consistent(self) -> Configuration:
        if isinstance(self.classes, str):
            if self.ignore != (255,):
                raise ValueError(
                    f"ignore: {self.classes} knows its void values, leave the key out, or set [255] above a base that has it"
                )
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
        _each_once("bounds: every bound", self.bounds)
        for name, domain in (("source", self.source), ("evaluation", self.evaluation)):
            if domain.labels is None:
                raise ValueError(f"{name}.labels: the {name} set needs labels, only the target can do without")
        for name, training in (("pretrain", self.pretrain), ("warmup", self.warmup), ("stages", self.stages)):
            if training.batch_size % self.compute.processes:
                raise ValueError(
                    f"{name}.batch_size: must be a multiple of compute.processes, found {training.batch_size}"
                )
        if without := [name for name, recipe in self.recipes.items() if recipe.start not in self.runs]:
            raise ValueError(
                f"recipes.{without[0]}.start: there is no source-only model where the warm-up is brought; "
                "bring one too, by start_from.pretrain"
            )
        if taken := [name for name in self.recipes if name in FOLDERS or OTHERS.fullmatch(name)]:
            raise ValueError(f"recipes: {taken[0]} is a folder of other results, choose another name")
        return self

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs before the stages; nothing needs source only where the warm-up is brought, so that it must be too."""
        brought = self.start_from.keys()
        return ("warmup",) if "warmup" in brought and "pretrain" not in brought else ("pretrain", "warmup")

    @property
    def trained_bounds(self) -> tuple[str, ...]:
        """The bounds that are trained; an oracle needs the target's labels."""
        possible = ("control",) if self.target.labels is None else ("control", "oracle")
        return tuple(bound for bound in possible if bound in self.bounds)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What a reader of the results might look for and is not made, each with its reason."""
        unlabelled = self.target.labels is None
        unwanted = [bound for bound in ("control", "oracle") if bound not in self.bounds]
        if unlabelled and "oracle" in unwanted:
            unwanted.remove("oracle")
        without = ("the oracle and the accuracy of pseudo-labels (the target has no labels)",) if unlabelled else ()
        return (*(f"the {bound} (the key bounds does not name it)" for bound in unwanted), *without)

    @property
    def root(self) -> Path:
        """The folder that all datasets' roots are relative to."""
        return Path(self.data_root)

    def domain_root(self, domain: Domain) -> Path:
        """The folder of one set of frames."""
        return self.root / domain.root

    def __reduce__(self) -> tuple[Any, ...]:
        """How another process gets it: by its values, as the class is made anew there."""
        return _of_values, (self.model_dump(),)


def configuration_model() -> type[Configuration]:
    """The model that a YAML is validated by: a Configuration whose network is one of those that are registered now."""
    return _model_with(network_classes())


@cache
def _model_with(networks: tuple[type[NetworkSettings], ...]) -> type[Configuration]:
    return create_model(
        "Configuration",
        __base__=Configuration,
        __doc__=Configuration.__doc__,
        __module__=__name__,
        network=(one_of(networks), ...),
    )


def _of_values(values: dict[str, Any]) -> Configuration:
    """An experiment that was sent by another process; its plugins are loaded first, as its model needs them."""
    load_plugins(map(Path, values.get("plugins", ())))
    return configuration_model().model_validate(values)
