"""Translations against sums over pixels, against numpy's transforms, and against the public code of FDA and AdaIN."""

import cmath
import math

import numpy as np
import pytest
import torch
from golden_methods import golden
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from caguda.equations.translation import fourier_translated, fourier_translated_corners, statistics_translated

TRANSLATIONS = {"numpy_version": fourier_translated, "torch_version_emulated": fourier_translated_corners}


@st.composite
def pairs(draw: st.DrawFn, smallest: int = 1) -> tuple[Tensor, Tensor]:
    """Source and target images of one size, in float64."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n, k, h, w = (draw(st.integers(low, high)) for low, high in ((1, 2), (1, 3), (smallest, 9), (smallest, 9)))
    return tuple(100 * torch.rand(n, k, h, w, generator=generator, dtype=torch.float64) for _ in range(2))


betas = st.sampled_from([0.0, 0.12, 0.25, 0.34, 0.49])


def spectrum(image: list[list[float]]) -> list[list[complex]]:
    """The discrete Fourier transform by its definition."""
    h, w = len(image), len(image[0])
    return [
        [
            sum(image[y][x] * cmath.exp(-2j * math.pi * (u * y / h + v * x / w)) for y in range(h) for x in range(w))
            for v in range(w)
        ]
        for u in range(h)
    ]


def test_the_mean_and_slow_waves_are_the_targets() -> None:
    """Of cosines, whose spectrum is known: those up to frequency b get the target's amplitude, and all keep their phase."""
    y, x = torch.arange(12.0, dtype=torch.float64)[:, None] / 12, torch.arange(16.0, dtype=torch.float64) / 16

    def image(mean: float, slow: float, fast: float, phase: float) -> Tensor:
        waves = slow * torch.cos(2 * math.pi * (2 * y + x) + phase) + fast * torch.cos(2 * math.pi * (3 * x) + phase)
        return (mean + waves)[None, None]

    source, target = image(7.0, 2.0, 3.0, 0.3), image(40.0, 5.0, 11.0, 1.9)
    found = fourier_translated(source, target, beta=0.2)  # floor(2.4) = 2
    torch.testing.assert_close(found, image(40.0, 5.0, 3.0, 0.3))


@given(pairs(), betas)
def test_fourier_translation_exchanges_a_centred_square_of_amplitudes(case: tuple[Tensor, Tensor], beta: float) -> None:
    source, target = case
    found = fourier_translated(source, target, beta)
    h, w = source.shape[-2:]
    b = math.floor(beta * min(h, w))
    before, style, after = (np.fft.fft2(images.numpy()) for images in (source, target, found))
    for u in range(h):
        for v in range(w):
            low = min(u, h - u) <= b and min(v, w - v) <= b
            amplitude = np.abs(style if low else before)[..., u, v]
            expected = amplitude * np.exp(1j * np.angle(before[..., u, v]))
            np.testing.assert_allclose(after[..., u, v], expected, atol=1e-7)


@given(pairs(), betas)
def test_the_version_of_corners_lacks_one_row_and_one_column(case: tuple[Tensor, Tensor], beta: float) -> None:
    """By numpy's whole spectrum, of whose inverse the old function read columns 0 to w / 2."""
    source, target = case
    (h, w), b = source.shape[-2:], math.floor(beta * min(source.shape[-2:]))
    before, style = np.fft.fft2(source.numpy()), np.fft.fft2(target.numpy())
    amplitude = np.abs(before)
    for rows in (slice(0, b), slice(h - b, h)):
        for columns in (slice(0, b), slice(w - b, w)):
            amplitude[..., rows, columns] = np.abs(style)[..., rows, columns]
    mixed = amplitude * np.exp(1j * np.angle(before))
    expected = np.fft.irfft2(mixed[..., : w // 2 + 1], s=(h, w))
    np.testing.assert_allclose(fourier_translated_corners(source, target, beta).numpy(), expected, atol=1e-8)


def test_the_spectrum_is_that_of_its_definition() -> None:
    source, target = (
        torch.rand(1, 1, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1)
    )
    before, style, after = (
        spectrum(images[0, 0].tolist()) for images in (source, target, fourier_translated(source, target, 0.25))
    )
    for u in range(5):
        for v in range(6):
            low = min(u, 5 - u) <= 1 and min(v, 6 - v) <= 1
            amplitude, phase = abs((style if low else before)[u][v]), cmath.phase(before[u][v])
            assert after[u][v] == pytest.approx(cmath.rect(amplitude, phase), abs=1e-10)


@given(pairs(), betas)
def test_an_image_in_its_own_style_stays(case: tuple[Tensor, Tensor], beta: float) -> None:
    source, _ = case
    torch.testing.assert_close(fourier_translated(source, source, beta), source, rtol=0, atol=1e-9)
    torch.testing.assert_close(fourier_translated_corners(source, source, beta), source, rtol=0, atol=1e-9)


@given(pairs())
def test_beta_0_exchanges_the_mean_alone_or_nothing(case: tuple[Tensor, Tensor]) -> None:
    source, target = case
    mean = source.mean(dim=(2, 3), keepdim=True)
    moved = source - mean + target.mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(fourier_translated(source, target, 0.0), moved)
    torch.testing.assert_close(fourier_translated_corners(source, target, 0.0), source)


@pytest.mark.parametrize("beta", [-0.01, 0.5, 1.0, math.nan])
def test_beta_is_below_a_half(beta: float) -> None:
    images = torch.rand(1, 3, 4, 6)
    for translated in TRANSLATIONS.values():
        with pytest.raises(AssertionError, match="beta must be 0 or more and below 0.5"):
            translated(images, images, beta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("version", TRANSLATIONS)
def test_images_are_those_of_fda(version: str, dtype: torch.dtype) -> None:
    arrays = golden("fda")
    source, target = (torch.from_numpy(arrays[name])[None].to(dtype) for name in ("source", "target"))
    for number in range(3):
        found = TRANSLATIONS[version](source, target, float(arrays[f"beta{number}"]))
        assert found.dtype == dtype
        expected = torch.from_numpy(arrays[f"{version}{number}"])[None].to(dtype)
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)


@given(pairs(smallest=2), st.sampled_from([1.0, 1e-3]))
def test_statistics_are_the_styles(case: tuple[Tensor, Tensor], contrast: float) -> None:
    content, style = case[0] * contrast, case[1].mT
    found = statistics_translated(content, style)
    for image in range(len(content)):
        for channel in range(content.shape[1]):
            x, y = (maps[image, channel].flatten().tolist() for maps in (content, style))
            means = [sum(values) / len(values) for values in (x, y)]
            deviations = [
                math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) + 1e-5)
                for values, mean in zip((x, y), means, strict=True)
            ]
            expected = [(v - means[0]) / deviations[0] * deviations[1] + means[1] for v in x]
            assert found[image, channel].flatten().tolist() == pytest.approx(expected, rel=1e-9)


def test_a_constant_image_gets_the_mean_of_the_style() -> None:
    content, style = torch.full((1, 1, 3, 4), 9.0), torch.tensor([[[[1.0, 3.0]]]])
    assert statistics_translated(content, style).unique().tolist() == [2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statistics_are_translated_as_by_adain(dtype: torch.dtype) -> None:
    arrays = golden("adain")
    content, style = (torch.from_numpy(arrays[name]).to(dtype) for name in ("content", "style"))
    expected = torch.from_numpy(arrays["adain"]).to(dtype)
    torch.testing.assert_close(statistics_translated(content, style), expected, rtol=2e-5, atol=2e-6)
