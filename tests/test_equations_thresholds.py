"""Thresholds of each category and their labels against sorted lists, and against the public code of CBST, CRST, BDL and FDA."""

import math
import tracemalloc
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from golden_methods import golden
from hypothesis import given
from hypothesis import strategies as st

from caguda.equations.thresholds import (
    class_balanced_labels,
    class_balanced_thresholds,
    confidence_at,
    entropy_regularised_labels,
    labels_by_threshold,
    quantile_thresholds,
)

IGNORE = 255
ODD = np.float32([0.0, 1e-45, 1e-40, 0.25, np.nextafter(np.float32(0.25), np.float32(1)), 0.5, 0.9, 1 - 2**-24, 1.0])
Image = dict[str, np.ndarray]


class Store(NamedTuple):
    """Predictions of some images."""

    images: list[Image]
    categories: int

    def ascending(self) -> list[list[float]]:
        """The confidences of the pixels that are predicted as each category, sorted."""
        found: list[list[float]] = [[] for _ in range(self.categories)]
        for image in self.images:
            for category, confidence in zip(image["predicted"].flat, image["confidence"].flat, strict=True):
                found[category].append(float(confidence))
        return [sorted(values) for values in found]


@st.composite
def stores(draw: st.DrawFn) -> Store:
    """Predictions with or without ties, of few pixels; some categories are rarely predicted."""
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    count, categories, h, w = (draw(st.integers(low, high)) for low, high in ((0, 4), (1, 6), (1, 5), (1, 6)))
    ties = draw(st.sampled_from([0.0, 0.5, 1.0]))
    images = []
    for _ in range(count):
        predicted = (random.random((h, w)) ** 2 * categories).astype(np.uint8)
        confidence = np.where(
            random.random((h, w)) < ties, random.choice(ODD, (h, w)), random.random((h, w), dtype=np.float32)
        )
        images.append({"predicted": predicted, "confidence": confidence})
    return Store(images, categories)


fractions = st.sampled_from([0.0, 0.01, 0.2, 1 / 3, 0.5, 0.66, 0.9, 1.0]) | st.floats(0, 1)


@given(stores(), st.integers(-1, 40))
def test_the_confidence_at_a_rank_is_that_of_the_sorted_list(store: Store, rank: int) -> None:
    found = confidence_at(lambda pixels: np.full_like(pixels, rank), store.images, store.categories, -2.0)
    expected = [values[rank] if 0 <= rank < len(values) else -2.0 for values in store.ascending()]
    np.testing.assert_array_equal(found, expected)


@given(stores(), fractions)
def test_class_balanced_thresholds_are_reached_by_the_portion(store: Store, portion: float) -> None:
    found = class_balanced_thresholds(store.images, store.categories, portion)
    expected = []
    for values in store.ascending():
        selected = math.floor(len(values) * portion)
        expected.append(values[::-1][selected - 1] if selected else 1.0)
    assert found.dtype == np.float32 and found.tolist() == expected


@given(stores(), fractions, fractions)
def test_quantile_thresholds_are_at_a_rank_or_the_cap(store: Store, share: float, cap: float) -> None:
    found = quantile_thresholds(store.images, store.categories, share, cap)
    expected = []
    for values in store.ascending():
        rank = min(round(share * len(values)), len(values) - 1)
        expected.append(min(values[rank], float(np.float32(cap))) if values else 0.0)
    assert found.dtype == np.float32 and found.tolist() == expected


@pytest.mark.parametrize(
    ("pixels", "balanced", "quantile"),
    [
        ([], 1.0, 0.0),
        ([0.5], 1.0, 0.5),  # floor(0.66) is none; round(0.66) is behind the only one
        ([0.5, 0.25], 0.5, 0.5),
        ([0.75, 0.25, 0.5], 0.75, 0.75),
        ([0.125, 0.75, 0.25, 0.5], 0.5, 0.75),  # floor(2.64), round(2.64)
        ([1.0] * 5, 1.0, 0.9),
    ],
)
def test_thresholds_of_few_pixels(pixels: list[float], balanced: float, quantile: float) -> None:
    confidence = np.float32(pixels)
    images = [{"predicted": np.ones(len(pixels), np.uint8), "confidence": confidence}]
    assert class_balanced_thresholds(images, 2, 0.66).tolist() == [1.0, balanced]
    assert quantile_thresholds(images, 2, 0.66, 0.9).tolist() == [0.0, pytest.approx(quantile, abs=1e-7)]


def test_halves_of_ranks_are_rounded_to_even() -> None:
    for count, rank in ((1, 0), (3, 2), (5, 2), (7, 4)):
        confidence = np.float32([k / 8 for k in range(count)])
        images = [{"predicted": np.zeros(count, np.uint8), "confidence": confidence}]
        assert quantile_thresholds(images, 1, 0.5, 1.0).tolist() == [rank / 8]


