"""Pictures and tables of a label store: the numbers that they show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from caguda.artifacts.anchors import Anchors
from caguda.artifacts.label_statistics import FLOAT16_BINS, float16_bins
from caguda.classes import ClassTable
from caguda.errors import UserError
from caguda.viewer import charts as label_charts
from caguda.viewer.tables import percent

TABLE = ClassTable(("road", "sky", "car", "bus"), ((128, 64, 128), (70, 130, 180), (0, 0, 142), (0, 60, 100)), {})


def some_anchors(*absent: int) -> Anchors:
    """Four anchors on the axes of five channels, road and sky 1 apart and the others farther."""
    vectors = np.diag([0.6, 0.8, 5, 9, 0]).astype(np.float32)[:4]
    counts = np.array([0 if c in absent else 7 for c in range(4)], np.int64)
    vectors[list(absent)] = np.nan
    pairwise = np.linalg.norm(vectors[:, None] - vectors, axis=2).astype(np.float32)
    return Anchors(vectors, counts, np.ones(4, np.float32), pairwise)


def counted(values: list[float]) -> np.ndarray:
    return np.bincount(float16_bins(np.array(values, np.float16)), minlength=FLOAT16_BINS)


@given(seed=st.integers(0, 1 << 30), count=st.integers(2, 30))
def test_principal_axes_are_those_of_the_covariance(seed: int, count: int) -> None:
    points = (np.random.default_rng(seed).normal(size=(count, 6)) * [9, 7, 1, 1, 0.5, 0]).astype(np.float32)
    mean, plane, shares = label_charts.principal_axes(points)
    np.testing.assert_allclose(mean, points.mean(0), atol=1e-5)
    values, vectors = np.linalg.eigh(np.cov(points.T.astype(np.float64)))
    np.testing.assert_allclose(shares, values[::-1][:2] / values.sum(), atol=1e-9)
    np.testing.assert_allclose(plane.T @ plane, np.eye(2), atol=1e-9)
    assert abs(plane[:, 0] @ vectors[:, -1]) == pytest.approx(1, abs=1e-6)
    assert (plane[np.abs(plane).argmax(0), [0, 1]] > 0).all()


def test_bars_of_the_histogram_add_up_to_the_pixels_within_it() -> None:
    right, wrong, void = counted([4.0] * 50 + [8.0]), counted([0.5] * 30), counted([1.0] * 20)
    figure = label_charts.margins("store", right + wrong + void, np.stack([wrong, right]), 2.0, [("margin 9", 9.0)])
    bars = {container.get_label(): container for container in figure.axes[0].containers}
    heights = {name: sum(bar.get_height() for bar in container) for name, container in bars.items()}
    shares = {"nearest anchor is right": 5100, "wrong": 3000, "truth void or not known": 2000}
    assert heights == pytest.approx({name: share / 101 for name, share in shares.items()})
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [2.0, 9.0]
    assert figure._suptitle.get_text() == "store"


@pytest.mark.parametrize("verdicts", [None, np.zeros((2, FLOAT16_BINS), np.int64)])
def test_margins_without_truth_or_without_a_second_anchor(verdicts: np.ndarray | None) -> None:
    label_charts.margins("store", counted([np.inf] * 3), verdicts, 0.0, [])
    figure = label_charts.margins("store", counted([1.0] * 3 + [np.inf]), verdicts, 0.5, [])
    (bars,) = figure.axes[0].containers
    assert sum(bar.get_height() for bar in bars) == pytest.approx(75)
    assert "25.00%" in figure.axes[0].get_xlabel()


def test_the_heat_map_names_both_axes_and_frames_close_anchors() -> None:
    axes = label_charts.distances("store", some_anchors(3), TABLE, 1.0).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(TABLE.names)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(TABLE.names)
    frames = [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert sorted(frames) == [(-0.5, 0.5), (0.5, -0.5)]
    assert len(axes.texts) == 6, "no number for an absent category, none on the diagonal"


def test_the_projection_shows_present_anchors_and_needs_two() -> None:
    features = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    nearest, active = np.arange(40, dtype=np.uint8) % 3, np.arange(40) % 2 > 0
    axes = label_charts.projection("store", some_anchors(3), features, nearest, active, TABLE).axes[0]
    assert [text.get_text() for text in axes.texts] == list(TABLE.names[:3])
    grey, colored, *anchors = axes.collections
    assert (len(grey.get_offsets()), len(colored.get_offsets()), len(anchors)) == (20, 20, 3)
    np.testing.assert_allclose(colored.get_facecolors()[:, :3] * 255, TABLE.palette()[nearest[active]])
    with pytest.raises(UserError, match="two anchors"):
        label_charts.projection("store", some_anchors(1, 2, 3), features, nearest, active, TABLE)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.0"), (1.0, "100.0"), (0.00049, "<0.1"), (0.0005, "0.1"), (0.12345, "12.3")],
)
def test_a_share_that_is_not_nothing_never_reads_so(value: float | None, text: str) -> None:
    assert percent(value) == text
