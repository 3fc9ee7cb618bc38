"""The FLOPs of passes and of training steps, counted on torch's meta device: shapes alone, without data or weights.

`torch.utils.flop_counter` counts convolutions and matrix products, forward and backward. It does not count element-wise
operations (activations, normalisation, losses) nor the optimiser.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from caguda.config import Compute
from caguda.config_network import NetworkSettings
from caguda.config_run import DomainName, Method
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import batch_norms
from caguda.networks.layers.checkpointing import recompute_activations
from caguda.networks.layers.network import Outputs, SegmentationNetwork, coarsest_maps_of
from caguda.stages.session import AnchorTensors, Batch, Session

Size = tuple[int, int]
META = torch.device("meta")
_NOT_OF_A_STEP = {"title", "note", "start", "stages", "iterations", "anchors", "target_statistics", "source_sampling"}
"""The keys of every run that change none of its steps."""
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default,
             torch.ops.aten._index_put_impl_.default)  # fmt: skip


class PassCost(NamedTuple):
    """The FLOPs of a forward pass over a batch and of its backward pass, and the shapes of the outputs."""

    forward: int
    backward: int
    outputs: Outputs
    coarsest_map: Tensor


class StepCost(NamedTuple):
    """The FLOPs of one step, and the size of its modules in bytes and of their trained weights in number.

    `note` says in words why the step was not followed; empty if it was.
    """

    flops: float
    module_bytes: int
    trained_weights: int
    note: str = ""


def settings_of_step(method: Method, *, thresholds: bool = True) -> str:
    """The settings of a run that may change its steps, as JSON; without thresholds, only the names of the rules."""
    values = method.model_dump(mode="json", exclude=_NOT_OF_A_STEP)
    if not thresholds:
        values["pseudo_labels"] = list(method.pseudo_labels)
    return json.dumps(values)


class NetworkPasses:
    """The FLOPs of the passes of one network. Those of a shape are counted once."""

    def __init__(self, settings: NetworkSettings, categories: int, compute: Compute) -> None:
        self.name = settings.name
        self.network = _on_meta(settings, categories)
        self.compute = compute.model_copy(update={"recompute_activations": False, "compile": False})
        if compute.recompute_activations:
            recompute_activations(self.network)
        normalisations = batch_norms(self.network)
        self.has_batch_norm = len(normalisations) > 0
        for layer in normalisations:  # its FLOPs are not counted, and it takes a third of the time on the meta device
            layer.forward = _unchanged  # type: ignore[assignment, method-assign]
        self.weight_bytes = bytes_of(self.network)
        self.counted = 0
        self._of_frames: dict[Size, int] = {}
        self._of_batches: dict[tuple[int, ...], PassCost] = {}
        self._of_steps: dict[Any, StepCost] = {}

    def of_frame(self, size: Size) -> int:
        """The FLOPs of the forward pass over one image of the size (H, W), in evaluation mode.

        UserError for a network that needs values, as in `of_batch`.
        """
        if size not in self._of_frames:
            with _without_values(self.name), torch.no_grad(), FlopCounterMode(display=False) as counter:
                self.network.eval()(torch.empty(1, 3, *size, device=META))
            self._of_frames[size] = counter.get_total_flops()
        return self._of_frames[size]

    def of_batch(self, shape: tuple[int, ...]) -> PassCost:
        """The FLOPs of both passes over images of the shape (n, 3, H, W), in training."""
        if shape not in self._of_batches:
            counter = FlopCounterMode(display=False)
            with _without_values(self.name), counter as forward, coarsest_maps_of(self.network.encoder) as maps:
                outputs = self.network.train()(torch.empty(shape, device=META))
            with _without_values(self.name), FlopCounterMode(display=False) as backward:
                torch.autograd.backward([values.sum() for values in _tensors(outputs)])
            self.network.zero_grad(set_to_none=True)
            cost = PassCost(forward.get_total_flops(), backward.get_total_flops(), outputs, maps[0])
            self._of_batches[shape] = cost
            self.counted += cost.forward + cost.backward
        return self._of_batches[shape]

    def of_step(self, method: Method, sizes: Mapping[DomainName, Size]) -> StepCost:
        """The FLOPs of one update by a method, whose samples have these sizes (H, W): its own `step` is followed.

        If it needs values, which the meta device does not have, a forward and a backward pass of the network are counted for
        each domain that the method reads, and its other modules are left out; the note says so.
        """
        key = (settings_of_step(method), tuple(sizes.items()))
        if key not in self._of_steps:
            self._of_steps[key] = self._follow(method, sizes)
        return self._of_steps[key]

    def _follow(self, method: Method, sizes: Mapping[DomainName, Size]) -> StepCost:
        self.network.requires_grad_(True).train()
        # Counted before the step is followed, since counters inside each other are slower.
        passes = [self.of_batch((method.batch_size, 3, *sizes[domain])) for domain in method.reads]
        try:
            session = _CountingSession(self, method)
            flops = session.flops_of(_batch(method, sizes))
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  the code of a plugin
            self.network.requires_grad_(True).train()
            flops = sum(cost.forward + cost.backward for cost in passes)
            note = (
                f"a step of {method.method} needs values ({type(error).__name__}): a forward and a backward pass of the network are "
                "counted for each domain that it reads, and no other module"
            )
            trained = sum(weight.numel() for weight in self.network.parameters())
            return StepCost(method.accumulate * flops, self.weight_bytes, trained, note)
        modules = [session.modules[name] for name in session.learning_rates]
        trained = sum(w.numel() for module in modules for w in module.parameters() if w.requires_grad)
        size = sum(bytes_of(module) for module in session.modules.values())
        return StepCost(method.accumulate * flops, size, trained)


class _CountingSession(Session):
    """A session on the meta device whose network is not run again for shapes that were counted before."""

    def __init__(self, passes: NetworkPasses, method: Method) -> None:
        classifier = passes.network.classifier
        vectors = torch.empty(classifier.out_channels, classifier.in_channels, device=META)
        anchors = AnchorTensors(vectors, torch.empty(len(vectors), dtype=torch.bool, device=META), 1.0)
        super().__init__(method, passes.compute, passes.network, META, anchors, 0)
        self._passes = passes
        self._calls: list[tuple[PassCost, Outputs]] = []

    def outputs(self, images: Tensor) -> Outputs:
        """Tensors like the network's outputs. Whether a loss depends on them shows in their gradients."""
        cost = self._passes.of_batch(tuple(images.shape))
        features, logits, auxiliary = cost.outputs
        outputs = Outputs(_leaf(features), _leaf(logits), tuple(map(_leaf, auxiliary)))
        self._calls.append((cost, outputs))
        return outputs

    def outputs_with_map(self, images: Tensor) -> tuple[Outputs, Tensor]:
        """Tensors like the network's outputs and the encoder's coarsest map."""
        return self.outputs(images), _leaf(self._passes.of_batch(tuple(images.shape)).coarsest_map)

    def holds(self, condition: Tensor) -> bool:
        """True: what is done under any condition is counted."""
        return True

    def flops_of(self, batch: Batch) -> int:
        """The FLOPs of a step: passes of the network, and all that the method computes beside them."""
        before, backward = self._passes.counted, 0
        mask_mode: TorchDispatchMode = _EveryPixelCounts()  # type: ignore[no-untyped-call]
        with FlopCounterMode(display=False) as counter, mask_mode:
            for objective, _ in self.step(batch, 0):
                objective.backward()
                for cost, outputs in self._calls:
                    if any(values.grad is not None for values in _tensors(outputs)):
                        backward += cost.backward
                    for values in _tensors(outputs):
                        values.grad = None
        beside = int(counter.get_total_flops()) - (self._passes.counted - before)
        return beside + backward + sum(cost.forward for cost, _ in self._calls)


