"""Batches of images in the given order, as the network takes them: for everything but training."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from caguda.datasets.frame import Frame
from caguda.datasets.io import frame_image
from caguda.datasets.workers import prefetched


def read_ahead(frames: Sequence[Frame], batches: Iterable[Sequence[int]]) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yields each batch, indices of n frames, with its images (n, 3, H, W); a background thread reads the next batch."""
    return prefetched((batch, frame_images(frames, batch)) for batch in batches)


def frame_images(frames: Sequence[Frame], batch: Sequence[int]) -> UInt8[Tensor, "n 3 H W"]:
    """The images of a batch, indices of n frames whose images have one size."""
    return torch.stack([frame_image(frames[index]) for index in batch])


def scaled(images: UInt8[Tensor, "n 3 H W"], device: torch.device) -> Float[Tensor, "n 3 H W"]:
    """The network's input: RGB scaled to 0..1, channels last in memory."""
    values = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return values.float().div_(255)