def test_the_cap_is_that_of_float32() -> None:
    images = [{"predicted": np.zeros(1, np.uint8), "confidence": np.float32([0.95])}]
    (cap,) = quantile_thresholds(images, 1, 0.5, 0.9)
    at = np.float32([np.nextafter(np.float32(0.9), np.float32(0)), 0.9])
    assert labels_by_threshold(np.zeros(2, np.uint8), at, np.float32([cap])).tolist() == [IGNORE, 0]


@given(stores(), fractions)
def test_thresholds_do_not_depend_on_how_pixels_are_split_into_images(store: Store, portion: float) -> None:
    whole = {
        name: np.concatenate([image[name].ravel() for image in reversed(store.images)] or [np.empty(0, dtype)])
        for name, dtype in (("predicted", np.uint8), ("confidence", np.float32))
    }
    for thresholds in (
        lambda images: class_balanced_thresholds(images, store.categories, portion),
        lambda images: quantile_thresholds(images, store.categories, portion, 0.9),
    ):
        np.testing.assert_array_equal(thresholds(store.images), thresholds([whole]))


def test_images_that_can_be_gone_through_once_are_refused() -> None:
    images = [{"predicted": np.zeros(1, np.uint8), "confidence": np.float32([0.5])}]
    with pytest.raises(AssertionError, match="gone through twice, found an iterator"):
        class_balanced_thresholds(iter(images), 1, 0.5)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -0.25, -0.0, 1.0000001, 2.0])
def test_confidences_outside_their_range_are_refused(odd: float) -> None:
    images = [{"predicted": np.zeros(2, np.uint8), "confidence": np.float32([0.5, odd])}]
    with pytest.raises(AssertionError, match="confidences must be 0 to 1"):
        quantile_thresholds(images, 1, 0.5, 0.9)


def test_a_category_outside_is_refused() -> None:
    images = [{"predicted": np.uint8([0, 2]), "confidence": np.float32([0.5, 0.0])}]
    with pytest.raises(IndexError):
        class_balanced_thresholds(images, 2, 0.5)
    with pytest.raises(IndexError):
        labels_by_threshold(images[0]["predicted"], images[0]["confidence"], np.float32([0.5, 0.5]))


