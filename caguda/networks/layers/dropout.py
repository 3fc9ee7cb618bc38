"""Dropout whose random numbers belong to a sample, whichever process has it."""

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

_OF_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclass
class Noise:
    """What decides the random numbers of dropout: the seed, the iteration, and the process's place in the batch.

    `calls` counts the calls of each layer in the iteration, for the several passes of a step.
    """

    seed: int
    rank: int = 0
    iteration: int = 0
    calls: dict[str, int] = field(default_factory=dict)

    def begin(self, iteration: int) -> None:
        """Begin an iteration."""
        self.iteration = iteration
        self.calls.clear()

    def seeds(self, layer: str, samples: int) -> list[int]:
        """The seeds of a layer's next call, one for each of the process's samples."""
        call = self.calls[layer] = self.calls.get(layer, 0) + 1
        first = self.rank * samples
        return [seed_of(self.seed, self.iteration, layer, call, sample) for sample in range(first, first + samples)]


def seed_of(*parts: object) -> int:
    """A seed of 63 bits, which differs for other parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


class SampleDropout(nn.Module):
    """Dropout of every value of a sample, or of whole channels as in nn.Dropout2d, with probability `p`.

    In training a value is 0 with probability p, and otherwise divided by 1 - p. On the meta device there is nothing to drop.
    """

    def __init__(self, p: float, of_channels: bool, layer: str, noise: Noise) -> None:
        super().__init__()
        self.p, self.of_channels, self.layer, self.noise = p, of_channels, layer, noise

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.p == 0 or values.is_meta:
            return values
        shape = (values.shape[1], *[1] * (values.dim() - 2)) if self.of_channels else values.shape[1:]
        generator = torch.Generator(values.device)
        dropped = [
            torch.rand(shape, generator=generator.manual_seed(seed), device=values.device) < self.p
            for seed in self.noise.seeds(self.layer, len(values))
        ]
        return values.masked_fill(torch.stack(dropped), 0) / max(1 - self.p, torch.finfo(torch.float32).tiny)


def draw_by_sample(module: nn.Module, name: str, noise: Noise) -> None:
    """Replace every nn.Dropout and nn.Dropout1d to 3d inside a module by a SampleDropout; weights and their names stay.

    A layer that a module has in two places becomes two.
    """
    for path, part in list(module.named_modules(remove_duplicate=False)):
        if type(part) in (nn.Dropout, *_OF_CHANNELS):
            parent, _, key = path.rpartition(".")
            layer = SampleDropout(part.p, type(part) in _OF_CHANNELS, f"{name}.{path}", noise)
            setattr(module.get_submodule(parent), key, layer.train(part.training))


def leave_uncompiled(module: nn.Module) -> None:
    """Leave every SampleDropout inside a module out of compilation: its random numbers begin at seeds."""
    for part in module.modules():
        if isinstance(part, SampleDropout):
            part.forward = torch.compiler.disable(part.forward)  # type: ignore[method-assign]
