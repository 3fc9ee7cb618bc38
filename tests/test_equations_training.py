"""The schedule of the learning rate."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caguda.equations.schedule import poly


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
