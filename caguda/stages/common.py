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
from torch.amp.grad_scaler import GradScaler

from caguda.artifacts.checkpoint import save_checkpoint
from caguda.artifacts.identity import ModelOf, refuse_other_model
from caguda.artifacts.packed import PackedFrames
from caguda.artifacts.provenance import content_of, provenance
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration, Training
from caguda.config_frames import Augmentation
from caguda.config_network import NetworkSettings
from caguda.datasets.demands import refuse_sizes
from caguda.datasets.frame import Frame, require_labels
from caguda.datasets.io import labels_of
from caguda.datasets.loader import Sample, TrainingFrames, inference_batches, training_batches
from caguda.datasets.manifest import Manifest, SetName, read_manifest
from caguda.datasets.transforms import Pixels, scaled
from caguda.equations.losses import LossSum
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import estimate_statistics, freeze
from caguda.networks.layers.checkpointing import recompute_activations
from caguda.networks.layers.network import Outputs, SegmentationNetwork
from caguda.recorded import network_plugin
from caguda.stages import parallel
from caguda.stages.pack import open_caches
from caguda.stages.runtime import place, prepare, restore_network
from caguda.stages.training import Job, Step, build_optimiser, train
from caguda.version import METHOD_VERSION


@dataclass(frozen=True)
class _Truth:
    """The label maps of frames that all have labels, for processes that load frames too."""

    frames: Sequence[Frame]
    table: ClassTable
    cache: PackedFrames | None

    def __call__(self, index: int) -> dict[str, Pixels]:
        return {"label": self.cache.label(index) if self.cache else labels_of(self.frames[index], self.table)}


_DECISIVE = {"precision", "tf32", "compile"}
"""What decides weights among the keys of `compute`, beside the number of threads, which moves last digits."""


