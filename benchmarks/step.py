"""What one training step of a stage costs in time and memory, beside the way the authors' code takes it.

    python benchmarks/step.py [--networks small deeplab_v3plus] [--batch 1] [--rounds 3] [--threads 1]

Prints a table in Markdown. Losses, recipe, optimiser, batch normalisation and the size of the images are those of a
configuration: `small` has the demo's, DeepLab v3+ on a ResNet-101 the authors', DeepLab v2 the paper's; but the two
DeepLabs get `--batch` images of each domain. The step and the update are the package's own. `authors_way.py` says what
is measured against it, and both must find the same loss terms first.

Every row is measured in a process of its own: the median time of its steps after a first one, and the peak of the
process's memory (Linux only), with a GPU that of what torch has allocated there. The authors' way and ours are measured
`--rounds` times in turn, so that what else the machine does falls on both alike; the other rows once.

The floor is the arithmetic of both domains' passes, there and back, at the rate at which the same threads multiply two
matrices of 2048x2048 in the precision of the row.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from authors_way import authors_step
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import Bottleneck

from caguda.artifacts.anchors import Anchors
from caguda.config import Configuration
from caguda.configfile import load_configuration
from caguda.datasets.loader import enlarge
from caguda.method.labels import by_anchor, by_probability, pseudo_labels
from caguda.models.batch_norm import estimate_statistics
from caguda.models.build import build_network
from caguda.models.network import SegmentationNetwork
from caguda.stages.adapt import _objective_step
from caguda.stages.common import Run
from caguda.stages.runtime import place, prepare
from caguda.stages.training import Batch, Job, _gradients, _update, build_optimiser

CONFIG = Path(__file__).parents[1] / "config"
FILES = {
    "small": "demo.yaml",
    "deeplab_v3plus": "gta5_cityscapes_official.yaml",
    "deeplab_v2": "gta5_cityscapes_paper.yaml",
}
AUTHORS, OURS = "the authors' way", "ours"
WAYS: dict[str, dict[str, Any]] = {  # by title, what `compute` says
    AUTHORS: {},
    OURS: {},
    "ours, bfloat16": {"precision": "bfloat16"},
    "ours, activations computed again": {"recompute_activations": True},
    "ours, compiled": {"compile": True},
}
ON_GPU: dict[str, dict[str, Any]] = {
    "ours, float16": {"precision": "float16"},
    "ours, all of it": {"precision": "bfloat16", "compile": True, "recompute_activations": True},
}
CATEGORIES, OCCURRING = 19, 12  # about as many occur in a crop of Cityscapes
ACTIVE, CERTAIN = 0.8, 0.75  # shares of pixels that get a label, about as in the demo
SAMPLE, AT_LEAST = 5.0, 2  # steps are timed for so many seconds, and at least so many steps
MATRIX = 2048


class Row(NamedTuple):
    """What was measured: seconds of steps, peak memory in GiB, operations of a matrix product a second."""

    seconds: list[float]
    memory: float
    rate: float


class WithoutFiles(Run):
    """A training verb that opens nothing."""

    def __post_init__(self) -> None:
        self.device = prepare(self.configuration.compute.threads)


class Setting(NamedTuple):
    """What the step of a stage is given: a network, anchors, thresholds and one batch of either domain."""

    run: Run
    network: SegmentationNetwork
    anchors: Anchors
    thresholds: dict[str, float]
    batch: Batch


def configured(network: str, threads: int, **compute: Any) -> Configuration:
    """The configuration with this network."""
    os.environ.setdefault("DATA_ROOT", "nowhere")
    made = load_configuration(CONFIG / FILES[network])
    changed = made.compute.model_copy(update={"threads": threads, **compute})
    return made.model_copy(update={"compute": changed})


def images_of(configuration: Configuration, batch: int) -> tuple[int, int, int]:
    """How many images a batch has, their height and width."""
    if street := configuration.street:
        return configuration.stages.batch_size, street.height, street.width
    assert configuration.stages.augmentation.crop is not None
    return batch, *configuration.stages.augmentation.crop


@torch.no_grad()
def setting(configuration: Configuration, shape: tuple[int, int, int]) -> Setting:
    """A network that labels its images much as a trained one does: by regions, with categories that do not occur."""
    run = WithoutFiles("step", configuration, 0, Path(), {})
    torch.manual_seed(0)
    network = build_network(configuration.network, CATEGORIES).to(run.device)
    for module in network.modules():
        if isinstance(module, Bottleneck):  # whole branches of random weights magnify rounding a thousandfold
            module.bn3.weight.fill_(0.2)
    count, *size = shape
    blocks = torch.randint(256, (2 * count, 3, size[0] // 32, size[1] // 32), dtype=torch.uint8)
    images = torch.nn.functional.interpolate(blocks, size, mode="nearest").to(run.device)
    scaled = (images.float() / 255).split(count)
    estimate_statistics(network, scaled)
    features, _ = network(scaled[1])
    pixels = features.movedim(1, -1).flatten(0, 2)
    vectors = pixels[torch.randperm(len(pixels))[:CATEGORIES].to(run.device)]
    vectors[OCCURRING:] *= -1  # far from every feature
    network.classifier.weight.copy_((vectors - vectors[:OCCURRING].mean(0))[:, :, None, None])
    assert network.classifier.bias is not None
    network.classifier.bias.copy_(-vectors.square().sum(1) / 2)
    first, second = network.classifier(features).topk(2, dim=1).values.unbind(1)
    sharpness = 3.0 / (first - second).flatten().quantile(1 - CERTAIN)  # a softmax of 0.95 is a lead of 3
    for weight in network.classifier.parameters():
        weight.mul_(sharpness)
    present = torch.ones(CATEGORIES, dtype=torch.bool, device=run.device)
    gap = by_anchor(features, vectors, present, 0.0).margin
    confidence = by_probability(network.classifier(features), 0.0).confidence
    thresholds = {"margin": between(gap, ACTIVE), "p0": between(confidence, CERTAIN)}
    anchored = by_anchor(features, vectors, present, thresholds["margin"])
    probable = by_probability(network.classifier(features), thresholds["p0"])
    source = {"label": network(scaled[0])[1].argmax(1).to(torch.uint8)}
    target = {
        "anchor_label": pseudo_labels(anchored.nearest, anchored.active),
        "probability_label": pseudo_labels(probable.predicted, probable.active),
    }
    samples = ({"image": part.cpu()} for part in images.split(count))
    batch = tuple(sample | at_size(maps, size) for sample, maps in zip(samples, (source, target), strict=True))
    pairwise = torch.cdist(vectors, vectors).cpu().numpy()
    pixel_count = torch.full((CATEGORIES,), 1000).numpy()
    return Setting(run, network, Anchors(vectors.cpu().numpy(), pixel_count, pairwise[0], pairwise), thresholds, batch)


def between(values: Tensor, share: float) -> float:
    """A threshold that about this share of the values exceeds, amid the widest gap there, so that rounding moves none."""
    ordered = values.flatten().sort().values
    first, last = (int(len(ordered) * (1 - share + shift)) for shift in (-0.01, 0.01))
    at = first + int(ordered[first : last + 1].diff().argmax())
    return float(ordered[at : at + 2].mean())


def at_size(maps: Mapping[str, Tensor], size: Sequence[int]) -> dict[str, Tensor]:
    """Label maps (n, h, w) as a loader gives them."""
    return {name: torch.stack([enlarge(one, size)[..., :, :] for one in labels.cpu()]) for name, labels in maps.items()}


def job_of(given: Setting, way: str) -> Job:
    """The training that takes its steps in this way; the network is changed."""
    run, network = given.run, given.network
    training, recipe = run.configuration.stages, run.configuration.recipes["cag"]
    if way == AUTHORS:
        torch.use_deterministic_algorithms(False)
        labelling = copy.deepcopy(network).eval().requires_grad_(False)
        model = run.ready_to_train(network, training)
        step = authors_step(run, model, labelling, given.anchors, recipe, given.thresholds)
    else:
        model = run.ready_to_train(place(network, run.device), training)
        step = _objective_step(run, model, given.anchors, recipe, given.thresholds)
    scaler = GradScaler(run.device.type, enabled=run.configuration.compute.precision == "float16")
    optimiser = build_optimiser(network, training.optimiser, training.optimiser.learning_rate)
    return Job(way, {"network": network}, {"network": optimiser}, lambda _: iter(()), step, training, scaler)


@torch.no_grad()
def terms_of(given: Setting, way: str) -> dict[str, float]:
    """The loss terms of the batch, with batch normalisation and dropout as in evaluation."""
    job = job_of(given, way)
    job.modules["network"].eval()
    return {name: float(value) for _, terms in job.step(given.batch) for name, value in terms.items()}


def refuse_other_values(configuration: Configuration, shape: tuple[int, int, int]) -> None:
    """AssertionError unless the authors' way and ours give the same loss terms, to rounding."""
    theirs, ours = (terms_of(setting(configuration, shape), way) for way in (AUTHORS, OURS))
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        assert value > 0 and abs(theirs[name] / value - 1) < 1e-4, f"{name}: theirs {theirs[name]}, ours {value}"


