"""The costs of the models of an experiment: its frames, methods and network, put into the formulas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caguda.classes import class_table
from caguda.config import Configuration, Inference
from caguda.config_run import DomainName, Method, run_name
from caguda.costs.formulas import (
    EVIDENCE_BYTES,
    IMAGE_BYTES,
    LABEL_BYTES,
    ModelCost,
    Plan,
    Work,
    map_bytes,
    packed_bytes,
    scaled_size,
    state_bytes,
    views,
)
from caguda.costs.frames import FrameSet, Size, frame_sets
from caguda.costs.rates import Rate
from caguda.costs.selection import FrozenModels, Selection, frozen_models, select
from caguda.datasets.manifest import SetName
from caguda.errors import UserError
from caguda.runs import run_of

if TYPE_CHECKING:
    from caguda.costs.arithmetic import NetworkPasses, StepCost

NOT_COUNTED = (
    "everything is made, whatever is on disk already; jobs without a network (check, labels, tables) need no FLOPs and no hours here",
    "FLOPs are those of convolutions and matrix products, 2 for a multiplication with its addition; a step goes forward and back",
    "a pass is over whole frames, and goes forward alone",
    "hours are those of one device that does everything in turn; the processes of compute.processes share those of a training",
    "bytes of evidence, labels, predictions and generated frames are estimates: those before compression, so at most",
    "bytes of JSON, logs, anchors, tables and pictures are left out",
)
"""What holds for every plan."""


@dataclass(frozen=True)
class Costing:
    """What the costs of models follow from: the experiment, its frames, its network on the meta device, and a rate."""

    configuration: Configuration
    sets: Mapping[SetName, FrameSet]
    passes: NetworkPasses
    rate: Rate
    chosen: Selection
    frozen: FrozenModels

    def models(self) -> Iterator[tuple[ModelCost, str]]:
        """The cost of every model, and what was assumed about its step."""
        for model in self.chosen.models:
            run, name = run_of(self.configuration, model), run_name(model)
            passes = tuple(work for work in self._passes_of(model) if work is not None)
            given = self._disk_by_given_anchors(model)
            if not isinstance(run, Method):
                yield ModelCost(model, run.method, None, passes, self._disk_of(model, None), given), ""
                continue
            sizes = {domain: self._sample_size(name, run, domain) for domain in run.reads}
            step = self.passes.of_step(run, sizes)
            frames = {domain: self.sets[domain].size or sizes[domain] for domain in run.reads}
            seconds = self.rate.seconds_of_step(model, run, frames, step.flops)
            decoded = run.accumulate * run.batch_size * len(run.reads)
            training = Work("training", run.iterations, step.flops, seconds, decoded)
            yield ModelCost(model, run.method, training, passes, self._disk_of(model, step), given), step.note

    def _sample_size(self, name: str, run: Method, domain: DomainName) -> Size:
        """The size (H, W) of the samples of a domain: the crop, or that of the frames. UserError if it is unknown."""
        size = run.augmentation_of(domain).crop or self.sets[domain].size
        if size is None:
            raise UserError(
                f"{domain}: the size of the frames must be known for a run without a crop, found none for runs.{name} "
                f"({self.sets[domain].origin}); put the frames there, or give its augmentation a crop"
            )
        return size

    def _passes_of(self, model: str) -> Iterator[Work | None]:
        """The passes of a finished model; None for one over frames of unknown number or size."""
        run, inference = run_of(self.configuration, model), self.configuration.inference
        has_target_statistics = isinstance(run, Method) and run.target_statistics
        if has_target_statistics:
            yield self._pass("target statistics", "target")
        if model in self.frozen.with_anchors:
            if has_target_statistics:  # every part estimates those of the source on all of it
                yield self._pass("source statistics", "source", times=self.configuration.compute.parts)
            yield self._pass("anchors", "source")
        for file in self.frozen.labels.get(model, {}):
            yield self._pass("evidence" if file is None else f"evidence by {file}", "target")
        if model in self.chosen.evaluated:
            yield self._pass("evaluation", "evaluation", inference)
            if self.passes.has_batch_norm:
                yield self._pass("AdaBN statistics", "target")
                yield self._pass("AdaBN evaluation", "evaluation", inference)
        for name in self.chosen.predicted.get(model, []):
            yield self._pass(f"prediction of {name}", name, inference)

    def _pass(self, title: str, name: SetName, inference: Inference | None = None, times: int = 1) -> Work | None:
        frames, inference = self.sets[name], inference or Inference()
        if frames.count is None or frames.size is None or frames.pixels is None:
            return None
        share = frames.pixels / (frames.count * frames.size[0] * frames.size[1])  # 1 if all have this size
        scales = views(inference.scales, flip=inference.flip)
        flops = sum(self.passes.of_frame(scaled_size(frames.size, scale)) for scale in scales)
        seconds = self.rate.seconds_of_frame(frames.size, inference, flops)
        return Work(title, times * frames.count, share * flops, None if seconds is None else share * seconds)

    def _disk_of(self, model: str, step: StepCost | None) -> dict[str, int]:
        """The bytes of a model's artifacts by name; those over frames of unknown number or size are left out."""
        disk = {"checkpoint": self.passes.weight_bytes}
        run = run_of(self.configuration, model)
        if step is not None and isinstance(run, Method):
            disk["training state"] = state_bytes(step.module_bytes, step.trained_weights, run.optimiser.name)
        if rules := self.frozen.labels.get(model, {}).get(None):
            disk |= self._disk_of_labels(len(rules))
        if predicted := self.chosen.predicted.get(model):
            pixels = sum(self.sets[name].pixels or 0 for name in predicted)
            disk["predictions"] = 2 * pixels  # the PNG files, and a zip of them
        return disk

    def _disk_by_given_anchors(self, model: str) -> dict[str, dict[str, int]]:
        """The bytes of the evidence and labels beside a model by anchors from elsewhere, by the file of these."""
        labels = self.frozen.labels.get(model, {}).items()
        return {file: self._disk_of_labels(len(rules)) for file, rules in labels if file is not None}

    def _disk_of_labels(self, rules: int) -> dict[str, int]:
        """The bytes of evidence and of the labels by a number of rules; nothing if the target's frames are unknown."""
        target = self.sets["target"]
        if target.count is None or target.size is None:
            return {}
        size = self.configuration.network.feature_size(target.size)
        labels = rules * map_bytes(target.count, size, LABEL_BYTES)
        return {"evidence": map_bytes(target.count, size, EVIDENCE_BYTES), "labels": labels}

    def shared_disk(self) -> dict[str, int]:
        """The bytes of what all models share: the packed caches of the sets that runs read, and generated frames."""
        runs, disk = [run_of(self.configuration, model) for model in self.chosen.models], {}
        like: Mapping[str, SetName] = {"source": "source", "target": "target", "translated": "source"}
        for name, twin in like.items() if self.configuration.cache else ():
            pixels = self.sets[twin].pixels  # translated frames have the sizes of the source's
            if pixels is not None and any(isinstance(run, Method) and name in run.sets_read for run in runs):
                disk[f"packed {name}"] = packed_bytes(pixels, labelled=name == "source")
        if self.configuration.street is not None:
            names: tuple[SetName, ...] = ("source", "target", "evaluation")
            disk["generated frames"] = sum((self.sets[name].pixels or 0) * (IMAGE_BYTES + 1) for name in names)
        return disk

    def assumptions(self) -> Iterator[str]:
        """What was assumed about the frames of each set."""
        for name, frames in self.sets.items():
            count = "an unknown number of" if frames.count is None else f"{frames.count:,}"
            size = "unknown size" if frames.size is None else f"{frames.size[1]}x{frames.size[0]}"
            yield f"{name}: {count} frames of {size} (width x height), {frames.origin}"


def passes_of(configuration: Configuration) -> NetworkPasses:
    """The FLOPs of the experiment's network, counted as they are asked for."""
    from caguda.costs.arithmetic import NetworkPasses  # torch

    return NetworkPasses(configuration.network, class_table(configuration).count, configuration.compute)


def plan_of(
    configuration: Configuration, asked: Sequence[str], rate: Rate, results: Path, passes: NetworkPasses
) -> Plan:
    """The costs of the models, runs or targets that are asked for, by `select`; `results` is the folder of results."""
    chosen = select(configuration, asked)
    frozen = frozen_models(configuration, chosen.models)
    costing = Costing(configuration, frame_sets(configuration, results), passes, rate, chosen, frozen)
    models = list(costing.models())
    notes = [note for _, note in models if note] + ([] if rate.name is None else [rate.name])
    said = (*costing.assumptions(), *dict.fromkeys(notes), *NOT_COUNTED)
    costs = tuple(cost for cost, _ in models)
    unknown = tuple(name for name, frames in costing.sets.items() if not frames.is_known)
    return Plan(costs, len(configuration.seeds), costing.shared_disk(), unknown, said)