class Made:
    """Random images, each of which is made when it is reached."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Image]:
        for index in range(self.count):
            random = np.random.default_rng(index)
            yield {
                "predicted": random.integers(0, 3, (64, 64), dtype=np.uint8),
                "confidence": random.random((64, 64), dtype=np.float32),
            }


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    peaks = []
    for count in (2, 200):
        tracemalloc.start()
        class_balanced_thresholds(Made(count), 3, 0.5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


# Labels


@st.composite
def probabilities(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """The softmax of some images, with probabilities near 0 and 1, and thresholds, some of which are probabilities."""
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    n, c, h, w = (draw(st.integers(low, high)) for low, high in ((1, 2), (2, 5), (1, 4), (1, 5)))
    logits = random.normal(0, draw(st.sampled_from([0.5, 3.0, 60.0])), (n, c, h, w))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    thresholds = random.uniform(0.05, 1, c).astype(np.float32)
    for category in np.flatnonzero(random.random(c) < 0.5):
        values = probability[:, category]
        thresholds[category] = max(random.choice(values.ravel()), np.float32(1e-3))
    return probability, thresholds


@given(probabilities())
def test_labels_by_threshold_are_the_predicted_categories_that_reach_it(case: tuple[np.ndarray, np.ndarray]) -> None:
    probability, thresholds = case
    predicted, confidence = probability.argmax(1).astype(np.uint8), probability.max(1)
    label = labels_by_threshold(predicted, confidence, thresholds)
    expected = [
        category if float(sure) >= float(thresholds[category]) else IGNORE
        for category, sure in zip(predicted.flat, confidence.flat, strict=True)
    ]
    assert label.dtype == np.uint8 and label.shape == predicted.shape and label.ravel().tolist() == expected


@given(probabilities())
def test_class_balanced_labels_have_the_largest_ratio(case: tuple[np.ndarray, np.ndarray]) -> None:
    probability, thresholds = case
    label = class_balanced_labels(probability, thresholds)
    expected = []
    for vector in np.moveaxis(probability, 1, -1).reshape(-1, len(thresholds)):
        ratios = [p / k for p, k in zip(vector, thresholds, strict=True)]
        best = max(range(len(ratios)), key=ratios.__getitem__)
        expected.append(best if ratios[best] >= 1 else IGNORE)
    assert label.dtype == np.uint8 and label.ravel().tolist() == expected
    simple = labels_by_threshold(probability.argmax(1).astype(np.uint8), probability.max(1), thresholds)
    assert (label[simple != IGNORE] != IGNORE).all()
    equal = np.full_like(thresholds, thresholds.mean())
    same = labels_by_threshold(probability.argmax(1).astype(np.uint8), probability.max(1), equal)
    np.testing.assert_array_equal(class_balanced_labels(probability, equal), same)


@pytest.mark.parametrize(
    ("thresholds", "balanced", "simple"),
    [([0.5, 0.5], 0, 0), ([0.5, 0.3], 1, 0), ([0.7, 0.3], 1, IGNORE), ([0.7, 0.5], IGNORE, IGNORE), ([0.3, 0.2], 0, 0)],
)
def test_a_class_balanced_label_need_not_be_the_most_probable_category(
    thresholds: list[float], balanced: int, simple: int
) -> None:
    probability, k = np.float32([0.6, 0.4]), np.float32(thresholds)
    assert class_balanced_labels(probability[None, :, None, None], k).tolist() == [[[balanced]]]
    assert labels_by_threshold(np.uint8([0]), probability[:1], k).tolist() == [simple]


@given(probabilities(), st.sampled_from([0.05, 0.25, 1.0]))
def test_soft_labels_lower_the_regularised_loss(case: tuple[np.ndarray, np.ndarray], alpha: float) -> None:
    probability, thresholds = case
    found = entropy_regularised_labels(probability, thresholds, alpha)
    soft = np.moveaxis(found.soft, 1, -1).reshape(-1, len(thresholds))
    assert found.hard.dtype == np.uint8 and found.soft.dtype == np.float32
    for vector, label, q in zip(
        np.moveaxis(probability, 1, -1).reshape(soft.shape), found.hard.flat, soft, strict=True
    ):
        weights = [math.log(max(float(p), 1e-300) / float(k)) / alpha for p, k in zip(vector, thresholds, strict=True)]
        powers = [math.exp(weight - max(weights)) for weight in weights]
        shares = [power / sum(powers) for power in powers]
        gain = sum(
            share * (math.log(p) - alpha * math.log(share) - math.log(k))
            for share, p, k in zip(shares, map(float, vector), map(float, thresholds), strict=True)
            if share > 0 and p > 0
        )
        if abs(gain) < 1e-9:
            continue
        assert bool(label != IGNORE) is (gain > 0)
        assert q.tolist() == (pytest.approx(shares, rel=1e-5, abs=1e-30) if gain > 0 else [0.0] * len(q))
        assert label == IGNORE or q[label] == q.max()


@given(probabilities())
def test_labels_of_lrent_approach_those_of_cbst(case: tuple[np.ndarray, np.ndarray]) -> None:
    probability, thresholds = case
    ratio = np.sort(probability / thresholds[:, None, None].astype(np.float64), axis=1)
    clear = (np.abs(ratio[:, -1] - 1) > 1e-3) & (ratio[:, -2] < ratio[:, -1] * (1 - 1e-6))
    hard = entropy_regularised_labels(probability, thresholds, 1e-4).hard
    np.testing.assert_array_equal(hard[clear], class_balanced_labels(probability, thresholds)[clear])


# The public code


def predictions(probability: np.ndarray) -> list[Image]:
    return [{"predicted": image.argmax(0).astype(np.uint8), "confidence": image.max(0)} for image in probability]


def test_thresholds_and_labels_are_those_of_cbst() -> None:
    arrays = golden("cbst")
    probability, portion, step = arrays["probability"], float(arrays["portion"]), int(arrays["downsampling"])
    images = predictions(probability)
    sampled = []
    for image in images:
        for category in np.unique(image["predicted"]):
            kept = image["confidence"][image["predicted"] == category][::step]
            sampled.append({"predicted": np.full(len(kept), category), "confidence": kept})
    found = class_balanced_thresholds(sampled, probability.shape[1], portion)
    np.testing.assert_array_equal(found, arrays["threshold_kc"])
    np.testing.assert_array_equal(class_balanced_labels(probability, found), arrays["pseudo_label"])
    simple = np.stack([labels_by_threshold(image["predicted"], image["confidence"], found) for image in images])
    np.testing.assert_array_equal(simple, arrays["pseudo_label"])  # as is most often so


def test_soft_labels_are_those_of_lrent() -> None:
    arrays = golden("cbst")
    found = entropy_regularised_labels(arrays["probability"], arrays["threshold_kc"], float(arrays["lrent_alpha"]))
    np.testing.assert_array_equal(found.hard, arrays["pseudo_label_lrent"])
    selected = found.hard != IGNORE
    assert 0.1 < selected.mean() < 0.9
    expected = arrays["soft_pseudo_label_lrent"] * selected[:, None]
    np.testing.assert_allclose(found.soft, expected, rtol=1e-4)


@pytest.mark.parametrize(("name", "share"), [("bdl", 0.5), ("fda", 0.66)])
def test_thresholds_and_labels_are_those_of_bdl_and_fda(name: str, share: float) -> None:
    arrays = golden("bdl")
    images, categories = predictions(arrays["probability"]), arrays["probability"].shape[1]
    raw = quantile_thresholds(images, categories, share, 1.0)
    np.testing.assert_array_equal(raw, np.float32(arrays[f"threshold_raw_{name}"]))
    found = quantile_thresholds(images, categories, share, 0.9)
    np.testing.assert_array_equal(found, np.float32(arrays[f"threshold_{name}"]))
    assert np.float32(0) in found
    label = np.stack([labels_by_threshold(image["predicted"], image["confidence"], found) for image in images])
    np.testing.assert_array_equal(label, arrays[f"pseudo_label_{name}"])
