"""The schedule of the learning rate."""


def poly(iteration: int, iterations: int, power: float) -> float:
    """The factor of the learning rate in the "poly" schedule: (1 - iteration / iterations) ** power.

    1 at iteration 0, 0 at `iterations` (the last iteration is iterations - 1); constant 1 for power 0.
    """
    assert 0 <= iteration <= iterations, f"iteration {iteration} must lie in 0..{iterations}"
    return float((1 - iteration / iterations) ** power)


def linear_warmup(iteration: int, iterations: int) -> float:
    """The factor of the learning rate in a linear warm-up: iteration / iterations until it is 1; always 1 without one (0).

    It multiplies that of the schedule, as `warmup='linear'` of mmcv does for DAFormer (mmcv/runner/hooks/lr_updater.py,
    get_warmup_lr), which begins at 1e-6 in place of 0. CLAN's warm-up multiplies the initial rate alone.
    """
    assert iteration >= 0 and iterations >= 0, f"iteration {iteration} and iterations {iterations} must not be negative"
    return min(iteration / iterations, 1.0) if iterations else 1.0
