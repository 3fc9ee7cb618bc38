"""The costs of models as pure functions of numbers: FLOPs, seconds, bytes. No I/O and no torch.

FLOPs count a multiplication with its addition as 2. Hours are those of one device that does everything in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

EVIDENCE_BYTES, LABEL_BYTES, IMAGE_BYTES = 10, 2, 3
"""Bytes a pixel before compression: of the evidence, of the labels of one rule, of an RGB image."""
WEIGHT_BYTES = 4
OPTIMISER_VALUES = {"sgd": 1, "adamw": 2}
"""The values that an optimiser keeps for each weight: the momentum, or both moments."""


@dataclass(frozen=True)
class Work:
    """Work of one kind: `count` steps or frames, each of so many FLOPs, and of so many seconds where a rate is known.

    `decoded` is the number of frames that are decoded for each of them.
    """

    name: str
    count: int
    flops: float
    seconds: float | None
    decoded: int = 1

    @property
    def total_flops(self) -> float:
        return self.count * self.flops

    @property
    def hours(self) -> float | None:
        """The hours on one device; None without a rate."""
        return None if self.seconds is None else self.count * self.seconds / 3600

    @property
    def frames_per_second(self) -> float | None:
        """The frames that must be decoded every second for the device not to wait; None without a rate."""
        return self.decoded / self.seconds if self.seconds else None


class ModelCost(NamedTuple):
    """The cost of one model of one seed: its training, passes of the finished model over frames, and bytes on disk.

    `training` is None for an imported model. `disk` has the bytes of each artifact by its name, without those by anchors
    from elsewhere: `disk_by_given_anchors` has these for each file of such anchors.
    """

    model: str
    method: str
    training: Work | None
    passes: tuple[Work, ...]
    disk: Mapping[str, int]
    disk_by_given_anchors: Mapping[str, Mapping[str, int]]

    @property
    def bytes(self) -> int:
        """The bytes of all artifacts."""
        return sum(sum(disk.values()) for disk in (self.disk, *self.disk_by_given_anchors.values()))

    @property
    def works(self) -> tuple[Work, ...]:
        return self.passes if self.training is None else (self.training, *self.passes)


class Plan(NamedTuple):
    """The costs of all models of one seed, the number of seeds, the bytes that all share, and what was assumed, in words.

    `unknown` names the sets of frames whose number or size is unknown: passes over them are in none of the costs.
    """

    models: tuple[ModelCost, ...]
    seeds: int
    shared: Mapping[str, int]
    unknown: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def trainings(self) -> list[Work]:
        """The trainings of one seed."""
        return [cost.training for cost in self.models if cost.training is not None]

    @property
    def passes(self) -> list[Work]:
        """The passes of finished models of one seed."""
        return [work for cost in self.models for work in cost.passes]

    @property
    def bytes(self) -> int:
        """The bytes of all seeds."""
        return self.seeds * sum(cost.bytes for cost in self.models) + sum(self.shared.values())


def seconds_of(flops: float, tflops: float) -> float:
    """The seconds that so many FLOPs take at a sustained rate in TFLOP/s, which is above 0."""
    return flops / (tflops * 1e12)


def sum_of_hours(works: Iterable[Work]) -> float | None:
    """The hours of all works; None if those of one are unknown. No work takes 0 hours."""
    hours = [work.hours for work in works]
    return None if None in hours else sum(value for value in hours if value is not None)


def sum_of_flops(works: Iterable[Work]) -> float:
    """The FLOPs of all works."""
    return sum(work.total_flops for work in works)


def views(scales: Iterable[float], *, flip: bool) -> list[float]:
    """The scale of every view of a frame: each scale once, with `flip` twice."""
    return [scale for scale in scales for _ in range(2 if flip else 1)]


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """The size (H, W) of a view: each side rounded, at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def map_bytes(frames: int, feature_size: tuple[int, int], bytes_per_pixel: int) -> int:
    """The bytes of a store of maps (h, w) of so many frames, before compression."""
    return frames * feature_size[0] * feature_size[1] * bytes_per_pixel


def state_bytes(modules: int, trained_weights: int, optimiser: str) -> int:
    """The bytes of a training state: its modules' bytes, and what the optimiser keeps for each trained weight."""
    return modules + trained_weights * WEIGHT_BYTES * OPTIMISER_VALUES[optimiser]


def packed_bytes(pixels: int, *, labelled: bool) -> int:
    """The bytes of a packed cache of so many pixels, of the images and with `labelled` of their label maps."""
    return pixels * (IMAGE_BYTES + labelled)
