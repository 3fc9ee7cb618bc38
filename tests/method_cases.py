"""Random small inputs for the tests of the method: shapes and seeds are drawn, tensors follow from them."""

from dataclasses import dataclass

import hypothesis.strategies as st
import torch
from torch import Tensor

IGNORE = 255


@dataclass(frozen=True)
class Case:
    """Features and logits of some pixels, anchors, which of them are present, and labels with ignored pixels."""

    features: Tensor
    logits: Tensor
    anchors: Tensor
    present: Tensor
    labels: Tensor
    generator: torch.Generator

    @property
    def categories(self) -> int:
        """c."""
        return len(self.anchors)

    def permutation(self) -> Tensor:
        """A random order of an image's pixels."""
        return torch.randperm(self.labels[0].numel(), generator=self.generator)


def reorder(maps: Tensor, order: Tensor) -> Tensor:
    """The maps (n ... h w) with the pixels of every image in another order."""
    return maps.flatten(-2)[..., order].view(maps.shape)


@st.composite
def cases(draw: st.DrawFn, integers: bool = False) -> Case:
    """Small inputs; with `integers`, features and anchors lie on a coarse grid, where exact ties abound."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n, c, d, h, w = (draw(st.integers(low, high)) for low, high in ((1, 3), (2, 5), (1, 4), (1, 4), (1, 5)))

    def values(*shape: int) -> Tensor:
        if integers:
            return torch.randint(-2, 3, shape, generator=generator).float()
        return torch.randn(shape, generator=generator) * 3

    labels = torch.randint(0, c, (n, h, w), generator=generator, dtype=torch.uint8)
    labels[torch.rand(n, h, w, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.9]))] = IGNORE
    present = torch.rand(c, generator=generator) < draw(st.sampled_from([0.5, 1.0]))
    return Case(values(n, d, h, w), values(n, c, h, w), values(c, d), present, labels, generator)
