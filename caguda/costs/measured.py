"""The seconds of training steps and of passes, measured on the device at hand with random images."""

from __future__ import annotations

import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from caguda.classes import class_table
from caguda.config import Configuration, Inference
from caguda.config_run import DomainName, Method
from caguda.costs.arithmetic import settings_of_step
from caguda.datasets.frame import Frame
from caguda.datasets.image_batches import scaled
from caguda.datasets.loader import TrainingFrames, training_batches
from caguda.datasets.transforms import Pixels
from caguda.networks.layers.inference import largest, views
from caguda.networks.layers.network import SegmentationNetwork
from caguda.stages.runtime import configure_torch, to_device
from caguda.stages.session import AnchorTensors, Batch, Session
from caguda.stages.train import setup_of
from caguda.stages.training import compute_gradients, update_weights

Size = tuple[int, int]
FIRST, LEAST = 2, 3
"""The calls before those that count, and the least number of these."""
SAMPLE = 5.0
"""The seconds of calls that count, at least."""
FRAMES = 4
"""The random frames of a set, which are used again and again."""
STEPS = 100_000
"""More steps than are measured."""


@dataclass(frozen=True)
class _RandomMaps:
    """Random maps of frames by name; a class, so that loader processes can receive it."""

    maps: Mapping[str, Tensor]

    def __call__(self, index: int) -> dict[str, Pixels]:
        return {name: values[index] for name, values in self.maps.items()}

    def image(self, index: int) -> Pixels:
        return self.maps["image"][index]


def _random(limit: int, *shape: int) -> Tensor:
    return torch.randint(limit, shape, dtype=torch.uint8)


class Measured:
    """The seconds on the device at hand, which is set up as `compute` says, by the network with random weights.

    Steps that differ only in thresholds and lengths are measured once.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
        self.categories = class_table(configuration).count
        is_gpu = self.device.type == "cuda"
        machine = (
            torch.cuda.get_device_name()
            if is_gpu
            else f"{configuration.compute.threads} CPU threads of {platform.node()}"
        )
        self.name = (
            f"hours are of steps and passes measured on {machine} with random images in memory, augmented as in the training; "
            "the decoding of files and the start of each job are not in them"
        )
        self._seconds: dict[Any, float] = {}

    def seconds_of_step(self, model: str, method: Method, sizes: Mapping[DomainName, Size], flops: float) -> float:
        """The median time of an update, of all images of a batch in this process, with batches from a training's loader."""
        key = (settings_of_step(method, thresholds=False), tuple(sizes.items()), flops)
        if key not in self._seconds:
            self._seconds[key] = _median_seconds(self._step(model, method, sizes), f"a step of {model}")
        return self._seconds[key]

    def seconds_of_frame(self, size: Size, inference: Inference, flops: float) -> float:
        """The median time of a frame in a batch of inference, up to the category of every pixel."""
        key = (size, str(inference))
        if key not in self._seconds:
            batch = self.configuration.compute.inference_batch_size
            title = f"a pass over frames of {size[1]}x{size[0]}"
            self._seconds[key] = _median_seconds(self._pass(batch, size, inference), title) / batch
        return self._seconds[key]

    def _network(self) -> SegmentationNetwork:
        torch.manual_seed(0)
        return to_device(self.configuration.network.build(self.categories), self.device)

    def _pass(self, batch: int, size: Size, inference: Inference) -> Callable[[], None]:
        network, images = self._network().eval(), _random(256, batch, 3, *size)

        @torch.inference_mode()
        def run() -> None:
            largest(views(network, scaled(images, self.device), inference)).cpu()

        return run

    def _step(self, model: str, method: Method, sizes: Mapping[DomainName, Size]) -> Callable[[], None]:
        """A function that takes the next step. Learning rates are 0, so that random weights stay finite."""
        network = self._network()
        vectors = torch.rand(self.categories, network.classifier.in_channels, device=self.device)
        anchors = AnchorTensors(vectors, torch.ones(len(vectors), dtype=torch.bool, device=self.device), 1.0)
        session = Session(method, self.configuration.compute, network, self.device, anchors, 0)
        session.learning_rates = dict.fromkeys(session.learning_rates, 0.0)
        setup = setup_of(session, model, model, lambda _: self._batches(method, sizes))
        batches = setup.batches(0)

        def run() -> None:
            compute_gradients(setup, lambda: next(batches), 0)
            update_weights(setup)
            setup.after_update()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return run

    def _batches(self, method: Method, sizes: Mapping[DomainName, Size]) -> Iterator[Batch]:
        workers, end = self.configuration.compute.workers, STEPS * method.accumulate
        frames = [self._frames(method, domain, sizes[domain]) for domain in method.reads]
        loaders = (training_batches(part, method.batch_size, 0, end, workers) for part in frames)
        for samples in zip(*loaders, strict=True):
            yield dict(zip(method.reads, samples, strict=True))

    def _frames(self, method: Method, domain: DomainName, size: Size) -> TrainingFrames:
        """Random frames of a domain. Pseudo-labels have the size of the features, as in a store."""
        read, c = method.reads[domain], self.categories
        images, labels = _RandomMaps({"image": _random(256, FRAMES, 3, *size)}), None
        if read == "truth":
            labels = _RandomMaps({"label": _random(c, FRAMES, *size)})
        elif read == "pseudo-labels":
            small = self.configuration.network.feature_size(size)
            labels = _RandomMaps({f"{rule}_label": _random(c, FRAMES, *small) for rule in method.pseudo_labels})
        frames = [Frame(str(index), self.configuration.root, None) for index in range(FRAMES)]
        return TrainingFrames(frames, labels, method.augmentation_of(domain), 0, domain, images.image)


def _median_seconds(run: Callable[[], None], title: str) -> float:
    """The median time of calls, after the first FIRST: at least LEAST calls, and SAMPLE seconds of them."""
    print(f"plan: measures {title}", file=sys.stderr, flush=True)
    seconds: list[float] = []
    while len(seconds) < FIRST + LEAST or math.fsum(seconds[FIRST:]) < SAMPLE:
        started = time.monotonic()
        run()
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds[FIRST:])
