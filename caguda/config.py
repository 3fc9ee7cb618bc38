"""The YAML of an experiment as frozen models: every key is known, typed and checked before anything runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, create_model, model_validator

from caguda.config_frames import ClassEntry, Domain, Factor, Few, LabelValue, Positive, Section, Seed, Street
from caguda.config_network import NetworkSettings, network_classes, one_of
from caguda.config_run import Method, Model, Name, Run, RunSettings
from caguda.kinds import load_plugins
from caguda.whole_runs import refuse_impossible_runs, with_whole_runs


def _each_once(what: str, values: Sequence[Hashable]) -> None:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{what} must occur once, found more than once: {', '.join(twice)}")


class Anchors(Section):
    """CAC, Eq. 4: which pixels make an anchor, what it is the mean of, and whether every stage makes its own."""

    pixels: Literal["all", "correct"] = "all"
    mean: Literal["pixels", "images"] = "pixels"
    min_pixels: Positive = 1
    every_stage: bool = True

    @model_validator(mode="after")
    def _minimum_is_per_image(self) -> Anchors:
        if self.mean == "pixels" and self.min_pixels > 1:
            raise ValueError(f"min_pixels: a minimum per image needs mean: images, found {self.min_pixels} without it")
        return self


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


Table = Literal["table1", "table2", "table3", "table4", "sweep"]


class Configuration(Section):
    """A whole experiment.

    `training` holds the keys that runs share, in so far as a run does not say otherwise. A report and a table are lists of
    runs; a run with stages stands for all of them, RUN/stageK for one.
    """

    experiment: Name
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    data_root: str
    plugins: tuple[str, ...] = ()
    cache: bool = False
    street: Street | None = None
    classes: Literal["cityscapes19", "cityscapes16", "cityscapes13"] | tuple[ClassEntry, ...]
    ignore: tuple[LabelValue, ...] = (255,)
    source: Domain
    target: Domain
    evaluation: Domain
    test: Domain | None = None
    network: SerializeAsAny[NetworkSettings]  # with the keys of a network that only a plugin knows
    anchors: Anchors = Anchors()
    training: dict[str, Any] = Field(default_factory=dict)
    runs: Annotated[dict[Name, Run], Field(min_length=1)]
    reports: dict[Name, Annotated[tuple[Model, ...], Field(min_length=1)]] = Field(default_factory=dict)
    tables: dict[Table, Annotated[tuple[Model, ...], Field(min_length=1)]] = Field(default_factory=dict)
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

    @model_validator(mode="before")
    @classmethod
    def _runs_have_all_their_keys(cls, values: Any) -> Any:
        return with_whole_runs(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _runs_are_possible(self) -> Configuration:
        _each_once("seeds: every seed", self.seeds)
        for name, domain in (("source", self.source), ("evaluation", self.evaluation)):
            if domain.labels is None:
                raise ValueError(f"{name}.labels: the {name} set needs labels, only the target can do without")
        for name, run in self.runs.items():
            if isinstance(run, Method) and run.batch_size % self.compute.processes:
                raise ValueError(
                    f"runs.{name}.batch_size: must be a multiple of compute.processes, found {run.batch_size}"
                )
        lists = {f"reports.{name}": models for name, models in self.reports.items()}
        lists |= {f"tables.{name}": models for name, models in self.tables.items()}
        refuse_impossible_runs(self.made, self.runs, lists)
        shown = {model.partition("/")[0]: None for models in self.reports.values() for model in models} or self.runs
        if self.made.keys().isdisjoint(shown):
            key = "reports" if self.reports else "runs"
            raise ValueError(
                f"{key}: at least one run must be made, found only runs that are left out: {', '.join(shown)}"
            )
        return self

    @property
    def made(self) -> dict[str, RunSettings]:
        """The runs that are made, by name: those of the YAML but for what is left out."""
        return {name: run for name, run in self.runs.items() if run is not None and not self._lacks_labels(run)}

    def _lacks_labels(self, run: RunSettings) -> bool:
        return isinstance(run, Method) and run.reads_target_labels and self.target.labels is None

    @property
    def left_out(self) -> tuple[str, ...]:
        """What a reader of the results might look for and is not made, each with its reason."""
        nothing = [f"{name} (runs.{name} is null)" for name, run in self.runs.items() if run is None]
        unlabelled = [name for name, run in self.runs.items() if run is not None and self._lacks_labels(run)]
        what = " and ".join([*unlabelled, "the accuracy of pseudo-labels"])
        return (*nothing, *([f"{what} (the target has no labels)"] if self.target.labels is None else []))

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