def seconds_of(job: Job, batch: Batch, device: torch.device) -> float:
    """The wall-clock time of one update, until its results are there."""
    started = time.perf_counter()
    _gradients(job, iter([batch]))
    _update(job)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(given: Setting, way: str) -> Row:
    """What the steps of this way cost, in this process."""
    job, device = job_of(given, way), given.run.device
    on_gpu = device.type == "cuda"
    for _ in range(5 if on_gpu else 1):
        seconds_of(job, given.batch, device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    while len(seconds) < AT_LEAST or sum(seconds) < SAMPLE:
        seconds.append(seconds_of(job, given.batch, device))
    if on_gpu:
        memory = torch.cuda.max_memory_allocated() / 2**30
    else:
        (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
        memory = int(line.split()[1]) / 2**20
    return Row(seconds, memory, matrix_rate(given.run))


def matrix_rate(run: Run) -> float:
    """Operations a second in the product of two matrices, in the precision of the configuration: a median."""
    a, b = torch.rand(2, MATRIX, MATRIX, device=run.device, dtype=getattr(torch, run.configuration.compute.precision))
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        a @ b
        if run.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * MATRIX**3 / statistics.median(seconds[1:])


def operations(configuration: Configuration, shape: tuple[int, int, int]) -> int:
    """The arithmetic of the passes of both domains and of their derivatives, counted without computing."""
    with torch.device("meta"):
        network = build_network(configuration.network, CATEGORIES)
        images = torch.empty(shape[0], 3, *shape[1:])
    with FlopCounterMode(display=False) as counter:
        sum(maps.sum() for maps in network(images)).backward()
    return 2 * int(counter.get_total_flops())


def in_a_process(network: str, way: str, options: argparse.Namespace) -> Row | str:
    """A row measured in a fresh process, or why it could not be."""
    command = [sys.executable, __file__, "--row", network, way, "--batch", str(options.batch)]
    done = subprocess.run([*command, "--threads", str(options.threads)], check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return Row(*json.loads(done.stdout.splitlines()[-1]))
    return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]


def report(network: str, options: argparse.Namespace) -> None:
    """Measure a network and print its rows."""
    configuration = configured(network, options.threads)
    count, height, width = shape = images_of(configuration, options.batch)
    refuse_other_values(configuration, shape)
    ways = [*WAYS, *(ON_GPU if torch.cuda.is_available() else ())]
    order = [AUTHORS, OURS] * options.rounds + ways[2:]
    found: dict[str, list[Row]] = {way: [] for way in ways}
    name = f"{network}, {count} x {height}x{width}"
    for way in order:
        row = in_a_process(network, way, options)
        if isinstance(row, Row):
            found[way].append(row)
        else:
            print(f"| {name} | {way} | failed: {row} | | | | |")
    needed = operations(configuration, shape)
    base = summary(found[AUTHORS]) if found[AUTHORS] else Row([float("nan")], float("nan"), float("nan"))
    for way, rows in ((way, rows) for way, rows in found.items() if rows):
        (seconds,), memory, rate = summary(rows)
        ratios = f"{seconds / base.seconds[0]:.2f} | {memory:.2f} | {memory / base.memory:.2f}"
        print(f"| {name} | {way} | {seconds:.3g} | {ratios} | {seconds * rate / needed:.2f} |", flush=True)


def summary(rows: Sequence[Row]) -> Row:
    """The median time of all steps, the largest peak, and the median rate."""
    seconds = statistics.median(second for row in rows for second in row.seconds)
    return Row([seconds], max(row.memory for row in rows), statistics.median(row.rate for row in rows))


def caption(options: argparse.Namespace) -> str:
    """The machine, how busy it is, and what is measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{model}, {os.cpu_count()} cores"
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    return (
        f"{device}, {threads}, torch {torch.__version__}; the first two rows of a network in {options.rounds} processes "
        f"each, in turn; load before: {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=FILES, default=["small", "deeplab_v3plus"])
    parser.add_argument("--batch", type=int, default=1, help="images of each domain, for the two DeepLabs")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each of the first two rows of a network")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        network, way = options.row
        configuration = configured(network, options.threads, **(WAYS | ON_GPU)[way])
        given = setting(configuration, images_of(configuration, options.batch))
        print(json.dumps(measure(given, way)))
        return
    print(f"{caption(options)}\n")
    print("| network | step | s | of the authors' | peak GiB | of the authors' | times the floor |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for network in options.networks:
        report(network, options)


if __name__ == "__main__":
    main()
