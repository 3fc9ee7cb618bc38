"""What every training verb needs: its frames, its network, and the checkpoint that it leaves."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caguda.artifacts.atomic import read_json, sha256
from caguda.artifacts.checkpoint import save_checkpoint
from caguda.artifacts.labels import LabelStore, open_label_store
from caguda.artifacts.provenance import provenance
from caguda.classes import ClassTable, class_table
from caguda.config import Augmentation, Configuration, Training
from caguda.datasets.frame import Frame, label_of
from caguda.datasets.io import read_label
from caguda.datasets.loader import Sample, TrainingFrames, inference_batches, training_batches
from caguda.datasets.manifest import Manifest, SetName, read_manifest
from caguda.datasets.transforms import normalise, training_transform
from caguda.errors import UserError
from caguda.models.batch_norm import estimate_statistics
from caguda.models.build import build_network
from caguda.stages.runtime import place, prepare
from caguda.stages.training import Job, train
from caguda.version import METHOD_VERSION

INFERENCE_BATCH = 8


@dataclass
class Run:
    """One training verb at work: what it was asked for and what it reads."""

    name: str
    configuration: Configuration
    seed: int
    manifest_path: Path
    settings: Mapping[str, Any]
    inputs: Sequence[Path] = ()
    manifest: Manifest = field(init=False)
    table: ClassTable = field(init=False)
    device: torch.device = field(init=False)
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.manifest = read_manifest(self.manifest_path)
        self.table = class_table(self.configuration)
        self.device = prepare(self.configuration.threads)

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides the weights: settings, classes, seed, method version and inputs' contents."""
        inputs = [self.manifest.digest(name) for name in ("source", "target")] + [sha256(path) for path in self.inputs]
        classes = [self.table.names, sorted(self.table.train_id.items())]
        parts = [self.name, self.seed, METHOD_VERSION, self.settings, classes, inputs, self.configuration.threads]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def fresh_network(self) -> nn.Module:
        """The configured network with the weights that its seed gives."""
        torch.manual_seed(self.seed)
        return place(build_network(self.configuration.network, self.table.count), self.device)

    def frames(self, domain: SetName, augmentation: Augmentation, *, labelled: bool) -> TrainingFrames:
        """The frames of a domain for training, with the truth as the label map `label` if `labelled`."""
        frames = self.manifest.frames(domain)
        files = [label_of(frame) for frame in frames] if labelled else []

        def truth(index: int) -> dict[str, Tensor]:
            return {"label": read_label(files[index], self.table)}

        purpose = f"{self.name} {domain}"
        return TrainingFrames(frames, truth if labelled else None, training_transform(augmentation), self.seed, purpose)

    def batches(self, training: Training, *domains: TrainingFrames) -> Callable[[int], Iterator[tuple[Sample, ...]]]:
        """A function of the first iteration: from there on, one batch of every domain for each iteration."""
        size, end, workers = training.batch_size, training.iterations, self.configuration.workers
        return lambda start: zip(*(training_batches(d, size, start, end, workers) for d in domains), strict=True)

    def train(self, job: Job, network: nn.Module, training: Training, output: Path, state: Path) -> None:
        """Run the training loop, or the rest of it, and publish the network as this verb's checkpoint.

        Where `training` asks for it, the target's statistics of batch normalisation come last.
        """
        progress = train(job, state, self.fingerprint, self.configuration.save_every)
        if training.target_statistics:
            images = inference_batches(self.manifest.frames("target"), INFERENCE_BATCH)
            estimate_statistics(network, (normalise(batch, self.device) for _, batch in images))
        description = {
            "architecture": self.configuration.network.model_dump(mode="json"),
            "classes": list(self.table.names),
            "target_statistics": training.target_statistics,
            "metrics": {"history": progress.history, "seconds": progress.seconds, "attempts": progress.attempts},
            "provenance": provenance(
                self.name, self.settings, [self.manifest_path, *self.inputs], self.seed, self.started
            ),
        }
        save_checkpoint(output, network.state_dict(), description)
        print(f"{self.name}: {job.iterations} iterations in {progress.seconds:.0f} s -> {output}", flush=True)


def verified_labels(labels: Path, frames: Sequence[Frame], manifest: Path) -> LabelStore:
    """The label store that the JSON `labels` vouches for; UserError unless it is of just these frames of `manifest`."""
    name = read_json(labels).get("store")
    if not isinstance(name, str):
        raise UserError(f"{labels}: the JSON of a label store must name it, found no key store; make it with `labels`")
    store = open_label_store(labels.parent / name)
    refuse_other_frames(store, frames, manifest)
    return store


def refuse_other_frames(store: LabelStore, frames: Sequence[Frame], manifest: Path) -> None:
    """UserError unless a label store has one row for each frame, in their order; `manifest` is for the message."""
    if [frame.id for frame in frames] != list(store.image_ids):
        raise UserError(
            f"{store.path}: a label store must hold the target frames of {manifest} in their order, found other ones; "
            "make the label store again"
        )
