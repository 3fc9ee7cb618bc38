"""The seconds of steps and passes where no machine is asked: unknown, or at a sustained rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from caguda.config import Inference
from caguda.config_run import DomainName, Method
from caguda.costs.formulas import seconds_of

Size = tuple[int, int]


class Rate(Protocol):
    """The seconds of a training step, and of a pass over one frame. `name` says in words where they come from."""

    @property
    def name(self) -> str | None: ...

    def seconds_of_step(
        self, model: str, method: Method, sizes: Mapping[DomainName, Size], flops: float
    ) -> float | None:
        """The seconds of an update of so many FLOPs, whose frames have these sizes (H, W)."""

    def seconds_of_frame(self, size: Size, inference: Inference, flops: float) -> float | None:
        """The seconds of so many FLOPs for a frame of the size (H, W)."""


class NoRate:
    """All seconds are unknown."""

    name = None

    def seconds_of_step(self, model: str, method: Method, sizes: Mapping[DomainName, Size], flops: float) -> None:
        return None

    def seconds_of_frame(self, size: Size, inference: Inference, flops: float) -> None:
        return None


class Sustained:
    """The seconds at a sustained rate in TFLOP/s."""

    def __init__(self, tflops: float) -> None:
        self.tflops, self.name = tflops, f"hours are at {tflops:g} TFLOP/s sustained"

    def seconds_of_step(self, model: str, method: Method, sizes: Mapping[DomainName, Size], flops: float) -> float:
        return seconds_of(flops, self.tflops)

    def seconds_of_frame(self, size: Size, inference: Inference, flops: float) -> float:
        return seconds_of(flops, self.tflops)
