"""Category anchor construction against double loops over pixels, and what must hold for any input."""

import math
from collections.abc import Iterator
from functools import reduce
from operator import add
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_cases import IGNORE, Case, cases, reorder
from torch import Tensor

from caguda.equations.anchors import (
    BLOCK,
    CategoryAnchors,
    ClassSums,
    anchors_from,
    class_sums,
    correctly_predicted,
    distances,
    image_means,
)


@pytest.fixture(autouse=True, scope="module", params=[1, BLOCK], ids=["row by row", "real blocks"])
def block(request: pytest.FixtureRequest) -> Iterator[None]:
    """The small maps of most tests fit into one real block: everything holds row by row as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caguda.equations.anchors.BLOCK", request.param)
        yield


def made(case: Case) -> CategoryAnchors:
    return anchors_from(class_sums(case.features, case.labels, case.categories))


def members_of(features: Tensor, labels: Tensor, categories: int) -> list[list[list[float]]]:
    """The features of every category's pixels."""
    members: list[list[list[float]]] = [[] for _ in range(categories)]
    for i in range(len(labels)):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                label = int(labels[i, y, x])
                if label != IGNORE:
                    members[label].append(features[i, :, y, x].double().tolist())
    return members


@given(cases())
def test_anchors_are_the_centroids_of_their_categories(case: Case) -> None:
    found = made(case)
    for category, vectors in enumerate(members_of(case.features, case.labels, case.categories)):
        assert found.pixel_count[category] == len(vectors)
        if not vectors:
            assert found.vectors[category].isnan().all() and found.spread[category].isnan()
            continue
        centroid = [sum(values) / len(vectors) for values in zip(*vectors, strict=True)]
        spread = math.sqrt(sum(math.dist(vector, centroid) ** 2 for vector in vectors) / len(vectors))
        assert found.vectors[category].tolist() == pytest.approx(centroid, rel=1e-5, abs=1e-6)
        assert found.spread[category].item() == pytest.approx(spread, rel=1e-5, abs=1e-6)


@given(cases())
def test_pairwise_holds_the_distances_between_anchors_and_nan_for_absent_ones(case: Case) -> None:
    found = made(case)
    for a in range(case.categories):
        for b in range(case.categories):
            entry = found.pairwise[a, b].item()
            if found.pixel_count[a] == 0 or found.pixel_count[b] == 0:
                assert math.isnan(entry)
            else:
                expected = math.dist(found.vectors[a].tolist(), found.vectors[b].tolist())
                assert entry == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(cases(), st.randoms())
def test_partial_sums_merge_in_any_order(case: Case, random: Random) -> None:
    parts = [
        class_sums(features[None], labels[None], case.categories)
        for features, labels in zip(case.features, case.labels, strict=True)
    ]
    random.shuffle(parts)
    merged, whole = anchors_from(reduce(add, parts)), made(case)
    assert torch.equal(merged.pixel_count, whole.pixel_count)
    for name in ("vectors", "spread", "pairwise"):
        torch.testing.assert_close(
            getattr(merged, name), getattr(whole, name), equal_nan=True, rtol=1e-6, atol=1e-5, msg=name
        )


@given(cases())
def test_the_order_of_pixels_does_not_matter(case: Case) -> None:
    order = case.permutation()
    found = anchors_from(class_sums(reorder(case.features, order), reorder(case.labels, order).long(), case.categories))
    assert torch.equal(found.pixel_count, made(case).pixel_count)
    torch.testing.assert_close(found.vectors, made(case).vectors, equal_nan=True)


def test_sums_keep_what_float32_would_lose() -> None:
    many, feature = 2**24, torch.full((1, 1, 1, 1), 1.0)
    label = torch.zeros(1, 1, 1, dtype=torch.uint8)
    one = class_sums(feature, label, 1)
    before = ClassSums(one.sums * many, one.squares * many, one.weights * many, one.counts * many)
    assert (before + one).sums.item() == many + 1
    assert (before + one).counts.item() == many + 1


def test_spread_of_far_away_features_does_not_cancel() -> None:
    features = torch.tensor([1000.0, 1000.5]).view(1, 1, 1, 2)
    found = anchors_from(class_sums(features, torch.zeros(1, 1, 2, dtype=torch.uint8), 1))
    assert found.spread.item() == pytest.approx(0.25, rel=1e-5)


def test_equal_features_have_no_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(20, 16, 1, 1, generator=generator).repeat(1, 1, 1, 999)
    for image in features:
        found = anchors_from(class_sums(image[None], torch.zeros(1, 1, 999, dtype=torch.uint8), 1))
        assert 0.0 <= found.spread.item() < 1e-5


def test_ignored_pixels_do_not_count_even_where_they_are_nan() -> None:
    features = torch.tensor([1.0, torch.nan]).view(1, 1, 1, 2)
    found = class_sums(features, torch.tensor([[[0, IGNORE]]], dtype=torch.uint8), 2)
    assert found.sums.tolist() == [[1.0], [0.0]]
    assert found.counts.tolist() == [1, 0]


def test_a_label_that_is_no_category_is_refused() -> None:
    with pytest.raises(RuntimeError):
        class_sums(torch.zeros(1, 2, 1, 1), torch.full((1, 1, 1), 254, dtype=torch.uint8), 3)


@given(cases())
def test_memory_layout_and_blocks_do_not_matter(case: Case) -> None:
    channels_last = case.features.contiguous(memory_format=torch.channels_last)
    strided = case.features.repeat_interleave(2, dim=3)[..., ::2]
    expected = class_sums(case.features, case.labels, case.categories)
    for features in (channels_last, strided):
        found = class_sums(features, case.labels, case.categories)
        assert torch.equal(found.counts, expected.counts) and torch.equal(found.weights, expected.counts.double())
        assert torch.equal(found.sums, expected.sums)
        torch.testing.assert_close(found.squares, expected.squares, rtol=1e-12, atol=1e-12)


