"""Active target samples and pseudo-labels against double loops over pixels, and what must hold for any input."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_cases import IGNORE, Case, cases, reorder
from torch import Tensor

from caguda.equations.anchors import BLOCK, distances
from caguda.equations.labels import by_anchor, by_probability, pseudo_labels


@pytest.fixture(autouse=True, scope="module", params=[1, BLOCK], ids=["row by row", "real blocks"])
def block(request: pytest.FixtureRequest) -> Iterator[None]:
    """The small maps of most tests fit into one real block: everything holds row by row as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caguda.equations.anchors.BLOCK", request.param)
        yield


def brute_by_anchor(features: Tensor, anchors: Tensor, present: Tensor, margin: float) -> tuple[Any, Any, Any]:
    """Nearest, d2 - d1 and active of every pixel as nested lists; sorting is stable, so that ties go to the lowest."""
    n, _, h, w = features.shape
    nearest, gaps, active = torch.zeros(n, h, w), torch.zeros(n, h, w).double(), torch.zeros(n, h, w).bool()
    categories = [k for k in range(len(anchors)) if present[k]]
    for i in range(n):
        for y in range(h):
            for x in range(w):
                pixel = features[i, :, y, x].double().tolist()
                ranked = sorted((math.dist(pixel, anchors[k].double().tolist()), k) for k in categories)
                if not ranked:
                    nearest[i, y, x], gaps[i, y, x] = IGNORE, math.nan
                    continue
                second = ranked[1][0] if len(ranked) > 1 else math.inf
                nearest[i, y, x] = ranked[0][1]
                gaps[i, y, x] = second - ranked[0][0]
                active[i, y, x] = second - ranked[0][0] > margin
    return nearest.byte(), gaps, active


@given(cases(integers=True), st.sampled_from([0.0, 1.0, 1.5]))
def test_by_anchor_on_a_grid_with_exact_ties(case: Case, margin: float) -> None:
    found = by_anchor(case.features, case.anchors, case.present, margin)
    nearest, gaps, active = brute_by_anchor(case.features, case.anchors, case.present, margin)
    assert torch.equal(found.nearest, nearest)
    assert torch.equal(found.active, active)
    torch.testing.assert_close(found.margin.double(), gaps, equal_nan=True, rtol=1e-5, atol=1e-5)


@given(cases())
def test_by_anchor_agrees_with_float64_except_near_a_tie(case: Case) -> None:
    features, anchors = case.features + 100, case.anchors + 100
    found = by_anchor(features, anchors, case.present, 0.5)
    nearest, gaps, active = brute_by_anchor(features, anchors, case.present, 0.5)
    decided = ~(gaps < 1e-4)
    assert torch.equal(found.nearest[decided], nearest[decided])
    far = ~((gaps - 0.5).abs() < 1e-4)
    assert torch.equal(found.active[far], active[far])


def test_by_anchor_agrees_with_float64_at_the_size_of_real_features() -> None:
    generator = torch.Generator().manual_seed(3)
    anchors = torch.randn(19, 256, generator=generator).abs()
    kind = torch.randint(0, 19, (2, 40, 50), generator=generator)
    features = (anchors[kind] + 1.7 * torch.randn(2, 40, 50, 256, generator=generator)).movedim(-1, 1)
    found = by_anchor(features, anchors, torch.ones(19, dtype=torch.bool), 2.5)
    two, index = distances(features.double(), anchors.double()).topk(2, dim=1, largest=False)
    gap = two[:, 1] - two[:, 0]
    decided, far = gap > 1e-4, (gap - 2.5).abs() > 1e-4
    assert 0.1 < found.active.float().mean() < 0.9
    assert torch.equal(found.nearest[decided].long(), index[:, 0][decided])
    assert torch.equal(found.active[far], (gap > 2.5)[far])
    torch.testing.assert_close(found.margin.double(), gap, rtol=0, atol=2e-5)


@given(cases())
def test_an_absent_category_never_becomes_a_label(case: Case) -> None:
    features = case.anchors[0].view(1, -1, 1, 1).expand_as(case.features)
    present = case.present.clone()
    present[0] = False
    for absent in (case.anchors[0], torch.full_like(case.anchors[0], torch.nan)):
        anchors = torch.cat([absent[None], case.anchors[1:]])
        found = by_anchor(features, anchors, present, 0.0)
        allowed = present.nonzero().flatten().tolist() or [IGNORE]
        assert set(found.nearest.flatten().tolist()) <= set(allowed)


def test_exact_ties_go_to_the_lowest_category_and_are_not_active() -> None:
    anchors = torch.tensor([[9.0], [1.0], [-1.0], [1.0]])
    found = by_anchor(torch.zeros(1, 1, 1, 1), anchors, torch.ones(4, dtype=torch.bool), 0.0)
    assert (found.nearest.item(), found.margin.item(), found.active.item()) == (1, 0.0, False)


