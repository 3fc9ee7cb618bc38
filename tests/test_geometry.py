"""Where labels lie on their image: through flip, resize and crop, down to the grid of f_D, and back from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from caguda.config_frames import Augmentation
from caguda.datasets.transforms import Geometry, cut, draw_geometry
from caguda.equations.grid import enlarged_labels, enlarged_logits, labels_at

SIDES = st.integers(1, 40)
Places = NDArray[np.float64]
ROUNDING = 1e-9


def centres(indices: Sequence[int] | Places, old: int, new: int) -> Places:
    """The places of pixels of `new` in pixels of `old`: pixel i is the square around i."""
    return (np.asarray(indices) + 0.5) * old / new - 0.5


def coordinates(size: Sequence[int]) -> Tensor:
    """A map (2, H, W): the row and the column of every pixel."""
    return torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"))


@dataclass(frozen=True)
class Sample:
    """A random geometry, with the place in the frame of every row and every column of the crop that lies on the frame."""

    geometry: Geometry
    places: tuple[Places, Places]

    def cut_lines(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The crops of a map of rows and of a map of columns, (h, w) each, of the part that lies on the frame."""
        h, w = map(len, self.places)
        rows, columns = (cut(part, self.geometry, label=True)[:h, :w] for part in maps)
        return rows, columns

    def pixel(self, side: int) -> float:
        """The step in pixels of the frame from one row or column of the crop to the next; negative in a flipped frame."""
        step = self.geometry.frame[side] / self.geometry.size[side]
        return -step if side == 1 and self.geometry.flip else step


def sample(seed: int) -> Sample:
    """Geometry `seed`: frames of 20 to 240 pixels a side, factors from 0.4 to 2.5, odd sizes and crops."""
    random = np.random.default_rng(seed)
    frame = (int(random.integers(20, 241)), int(random.integers(20, 241)))
    low, high = sorted(float(factor) for factor in random.uniform(0.4, 2.5, 2))
    crop = (int(random.integers(15, 200)), int(random.integers(15, 200)))
    torch.manual_seed(seed)
    geometry = draw_geometry(Augmentation(flip=True, scale=(low, high), crop=crop), *frame)
    places = []
    for side, first in enumerate((geometry.top, geometry.left)):
        old, new = frame[side], geometry.size[side]
        along = centres(range(first, min(first + crop[side], new)), old, new)
        places.append(old - 1 - along if side == 1 and geometry.flip else along)
    return Sample(geometry, (places[0], places[1]))


def assert_no_side_is_preferred(means: Sequence[float], at_most: float) -> None:
    """The mean of all errors is about 0."""
    assert abs(np.mean(means)) < at_most


def test_labels_lie_on_their_image_at_500_geometries() -> None:
    """A label is that of a pixel at most half a pixel of the frame away, in no direction more often than in the other."""
    means = []
    for seed in range(500):
        one = sample(seed)
        rows, columns = one.cut_lines(coordinates(one.geometry.frame))
        assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
        for values, places in zip((rows[:, 0], columns[0]), one.places, strict=True):
            errors = values.numpy() - places
            assert np.abs(errors).max() <= 0.5 + ROUNDING
            means.append(float(errors.mean()))
    assert_no_side_is_preferred(means, 0.01)


def test_images_go_through_the_same_geometry() -> None:
    """The colours of a ramp say where a pixel of the resized image lies: where its label does."""
    for seed in range(100):
        one = sample(seed)
        ramps = [part.to(torch.uint8) for part in coordinates(one.geometry.frame)]
        image = cut(torch.stack([*ramps, ramps[0]]), one.geometry, label=False).numpy()
        for side, places in enumerate(one.places):
            line = image[0, : len(places), 0] if side == 0 else image[1, 0, : len(places)]
            reach = max(1.0, abs(one.pixel(side)))  # of the filter, which ends at the border
            inside = (places >= reach) & (places <= one.geometry.frame[side] - 1 - reach)
            assert (np.abs(line - places) <= 0.51)[inside].all()


@pytest.mark.parametrize("stride", [4, 8])
def test_truth_at_a_cell_is_that_of_its_centre(stride: int) -> None:
    """At most half a cell of f_D away, at every geometry: half a pixel of the crop and half a pixel of the frame."""
    means = []
    for seed in range(500):
        one = sample(seed)
        rows, columns = one.cut_lines(coordinates(one.geometry.frame))
        grid = [math.ceil(len(places) / stride) for places in one.places]
        found = labels_at(rows[None], grid)[0, :, 0], labels_at(columns[None], grid)[0, 0]
        for side, values in enumerate(found):
            places, pixel = one.places[side], one.pixel(side)
            cell = len(places) / grid[side] * pixel
            errors = (values.numpy() - places[0] - centres(range(grid[side]), len(places), grid[side]) * pixel) / cell
            assert np.abs(errors).max() <= (0.5 + 0.5 * abs(pixel)) / abs(cell) + ROUNDING
            assert np.abs(errors).max() <= 0.5 + ROUNDING
            means.append(float(errors.mean()))
    assert_no_side_is_preferred(means, 0.01)


