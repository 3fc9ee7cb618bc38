"""What the step of a method may use: the network's outputs, losses over the whole batch, anchors, and the method's modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from caguda.artifacts.anchors import load_anchors
from caguda.config import Compute
from caguda.config_run import Method
from caguda.datasets.transforms import scaled
from caguda.equations.losses import LossSum
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import freeze
from caguda.networks.layers.checkpointing import recompute_activations
from caguda.networks.layers.network import Outputs, SegmentationNetwork
from caguda.stages import parallel
from caguda.stages.runtime import to_device

Batch = Mapping[str, Mapping[str, Tensor]]
"""By domain, in the order of `Method.reads`: `image` (n, 3, H, W) uint8, and label maps (n, H, W) by name.

These are `label` for the truth, and RULE_label for the pseudo-labels of a rule.
"""


class AnchorTensors(NamedTuple):
    """The category anchors as a step compares features with them; those of absent categories are 0."""

    vectors: Float[Tensor, "c d"]
    present: Bool[Tensor, " c"]
    mean_distance: float

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Self:
        """Those of an anchors file."""
        anchors, _ = load_anchors(path)
        vectors = torch.nan_to_num(torch.from_numpy(anchors.vectors)).to(device)
        return cls(vectors, torch.from_numpy(anchors.present).to(device), anchors.mean_distance)


class Session:
    """One training at work: its network, the modules of its method, and how losses are reduced."""

    def __init__(
        self, method: Method, compute: Compute, network: SegmentationNetwork, device: torch.device,
        anchors: AnchorTensors | None, seed: int,
    ) -> None:  # fmt: skip
        """Have a network ready to be trained, its batch normalisation as the method says, and make the method's modules.

        Trained statistics of batch normalisation are those of the whole batch, whatever the number of processes.
        """
        self.method, self.compute, self.network, self.device = method, compute, network, device
        self.categories = network.classifier.out_channels
        self.iteration = 0
        self._anchors = anchors
        torch.manual_seed(seed)
        self._made = method.parts(self)
        self.parts = {name: to_device(part.module, device) for name, part in self._made.items()}
        _ready_to_train(network, method, compute, device)
        trained = {name: self.parts[name] for name, part in self._made.items() if part.learning_rate is not None}
        modules = {"network": network, **trained}
        self._data_parallel = {name: parallel.data_parallel(module) for name, module in modules.items()}

    @property
    def anchors(self) -> AnchorTensors:
        """The category anchors of the model that the training starts from."""
        if self._anchors is None:
            raise ValueError(f"method {self.method.method}: uses_anchors must be True where a step uses anchors")
        return self._anchors

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All modules whose weights belong to the state of the training."""
        return {"network": self.network, **self.parts}

    @property
    def learning_rates(self) -> dict[str, float]:
        """The learning rate at the start of every module that is trained."""
        rates = {name: part.learning_rate for name, part in self._made.items() if part.learning_rate is not None}
        return {"network": self.method.optimiser.learning_rate, **rates}

    def step(
        self, samples: Sequence[Mapping[str, Tensor]], iteration: int
    ) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """The step of the method on one batch, whose samples are of the domains that it reads, in their order."""
        self.iteration = iteration
        moved = [{name: value.to(self.device) for name, value in sample.items()} for sample in samples]
        return self.method.step(self, dict(zip(map(str, self.method.reads), moved, strict=True)))

    def data_parallel(self, name: str) -> nn.Module:
        """A trained module as every process must call it where its own gradients are wanted: they are averaged."""
        return self._data_parallel[name]

    def outputs(self, images: Tensor) -> Outputs:
        """What the network says of uint8 images, in float32 whatever the precision inside the network."""
        precision = self.compute.precision
        with torch.autocast(self.device.type, getattr(torch, precision), enabled=precision != "float32"):
            found = self._data_parallel["network"](scaled(images, self.device))
        return Outputs(
            found.features.float(), found.logits.float(), tuple(logits.float() for logits in found.auxiliary)
        )

    def reduced(self, loss: LossSum) -> Tensor:
        """A loss over the whole batch, of which this process may have a part: a mean or a sum, as `reduction` says.

        Gradients of all processes are averaged afterwards, hence the factor.
        """
        if self.method.reduction == "sum":
            return loss.total * parallel.size()
        return loss.total * parallel.size() / parallel.all_reduce_sum(loss.count).clamp(min=1)


def _ready_to_train(network: SegmentationNetwork, method: Method, compute: Compute, device: torch.device) -> None:
    network.train()
    if method.batch_norm == "frozen":
        freeze(network)
    elif parallel.size() > 1:
        if device.type == "cpu":
            raise UserError(
                "batch_norm: train over several processes needs GPUs, found none; set it to frozen, or compute.processes to 1"
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if compute.recompute_activations:
        recompute_activations(network)
    if compute.compile:
        network.compile()
