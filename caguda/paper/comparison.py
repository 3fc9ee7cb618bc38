"""Rows of a table compared in pairs, seed by seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from caguda.paper.formats import Statistic, statistic

MOST_SEEDS = 16
"""The test goes through 2^n choices of signs."""


class Comparison(NamedTuple):
    """The difference between two rows over seeds, on how many seeds the first has the higher score, and a p-value.

    `p` is None for more seeds than the test can go through.
    """

    difference: Statistic
    won: int
    seeds: int
    p: float | None


def compared(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """The comparison of two rows' scores, which are of the same seeds in the same order, at least one.

    A seed with equal scores is won by neither.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    won = sum(difference > 0 for difference in differences)
    p = sign_flip_p(differences) if len(differences) <= MOST_SEEDS else None
    return Comparison(statistic(differences), won, len(differences), p)


def sign_flip_p(differences: Sequence[float]) -> float:
    """The p-value of a paired permutation test: how likely so large a mean difference is if rows were exchangeable.

    The share of all 2^n choices of signs whose sum is at least as far from 0 as that of the differences, two-sided and exact.
    It is at least 2 / 2^n: 1/4 for three seeds, so that fewer than six cannot reach 0.05. ValueError for more differences
    than MOST_SEEDS.
    """
    if len(differences) > MOST_SEEDS:
        raise ValueError(f"at most {MOST_SEEDS} differences can be tested exactly, found {len(differences)}")
    values = np.asarray(differences, dtype=np.float64)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(values))))
    sums, tolerance = np.abs(signs @ values), 1e-9 * float(np.abs(values).sum())
    return float(np.mean(sums >= abs(math.fsum(differences)) - tolerance))