@dataclass
class Run:
    """One training verb at work: what it was asked for and what it reads."""

    name: str
    configuration: Configuration
    seed: int
    manifest_path: Path
    settings: Mapping[str, Any]
    inputs: Sequence[Path] = ()
    packed: Sequence[Path] = ()
    manifest: Manifest = field(init=False)
    table: ClassTable = field(init=False)
    caches: Mapping[str, PackedFrames] = field(init=False)
    device: torch.device = field(init=False)
    domains: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.settings = {**self.settings, **network_plugin(self.configuration)}
        self.manifest = read_manifest(self.manifest_path, configuration=self.configuration)
        sets = {name: self.manifest.entries(name) for name in ("source", "target")}
        refuse_sizes(self.configuration, self.manifest_path, sets)
        self.table = class_table(self.configuration)
        self.caches = open_caches(self.packed, self.manifest, self.configuration)
        self.device = prepare(self.configuration.compute.threads, tf32=self.configuration.compute.tf32)
        wanted = self.configuration.compute.processes
        if parallel.size() != wanted:
            raise UserError(
                f"compute.processes: {wanted} processes must share this training, found {parallel.size()}; "
                "call the verb by `python -m caguda`, which starts them"
            )

    @property
    def of(self) -> str:
        """Which model this training makes, in words."""
        recipe = self.settings.get("recipe", {}).get("name")
        return f"{ModelOf(self.name, recipe)} of seed {self.seed} in {self.configuration.experiment}"

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides the weights: settings, classes, seed, method version and inputs' contents.

        The number of processes is left out: it moves no more than last digits, and a cluster may offer another one.
        """
        compute = self.configuration.compute
        inputs = [self.manifest.digest(name) for name in ("source", "target")] + [
            content_of(path) for path in self.inputs
        ]
        tables = [class_table(self.configuration, self.configuration.source)]
        tables.append(class_table(self.configuration, self.configuration.target))
        classes = [self.table.names, *(sorted(table.train_id.items()) for table in tables)]
        machine = [compute.threads, compute.precision, compute.tf32, compute.compile]
        parts = [self.name, self.seed, METHOD_VERSION, self.settings, classes, inputs, machine]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def fresh_network(self) -> SegmentationNetwork:
        """The configured network: weights that the seed gives, and where it asks for them those of its pretraining."""
        torch.manual_seed(self.seed)
        network = self.configuration.network.build(self.table.count)
        self.configuration.network.load_pretrained(network)
        return place(network, self.device)

    def restored(self, initial: Path, run: ModelOf) -> SegmentationNetwork:
        """The network of the checkpoint to start from; UserError unless it is that of `run`, and of the same seed."""
        network, description = restore_network(initial, self.device, self.table, self.configuration, self.manifest_path)
        if (seed := description["provenance"]["seed"]) not in (None, self.seed):
            raise UserError(f"{initial}: the model to start from must be of seed {self.seed}, found one of seed {seed}; "
                            "name that of this seed")  # fmt: skip
        refuse_other_model(initial, description["provenance"], run)
        _refuse_another_network(initial, description["architecture"], self.configuration.network)
        return network

    def frames(self, domain: SetName, augmentation: Augmentation, *, labelled: bool) -> TrainingFrames:
        """The frames of a domain for training, with the truth as the label map `label` if `labelled`."""
        frames = self.manifest.frames(domain)
        if labelled:
            require_labels(frames)
        table, cache = class_table(self.configuration, getattr(self.configuration, domain)), self.caches.get(domain)
        truth = _Truth(frames, table, cache if cache is not None and cache.labelled else None)
        maps, purpose = truth if labelled else None, f"{self.name} {domain}"
        return TrainingFrames(frames, maps, augmentation, self.seed, purpose, self.images(domain))

    def images(self, domain: SetName) -> Callable[[int], Pixels] | None:
        """The images of a domain by number, from its packed cache; None where they are read from their files."""
        self.domains.add(domain)
        return self.caches[domain].image if domain in self.caches else None

    def batches(self, training: Training, *domains: TrainingFrames) -> Callable[[int], Iterator[tuple[Sample, ...]]]:
        """A function of the first iteration: from there on, this process's share of the batches of every domain."""
        size, workers = training.batch_size, self.configuration.compute.workers
        end, each = training.iterations * training.accumulate, training.accumulate
        share = (parallel.rank(), parallel.size())
        return lambda start: zip(
            *(training_batches(d, size, start * each, end, workers, share) for d in domains), strict=True
        )

    def ready_to_train(self, network: SegmentationNetwork, training: Training) -> nn.Module:
        """The network as a step calls it; its batch normalisation is treated as `training` says.

        Trained statistics are those of the whole batch, whatever the number of processes.
        """
        compute = self.configuration.compute
        network.train()
        if training.batch_norm == "frozen":
            freeze(network)
        elif parallel.size() > 1:
            if self.device.type == "cpu":
                raise UserError(
                    f"{self.name}: batch_norm: train over several processes needs GPUs, found none; "
                    "set it to frozen, or compute.processes to 1"
                )
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        if compute.recompute_activations:
            recompute_activations(network)
        if compute.compile:
            network.compile()
        return parallel.shared(network)

    def forward(self, model: nn.Module, images: Tensor) -> Outputs:
        """What the network says of uint8 images, in float32 whatever the precision inside the network."""
        precision = self.configuration.compute.precision
        with torch.autocast(self.device.type, getattr(torch, precision), enabled=precision != "float32"):
            said = model(scaled(images, self.device))
        return Outputs(said.features.float(), said.logits.float(), tuple(logits.float() for logits in said.auxiliary))

    def reduced(self, loss: LossSum) -> Tensor:
        """A loss over the whole batch, of which this process may have a part, as `losses.reduction` says.

        Gradients of all processes are averaged afterwards, hence the factor.
        """
        if self.configuration.losses.reduction == "sum":
            return loss.total * parallel.size()
        return loss.total * parallel.size() / parallel.total(loss.count).clamp(min=1)

    def train(
        self, step: Step, training: Training, modules: Mapping[str, nn.Module], rates: Mapping[str, float],
        batches: Callable[[int], Iterator[tuple[Sample, ...]]], output: Path, state: Path,
    ) -> None:  # fmt: skip
        """Run the training loop, or the rest of it, and publish the module `network` as this verb's checkpoint.

        `rates` are the learning rates at the start. Where `training` asks for it, the target's statistics of batch
        normalisation come last.
        """
        compute = self.configuration.compute
        if unread := self.caches.keys() - self.domains:
            raise UserError(f"--packed: {self.name} must be given caches of the {' and '.join(sorted(self.domains))} alone, found "
                            f"one of the {min(unread)}; leave it out")  # fmt: skip
        optimisers = {
            name: build_optimiser(module, training.optimiser, rates[name]) for name, module in modules.items()
        }
        scaler = GradScaler(self.device.type, enabled=compute.precision == "float16")
        job = Job(self.name, modules, optimisers, batches, step, training, scaler, self.of)
        progress = train(job, state, self.fingerprint, compute.save_every)
        if parallel.rank() > 0:
            return
        network = self._alone(modules["network"])
        if training.target_statistics:
            images = inference_batches(self.manifest.frames("target"), compute.inference_batch_size)
            estimate_statistics(network, (scaled(batch, self.device) for _, batch in images))
        settings = {**self.settings, "compute": compute.model_dump(mode="json", include=_DECISIVE)}
        made_by = provenance(self.name, settings, [self.manifest_path, *self.inputs], self.seed, self.started, output)
        description = {
            "architecture": self.configuration.network.model_dump(mode="json"),
            "classes": list(self.table.names),
            "target_statistics": training.target_statistics,
            "metrics": {"history": progress.history, "seconds": progress.seconds, "attempts": progress.attempts},
            "provenance": made_by,
        }
        save_checkpoint(output, network.state_dict(), description)
        print(f"{self.name}: {training.iterations} iterations in {progress.seconds:.0f} s -> {output}", flush=True)

    def _alone(self, network: nn.Module) -> SegmentationNetwork:
        """The same weights in a network that waits for no other process, as layers with shared statistics do."""
        alone = self.configuration.network.build(self.table.count)
        alone.load_state_dict(network.state_dict())
        return place(alone, self.device)


def _refuse_another_network(path: Path, found: Mapping[str, Any], network: NetworkSettings) -> None:
    """UserError unless a checkpoint is of the configured network, wherever its backbone's weights were."""
    expected = network.model_dump(mode="json")
    for key in sorted({*expected, *found} - {"weights"}):
        if found.get(key) != expected.get(key):
            raise UserError(
                f"{path}: the checkpoint must be of the configured network, found {key} {found.get(key)} instead of "
                f"{expected.get(key)}; check the key network, or name another checkpoint"
            )