def test_a_margin_of_exactly_the_threshold_is_not_active() -> None:
    features = torch.tensor([0.0, -0.25]).view(1, 1, 1, 2)
    found = by_anchor(features, torch.tensor([[1.0], [-3.5]]), torch.ones(2, dtype=torch.bool), 2.5)
    assert found.margin.flatten().tolist() == [2.5, 2.0]
    assert by_anchor(features, torch.tensor([[1.0], [-3.5]]), torch.ones(2, dtype=torch.bool), 2.0).active.tolist() == [
        [[True, False]]
    ]
    assert not found.active.any()


def test_one_present_category_activates_every_pixel_and_none_activates_none() -> None:
    features, anchors = torch.randn(1, 2, 2, 2), torch.randn(3, 2)
    one = by_anchor(features, anchors, torch.tensor([False, True, False]), 5.0)
    assert (one.nearest == 1).all() and one.margin.isposinf().all() and one.active.all()
    none = by_anchor(features, anchors, torch.zeros(3, dtype=torch.bool), 0.0)
    assert (none.nearest == IGNORE).all() and not none.active.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("categories", [1, 3])
def test_a_feature_that_is_not_finite_gets_no_label(value: float, categories: int) -> None:
    features = torch.tensor([value, 0.0]).view(1, 1, 1, 2)
    anchors = torch.arange(1.0, categories + 1)[:, None]
    found = by_anchor(features, anchors, torch.ones(categories, dtype=torch.bool), 0.0)
    assert found.nearest.tolist() == [[[IGNORE, 0]]]
    assert found.active.tolist() == [[[False, True]]]


@given(cases())
def test_the_order_of_pixels_and_the_unit_of_features_do_not_matter(case: Case) -> None:
    order = case.permutation()
    plain = by_anchor(case.features, case.anchors, case.present, 0.5)
    other = by_anchor(reorder(case.features, order) * 4, case.anchors * 4, case.present, 2.0)
    assert torch.equal(other.nearest, reorder(plain.nearest, order))
    assert torch.equal(other.active, reorder(plain.active, order))
    torch.testing.assert_close(other.margin, reorder(plain.margin, order) * 4, equal_nan=True)


@given(cases())
def test_memory_layout_does_not_matter(case: Case) -> None:
    channels_last = case.features.contiguous(memory_format=torch.channels_last)
    strided = case.features.repeat_interleave(2, dim=3)[..., ::2]
    expected = by_anchor(case.features, case.anchors, case.present, 0.5)
    for features in (channels_last, strided):
        found = by_anchor(features, case.anchors, case.present, 0.5)
        for part, same in zip(found, expected, strict=True):
            torch.testing.assert_close(part, same, rtol=0, atol=0, equal_nan=True)


def test_no_image_gives_no_label() -> None:
    found = by_anchor(torch.ones(0, 2, 3, 4), torch.randn(5, 2), torch.ones(5, dtype=torch.bool), 0.0)
    assert [part.shape for part in found] == [(0, 3, 4)] * 3


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_by_anchor_of_narrow_features_works_in_the_anchors_type(kind: torch.dtype) -> None:
    features, anchors, present = torch.randn(1, 8, 3, 4).to(kind), torch.randn(5, 8), torch.ones(5, dtype=torch.bool)
    found, wide = by_anchor(features, anchors, present, 0.5), by_anchor(features.float(), anchors, present, 0.5)
    assert found.margin.dtype == torch.float32
    assert all(torch.equal(part, same) for part, same in zip(found, wide, strict=True))


@given(cases(), st.sampled_from([0.0, 0.5, 0.95]))
def test_by_probability_is_the_largest_softmax(case: Case, p0: float) -> None:
    found = by_probability(case.logits, p0)
    n, _, h, w = case.logits.shape
    for i in range(n):
        for y in range(h):
            for x in range(w):
                powers = [math.exp(z) for z in case.logits[i, :, y, x].tolist()]
                confidence = max(powers) / sum(powers)
                assert found.predicted[i, y, x].item() == powers.index(max(powers))
                assert found.confidence[i, y, x].item() == pytest.approx(confidence, rel=1e-5)
                if abs(confidence - p0) > 1e-5:
                    assert found.active[i, y, x].item() == (confidence > p0)


def test_by_probability_is_strict_and_ties_go_to_the_lowest_category() -> None:
    logits = torch.tensor([-torch.inf, 1.0, 1.0]).view(1, 3, 1, 1)
    found = by_probability(logits, 0.5)
    assert (found.predicted.item(), found.confidence.item(), found.active.item()) == (1, 0.5, False)
    assert by_probability(logits, 0.49).active.item()


@given(cases())
def test_by_probability_follows_the_order_of_pixels(case: Case) -> None:
    order = case.permutation()
    plain, other = by_probability(case.logits, 0.6), by_probability(reorder(case.logits, order), 0.6)
    for name in ("predicted", "active"):
        assert torch.equal(getattr(other, name), reorder(getattr(plain, name), order))


def test_pseudo_labels_are_the_category_where_active_and_ignore_elsewhere() -> None:
    category = torch.tensor([[[3, 0, 5]]], dtype=torch.uint8)
    labels = pseudo_labels(category, torch.tensor([[[True, False, True]]]))
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [[[3, IGNORE, 5]]]
    assert category.tolist() == [[[3, 0, 5]]]
