"""`benchmarks/gpu.py` runs to its end without a GPU, and a row that cannot be measured says why."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the command itself is the test")


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


class Fixed:
    """Rows with the given values, or with the same failure for all."""

    def __init__(self, values: dict[str, Any], failure: str = "failed: OutOfMemoryError") -> None:
        self.values, self.failure = values, failure

    def measure(self, *words: str, reserve: float = 0.0) -> Any:
        return self.values.get(words[0], self.failure)


@pytest.fixture
def on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says that it has two GPUs; nothing is computed on them."""
    import gpu

    monkeypatch.setattr(gpu, "ON_GPU", True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")


def tables(rows: Fixed, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    import gpu

    monkeypatch.setattr(gpu, "Rows", lambda _seconds: rows)
    return list(gpu.lines(1.0))


@pytest.mark.usefixtures("on_gpus")
def test_a_row_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu
    import step

    printed = tables(Fixed({}), monkeypatch)
    failed = [cells(line) for line in printed if "failed: OutOfMemoryError" in line]
    steps = [(network, way) for network in gpu.NETWORKS for way in step.WAYS | step.ON_GPU]
    found = [(row[0].partition(",")[0], row[1]) for row in failed if row[0].endswith(("512x896", "640x1280"))]
    assert sorted(found) == sorted(steps)
    assert len(failed) == len(steps) + len(gpu.PASSES) + 1 + len(gpu.NETWORKS)  # 1: the loader


@pytest.mark.usefixtures("on_gpus")
def test_ratios_are_to_rows_of_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "step": [[0.4, 0.5, 0.7], 3 * 2**30, 2**30, 65536.0],
        "passes": {"evidence-part": [0.2, 0.21, 0, 1.5, 1], "anchor-part, anchors": [0.2, 0.2, 0, 1.5, 1]},
        "loader": {"PNG, torchvision": 16.0},
        "processes": [[0.8], 0, 0, 1.0],
    }
    rows = [cells(line) for line in tables(Fixed(values), monkeypatch)]
    assert ["evidence-part", "200.00", "210.00", "1.050", "1.50"] in rows
    assert ["deeplab_v2, 1 x 640x1280", "ours, float16", "0.5", "1.00", "3.00", "1.00", "65536"] in rows
    assert ["PNG, torchvision", "16", "deeplab_v2, ours", "4.0", "4.00"] in rows  # a frame of each domain in 0.5 s
    assert ["deeplab_v2", "0.8", "1.60", "1.25"] in rows  # two batches in 1.6 times the time of one


def test_a_process_that_fails_or_takes_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu

    rows = gpu.Rows(300.0)
    assert rows.measure("step", "nothing", "ours") == "failed: KeyError: 'nothing'"
    assert rows.measure("loader", reserve=299.0) == "left out: the time of the run was over"
    monkeypatch.setattr(gpu, "ROW", 0.2)
    monkeypatch.setattr(gpu, "SHORTEST", 0.1)
    started = time.monotonic()
    assert rows.measure("passes") == "stopped after 0 s"
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_the_rows_are_measured_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds of rows and tables, in this process; of the ways of a step two."""
    import gpu
    import step

    class Here(gpu.Rows):
        def measure(self, *words: str, reserve: float = 0.0) -> Any:
            if words[0] == "step" and words[2] not in ways:
                return "left out: takes long"
            return json.loads(json.dumps(gpu.value_of_row(*words)))

    ways = (step.AUTHORS, step.OURS)
    monkeypatch.setattr(gpu, "Rows", Here)
    printed = list(gpu.lines(1.0))
    assert "no GPU: sizes are small" in printed[0]
    assert not [line for line in printed if "failed" in line or "stopped" in line]
    rows = [cells(line) for line in printed]
    measured = [row for row in rows if row[0].endswith("1 x 64x128") and row[1] in ways]
    assert len(measured) == len(gpu.NETWORKS) * len(ways)
    assert all(float(row[2]) > 0 and float(row[4]) > 0 for row in measured)
    assert [row for row in rows if row[1:] == ["ours, TF32", "left out: needs a GPU", "", "", "", ""]]
    assert sum(row[0] in ("PNG, torchvision", "packed cache") for row in rows) == 2 * len(gpu.NETWORKS)
    assert printed[-1] == "Two processes: left out, since they need two GPUs and 0 are here."


@pytest.mark.slow
def test_two_processes_share_the_steps() -> None:
    import gpu

    cost = gpu.shared_cost("deeplab_v2", 2)
    assert len(cost.seconds) >= 2 and min(cost.seconds) > 0


def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    """Without time for a row it still says which rows there are."""
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--seconds", "1", "--output", str(tmp_path / "gpu.md")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (tmp_path / "gpu.md").read_text(encoding="utf-8") == done.stdout
    assert done.stdout.count("left out: the time of the run was over") == 2 + 2 * 5 + 1
