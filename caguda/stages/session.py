"""The session that a method's step works with: the network, its modules, anchors, and losses over the whole batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from caguda.artifacts.anchors import load_anchors
from caguda.config import Compute
from caguda.config_run import ExtraModule, Method
from caguda.datasets.image_batches import scaled
from caguda.equations.losses import LossSum
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import freeze
from caguda.networks.layers.checkpointing import recompute_activations
from caguda.networks.layers.dropout import Noise, draw_by_sample, leave_uncompiled
from caguda.networks.layers.network import Outputs, SegmentationNetwork, coarsest_maps_of
from caguda.stages import parallel
from caguda.stages.runtime import to_device

Batch = Mapping[str, Mapping[str, Tensor]]
"""One batch by domain, in the order of `Method.reads`: `image` (n, 3, H, W) uint8, and label maps (n, H, W) by name.

The truth is `label`, the pseudo-labels of a rule are `RULE_label`.
"""
Objective = tuple[Tensor, Mapping[str, Tensor]]
"""A loss to call backward() on, and the loss terms to report by name."""


class AnchorTensors(NamedTuple):
    """The category anchors as tensors on the device. Those of absent categories are 0 in place of nan; `present` masks them."""

    vectors: Float[Tensor, "c d"]
    present: Bool[Tensor, " c"]
    mean_distance: float

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Self:
        anchors, _ = load_anchors(path)
        vectors = torch.nan_to_num(torch.from_numpy(anchors.vectors)).to(device)
        return cls(vectors, torch.from_numpy(anchors.present).to(device), anchors.mean_distance)


class Session:
    """The network and modules of one training, its anchors, and the reduction of its losses."""

    def __init__(
        self, method: Method, compute: Compute, network: SegmentationNetwork, device: torch.device,
        anchors: AnchorTensors | None, seed: int, class_names: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Prepare the network for training, and make the method's modules.

        Batch normalisation that is trained has statistics of the whole batch, for any number of processes.
        """
        self.method, self.compute, self.network, self.device = method, compute, network, device
        self.categories = network.classifier.out_channels
        self.class_names = tuple(class_names)
        """The names of the categories, where the session has a class table: a plan's has none."""
        self.iteration, self.seed = 0, seed
        self._noise = Noise(seed, parallel.rank())
        self._anchors = anchors
        torch.manual_seed(seed)
        extra = method.extra_modules(self)
        if wrong := [name for name, part in extra.items() if not isinstance(part, ExtraModule)]:
            raise UserError(f"method {method.method}: `extra_modules` must give an ExtraModule by each name, found "
                            f"{type(extra[wrong[0]]).__name__} as {wrong[0]}; correct the method")  # fmt: skip
        self.extra_modules = {name: to_device(part.module, device) for name, part in extra.items()}
        self.modules: dict[str, nn.Module] = {"network": network, **self.extra_modules}
        """All modules whose weights belong to the state of the training."""
        for name, module in self.modules.items():
            draw_by_sample(module, name, self._noise)
        rates = {name: part.learning_rate for name, part in extra.items() if part.learning_rate is not None}
        self.learning_rates = {"network": method.optimiser.learning_rate, **rates}
        """The initial learning rates of the trained modules."""
        _prepare_for_training(network, self.extra_modules.values(), method, compute, device)
        self._data_parallel = {name: parallel.data_parallel(self.modules[name]) for name in self.learning_rates}

    @property
    def align_corners(self) -> bool:
        """How cells of f_D lie on the image: an argument of the cross entropies and of `labels_at`."""
        return self.network.align_corners

    @property
    def anchors(self) -> AnchorTensors:
        """The category anchors that the training was given."""
        if self._anchors is None:
            raise ValueError(f"method {self.method.method}: uses_anchors must be True where a step uses anchors")
        return self._anchors

    def step(self, batch: Batch, iteration: int) -> Iterator[Objective]:
        """The objectives of the method for one batch."""
        if iteration != self._noise.iteration:
            self._noise.begin(iteration)
        self.iteration = iteration
        on_device = {
            domain: {name: value.to(self.device) for name, value in tensors.items()}
            for domain, tensors in batch.items()
        }
        return self.method.step(self, on_device)

    def data_parallel(self, name: str) -> nn.Module:
        """A trained module whose gradients are averaged over all processes in the backward pass."""
        return self._data_parallel[name]

    def outputs(self, images: Tensor) -> Outputs:
        """The network's outputs for uint8 images (n, 3, H, W), in float32 for any precision inside the network."""
        precision = self.compute.precision
        with torch.autocast(self.device.type, getattr(torch, precision), enabled=precision != "float32"):
            outputs = self._data_parallel["network"](scaled(images, self.device))
        auxiliary = tuple(logits.float() for logits in outputs.auxiliary)
        return Outputs(outputs.features.float(), outputs.logits.float(), auxiliary)

    def outputs_with_map(self, images: Tensor) -> tuple[Outputs, Tensor]:
        """The network's outputs, and the encoder's coarsest map for the images, in float32 too.

        UserError for a compiled network, of which no inner value can be seen.
        """
        if self.compute.compile:
            raise UserError(f"compute.compile: must be false for a run by {self.method.method}, which reads the encoder's map, found "
                            "true")  # fmt: skip
        with coarsest_maps_of(self.network.encoder) as maps:
            outputs = self.outputs(images)
        return outputs, maps[0].float()

    def reduced(self, loss: LossSum) -> Tensor:
        """The mean or the sum of a loss over the whole batch, as `reduction` says; a process may have a part of the batch.

        The number of processes is a factor, because gradients are averaged over the processes afterwards.
        """
        if self.method.reduction == "sum":
            return loss.total * parallel.size()
        return loss.total * parallel.size() / parallel.all_reduce_sum(loss.count).clamp(min=1)

    def mean(self, loss: LossSum) -> Tensor:
        """The mean of a loss or share over the whole batch, for any `reduction` and number of processes; no gradient."""
        return parallel.all_reduce_sum(loss.total) / parallel.all_reduce_sum(loss.count).clamp(min=1)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, without a gradient."""
        return parallel.all_reduce_sum(values)

    def holds(self, condition: Tensor) -> bool:
        """Whether a condition, of one element, holds. A plan, which has no values, counts what is done if it does."""
        return bool(condition)

    def generators(self, name: str, samples: int) -> list[torch.Generator]:
        """A random generator on the CPU for each of the process's samples in a batch.

        It is seeded by the seed, the iteration, the name, the number of calls in the iteration, and the sample, whichever
        process has it: the number of processes and an interruption do not change what is drawn.
        """
        return [torch.Generator().manual_seed(seed) for seed in self._noise.seeds(name, samples)]


def _prepare_for_training(
    network: SegmentationNetwork, others: Iterable[nn.Module], method: Method, compute: Compute, device: torch.device
) -> None:
    network.train()
    if method.batch_norm == "frozen":
        freeze(network)
    elif parallel.size() > 1:
        if device.type == "cpu":
            raise UserError(
                "batch_norm: train over several processes needs GPUs, found none; set it to frozen, or compute.processes to 1"
            )
        for module in (network, *others):
            nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if compute.recompute_activations:
        recompute_activations(network)
    if compute.compile:
        torch.use_deterministic_algorithms(True, warn_only=True)  # set again, since the compiler reads this flag
        leave_uncompiled(network)
        network.compile()