class _EveryPixelCounts(TorchDispatchMode):
    """A mode in which masks on the meta device, which have no values, are true everywhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.nonzero.default:
            (mask,) = args
            return mask.new_empty((mask.numel(), mask.dim()), dtype=torch.int64)
        if func in _INDEXING:
            values, indices, *rest = args
            args = (values, [index for mask in indices for index in _as_integers(mask)], *rest)
        return func(*args, **(kwargs or {}))


def _as_integers(index: Tensor | None) -> list[Tensor | None]:
    """The positions of all elements of a mask, one tensor for each of its dimensions; another index stays."""
    if index is None or index.dtype != torch.bool:
        return [index]
    return [index.new_empty(index.numel(), dtype=torch.int64) for _ in range(index.dim())]


@contextmanager
def _without_values(name: str) -> Iterator[None]:
    """UserError for a pass of the network of this name that fails on the meta device."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the code of a plugin
        raise UserError(
            f"network.name: {name} must do without values: plan counts its passes on torch's meta device, where tensors have none; "
            f"found {type(error).__name__}: {str(error).partition(chr(10))[0]:.150}; compute on the device of the images, and take no "
            "numbers out of tensors (float, item, numpy, if)"
        ) from error


def _on_meta(settings: NetworkSettings, categories: int) -> SegmentationNetwork:
    """The network without weights. One that needs values while it is built is built on the CPU first."""
    try:
        with META:
            return settings.build(categories)
    except (RuntimeError, NotImplementedError):
        return settings.build(categories).to(META)


def _batch(method: Method, sizes: Mapping[DomainName, Size]) -> Batch:
    """A batch without values: the images of each domain, and the label maps that the method reads."""
    batch: dict[str, dict[str, Tensor]] = {}
    for domain, read in method.reads.items():
        names = {"images": [], "truth": ["label"], "pseudo-labels": [f"{rule}_label" for rule in method.pseudo_labels]}
        shape = (method.batch_size, *sizes[domain])
        maps = {name: torch.empty(shape, dtype=torch.uint8, device=META) for name in names[read]}
        image = torch.empty(shape[0], 3, *shape[1:], dtype=torch.uint8, device=META)
        batch[domain] = {"image": image, **maps}
    return batch


def _unchanged(values: Tensor) -> Tensor:
    return values


def _tensors(outputs: Outputs) -> list[Tensor]:
    return [outputs.features, outputs.logits, *outputs.auxiliary]


def _leaf(values: Tensor) -> Tensor:
    return torch.empty_like(values, device=META, requires_grad=True)


def bytes_of(module: nn.Module) -> int:
    """The bytes of all weights and buffers of a module."""
    return sum(values.numel() * values.element_size() for values in module.state_dict().values())
