"""A sample is, bit for bit, what flipping, resizing and cutting the whole frame would give, of fewer pixels."""

from fractions import Fraction
from types import EllipsisType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from caguda.classes import IGNORE
from caguda.config_frames import Augmentation
from caguda.datasets.transforms import augmented, draw_geometry


class Watched:
    """Pixels that note which part of them was taken."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.taken: list[tuple[slice, slice]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __getitem__(self, part: tuple[EllipsisType, slice, slice]) -> Tensor:
        self.taken.append(part[1:])
        return self.values[part].clone()


def nearest(label: Tensor, size: list[int]) -> Tensor:
    """A label map resized by nearest neighbour with exact fractions; of two at the same distance, each in turn."""
    rows, columns = (
        [nearest_pixel(Fraction(2 * i + 1, 2) * old / new, i) for i in range(new)]
        for old, new in zip(label.shape, size, strict=True)
    )
    return tv_tensors.Mask(label[rows][:, columns])


def nearest_pixel(place: Fraction, index: int) -> int:
    """The pixel at a place; at the border of two of them, the first for an even index and the second for an odd one."""
    return int(place) - 1 if place == int(place) and index % 2 == 0 else int(place)


def by_whole_frame(augmentation: Augmentation, image: Tensor, label: Tensor) -> dict[str, Tensor]:
    """The geometry of a sample by torchvision, of everything: flip, resize, pad, crop."""
    parts: dict[str, Any] = {"image": tv_tensors.Image(image), "label": tv_tensors.Mask(label)}
    if augmentation.flip and torch.rand(1) < 0.5:
        parts = {name: functional.horizontal_flip(values) for name, values in parts.items()}
    if augmentation.crop is not None or augmentation.scale != (1.0, 1.0):
        factor = float(torch.empty(()).uniform_(*augmentation.scale))
        size = [round(side * factor) for side in label.shape]
        height, width = augmentation.crop or label.shape
        top = int(torch.randint(0, max(size[0] - height, 0) + 1, ()))
        left = int(torch.randint(0, max(size[1] - width, 0) + 1, ()))
        for name, values in parts.items():
            fill = IGNORE if name == "label" else 0
            right, bottom = max(left + width - size[1], 0), max(top + height - size[0], 0)
            resized = nearest(values, size) if name == "label" else functional.resize(values, size)
            padded = functional.pad(resized, [0, 0, right, bottom], fill=fill)
            parts[name] = functional.crop(padded, top, left, height, width)
    return {name: values.as_subclass(Tensor) for name, values in parts.items()}


def noise(height: int, width: int, seed: int, *, interleaved: bool) -> tuple[Tensor, Tensor]:
    """An image, its colours of one pixel beside each other in memory or not, and a label map."""
    generator = torch.Generator().manual_seed(seed)
    shape = (height, width, 3) if interleaved else (3, height, width)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    label = torch.randint(0, 20, (height, width), dtype=torch.uint8, generator=generator)
    return image.movedim(-1, 0) if interleaved else image, label


SIDES = st.integers(1, 70)
FACTORS = st.lists(st.floats(0.2, 3.0), min_size=2, max_size=2).map(sorted)


@given(
    frame=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    flip=st.booleans(),
    scale=st.one_of(st.just((1.0, 1.0)), FACTORS.map(tuple)),
    crop=st.one_of(st.none(), st.tuples(SIDES, SIDES)),
    interleaved=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_samples_are_cut_from_whole_frames_bit_for_bit(
    frame: tuple[int, int], flip: bool, scale: Any, crop: Any, interleaved: bool, seed: int
) -> None:
    augmentation = Augmentation(flip=flip, scale=scale, crop=crop)
    image, label = noise(*frame, seed, interleaved=interleaved)
    torch.manual_seed(seed)
    expected = by_whole_frame(augmentation, image, label)
    torch.manual_seed(seed)
    found = augmented(augmentation, Watched(image), {"label": Watched(label)})
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(found[name], values), name
        assert found[name].dtype == torch.uint8 and found[name].is_contiguous()


def test_neither_layout_in_memory_nor_source_changes_a_colour() -> None:
    augmentation = Augmentation(flip=True, scale=(0.7, 1.6), crop=(30, 40), color_jitter=0.5, blur=2.0)
    image, _ = noise(50, 60, 0, interleaved=True)
    samples = []
    for values in (image, image.contiguous(), Watched(image), Watched(image.contiguous())):
        torch.manual_seed(1)
        samples.append(augmented(augmentation, values, {})["image"])
    assert all(torch.equal(samples[0], sample) for sample in samples[1:])


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_reads_its_own_pixels_and_no_others(flip: bool) -> None:
    image, label = (Watched(values) for values in noise(40, 60, 0, interleaved=True))
    for seed in range(10):
        torch.manual_seed(seed)
        sample = augmented(Augmentation(flip=flip, crop=(13, 21)), image, {"label": label})
        assert image.taken[-1] == label.taken[-1]
        assert [part.stop - part.start for part in image.taken[-1]] == [13, 21]
        assert sample["image"].shape == (3, 13, 21)


def test_a_resized_crop_reads_few_rows_more_than_it_shows() -> None:
    augmentation = Augmentation(scale=(0.5, 2.0), crop=(64, 64))
    for seed in range(50):
        torch.manual_seed(seed)
        geometry = draw_geometry(augmentation, 300, 300)
        scale = 300 / geometry.size[0]
        rows = geometry.rows
        assert 0 <= rows.start < rows.stop <= 300 and geometry.columns == slice(0, 300)
        assert rows.stop - rows.start <= 64 * scale + 2 * max(scale, 1) + 6


def test_a_frame_that_is_not_changed_is_the_same() -> None:
    image, label = noise(9, 11, 0, interleaved=True)
    sample = augmented(Augmentation(), image, {"a": label, "b": label + 1})
    assert torch.equal(sample["image"], image)
    assert torch.equal(sample["a"], label) and torch.equal(sample["b"], label + 1)


def test_a_frame_that_is_scaled_to_less_than_a_pixel_keeps_one() -> None:
    image, label = noise(48, 96, 0, interleaved=True)
    sample = augmented(Augmentation(scale=(0.01, 0.01), crop=(16, 16)), image, {"label": label})
    assert (sample["label"] != IGNORE).sum() == 1 and sample["image"].shape == (3, 16, 16)
