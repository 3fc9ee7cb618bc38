"""What one training step of a stage costs in time and memory, beside the way the authors' code takes it.

    python benchmarks/step.py [--networks small deeplab_v3plus] [--batch 1] [--rounds 2]

Prints a table in Markdown. Losses, their weights, optimiser, batch normalisation and the size of the images are those of the
run `cag` of a configuration: `small` has the demo's, DeepLab v3+ on a ResNet-101 the authors', DeepLab v2 the paper's; but the two
DeepLabs get `--batch` images of each domain, and all cores. The step and the update are the package's own.
`authors_way.py` says what is measured against it, and both must find the same loss terms first.

Every row is measured in a process of its own: the median time of its steps after a first one, the peak of the
process's memory (Linux only), with a GPU of what torch has allocated there, and how much of it came with the steps: the
libraries, the network's weights and the batch were there before. The authors' way and ours are measured
`--rounds` times in turn, so that what else the machine does falls on both alike; the other rows once.

The floor is the arithmetic of both domains' passes, there and back, at the rate that the same threads reach in the
precision of the row: with two matrices of 2048x2048, or with a convolution of 3x3, whichever is the faster.
"""

import argparse
import copy
import ctypes
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from authors_way import authors_step
from step_inputs import CATEGORIES, FILES, Setting, configured, frame_images, setting
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.utils.flop_counter import FlopCounterMode

from caguda.config import Configuration
from caguda.stages.optimisers import build_optimiser
from caguda.stages.parallel import all_reduce_max
from caguda.stages.runtime import to_device
from caguda.stages.training import TrainingSetup, compute_gradients, update_weights

AUTHORS, OURS, CONTIGUOUS = "the authors' way", "ours", "ours, not channels last"
WAYS: dict[str, dict[str, Any]] = {  # by title, what `compute` says
    AUTHORS: {},
    OURS: {},
    "ours, bfloat16": {"precision": "bfloat16"},
    "ours, activations computed again": {"recompute_activations": True},
    "ours, compiled": {"compile": True},
}
ON_GPU: dict[str, dict[str, Any]] = {
    "ours, TF32": {"tf32": True},
    "ours, float16": {"precision": "float16"},
    CONTIGUOUS: {},
    "ours, all of it": {"precision": "bfloat16", "compile": True, "recompute_activations": True},
}
SAMPLE, AT_LEAST = 5.0, 2  # steps are timed for so many seconds, and at least so many steps
MATRIX, CHANNELS, MAPS = 2048, 256, (64, 112)  # a DeepLab has such maps of a crop of 512x896, at stride 8


class Cost(NamedTuple):
    """What steps cost: seconds of each, bytes at their peak and before them; and the scale that they left AMP's scaler at."""

    seconds: list[float]
    peak: int
    before: int
    scale: float


class Row(NamedTuple):
    """What was measured: seconds of steps, bytes at their peak and before them, the machine's operations a second."""

    seconds: list[float]
    peak: int
    before: int
    rate: float


def setup_of(given: Setting, way: str) -> TrainingSetup:
    """The training that takes its steps in this way; the network is changed."""
    network, method = given.network, given.method
    if way == AUTHORS:
        torch.use_deterministic_algorithms(False)
        labelling = copy.deepcopy(network).eval().requires_grad_(False)
        step = authors_step(given.session(), method, labelling, given.thresholds)
    else:
        if way != CONTIGUOUS:
            to_device(network, given.device)
        step = given.session().step
    scaler = GradScaler(given.device.type, enabled=given.compute.precision == "float16")
    optimiser = build_optimiser(network, method.optimiser, method.optimiser.learning_rate)
    return TrainingSetup(way, {"network": network}, {"network": optimiser}, lambda _: iter(()), step, method, scaler)


@torch.no_grad()
def terms_of(given: Setting, way: str) -> dict[str, float]:
    """The loss terms of the batch, with batch normalisation and dropout as in evaluation."""
    setup = setup_of(given, way)
    setup.modules["network"].eval()
    return {name: float(value) for _, terms in setup.step(given.batch, 0) for name, value in terms.items()}


def refuse_other_values(configuration: Configuration, shape: tuple[int, int, int]) -> None:
    """AssertionError unless the authors' way and ours give the same loss terms, to rounding."""
    theirs, ours = (terms_of(setting(configuration, shape), way) for way in (AUTHORS, OURS))
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        assert value > 0 and abs(theirs[name] / value - 1) < 1e-4, f"{name}: theirs {theirs[name]}, ours {value}"


def seconds_of(setup: TrainingSetup, given: Setting) -> float:
    """The wall-clock time of one update, until its results are there."""
    started = time.perf_counter()
    compute_gradients(setup, lambda: given.batch, 0)
    update_weights(setup)
    if given.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def cost_of(given: Setting, way: str, sample: float = SAMPLE) -> Cost:
    """What the steps of this way cost, in this process; they are timed for `sample` seconds."""
    on_gpu = given.device.type == "cuda"
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept for later would hide what is needed now
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = torch.cuda.memory_allocated() if on_gpu else memory("VmRSS")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    setup = setup_of(given, way)
    for _ in range(5 if on_gpu else 1):
        seconds_of(setup, given)
    seconds: list[float] = []
    while all_reduce_max(
        len(seconds) < AT_LEAST or sum(seconds) < sample
    ):  # processes that share a batch stop together
        seconds.append(seconds_of(setup, given))
    peak = torch.cuda.max_memory_allocated() if on_gpu else memory("VmHWM")
    return Cost(seconds, peak, before, float(setup.scaler.get_scale()))


