"""Rare class sampling and the feature distance against loops over pixels, and against the public code of DAFormer."""

import math

import pytest
import torch
from golden_methods import golden
from hypothesis import given
from hypothesis import strategies as st
from method_cases import IGNORE, Case, cases, reorder
from torch import Tensor

from caguda.equations.sampling import feature_distance, labels_by_share, labels_of_cells, rare_class_probabilities


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=5), st.sampled_from([0.05, 1.0])
)
def test_rare_classes_are_more_probable(counts: list[list[int]], temperature: float) -> None:
    counts[0][1] += 1
    found = rare_class_probabilities(torch.tensor(counts), temperature)
    pixels = [sum(column) for column in zip(*counts, strict=True)]
    weights = [math.exp((1 - n / sum(pixels)) / temperature) if n else 0.0 for n in pixels]
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([weight / sum(weights) for weight in weights], rel=1e-9)


def test_large_counts_and_small_temperatures_are_no_problem() -> None:
    counts = torch.tensor([[2**40, 2**40, 0], [2**40, 2**40 + 2**38, 0]])
    found = rare_class_probabilities(counts, 1e-4)
    assert found[0] > 0.99 and found[2] == 0 and found.sum().item() == pytest.approx(1)
    assert rare_class_probabilities(counts, 1e9).tolist() == pytest.approx([0.5, 0.5, 0.0])


def brute_labels(labels: Tensor, cell: int, share: float) -> list[list[list[int]]]:
    """The label of every cell, one after another."""
    n, height, width = labels.shape
    found = []
    for image in labels.tolist():
        rows = []
        for top in range(0, height - cell + 1, cell):
            row = []
            for left in range(0, width - cell + 1, cell):
                pixels = [image[y][x] for y in range(top, top + cell) for x in range(left, left + cell)]
                enough = [value for value in set(pixels) if pixels.count(value) / cell**2 >= share]
                row.append(enough[0] if enough else IGNORE)
            rows.append(row)
        found.append(rows)
    assert len(found) == n
    return found


