"""The YAML of an experiment as a frozen pydantic model: every key is known, typed and checked before anything runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, create_model, model_validator

from caguda.config_frames import ClassEntry, Domain, Street, TranslatedSource
from caguda.config_network import NetworkSettings, network_classes, one_of
from caguda.config_run import Method, ModelReference, Name, Run, RunSettings, run_name
from caguda.config_types import Count, Factor, LabelValue, Positive, Section, Seed
from caguda.registry import load_plugins
from caguda.run_inheritance import refuse_impossible_runs, with_inherited_keys


def _each_once(what: str, values: Sequence[Hashable]) -> None:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{what} must occur once, found more than once: {', '.join(twice)}")


class AnchorSettings(Section):
    """The category anchors (CAC, Eq. 4): their pixels, their mean, and whether every stage has anchors of its own."""

    pixels: Literal["all", "correct"] = "all"
    mean: Literal["pixels", "images"] = "pixels"
    min_pixels: Positive = 1
    every_stage: bool = True

    @model_validator(mode="after")
    def _minimum_is_per_image(self) -> AnchorSettings:
        if self.mean == "pixels" and self.min_pixels > 1:
            raise ValueError(f"min_pixels: a minimum per image needs mean: images, found {self.min_pixels} without it")
        return self


class Inference(Section):
    """The inference of a finished network: scales of a frame, each also mirrored with `flip`."""

    scales: Annotated[tuple[Factor, ...], Field(min_length=1)] = (1.0,)
    flip: bool = False

    @model_validator(mode="after")
    def _scales_differ(self) -> Inference:
        _each_once("scales: every scale", self.scales)
        return self


class Compute(Section):
    """The use of the machine.

    `threads`, `processes`, `precision`, `tf32`, `compile` and `inference_batch_size` change last digits of the results.
    """

    threads: Count = 1
    workers: Annotated[int, Field(ge=0, le=4096)] = 0
    processes: Count = 1
    parts: Annotated[int, Field(ge=1, le=64)] = 1
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    tf32: bool = False
    compile: bool = False
    recompute_activations: bool = False
    inference_batch_size: Count = 8
    save_every: Positive = 50


Table = Literal["table1", "table2", "table3", "table4", "sweep"]


class Configuration(Section):
    """A whole experiment.

    `training` has keys for all runs; a run's own keys override them. A report and a table are lists of runs: a run with
    stages stands for all its stages, RUN/stageK for one.
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
    translated: TranslatedSource | None = None
    network: SerializeAsAny[NetworkSettings]  # with the keys of a network that only a plugin knows
    anchors: AnchorSettings = AnchorSettings()
    training: dict[str, Any] = Field(default_factory=dict)
    runs: Annotated[dict[Name, Run], Field(min_length=1)]
    reports: dict[Name, Annotated[tuple[ModelReference, ...], Field(min_length=1)]] = Field(default_factory=dict)
    tables: dict[Table, Annotated[tuple[ModelReference, ...], Field(min_length=1)]] = Field(default_factory=dict)
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
        return with_inherited_keys(values) if isinstance(values, dict) else values

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
        refuse_impossible_runs(self.active_runs, self.runs, lists)
        listed = {run_name(model): None for models in self.reports.values() for model in models} or self.runs
        if self.active_runs.keys().isdisjoint(listed):
            key = "reports" if self.reports else "runs"
            raise ValueError(
                f"{key}: at least one run must be made, found only runs that are left out: {', '.join(listed)}"
            )
        return self

    @model_validator(mode="after")
    def _translated_frames_are_given(self) -> Configuration:
        for name, run in self.active_runs.items():
            if isinstance(run, Method) and run.source_images == "translated" and self.translated is None:
                raise ValueError(
                    f"runs.{name}.source_images: translated needs the section translated, found none; add it"
                )
        return self

    @property
    def active_runs(self) -> dict[str, RunSettings]:
        """The runs that are made, by name. A run that is null is left out, and one on target labels if there are none."""
        return {name: run for name in self.runs if (run := self.active_run(name)) is not None}

    def active_run(self, name: str) -> RunSettings | None:
        """The settings of a run that is made; None if it is left out or there is none of this name."""
        run = self.runs.get(name)
        return None if run is None or self._lacks_labels(run) else run

    def _lacks_labels(self, run: RunSettings) -> bool:
        return self.target.labels is None and isinstance(run, Method) and run.reads_target_labels

    @property
    def left_out(self) -> tuple[str, ...]:
        """The runs and results that are not made, each with the reason, for readers of the results."""
        null = [f"{name} (runs.{name} is null)" for name, run in self.runs.items() if run is None]
        if self.target.labels is not None:
            return tuple(null)
        unlabelled = [name for name, run in self.runs.items() if run is not None and self._lacks_labels(run)]
        return (*null, f"{' and '.join([*unlabelled, 'the accuracy of pseudo-labels'])} (the target has no labels)")

    @property
    def root(self) -> Path:
        """The folder that the roots of all data sets are relative to."""
        return Path(self.data_root)

    def frame_set(self, name: str) -> Domain | None:
        """The section of a set of frames; None if the set is absent.

        The set `translated` has the source's layout and no labels, list or skip: the source's frames are its selection.
        """
        if name != "translated":
            domain: Domain | None = getattr(self, name)
            return domain
        if self.translated is None:
            return None
        return self.source.model_copy(update={"root": self.translated.root, "labels": None, "list": None, "skip": ()})

    def domain_root(self, domain: Domain) -> Path:
        """The folder of one set of frames."""
        return self.root / domain.root

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the values alone: another process makes the class anew."""
        return _of_values, (self.model_dump(),)


def configuration_model() -> type[Configuration]:
    """The pydantic model of a YAML: a Configuration whose network is one of those registered now."""
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
    """The experiment that another process has pickled. Its plugins are loaded first."""
    load_plugins(map(Path, values.get("plugins", ())))
    return configuration_model().model_validate(values)