def test_no_image_and_nothing_labelled_give_empty_sums() -> None:
    for features, labels in (
        (torch.ones(0, 2, 3, 3), torch.zeros(0, 3, 3, dtype=torch.uint8)),
        (torch.ones(1, 2, 3, 3), torch.full((1, 3, 3), IGNORE, dtype=torch.uint8)),
    ):
        found = class_sums(features, labels, 4)
        assert found.sums.shape == (4, 2)
        assert not any(part.any() for part in (found.sums, found.squares, found.weights, found.counts))
        assert anchors_from(found).vectors.isnan().all()


@given(cases(), st.integers(1, 6))
def test_means_of_images_weigh_every_image_the_same(case: Case, at_least: int) -> None:
    parts = [
        image_means(class_sums(features[None], labels[None], case.categories), at_least)
        for features, labels in zip(case.features, case.labels, strict=True)
    ]
    total = reduce(add, parts)
    found = anchors_from(total)
    images = [
        members_of(features[None], labels[None], case.categories)
        for features, labels in zip(case.features, case.labels, strict=True)
    ]
    for category in range(case.categories):
        enough = [vectors[category] for vectors in images if len(vectors[category]) >= at_least]
        assert total.weights[category] == len(enough)
        assert found.pixel_count[category] == sum(map(len, enough))
        if not enough:
            assert found.vectors[category].isnan().all() and found.spread[category].isnan()
            continue
        means = [[sum(values) / len(vectors) for values in zip(*vectors, strict=True)] for vectors in enough]
        anchor = [sum(values) / len(means) for values in zip(*means, strict=True)]
        squares = [sum(math.dist(v, anchor) ** 2 for v in vectors) / len(vectors) for vectors in enough]
        assert found.vectors[category].tolist() == pytest.approx(anchor, rel=1e-5, abs=1e-6)
        spread = math.sqrt(sum(squares) / len(squares))
        assert found.spread[category].item() == pytest.approx(spread, rel=1e-5, abs=1e-6)


def test_a_category_with_too_few_pixels_leaves_nothing_behind_even_where_it_is_nan() -> None:
    features = torch.tensor([torch.nan, 1.0, 3.0]).view(1, 1, 1, 3)
    sums = class_sums(features, torch.tensor([[[0, 1, 1]]], dtype=torch.uint8), 3)
    found = image_means(sums, 2)
    assert found.sums.flatten().tolist() == [0.0, 2.0, 0.0]
    assert found.squares.tolist() == [0.0, 5.0, 0.0]
    assert found.weights.tolist() == [0.0, 1.0, 0.0]
    assert found.counts.tolist() == [0, 2, 0]
    with pytest.raises(AssertionError, match="at_least is 0"):
        image_means(sums, 0)


def test_sums_and_means_differentiate() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[[0, 1, 1], [IGNORE, 1, 0]]], dtype=torch.uint8)

    def means(maps: Tensor) -> tuple[Tensor, Tensor]:
        found = image_means(class_sums(maps, labels, 3), 3)
        return found.sums, found.squares

    assert torch.autograd.gradcheck(means, (features,))
    (gradient,) = torch.autograd.grad(means(features)[0].sum(), features)
    assert torch.equal((gradient != 0).all(1), labels == 1)


@given(cases(integers=True))
def test_correctly_predicted_keeps_the_labels_that_the_classifier_gives(case: Case) -> None:
    found = correctly_predicted(case.labels, case.logits)
    assert found.dtype == case.labels.dtype
    n, _, h, w = case.logits.shape
    for i in range(n):
        for y in range(h):
            for x in range(w):
                logits, label = case.logits[i, :, y, x].tolist(), case.labels[i, y, x].item()
                assert found[i, y, x].item() == (label if logits.index(max(logits)) == label else IGNORE)


@given(cases())
def test_distances_are_l2(case: Case) -> None:
    found = distances(case.features, case.anchors)
    n, c, h, w = found.shape
    assert (n, c, h, w) == case.logits.shape
    for i in range(n):
        for k in range(c):
            for y in range(h):
                for x in range(w):
                    expected = math.dist(case.features[i, :, y, x].tolist(), case.anchors[k].tolist())
                    assert found[i, k, y, x].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(cases())
def test_distances_scale_with_features(case: Case) -> None:
    torch.testing.assert_close(
        distances(case.features * 4, case.anchors * 4), distances(case.features, case.anchors) * 4
    )


def test_distances_do_not_cancel_near_an_anchor() -> None:
    anchors = torch.full((40, 256), 10.0)
    features = anchors[:1, :, None, None].repeat(1, 1, 8, 8)
    features[:, 0] += 2.0**-6
    assert (distances(features, anchors) == 2.0**-6).all()


def test_distances_are_nan_for_absent_categories_only() -> None:
    found = distances(torch.zeros(1, 2, 1, 1), torch.tensor([[3.0, 4.0], [torch.nan, torch.nan]]))
    assert found[0, 0].item() == 5.0
    assert found[0, 1].isnan().all()


def test_distances_work_in_the_wider_type_and_differentiate() -> None:
    torch.manual_seed(0)
    features, anchors = torch.randn(1, 3, 2, 2), torch.randn(4, 3, dtype=torch.float64)
    assert distances(features.half(), anchors.float()).dtype == torch.float32
    assert distances(features, anchors).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda f: distances(f, anchors), (features.double().requires_grad_(),))
