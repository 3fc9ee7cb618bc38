"""What the passes over a set of frames cost beside the bare forward pass of the same network over the same images.

    python benchmarks/passes.py [--frames 256 6] [--repeats 5 3]

Prints a table in Markdown. A pass is what a verb does: it reads its inputs, decodes frames, runs the network, does what
the paper says with what comes out, and writes its artifact. The bare forward pass has the same images decoded in memory,
in the same batches. Both are of one process whose network has one thread; reading and writing have threads of their own,
which is where a second core is used. Passes and forward passes are taken in turn, round by round; medians over rounds.

The first network is the demo's at its size and batch size; the second is DeepLab v3+ with random weights, one image of
512x1024 a batch. `evaluate` makes three passes: over the evaluation frames, over the target frames for statistics, and
over the evaluation frames again; its forward pass makes the same three. "Beside" is what the process's other threads
did, in milliseconds of a core an image: on one core it would be added. "Once" is what does not grow with the frames,
from a pass over a single batch: the checkpoint is restored and its digest taken, and the artifact is written. The last
line says how much a core is slowed down by another one at work.
"""

import argparse
import contextlib
import functools
import io
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torchvision
import yaml
import zarr
from torch import Tensor

from caguda.artifacts.checkpoint import save_checkpoint
from caguda.artifacts.provenance import new_provenance
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.configfile import parse_configuration
from caguda.datasets.image_batches import frame_images, scaled
from caguda.datasets.io import read_image
from caguda.datasets.manifest import SetName, read_manifest
from caguda.networks.layers.batch_norm import estimate_statistics
from caguda.networks.layers.network import SegmentationNetwork
from caguda.recorded_settings import settings_of_run
from caguda.stages.anchors import construct_anchors, sum_part
from caguda.stages.check import check
from caguda.stages.evaluate import evaluate
from caguda.stages.evidence import write_part
from caguda.stages.evidence_store import create_evidence
from caguda.stages.generate import generate
from caguda.stages.runtime import configure_torch, restore_network

ROOT = Path(__file__).parents[1]
V3PLUS = {"name": "deeplab_v3plus", "backbone": "resnet101", "weights": "none"}


@dataclass(frozen=True)
class Experiment:
    """Generated frames, and a network with random weights, in a folder; all artifacts that a pass reads are made once."""

    folder: Path
    configuration: Configuration

    @classmethod
    def create(cls, folder: Path, frames: int, size: tuple[int, int], batch: int, **changes: Any) -> "Experiment":
        """With so many frames of `size` (height, width) in each of the three sets; `changes` are keys of the demo's."""
        folder.mkdir()
        values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
        counts = {f"{name}_frames": frames for name in ("source", "target", "evaluation")}
        values["street"] |= counts | dict(zip(("height", "width"), size, strict=True))
        values["compute"] |= {"threads": 1, "parts": 1, "inference_batch_size": batch}
        values |= {"data_root": str(folder / "data")} | changes
        made = cls(folder, parse_configuration(values, folder / "config.yaml"))
        with quiet():
            generate(made.configuration, folder / "data.json")
            check(made.configuration, folder / "manifest.json")
            made.network()
            made.anchors()
            made.store()
        return made

    @property
    def inputs(self) -> tuple[Configuration, Path, Path]:
        """What every pass reads."""
        return self.configuration, self.folder / "manifest.json", self.folder / "checkpoint.safetensors"

    def network(self) -> None:
        """The checkpoint: random weights, with the statistics that batch normalisation finds on the first frames."""
        torch.manual_seed(0)
        device = configure_torch(1)
        network = self.configuration.network.build(class_table(self.configuration).count).to(device)
        first = read_manifest(self.inputs[1]).frames("target")[:2]
        with torch.inference_mode():
            estimate_statistics(network, (scaled(read_image(frame.image)[None], device) for frame in first))
        settings = settings_of_run(self.configuration, "source_only")
        description = {
            "architecture": self.configuration.network.model_dump(mode="json"),
            "classes": list(class_table(self.configuration).names),
            "target_statistics": False,
            "metrics": {},
            "provenance": new_provenance("train", settings, [self.inputs[1]], 0, time.time(), self.inputs[1]),
        }
        save_checkpoint(self.inputs[2], network.cpu().state_dict(), description)

    def store(self) -> None:
        """An empty evidence store, in place of one that is there."""
        store, created = self.folder / "evidence.zarr", self.folder / "created.json"
        shutil.rmtree(store, ignore_errors=True)
        for journal in self.folder.glob("evidence.zarr.*.journal"):
            journal.unlink()
        create_evidence(*self.inputs, self.folder / "anchors.h5", store, created)

    def sums(self, part: int = 1, parts: int = 1) -> None:
        """The pass `anchor-part`, over the source."""
        sum_part(*self.inputs, part, parts, self.folder / f"sums{part}.h5")

    def anchors(self) -> None:
        """The same over all of it, and what little comes after it."""
        self.sums()
        construct_anchors(*self.inputs, [self.folder / "sums1.h5"], self.folder / "anchors.h5")

    def evidence(self, part: int = 1, parts: int = 1) -> None:
        """The pass `evidence-part`, into an empty store."""
        files = (self.folder / "anchors.h5", self.folder / "evidence.zarr")
        write_part(*self.inputs, *files, part, parts, self.folder / f"part{part}.json")

    def evaluation(self) -> None:
        """The passes of `evaluate`."""
        evaluate(*self.inputs, self.folder / "evaluation.json")

    def decoded(self, name: SetName) -> list[Tensor]:
        """The images of a set in memory, in batches."""
        manifest = read_manifest(self.inputs[1])
        return [frame_images(manifest.frames(name), batch) for batch in manifest.batches(name, self.batch)]

    @property
    def batch(self) -> int:
        """How many images a batch has."""
        return self.configuration.compute.inference_batch_size


def quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """A context in which nothing is printed."""
    return contextlib.redirect_stdout(io.StringIO())


@torch.inference_mode()
def forward(network: SegmentationNetwork, *sets: list[Tensor]) -> None:
    """The forward pass alone; of three sets the second for statistics."""
    device = network.classifier.weight.device
    for number, batches in enumerate(sets):
        if number == 1:
            estimate_statistics(network, (scaled(images, device) for images in batches))
            continue
        for images in batches:
            network(scaled(images, device))


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """The seconds of a call, and those of all cores together."""
    wall, cores = time.perf_counter(), time.process_time()
    with quiet():
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cores


PASSES: dict[str, tuple[Callable[[Experiment], None], tuple[SetName, ...]]] = {
    "evidence-part": (Experiment.evidence, ("target",)),
    "anchor-part, anchors": (Experiment.anchors, ("source",)),
    "evaluate": (Experiment.evaluation, ("evaluation", "target", "evaluation")),
}
"""Every pass, and the sets of its forward passes."""


class PassCost(NamedTuple):
    """Seconds an image of the bare forward pass, of ours and of other threads; those once; the ratio of the whole."""

    bare: float
    ours: float
    beside: float
    once: float
    whole: float


def cost_of(name: str, whole: Experiment, single: Experiment, repeats: int) -> PassCost:
    """What a pass costs; `single` has the frames of one batch."""
    network, _ = restore_network(whole.inputs[2], configure_torch(1), class_table(whole.configuration))
    run, set_names = PASSES[name]
    images = {of: whole.decoded(of) for of in set_names}
    sets = [images[of] for of in set_names]
    found: list[list[tuple[float, float]]] = [[], [], [], []]
    for _ in range(repeats + 1):
        for place, one in enumerate((single, whole)):
            with quiet():
                one.store()
            found[2 * place].append(timed(functools.partial(run, one)))
            taken = [batches[:1] for batches in sets] if one is single else sets
            found[2 * place + 1].append(timed(functools.partial(forward, network, *taken)))
    # The first round warms up.
    walls, cores = ([statistics.median(t[kind] for t in times[1:]) for times in found] for kind in (0, 1))
    more = sum(map(len, sets[0])) - whole.batch  # than the single batch has
    once, ours, bare = walls[0] - walls[1], walls[2] - walls[0], walls[3] - walls[1]
    beside = (cores[2] - cores[0]) - (cores[3] - cores[1])
    per_image = (seconds / (more * len(sets)) for seconds in (bare, ours, beside))
    return PassCost(*per_image, once, walls[2] / walls[3])


def measure(title: str, whole: Experiment, single: Experiment, repeats: int) -> None:
    """Prints a row for each pass; `single` has the frames of one batch."""
    for name in PASSES:
        cost = cost_of(name, whole, single, repeats)
        print(f"| {title} | {name} | {1000 * cost.bare:.2f} ms | {1000 * cost.ours:.2f} ms | {cost.ours / cost.bare:.3f} | "
              f"{1000 * cost.beside:.2f} ms | {cost.once:.2f} s | {cost.whole:.2f} |", flush=True)  # fmt: skip


def contention() -> float:
    """How many times as long a product of matrices takes while another thread copies memory; 1 with nothing shared."""
    matrices, memory, stop = torch.rand(2, 1024, 1024), torch.rand(2, 2**24), threading.Event()

    def multiplied() -> float:
        seconds = []
        for _ in range(100):
            started = time.perf_counter()
            torch.mm(matrices[0], matrices[1])
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    def copy() -> None:
        while not stop.is_set():
            memory[0].copy_(memory[1])

    alone, other = multiplied(), threading.Thread(target=copy)
    other.start()
    beside = multiplied()
    stop.set()
    other.join()
    return beside / alone


def machine() -> str:
    """The machine and the versions that are measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return (
        f"{model}, {os.cpu_count()} cores, one thread of torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"zarr {zarr.__version__}"
    )


def caption(repeats: list[int], frames: list[int]) -> str:
    """The machine, how busy it is, and what is measured."""
    return (
        f"{machine()}; {frames[0]} frames of 128x256 in batches of 8, medians of {repeats[0]}, and {frames[1]} of "
        f"512x1024 in batches of 1, medians of {repeats[1]}; load before: {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, nargs=2, default=[256, 6], help="of the small and of the large network")
    parser.add_argument("--repeats", type=int, nargs=2, default=[5, 3], help="timed rounds, of which the median counts")
    options = parser.parse_args()
    print(caption(options.repeats, options.frames), end="\n\n")
    print(
        "| network | pass | bare forward pass, an image | ours, an image | ratio | beside | once | ratio of the whole |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    kinds: list[tuple[str, tuple[int, int], int, dict[str, Any]]] = [
        ("small, 128x256", (128, 256), 8, {}),
        ("DeepLab v3+, 512x1024", (512, 1024), 1, {"network": V3PLUS}),
    ]
    for (title, size, batch, changes), frames, repeats in zip(kinds, options.frames, options.repeats, strict=True):
        if frames <= batch:
            continue
        with tempfile.TemporaryDirectory() as name:
            whole = Experiment.create(Path(name) / "whole", frames, size, batch, **changes)
            single = Experiment.create(Path(name) / "single", batch, size, batch, **changes)
            measure(title, whole, single, repeats)
    configure_torch(1)
    print(f"\nBeside a core that copies memory, a product of matrices takes {contention():.2f} times as long.")


if __name__ == "__main__":
    main()
