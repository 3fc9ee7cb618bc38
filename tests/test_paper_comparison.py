"""Two rows of a table compared by seed, against a count by hand and scipy-free references."""

import itertools
import math
import statistics

import hypothesis.strategies as st
import pytest
from hypothesis import given

from caguda.paper.comparison import compared, sign_flip_p

scores = st.lists(st.integers(0, 1000), min_size=1, max_size=6)


@given(scores)
def test_the_p_value_is_the_share_of_sign_choices_at_least_as_extreme(differences: list[int]) -> None:
    total = abs(sum(differences))
    choices = list(itertools.product((-1, 1), repeat=len(differences)))
    extreme = sum(
        abs(sum(sign * value for sign, value in zip(choice, differences, strict=True))) >= total for choice in choices
    )
    assert sign_flip_p(differences) == pytest.approx(extreme / len(choices))


@given(scores)
def test_the_p_value_does_not_depend_on_which_row_is_first(differences: list[int]) -> None:
    assert sign_flip_p(differences) == sign_flip_p([-value for value in differences])


@pytest.mark.parametrize(("count", "smallest"), [(1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_a_difference_on_every_seed_has_the_smallest_p_value(count: int, smallest: float) -> None:
    assert sign_flip_p([1.0 + seed for seed in range(count)]) == smallest


def test_equal_rows_have_the_p_value_1() -> None:
    assert compared([50.0, 51.0], [50.0, 51.0]) == (statistic_of([0.0, 0.0]), 0, 2, 1.0)


def test_a_comparison_counts_the_seeds_won() -> None:
    found = compared([52.0, 51.0, 50.0], [50.0, 51.0, 51.0])
    assert found.won == 1 and found.seeds == 3
    assert found.difference.mean == pytest.approx(1 / 3) and found.p == 1.0


def test_rounding_decides_no_p_value() -> None:
    """0.1 + 0.2 - 0.3 is not 0 in floats: sums that are equal on paper count as equal."""
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0


def test_too_many_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 16 differences"):
        sign_flip_p([1.0] * 17)


def statistic_of(values: list[float]) -> tuple[float, float] | object:
    from caguda.paper.formats import Statistic

    return Statistic(math.fsum(values) / len(values), statistics.stdev(values))