@given(
    st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9),
    st.sampled_from([0.51, 2 / 3, 0.75, 8 / 9, 1.0]), st.sampled_from([torch.uint8, torch.int64]),
)  # fmt: skip
def test_a_cell_has_the_label_of_enough_of_its_pixels(
    seed: int, cell: int, height: int, width: int, share: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    height, width = max(height, cell), max(width, cell)
    values = torch.tensor([0, 3, IGNORE])
    labels = values[torch.randint(0, 3, (2, height, width), generator=generator)]
    most = torch.rand(2, height, width, generator=generator) < torch.rand((), generator=generator)
    labels = labels.masked_fill(most, 5).to(dtype)
    found = labels_by_share(labels, cell, share)
    assert found.dtype == dtype and found.tolist() == brute_labels(labels, cell, share)


@pytest.mark.parametrize("share", [0.5, 0.0, 1.01, math.nan])
def test_the_share_is_more_than_a_half(share: float) -> None:
    with pytest.raises(AssertionError, match=r"share must be above 0\.5"):
        labels_by_share(torch.zeros(1, 2, 2, dtype=torch.uint8), 2, share)


def test_the_share_itself_is_enough() -> None:
    labels = torch.ones(1, 10, 10, dtype=torch.uint8)
    labels.view(-1)[:30] = 0
    assert labels_by_share(labels, 10, 0.7).tolist() == [[[1]]]
    labels.view(-1)[30] = 0
    assert labels_by_share(labels, 10, 0.7).tolist() == [[[IGNORE]]]


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
def test_the_cells_of_a_map_have_the_labels_of_their_pixels(seed: int, stride: int, height: int, width: int) -> None:
    """A map of ceil(side / stride) cells; pixels beyond the image count as void."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 3, IGNORE], dtype=torch.uint8)[
        torch.randint(0, 3, (2, height, width), generator=generator)
    ]
    labels[torch.rand(2, height, width, generator=generator) < 0.7] = 5
    size = (-(-height // stride), -(-width // stride))
    found = labels_of_cells(labels, size, 0.75)
    cell = max(math.ceil(height / size[0]), math.ceil(width / size[1]))
    assert cell <= stride and (cell == stride or max(size) < stride)
    whole = torch.full((2, size[0] * cell, size[1] * cell), IGNORE, dtype=torch.uint8)
    whole[:, :height, :width] = labels
    assert found.tolist() == brute_labels(whole, cell, 0.75)


@given(cases(), st.data())
def test_feature_distance_adds_the_pixels_of_some_categories(case: Case, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, case.categories - 1), unique=True))
    reference = torch.randn(case.features.shape, generator=case.generator)
    features, categories = case.features.requires_grad_(), torch.tensor(chosen, dtype=torch.int64)
    found = feature_distance(features, reference, case.labels, categories)
    pixels = zip(
        features.detach().movedim(1, -1).flatten(0, 2).tolist(),
        reference.movedim(1, -1).flatten(0, 2).tolist(),
        case.labels.flatten().tolist(),
        strict=True,
    )
    expected = [math.dist(x, y) for x, y, label in pixels if label in chosen]
    assert found.count.item() == len(expected)
    assert found.total.item() == pytest.approx(sum(expected), rel=1e-5, abs=1e-6)
    assert found.mean().item() == pytest.approx(sum(expected) / max(len(expected), 1), rel=1e-5, abs=1e-6)
    (gradient,) = torch.autograd.grad(found.total, features)
    assert torch.equal((gradient != 0).any(1), torch.isin(case.labels.long(), categories))


@given(cases())
def test_feature_distances_add_up_and_do_not_depend_on_the_order_of_pixels(case: Case) -> None:
    categories, reference = torch.arange(0, case.categories, 2), case.features.flip(1) + 1
    whole = feature_distance(case.features, reference, case.labels, categories)
    images = zip(case.features.split(1), reference.split(1), case.labels.split(1), strict=True)
    parts = [feature_distance(*image, categories) for image in images]
    assert sum(part.count.item() for part in parts) == whole.count.item()
    assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-5)
    order = case.permutation()
    maps = (reorder(each, order) for each in (case.features, reference, case.labels))
    other = feature_distance(*maps, categories.flip(0))
    assert other.count == whole.count
    torch.testing.assert_close(other.total, whole.total)


def test_equal_features_have_distance_and_gradient_0_and_nothing_has_too() -> None:
    features = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, categories = torch.ones(1, 2, 2, dtype=torch.uint8), torch.tensor([1])
    for reference, among in ((features.detach().clone(), categories), (features.detach() + 1, torch.tensor([0]))):
        loss = feature_distance(features, reference, labels, among).mean()
        (gradient,) = torch.autograd.grad(loss, features)
        assert loss.item() == 0 and gradient.eq(0).all()


def test_sums_of_narrow_types_do_not_overflow() -> None:
    maps, labels = torch.ones(1, 1, 400, 400, dtype=torch.float16), torch.zeros(1, 400, 400, dtype=torch.uint8)
    assert feature_distance(maps, maps * 0, labels, torch.tensor([0])).total.item() == 160_000.0


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    features, reference = torch.randn(2, 2, 3, 2, 2, generator=generator, dtype=torch.float64)
    labels, categories = torch.tensor([[[0, 1], [255, 2]], [[1, 1], [2, 0]]], dtype=torch.uint8), torch.tensor([0, 2])
    assert torch.autograd.gradcheck(
        lambda x: feature_distance(x, reference, labels, categories).mean(), (features.requires_grad_(),)
    )


# The public code


def test_probabilities_are_those_of_daformer() -> None:
    arrays = golden("daformer")
    found = rare_class_probabilities(
        torch.from_numpy(arrays["pixels_per_image_and_class"]), float(arrays["temperature"])
    )
    expected = torch.from_numpy(arrays["rcs_probability"]).double()
    torch.testing.assert_close(found[torch.from_numpy(arrays["rcs_class_order"])], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_labels_and_feature_distance_are_those_of_daformer(dtype: torch.dtype) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in golden("daformer").items()}
    labels = arrays["label_at_features"]
    cell = arrays["label"].shape[1] // labels.shape[1]
    assert torch.equal(labels_by_share(arrays["label"], cell, arrays["label_ratio"].item()), labels)
    features = arrays["feature"].to(dtype).requires_grad_()
    loss = feature_distance(features, arrays["imagenet_feature"].to(dtype), labels, arrays["thing_classes"]).mean()
    (gradient,) = torch.autograd.grad(loss, features)
    torch.testing.assert_close(loss, arrays["feature_distance"].to(dtype), rtol=2e-5, atol=0)
    torch.testing.assert_close(gradient, arrays["feature_distance_grad"].to(dtype), rtol=2e-5, atol=1e-8)
