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


def cells_on(pixels: int, cells: int, align_corners: bool) -> Places:
    """The places of cells in pixels: their centres, or with aligned corners their first pixels."""
    return np.arange(cells) * pixels // cells * 1.0 if align_corners else centres(range(cells), pixels, cells)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("stride", [4, 8])
def test_truth_at_a_cell_is_that_of_its_place(stride: int, align_corners: bool) -> None:
    """At most half a cell of f_D away, at every geometry: half a pixel of the crop and half a pixel of the frame."""
    means = []
    for seed in range(500):
        one = sample(seed)
        rows, columns = one.cut_lines(coordinates(one.geometry.frame))
        grid = [math.ceil(len(places) / stride) for places in one.places]
        found = (
            labels_at(rows[None], grid, align_corners)[0, :, 0],
            labels_at(columns[None], grid, align_corners)[0, 0],
        )
        for side, values in enumerate(found):
            places, pixel = one.places[side], one.pixel(side)
            cell = len(places) / grid[side] * pixel
            at = places[0] + cells_on(len(places), grid[side], align_corners) * pixel
            errors = (values.numpy() - at) / cell
            assert np.abs(errors).max() <= (0.5 + 0.5 * abs(pixel)) / abs(cell) + ROUNDING
            assert np.abs(errors).max() <= 0.5 + ROUNDING
            means.append(float(errors.mean()))
    assert_no_side_is_preferred(means, 0.01)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("stride", [4, 8])
def test_pseudo_labels_come_to_the_cells_that_they_belong_to(stride: int, align_corners: bool) -> None:
    """Cells of a frame, enlarged, then flipped, resized and cut, and reduced to the cells of the crop again.

    Each comes from the cell nearest to its own place, but for the half pixels of both resizings and, with aligned corners,
    of first pixels. Places behind the last first pixel, which have no cell near, are left out there.
    """
    means = []
    for seed in range(500):
        one = sample(seed)
        frame = one.geometry.frame
        cells = [math.ceil(n / stride) for n in frame]
        rows, columns = one.cut_lines(enlarged_labels(coordinates(cells), frame, align_corners))
        grid = [math.ceil(len(places) / stride) for places in one.places]
        found = (
            labels_at(rows[None], grid, align_corners)[0, :, 0],
            labels_at(columns[None], grid, align_corners)[0, 0],
        )
        for side, values in enumerate(found):
            places, pixel = one.places[side], one.pixel(side)
            at = places[0] + cells_on(len(places), grid[side], align_corners) * pixel
            on_frame = cells_on(frame[side], cells[side], align_corners)
            near = at <= on_frame[-1] if align_corners else np.ones(len(at), bool)
            errors = ((on_frame[values.numpy()] - at) * cells[side] / frame[side])[near]
            slack = (0.5 * abs(pixel) + 0.5 + 0.5 * align_corners) * cells[side] / frame[side]
            assert (np.abs(errors) <= 0.5 + slack + ROUNDING).all()
            means += [float(errors.mean())] if near.any() else []
    assert_no_side_is_preferred(means, 0.01)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_flip_moves_pseudo_labels_with_aligned_corners_by_one_pixel(stride: int) -> None:
    """The first pixel of a flipped cell is the last one of a cell before, beside the first pixel of the next."""
    place = torch.arange(16 * stride)[None, None]
    cached = enlarged_labels(labels_at(place, (1, 16), True), (1, 16 * stride), True)
    moved = labels_at(cached.flip(-1), (1, 16), True) - labels_at(place.flip(-1), (1, 16), True)
    first, *rest = moved.flatten().tolist()
    assert first == 1 - stride, "it has no next one"
    assert {abs(pixels) for pixels in rest} == {1}


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
