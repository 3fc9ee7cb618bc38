"""The schedule of the learning rate."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caguda.equations.schedule import linear_warmup, poly


@given(st.integers(1, 1000), st.floats(0.1, 3))
def test_poly_falls_from_one_to_zero(iterations: int, power: float) -> None:
    factors = [poly(iteration, iterations, power) for iteration in range(iterations + 1)]
    assert factors[0] == 1.0 and factors[-1] == 0.0
    assert all(later < earlier for earlier, later in pairwise(factors))


def test_poly_has_known_values() -> None:
    assert poly(75, 100, 0.5) == pytest.approx(0.5)
    assert poly(1, 4, 2.0) == pytest.approx(0.5625)
    assert poly(3, 4, 0.0) == 1.0


@pytest.mark.parametrize("iteration", [-1, 11])
def test_poly_refuses_an_iteration_outside_the_run(iteration: int) -> None:
    with pytest.raises(AssertionError, match=r"0\.\.10"):
        poly(iteration, 10, 0.9)


@given(st.integers(1, 1000))
def test_a_warm_up_rises_by_equal_steps_from_zero_to_one(iterations: int) -> None:
    factors = [linear_warmup(iteration, iterations) for iteration in range(iterations + 3)]
    assert factors[0] == 0.0 and factors[iterations:] == [1.0] * 3
    steps = [later - earlier for earlier, later in pairwise(factors[: iterations + 1])]
    assert steps == pytest.approx([1 / iterations] * iterations)


def test_without_a_warm_up_the_factor_is_one_from_the_first_iteration_on() -> None:
    assert [linear_warmup(iteration, 0) for iteration in (0, 1, 10**9)] == [1.0] * 3


@given(st.integers(2, 200), st.integers(1, 100), st.floats(0.1, 2))
def test_warm_up_and_poly_together_are_those_of_mmcv(iterations: int, warm: int, power: float) -> None:
    """Its linear warm-up with the ratio 1e-6: before iteration `warm` the rate of the schedule times 1 - k."""
    for iteration in range(iterations):
        regular = (1 - iteration / iterations) ** power
        k = (1 - iteration / warm) * (1 - 1e-6)
        expected = regular * (1 - k) if iteration < warm else regular
        found = poly(iteration, iterations, power) * linear_warmup(iteration, warm)
        assert found == pytest.approx(expected, abs=1.1e-6)


@pytest.mark.parametrize(("iteration", "iterations"), [(-1, 10), (1, -1)])
def test_a_warm_up_has_no_negative_numbers(iteration: int, iterations: int) -> None:
    with pytest.raises(AssertionError, match="must not be negative"):
        linear_warmup(iteration, iterations)
