"""What the method costs beside the network: time and memory of anchors, active target samples and pseudo-labels.

    python benchmarks/method.py [--threads 2] [--repeats 5]

Prints a table in Markdown. Every row is measured in a process of its own, on a CPU; its memory is the peak that the
kernel counts beyond what the process held before (Linux only).
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from caguda.configfile import network_settings
from caguda.equations.anchors import class_sums
from caguda.equations.labels import by_anchor, pseudo_labels

IMAGE = (1024, 2048)
CATEGORIES = 19
MARGIN = 2.5
MAPS = {"deeplab_v2": (256, 128, 256), "deeplab_v3plus": (256, 256, 512)}  # (d, h, w) that a network makes of IMAGE
TITLES = {"deeplab_v2": "DeepLab v2", "deeplab_v3plus": "DeepLab v3+"}
FORWARD, NAIVE = "forward pass", "all differences, naively"


class Cost(NamedTuple):
    """Median seconds, and the bytes that a first run needs beyond its inputs."""

    seconds: float
    bytes: int


def features_of(size: tuple[int, int, int], layout: str) -> Tensor:
    """A random map (1, d, h, w) that was never anything else, so that no freed buffer hides what is needed later."""
    d, h, w = size
    return torch.randn(1, d, h, w) if layout == "contiguous" else torch.randn(1, h, w, d).movedim(-1, 1)


def forward_pass(network: str) -> Callable[[], object]:
    """The pass of a whole image through a network; it makes maps of the size that MAPS says."""
    model = network_settings({"name": network, "weights": "none"}, Path(__file__)).build(CATEGORIES).eval()
    image = torch.rand(1, 3, *IMAGE)

    def run() -> None:
        features = model(image).features
        assert features.shape[1:] == MAPS[network], f"{network} made {tuple(features.shape)}"

    return run


def on_features(what: str, features: Tensor) -> Callable[[], object]:
    """One of the steps that follow the forward pass."""
    _, d, h, w = features.shape
    anchors, present = torch.randn(CATEGORIES, d), torch.ones(CATEGORIES, dtype=torch.bool)
    labels = torch.randint(0, CATEGORIES, (1, h, w), dtype=torch.uint8)

    def assign() -> Tensor:
        found = by_anchor(features, anchors, present, MARGIN)
        return pseudo_labels(found.nearest, found.active)

    def subtract() -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(features[:, None] - anchors[:, :, None, None], dim=2)
        return norms

    steps: dict[str, Callable[[], object]] = {
        "ATI and PLA": assign,
        "CAC": lambda: class_sums(features, labels, CATEGORIES),
        NAIVE: subtract,
    }
    return steps[what]


def memory(name: str) -> int:
    """An entry of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def measure(what: str, network: str, layout: str, repeats: int) -> Cost:
    """The cost of one row, in this process. The run that is measured for memory warms up for those that are timed."""
    if what == FORWARD:
        run = forward_pass(network)
    else:
        run = on_features(what, features_of(MAPS[network], layout))
        on_features(what, features_of((MAPS[network][0], 2, 4), layout))()
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept for later would hide what is needed now
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = memory("VmRSS")
    run()
    peak = memory("VmHWM") - before
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return Cost(statistics.median(seconds), peak)


def measured_apart(row: tuple[str, str, str], threads: int, repeats: int) -> Cost:
    """The cost of one row, from a fresh process."""
    command = [sys.executable, __file__, "--threads", str(threads), "--repeats", str(repeats), "--row", *row]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return Cost(*json.loads(done.stdout))


def caption(threads: int) -> str:
    """The machine, and how busy it is."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return (
        f"{model}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}, "
        f"float32, an image of {IMAGE[1]}x{IMAGE[0]}, {CATEGORIES} categories; load before: {os.getloadavg()[0]:.1f}."
    )


def table(threads: int, repeats: int) -> None:
    """Measure and print the rows of each network: its forward pass, what follows it, and the naive way."""
    print(f"{caption(threads)}\n")
    print("| network, map (d h w) | step | layout | time | of forward pass | extra memory | of naive differences |")
    print("|---|---|---|---:|---:|---:|---:|", flush=True)
    for network, (d, h, w) in MAPS.items():
        naive = CATEGORIES * d * h * w * torch.float32.itemsize
        forward = measured_apart((FORWARD, network, "contiguous"), threads, repeats)
        rows = [(what, layout) for what in ("ATI and PLA", "CAC") for layout in ("contiguous", "channels last")]
        for what, layout in [(FORWARD, "contiguous"), *rows, (NAIVE, "contiguous")]:
            cost = forward if what == FORWARD else measured_apart((what, network, layout), threads, repeats)
            print(
                f"| {TITLES[network]}, {d} {h} {w} | {what} | {layout} | {1000 * cost.seconds:.0f} ms "
                f"| {cost.seconds / forward.seconds:.2%} | {cost.bytes / 2**20:.1f} MiB | {cost.bytes / naive:.2%} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: torch's choice")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each row, of which the median counts")
    parser.add_argument("--row", nargs=3, metavar=("STEP", "NETWORK", "LAYOUT"), help="measure one row, here")
    options = parser.parse_args()
    if options.row is None:
        return table(options.threads, options.repeats)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        what, network, layout = options.row
        print(json.dumps(measure(what, network, layout, options.repeats)))


if __name__ == "__main__":
    main()
