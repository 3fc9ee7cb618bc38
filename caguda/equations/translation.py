"""Translations of source images into the style of target images, without a network: FDA, and colour statistics.

Images have k channels, in any unit; the unit, 0..255 or another, stays. The result is not clipped.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def fourier_translated(
    source: Float[Tensor, "n k h w"], target: Float[Tensor, "n k h w"], beta: float
) -> Float[Tensor, "n k h w"]:
    """The source images with the amplitude of the target's low frequencies; phases and other frequencies are kept.

    Fourier domain adaptation (FDA, Yang and Soatto, CVPR 2020). Low are the (2 b + 1)^2 frequencies -b..b of both axes,
    b = floor(beta min(h, w)), 0 <= beta < 0.5; of b = 0 only the mean colour changes. This is the numpy version of the
    public code (utils/__init__.py:20-36). The torch version, which trains there, is `fourier_translated_corners`.
    """
    b, (h, w) = half_width(source, beta), source.shape[-2:]
    rows, columns = torch.arange(h, device=source.device), torch.arange(w // 2 + 1, device=source.device)
    return with_amplitude(source, target, (torch.minimum(rows, h - rows) <= b)[:, None] & (columns <= b))


def fourier_translated_corners(
    source: Float[Tensor, "n k h w"], target: Float[Tensor, "n k h w"], beta: float
) -> Float[Tensor, "n k h w"]:
    """The source images with the amplitude of the target's low frequencies, as the code of FDA trains.

    The torch version of the public code (utils/__init__.py:11-18, 38). It exchanges four corners of b x b of the
    spectrum, which are the frequencies -b..b-1 of both axes, and its inverse reads only columns 0..w/2. So the vertical
    frequency -b is exchanged and b is not, and with b = 0 nothing changes. See `fourier_translated`.
    """
    b, (h, w) = half_width(source, beta), source.shape[-2:]
    rows, columns = torch.arange(h, device=source.device), torch.arange(w // 2 + 1, device=source.device)
    return with_amplitude(source, target, ((rows < b) | (rows >= h - b))[:, None] & (columns < b))


def half_width(images: Float[Tensor, "n k h w"], beta: float) -> int:
    """The largest exchanged frequency b = floor(beta min(h, w))."""
    assert 0 <= beta < 0.5, f"beta must be 0 or more and below 0.5, found {beta}"
    return math.floor(min(images.shape[-2:]) * beta)


def with_amplitude(
    source: Float[Tensor, "n k h w"], target: Float[Tensor, "n k h w"], exchanged: Bool[Tensor, "h half"]
) -> Float[Tensor, "n k h w"]:
    """The source images with the target's amplitude at some frequencies of the half spectrum, half = w // 2 + 1.

    A frequency that the source lacks gets an arbitrary phase.
    """
    spectrum = torch.fft.rfft2(source)
    other = torch.polar(torch.fft.rfft2(target).abs(), spectrum.angle())
    translated: Tensor = torch.fft.irfft2(other.where(exchanged, spectrum), s=source.shape[-2:])
    return translated


def statistics_translated(
    content: Float[Tensor, "n k h w"], style: Float[Tensor, "n k h2 w2"]
) -> Float[Tensor, "n k h w"]:
    """The content images with the mean and the standard deviation of each channel of the style images.

    AdaIN, Eq. 8 of Huang and Belongie (ICCV 2017), on the images' own channels. The variance is the unbiased one plus
    1e-5, as in naoto0804/pytorch-AdaIN function.py:4-23, so images need two pixels.
    """
    mean, deviation = channel_statistics(content)
    other_mean, other_deviation = channel_statistics(style)
    return (content - mean) / deviation * other_deviation + other_mean


def channel_statistics(
    images: Float[Tensor, "n k h w"],
) -> tuple[Float[Tensor, "n k 1 1"], Float[Tensor, "n k 1 1"]]:
    """The mean of each image's channels, and their standard deviation with 1e-5 added to the unbiased variance."""
    variance, mean = torch.var_mean(images, dim=(2, 3), keepdim=True)
    return mean, (variance + 1e-5).sqrt()
