"""What the method needs in memory for one map of a real image, measured by the kernel in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
import torch
from caguda.method.anchors import class_sums
from caguda.method.labels import by_anchor

def status(name):
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(found.split()[1]) * 1024

torch.set_num_threads(1)
small, labels = torch.randn(1, 256, 2, 4), torch.randint(0, 19, (1, 128, 256), dtype=torch.uint8)
anchors, present = torch.randn(19, 256), torch.ones(19, dtype=torch.bool)
features = torch.randn(1, 256, 128, 256).contiguous(memory_format=getattr(torch, sys.argv[1]))
runs = {
    "by_anchor": lambda maps, truth: by_anchor(maps, anchors, present, 0.5),
    "class_sums": lambda maps, truth: class_sums(maps, truth, 19),
    "naive": lambda maps, truth: maps[:, None] - anchors[:, :, None, None],
}
for name, run in runs.items():
    run(small, labels[:, :2, :4])
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    kept = run(features, labels)
    print(name, status("VmHWM") - before)
    del kept
"""
NAIVE = 4 * 19 * 256 * 128 * 256


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the peak memory that Linux counts")
@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last"])
def test_a_map_costs_at_most_a_twentieth_of_its_differences_to_all_anchors(layout: str) -> None:
    # Buffers of 64 kB and more go back to the system when freed, so that none is used again unseen.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, layout], capture_output=True, text=True, check=True, env=environment
    )
    peaks = {name: int(size) for name, size in (line.split() for line in done.stdout.splitlines())}
    assert peaks["naive"] == pytest.approx(NAIVE, rel=0.05), "the measurement itself"
    assert 0 < peaks["by_anchor"] <= NAIVE / 20
    assert 0 < peaks["class_sums"] <= NAIVE / 20