def measure(given: Setting, way: str) -> Row:
    """What the steps of this way cost, in this process, and the machine's rate."""
    cost = cost_of(given, way)
    return Row(cost.seconds, cost.peak, cost.before, machine_rate(given.device, given.compute.precision))


def memory(name: str) -> int:
    """An entry of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


@torch.no_grad()
def machine_rate(device: torch.device, precision: str) -> float:
    """Operations a second in the precision of the configuration, by a product of matrices or by a convolution."""
    kind = {"device": device, "dtype": getattr(torch, precision)}
    matrices = torch.rand(2, MATRIX, MATRIX, **kind)
    convolution = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False, **kind).to(memory_format=torch.channels_last)
    maps = torch.rand(1, CHANNELS, *MAPS, **kind).to(memory_format=torch.channels_last)
    products = 2 * MATRIX**3 / median_seconds(lambda: matrices[0] @ matrices[1])
    return max(products, 2 * 9 * CHANNELS**2 * math.prod(MAPS) / median_seconds(lambda: convolution(maps)))


def median_seconds(compute: Callable[[], Tensor]) -> float:
    """The median time of some calls after a first one."""
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        if compute().device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def operations(configuration: Configuration, shape: tuple[int, int, int]) -> int:
    """The arithmetic of the passes of both domains and of their derivatives, counted without computing."""
    with torch.device("meta"):
        network = configuration.network.build(CATEGORIES)
        images = torch.empty(shape[0], 3, *shape[1:])
    with FlopCounterMode(display=False) as counter:
        sum(maps.sum() for maps in network(images)[:2]).backward()
    return 2 * int(counter.get_total_flops())


def in_a_process(network: str, way: str, options: argparse.Namespace) -> Row | str:
    """A row measured in a fresh process, or why it could not be."""
    command = [sys.executable, __file__, "--row", network, way, "--batch", str(options.batch)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return Row(*json.loads(done.stdout.splitlines()[-1]))
    return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]


def report(network: str, options: argparse.Namespace) -> None:
    """Measure a network and print its rows; the first two must not fail."""
    configuration = configured(network)
    count, height, width = shape = frame_images(configuration, options.batch)
    refuse_other_values(configuration, shape)
    ways = [*WAYS, *(ON_GPU if torch.cuda.is_available() else ())]
    found: dict[str, list[Row]] = {way: [] for way in ways}
    failed: dict[str, str] = {}
    for way in [AUTHORS, OURS] * options.rounds + ways[2:]:
        row = in_a_process(network, way, options)
        if isinstance(row, Row):
            found[way].append(row)
        else:
            failed[way] = row
    assert found[AUTHORS] and found[OURS], failed
    needed, theirs = operations(configuration, shape), median(found[AUTHORS])
    for way in ways:
        print(f"| {network}, {count} x {height}x{width} | {way} | ", end="")
        if way in failed:
            print(f"failed: {failed[way]} | | | | | | |")
            continue
        (seconds,), peak, before, rate = median(found[way])
        cells = [f"{seconds:.3g}", f"{seconds / theirs.seconds[0]:.2f}"]
        for mine, other in ((peak, theirs.peak), (peak - before, theirs.peak - theirs.before)):
            cells += [f"{mine / 2**30:.2f}", f"{mine / other:.2f}"]
        print(" | ".join([*cells, f"{seconds * rate / needed:.2f}"]) + " |", flush=True)


def median(rows: Sequence[Row]) -> Row:
    """The medians of what was measured; of the peak, the largest."""
    seconds = statistics.median(second for row in rows for second in row.seconds)
    return Row(
        [seconds],
        max(row.peak for row in rows),
        int(statistics.median(row.before for row in rows)),
        statistics.median(row.rate for row in rows),
    )


def caption(options: argparse.Namespace) -> str:
    """The machine, how busy it is, and what is measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{model}, {os.cpu_count()} cores"
    return (
        f"{device}, torch {torch.__version__}; first two rows of a network: {options.rounds} processes each, in "
        f"turn; load before: {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=FILES, default=["small", "deeplab_v3plus"])
    parser.add_argument("--batch", type=int, default=1, help="images of each domain, for the two DeepLabs")
    parser.add_argument("--rounds", type=int, default=2, help="processes for each of the first two rows of a network")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        network, way = options.row
        configuration = configured(network, **(WAYS | ON_GPU)[way])
        given = setting(configuration, frame_images(configuration, options.batch))
        print(json.dumps(measure(given, way)))
        return
    print(f"{caption(options)}\n")
    print("| network | step | s | of theirs | peak GiB | of theirs | of it the steps' | of theirs | times the floor |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for network in options.networks:
        report(network, options)


if __name__ == "__main__":
    main()
