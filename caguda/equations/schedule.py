"""The schedule of the learning rate."""


def poly(iteration: int, iterations: int, power: float) -> float:
    """The factor of the learning rate in the "poly" schedule: (1 - iteration / iterations) ** power.

    1 at iteration 0, 0 at `iterations` (the last iteration is iterations - 1); constant 1 for power 0.
    """
    assert 0 <= iteration <= iterations, f"iteration {iteration} must lie in 0..{iterations}"
    return float((1 - iteration / iterations) ** power)
