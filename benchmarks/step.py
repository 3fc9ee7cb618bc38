"""What one training step of a stage costs in time and memory, at the size of the paper's images.

    python benchmarks/step.py [--height 640] [--width 1280] [--threads 1] [--limit 1200]

Prints a table in Markdown: DeepLab v2 and v3+ on a ResNet-101, one image of each domain, frozen batch normalisation,
SGD, and the five losses of Eq. 12. Every row is measured in a process of its own: on a CPU the second step and the peak
of the process's memory (Linux only), with a GPU the median of ten steps after five others and the peak of what torch
has allocated there. A quarter of an hour and up to 20 GB of memory on a CPU.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from caguda.config import DeepLab
from caguda.method.anchors import labels_at
from caguda.method.losses import cross_entropy, distance_loss
from caguda.models.batch_norm import freeze
from caguda.models.build import build_network
from caguda.models.checkpointing import recompute_activations
from caguda.stages.runtime import place, prepare
from caguda.stages.supervised import image_cross_entropy

CATEGORIES, CHANNELS = 19, 256
WARM_UP, STEPS = 5, 10
GIB = 2**30


@dataclass(frozen=True)
class Variant:
    """A network and how the machine is used for it."""

    network: Literal["deeplab_v2", "deeplab_v3plus"]
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    recompute_activations: bool = False

    @property
    def title(self) -> str:
        parts = [self.precision, "channels last" if self.channels_last else "NCHW"]
        return ", ".join(parts + ["compiled"] * self.compile + ["activations recomputed"] * self.recompute_activations)


def variants(network: Literal["deeplab_v2", "deeplab_v3plus"], on_gpu: bool) -> list[Variant]:
    """What is measured: a baseline, and then one choice at a time; the last row has them all."""
    if not on_gpu:
        return [
            Variant(network),
            Variant(network, recompute_activations=True),
            Variant(network, "bfloat16"),
            Variant(network, compile=True),
        ]
    return [
        Variant(network, channels_last=False),
        Variant(network),
        Variant(network, "bfloat16"),
        Variant(network, "float16"),
        Variant(network, compile=True),
        Variant(network, recompute_activations=True),
        Variant(network, "bfloat16", compile=True, recompute_activations=True),
    ]


class Step:
    """One update of a stage: a pass of the source, then one of the target, each differentiated before the next."""

    def __init__(self, variant: Variant, height: int, width: int, device: torch.device) -> None:
        self.precision, self.device = variant.precision, device
        torch.manual_seed(0)
        built = build_network(DeepLab(name=variant.network, weights="none"), CATEGORIES)
        network = (place(built, device) if variant.channels_last else built.to(device)).train()
        freeze(network)
        if variant.recompute_activations:
            recompute_activations(network)
        if variant.compile:
            network.compile()
        self.network = network
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.optimiser = SGD(weights, lr=1e-4, momentum=0.9, weight_decay=5e-4)
        self.scaler = GradScaler(device.type, enabled=self.precision == "float16")
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.images = [torch.rand(1, 3, height, width, device=device).contiguous(memory_format=layout) for _ in "st"]
        self.labels = torch.randint(CATEGORIES, (3, 1, height, width), device=device, dtype=torch.uint8)
        self.anchors = torch.rand(CATEGORIES, CHANNELS, device=device)
        self.present = torch.ones(CATEGORIES, dtype=torch.bool, device=device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, getattr(torch, self.precision), enabled=self.precision != "float32"):
            features, logits = self.network(images)
        return features.float(), logits.float()

    def __call__(self) -> None:
        source, by_anchor, by_probability = self.labels
        features, logits = self.forward(self.images[0])
        size = (features.shape[-2], features.shape[-1])
        truth, by_anchor, by_probability = (labels_at(maps, size) for maps in (source, by_anchor, by_probability))
        entropy = image_cross_entropy(logits, source).mean()
        distance = distance_loss(features, self.anchors, truth, self.present).mean()
        self.scaler.scale(entropy + 0.1 * distance).backward()
        features, logits = self.forward(self.images[1])
        distance = distance_loss(features, self.anchors, by_anchor, self.present).mean()
        entropies = cross_entropy(logits, by_anchor).mean() + cross_entropy(logits, by_probability).mean()
        self.scaler.scale(0.1 * distance + entropies).backward()
        self.scaler.step(self.optimiser)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.update()


def seconds_of(step: Step) -> float:
    """The wall-clock time of one step, until its results are there."""
    started = time.perf_counter()
    step()
    if step.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(variant: Variant, height: int, width: int, threads: int) -> tuple[float, float]:
    """Seconds of a step and the peak of memory in GiB, in this process."""
    step = Step(variant, height, width, prepare(threads))
    if step.device.type == "cpu":
        seconds_of(step)
        seconds = seconds_of(step)
        (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
        return seconds, int(line.split()[1]) / 2**20
    for _ in range(WARM_UP):
        seconds_of(step)
    torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(seconds_of(step) for _ in range(STEPS))
    return seconds, torch.cuda.max_memory_allocated() / GIB


def in_a_process(variant: Variant, arguments: argparse.Namespace) -> str:
    """The row of a variant, measured in a fresh process; one that fails or takes too long says so."""
    command = [sys.executable, __file__, "--variant", json.dumps(asdict(variant)), "--height", str(arguments.height)]
    command += ["--width", str(arguments.width), "--threads", str(arguments.threads)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=arguments.limit)
        seconds, memory = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else (None, None)
    except subprocess.TimeoutExpired:
        return f"| {variant.network} | {variant.title} | over {arguments.limit} | |"
    if seconds is None:
        reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return f"| {variant.network} | {variant.title} | failed: {reason} | |"
    return f"| {variant.network} | {variant.title} | {seconds:.2f} | {memory:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--height", type=int, default=640)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--limit", type=int, default=1200, help="seconds after which a row is given up")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        variant = Variant(**json.loads(arguments.variant))
        print(json.dumps(measure(variant, arguments.height, arguments.width, arguments.threads)))
        return
    on_gpu = torch.cuda.is_available()
    machine = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}, {os.cpu_count()} cores"
    print(
        f"{machine}; {arguments.height}x{arguments.width}, {arguments.threads} thread(s), torch {torch.__version__}\n"
    )
    print("| network | how | seconds a step | peak GiB |\n|---|---|---|---|")
    for network in ("deeplab_v2", "deeplab_v3plus"):
        for variant in variants(network, on_gpu):
            print(in_a_process(variant, arguments), flush=True)


if __name__ == "__main__":
    main()
