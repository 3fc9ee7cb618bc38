"""The prototypes of ProDA as a module, so that they belong to the state of a training."""

import torch
from torch import Tensor, nn

from caguda.equations.prototypes import running_prototypes


class Prototypes(nn.Module):
    """The prototype of every category, (c, d), and the number of images that it comes from, (c); 0 where it is absent."""

    vectors: Tensor
    image_count: Tensor

    def __init__(self, categories: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(categories, channels))
        self.register_buffer("image_count", torch.zeros(categories, dtype=torch.int64))

    @property
    def present(self) -> Tensor:
        """Whether each category has a prototype, (c)."""
        return self.image_count > 0

    def move(self, sums: Tensor, added: Tensor, decay: float) -> None:
        """Add the class means of some images: their sums (c, d), and in how many images each category has one (c)."""
        self.vectors.copy_(running_prototypes(self.vectors, self.image_count, sums, added, decay))
        self.image_count.add_(added)
