"""Inference with a trained network: the category of every pixel, from one view of the image or from several."""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from caguda.config import Inference
from caguda.equations.grid import enlarged_logits
from caguda.errors import UserError


class Views(NamedTuple):
    """The logits of every view of some images at the network's resolution, each with whether the view is mirrored."""

    size: Sequence[int]  # (H, W) of the images
    logits: list[tuple[Tensor, bool]]


def most_probable(
    network: nn.Module, images: Float[Tensor, "n 3 H W"], inference: Inference, align_corners: bool = False
) -> UInt8[Tensor, "n H W"]:
    """The most probable category of every pixel, at the resolution of the images; ties go to the lowest category.

    With one view, the category of the largest logit; with several, of the largest mean softmax probability. TypeError
    or ValueError if the images are not RGB in 0..1.
    """
    _require_floats(images)
    least, most = (float(value) for value in images.aminmax())
    if not 0.0 <= least <= most <= 1.0:
        raise ValueError(f"images must be RGB in 0..1, found values from {least:g} to {most:g}; see `scaled`")
    return largest(views(network, images, inference), align_corners)


def views(network: nn.Module, images: Float[Tensor, "n 3 H W"], inference: Inference) -> Views:
    """The network's logits of each view of the images.

    A view is the image at one of the scales (each side rounded, at least one pixel), with `flip` also mirrored.
    TypeError if the images are not floating-point numbers, UserError if a logit is not finite.
    """
    _require_floats(images)
    logits = []
    for scale in inference.scales:
        size = [max(1, round(side * scale)) for side in images.shape[-2:]]
        same = size == list(images.shape[-2:])
        view = images if same else functional.interpolate(images, size, mode="bilinear", antialias=True)
        logits.append((network(view)[1], False))
        if inference.flip:
            logits.append((network(view.flip(-1))[1], True))
    refuse_not_finite(*(values for values, _ in logits))
    return Views(images.shape[-2:], logits)


def refuse_not_finite(*outputs: Tensor) -> None:
    """UserError if an output of the network is nan or infinite: it would have a most probable category all the same."""
    if not all(bool(values.isfinite().all()) for values in outputs):
        raise UserError(
            "the network's outputs must be finite numbers, found nan or infinity; check where its weights and the statistics of its "
            "batch normalisation come from, or train it again with a lower learning rate"
        )


def _require_floats(images: Tensor) -> None:
    if not images.is_floating_point():
        raise TypeError(f"images must be RGB in 0..1 in floating-point numbers, found {images.dtype}; see `scaled`")


def largest(views: Views, align_corners: bool = False) -> UInt8[Tensor, "n H W"]:
    """The most probable category of every pixel from the logits of all views, as in `most_probable`."""
    if len(views.logits) == 1:
        return enlarged_logits(views.logits[0][0], views.size, align_corners).argmax(dim=1).to(torch.uint8)
    return mean_probabilities(views, align_corners).argmax(dim=1).to(torch.uint8)


def mean_probabilities(views: Views, align_corners: bool = False) -> Float[Tensor, "n c H W"]:
    """The mean of the softmax probabilities over all views, at the images' resolution.

    Logits are enlarged bilinearly before the softmax; mirrored views are mirrored back.
    """
    by_view = (
        probabilities.flip(-1) if mirrored else probabilities
        for logits, mirrored in views.logits
        for probabilities in [enlarged_logits(logits, views.size, align_corners).softmax(dim=1)]
    )
    return reduce(Tensor.add_, by_view).div_(len(views.logits))
