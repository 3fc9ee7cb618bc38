"""What the method needs in memory for one map of a real image: the rows of benchmarks/method.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "method.py"
NAIVE = 4 * 19 * 256 * 128 * 256

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs the peak memory that Linux counts"
)


def peak(step: str, layout: str) -> int:
    """The bytes that a step needs beyond its inputs on a map of 256 x 128 x 256 numbers."""
    row = ["--row", step, "deeplab_v2", layout]
    command = [sys.executable, BENCHMARK, "--threads", "1", "--repeats", "1", *row]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    seconds, size = json.loads(done.stdout)
    assert seconds > 0
    return int(size)


@pytest.mark.parametrize("layout", ["contiguous", pytest.param("channels last", marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", ["ATI and PLA", "CAC"])
def test_a_map_costs_at_most_a_twentieth_of_its_differences_to_all_anchors(step: str, layout: str) -> None:
    assert 0 < peak(step, layout) <= NAIVE / 20


def test_the_measurement_sees_what_the_naive_way_needs() -> None:
    assert peak("all differences, naively", "contiguous") == pytest.approx(NAIVE, rel=0.05)
