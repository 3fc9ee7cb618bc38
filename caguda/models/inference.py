"""A finished network's answer for every pixel of an image: of one view of it, or of several together."""

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from caguda.config import Inference


def most_probable(network: nn.Module, images: Float[Tensor, "n 3 H W"], inference: Inference) -> UInt8[Tensor, "n H W"]:
    """The most probable category of every pixel, at the resolution of the images; of equal ones the first.

    Of one view: the largest logit. Of several: the largest mean of their softmax probabilities.
    """
    if inference.scales == (1.0,) and not inference.flip:
        return _logits(network, images, images.shape[-2:]).argmax(dim=1).to(torch.uint8)
    return mean_probabilities(network, images, inference).argmax(dim=1).to(torch.uint8)


def mean_probabilities(
    network: nn.Module, images: Float[Tensor, "n 3 H W"], inference: Inference
) -> Float[Tensor, "n c H W"]:
    """The mean over all views of the softmax probabilities, each enlarged to the images' resolution and mirrored back.

    A view is the image at one of the scales (each side rounded, at least one pixel), with `flip` also mirrored. Logits
    are enlarged bilinearly before the softmax, as where there is one view.
    """
    size = images.shape[-2:]
    each = (
        probabilities.flip(-1) if mirrored else probabilities
        for view, mirrored in _views(images, inference)
        for probabilities in [_logits(network, view, size).softmax(dim=1)]
    )
    return reduce(Tensor.add_, each).div_(len(inference.scales) * (1 + inference.flip))


def _views(images: Tensor, inference: Inference) -> Iterator[tuple[Tensor, bool]]:
    for scale in inference.scales:
        size = [max(1, round(side * scale)) for side in images.shape[-2:]]
        same = size == list(images.shape[-2:])
        view = images if same else functional.interpolate(images, size, mode="bilinear", antialias=True)
        yield view, False
        if inference.flip:
            yield view.flip(-1), True


def _logits(network: nn.Module, images: Tensor, size: Sequence[int]) -> Tensor:
    _, logits = network(images)
    return functional.interpolate(logits, size, mode="bilinear")