def test_pseudo_labels_come_to_the_cells_that_they_belong_to() -> None:
    """Cells of a frame, enlarged, then flipped, resized and cut, and reduced to the cells of the crop again.

    Each comes from the cell at its own centre, but for the half pixels of both resizings.
    """
    stride, means = 4, []
    for seed in range(500):
        one = sample(seed)
        frame = one.geometry.frame
        cells = [math.ceil(n / stride) for n in frame]
        rows, columns = one.cut_lines(enlarged_labels(coordinates(cells), frame))
        grid = [math.ceil(len(places) / stride) for places in one.places]
        found = labels_at(rows[None], grid)[0, :, 0], labels_at(columns[None], grid)[0, 0]
        for side, values in enumerate(found):
            places, pixel = one.places[side], one.pixel(side)
            at = places[0] + centres(range(grid[side]), len(places), grid[side]) * pixel
            errors = values.numpy() - centres(at, cells[side], frame[side])
            slack = (0.5 * abs(pixel) + 0.5) * cells[side] / frame[side]
            assert np.abs(errors).max() <= 0.5 + slack + ROUNDING
            means.append(float(errors.mean()))
    assert_no_side_is_preferred(means, 0.01)


# The two conventions


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_cell_has_the_label_of_the_pixel_at_its_centre(height: int, width: int, h: int, w: int) -> None:
    labels = torch.arange(2 * height * width).view(2, height, width)
    rows, columns = ([pixel_at_centre(i, old, new) for i in range(new)] for old, new in ((height, h), (width, w)))
    assert torch.equal(labels_at(labels, (h, w)), labels[:, rows][:, :, columns])


def pixel_at_centre(cell: int, pixels: int, cells: int) -> int:
    """The pixel at the centre of a cell; between two, the first for an even cell and the second for an odd one."""
    place = Fraction((2 * cell + 1) * pixels, 2 * cells)
    return int(place) - 1 if place.denominator == 1 and cell % 2 == 0 else int(place)


@given(st.integers(1, 20), st.sampled_from([2, 4, 8, 16]))
def test_flipping_changes_no_label_of_a_cell_of_an_even_grid(half: int, stride: int) -> None:
    labels = torch.arange(2 * half * stride).view(1, 1, -1)
    flipped = labels_at(labels.flip(-1), (1, 2 * half)).flip(-1)
    assert torch.equal(labels_at(labels, (1, 2 * half)), flipped)


@given(SIDES, SIDES, SIDES, SIDES)
def test_with_aligned_corners_it_has_that_of_its_first_pixel(height: int, width: int, h: int, w: int) -> None:
    labels = torch.arange(2 * height * width).view(2, height, width)
    expected = labels[:, [y * height // h for y in range(h)]][:, :, [x * width // w for x in range(w)]]
    assert torch.equal(labels_at(labels, (h, w), True), expected)


def test_torch_agrees() -> None:
    labels = torch.arange(8 * 12, dtype=torch.uint8).view(1, 8, 12)
    for size in ((8, 8), (16, 24), (8, 4)):  # no centre between two pixels
        assert torch.equal(labels_at(labels, size), F.interpolate(labels[None], size, mode="nearest-exact")[0])
    for size in ((2, 3), (16, 24)):
        assert torch.equal(labels_at(labels, size, True), F.interpolate(labels[None], size, mode="nearest")[0])


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_enlarged_labels_come_back_at_every_size(h: int, w: int, rows: int, columns: int, align_corners: bool) -> None:
    labels, size = torch.arange(2 * h * w, dtype=torch.int32).view(2, h, w), (h + rows, w + columns)
    assert torch.equal(labels_at(enlarged_labels(labels, size, align_corners), (h, w), align_corners), labels)


@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_are_enlarged_with_or_without_aligned_corners(align_corners: bool) -> None:
    ramp = torch.arange(4.0).view(1, 1, 1, 4)
    found = enlarged_logits(ramp, (1, 10), align_corners)[0, 0, 0].tolist()
    if align_corners:
        expected = [3 * x / 9 for x in range(10)]
    else:
        expected = [min(max((x + 0.5) * 4 / 10 - 0.5, 0.0), 3.0) for x in range(10)]
    assert found == pytest.approx(expected, abs=1e-6)
