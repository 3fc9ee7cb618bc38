"""What label arrays tell: other thresholds without a network, and counts that are those of loops over all pixels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_artifacts_maps import TABLE

from caguda.artifacts.evidence import EVIDENCE
from caguda.artifacts.label_statistics import (
    FLOAT16_BINS,
    ImageLabels,
    LabelCounts,
    count_right_and_wrong,
    float16_bins,
    precision_and_coverage,
    values_of_bins,
)
from caguda.pseudo_labels.anchor import AnchorRule
from caguda.pseudo_labels.probability import ProbabilityRule

H, W = 6, 9


def some_labels(seed: int, c: int = 3, shape: tuple[int, int] = (H, W)) -> ImageLabels:
    """Labels of a random image by both rules."""
    random = np.random.default_rng(seed)
    active = random.integers(0, 4, shape).astype(np.uint8)
    nearest, predicted = (random.integers(0, c, shape).astype(np.uint8) for _ in range(2))
    margin = random.exponential(2.0, shape).astype(np.float32)
    margin[random.random(shape) < 0.05] = np.inf
    return ImageLabels(
        active=active,
        anchor_label=np.where(active & 1, nearest, 255).astype(np.uint8),
        probability_label=np.where(active & 2, predicted, 255).astype(np.uint8),
        nearest_anchor=nearest,
        predicted=predicted,
        margin=margin,
        confidence=random.random(shape).astype(np.float32),
    )


SEEDS = st.lists(st.integers(0, 1 << 30), min_size=1, max_size=3)


def some_truth(seed: int, labels: ImageLabels) -> np.ndarray:
    """Train ids of which about half are what the labels say, and some are void."""
    random = np.random.default_rng(seed)
    guess = random.choice([0, 1, 2, 255], labels.active.shape).astype(np.uint8)
    return np.where(random.random(labels.active.shape) < 0.5, labels.nearest_anchor, guess)


def ratio(part: float, whole: float) -> float | None:
    return pytest.approx(part / whole) if whole else None


def quantiles(values: np.ndarray) -> dict[str, float | None] | None:
    """The smallest value, rounded to float16, that at least the share q does not exceed, by sorting."""
    if not values.size:
        return None
    values = values.astype(np.float16)
    ranks = {q: -(-int(q * 100 + 0.5) * values.size // 100) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    found = {str(q): float(np.sort(values)[rank - 1]) for q, rank in ranks.items()}
    return {q: value if np.isfinite(value) else None for q, value in found.items()}


@given(seeds=SEEDS)
def test_the_summary_is_that_of_all_pixels_together(seeds: list[int]) -> None:
    statistics, images = LabelCounts(3), [some_labels(seed) for seed in seeds]
    for image in images:
        statistics.add(image)
    found = statistics.summary(TABLE.names)
    everything = {name: np.concatenate([getattr(image, name).ravel() for image in images]) for name in vars(images[0])}
    a, p, active = (everything[name] for name in ("anchor_label", "probability_label", "active"))
    both = active == 3
    assert found["pixels"] == active.size
    assert found["share"] == {
        "anchor": pytest.approx(np.mean(active & 1 > 0)),
        "probability": pytest.approx(np.mean(active & 2 > 0)),
        "both": np.mean(both),
        "either": np.mean(active > 0),
        "agreement": ratio(np.sum(a[both] == p[both]), np.sum(both)),
    }
    for i, row in enumerate(found["per_category"]):
        assert row == {
            "name": TABLE.names[i],
            "anchor": np.mean(a == i),
            "probability": np.mean(p == i),
            "both": np.mean((a == i) & (p == i)),
            "nearest": np.mean(everything["nearest_anchor"] == i),
            "predicted": np.mean(everything["predicted"] == i),
            "agreement": ratio(np.sum((a == i) & (p == i)), np.sum(both & ((a == i) | (p == i)))),
            "margin_quantiles": quantiles(everything["margin"][everything["nearest_anchor"] == i]),
        }
    assert found["margin_quantiles"] == quantiles(everything["margin"])


@given(seeds=SEEDS)
def test_scores_are_those_of_the_labelled_pixels_with_a_truth(seeds: list[int]) -> None:
    statistics, images = LabelCounts(3), [some_labels(seed) for seed in seeds]
    truths = [some_truth(seed, image) for seed, image in zip(seeds, images, strict=True)]
    for image, truth in zip(images, truths, strict=True):
        statistics.add(image, truth)
    statistics.add(some_labels(7))  # an image without a truth
    scores = statistics.scores(TABLE.names)
    t = np.concatenate([truth.ravel() for truth in truths])
    a, p = (np.concatenate([getattr(i, n).ravel() for i in images]) for n in ("anchor_label", "probability_label"))
    known = t != 255
    labels = {
        "anchor": a,
        "probability": p,
        "anchor_only": np.where(p == 255, a, 255),
        "both": np.where(a == p, a, 255),
    }
    assert scores.keys() == labels.keys()
    for kind, label in labels.items():
        judged, right = known & (label != 255), label[known] == t[known]
        assert scores[kind]["accuracy"] == ratio(right.sum(), judged.sum())
        assert scores[kind]["coverage"] == ratio(judged.sum(), known.sum())
        for i, row in enumerate(scores[kind]["per_category"]):
            hits = np.sum((label == i) & (t == i))
            assert row["precision"] == ratio(hits, np.sum(judged & (label == i)))
            assert row["recall"] == ratio(hits, np.sum(t == i))


def test_a_category_without_pixels_has_no_quantiles_and_no_scores() -> None:
    statistics = LabelCounts(4)
    statistics.add(some_labels(0), some_truth(0, some_labels(0)))
    row = statistics.summary((*TABLE.names, "unicorn"))["per_category"][3]
    assert row["anchor"] == 0.0 and row["agreement"] is None and row["margin_quantiles"] is None
    scores = statistics.scores((*TABLE.names, "unicorn"))["both"]["per_category"][3]
    assert (scores["precision"], scores["recall"]) == (None, None)


def test_bit_patterns_sort_as_the_numbers_do() -> None:
    values = values_of_bins()
    finite = values[: float16_bins(np.array([np.inf], np.float16))[0] + 1]
    assert len(values) == FLOAT16_BINS and (np.diff(finite[:-1].astype(float)) > 0).all() and finite[-1] == np.inf
    assert np.isnan(values[len(finite) :]).all()
    np.testing.assert_array_equal(float16_bins(values.astype(np.float32))[: len(finite)], np.arange(len(finite)))
    assert float16_bins(np.array([-0.0], np.float32)) == 0


@given(seed=st.integers(0, 1 << 30), margin=st.floats(0, 5, width=32), p0=st.floats(0, 1, width=32), at=st.booleans())
def test_another_threshold_gives_the_labels_of_the_rules(seed: int, margin: float, p0: float, at: bool) -> None:
    """Strictly above; `at` puts the thresholds on stored values."""
    labels = some_labels(seed)
    if at:
        margin, p0 = float(labels.margin[0, 0]), float(labels.confidence[0, 0])
    found = labels.with_thresholds(margin, p0)
    for label, category, bit in (("anchor_label", "nearest_anchor", 1), ("probability_label", "predicted", 2)):
        expected = np.where(found.active & bit, getattr(found, category), 255)
        np.testing.assert_array_equal(getattr(found, label), expected)
    np.testing.assert_array_equal(found.active & 1 > 0, labels.margin.astype(np.float64) > margin)
    np.testing.assert_array_equal(found.active & 2 > 0, labels.confidence.astype(np.float64) > p0)
    for name in ("nearest_anchor", "predicted", "margin", "confidence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(labels, name))
    alone = labels.with_thresholds(margin=margin)
    np.testing.assert_array_equal(alone.probability_label, labels.probability_label)
    np.testing.assert_array_equal(alone.with_thresholds(p0=p0).active, found.active)
    np.testing.assert_array_equal(labels.with_thresholds().active, labels.active)


def by_the_rules(labels: ImageLabels, margin: float, p0: float) -> list[np.ndarray]:
    """The labels by anchors and by probability that the rules make of the evidence of an image."""
    evidence = {name: getattr(labels, name) for name in EVIDENCE.dtypes}
    rules = AnchorRule(margin=margin, unit="absolute"), ProbabilityRule(p0=p0)
    return [rule.labels(evidence, anchor_distance=float("nan"), prepared=None) for rule in rules]


@given(seed=st.integers(0, 1 << 30), margin=st.floats(0, 70000), p0=st.floats(0, 1), at=st.booleans())
def test_another_threshold_gives_what_the_rules_make_of_the_evidence(
    seed: int, margin: float, p0: float, at: bool
) -> None:
    """Whatever the threshold; `at` puts it beside a stored value, nearer than float32 can tell."""
    labels = some_labels(seed)
    if at:
        stored = labels.margin[np.isfinite(labels.margin)][0], labels.confidence[0, 0]
        margin, p0 = (float(np.nextafter(float(value), 0)) for value in stored)
    found = labels.with_thresholds(margin, p0)
    for label, expected in zip(
        (found.anchor_label, found.probability_label), by_the_rules(labels, margin, p0), strict=True
    ):
        np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("threshold", [0.95, 0.9, 0.2, 0.3001])
def test_a_threshold_is_rounded_to_the_stored_precision(threshold: float) -> None:
    """A value that is the threshold in float32 is not above it, on whichever side of it that lies, and the next one is."""
    at = np.float32(threshold)
    for value, active in ((at, 0), (np.nextafter(at, np.float32(1)), 3)):
        stored = np.full((H, W), value, np.float32)
        found = replace(some_labels(0), margin=stored, confidence=stored).with_thresholds(threshold, threshold)
        assert (found.active == active).all()
        for label in by_the_rules(found, threshold, threshold):
            assert ((label != 255) == (active > 0)).all()
    assert {float(np.float32(t)) > t for t in (0.95, 0.9, 0.2, 0.3001)} == {True, False}


@given(seed=st.integers(0, 1 << 30))
def test_precision_and_coverage_are_those_of_every_threshold(seed: int) -> None:
    """Of every threshold that float16 has, with the numbers rounded to it."""
    labels = some_labels(seed)
    truth = some_truth(seed, labels)
    verdicts = np.zeros((2, FLOAT16_BINS), np.int64)
    count_right_and_wrong(verdicts, labels.nearest_anchor, labels.margin, truth)
    precision, coverage = precision_and_coverage(*verdicts)
    known, margins = truth != 255, labels.margin.astype(np.float16)
    for threshold in np.unique([*margins.ravel(), np.float16(0)])[::5]:
        above = known & (margins > threshold)
        right = above & (labels.nearest_anchor == truth)
        at = float16_bins(np.array([threshold], np.float32))[0]
        assert coverage[at] == pytest.approx(above.sum() / known.sum())
        assert precision[at] == pytest.approx(right.sum() / above.sum()) if above.any() else np.isnan(precision[at])
