"""What a label store costs on disk and in time, beside a PNG and a npy file per image, and what the label job needs.

    python benchmarks/labels.py [--images 2975] [--rounds 15] [--frames 100 1000 3000]

Prints two tables in Markdown. The first is of images of 128x256 labels, smooth regions of 19 categories as a network
leaves them, DIFFERENT ones in turn. A training job reads the two label maps of random images: medians over rounds in
which every way reads the same images in turn, all of them in the page cache; all must read the same values. The second
is of the verb label-part with a small network on images of 64x128: the peak memory of a process of its own.
"""

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import PIL
import torch
import yaml
import zarr
from PIL import Image
from torch.nn.functional import interpolate

from caguda.artifacts.atomic import write_json
from caguda.artifacts.label_arrays import NAMES
from caguda.artifacts.labels import LabelArrays, create_label_store, open_label_store, write_labels
from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.configfile import parse_configuration
from caguda.stages.anchors import construct_anchors, sum_part
from caguda.stages.check import check
from caguda.stages.labels import create_store
from caguda.stages.supervised import pretrain

ROOT = Path(__file__).parents[1]
LABEL_IDS = CITYSCAPES_19.label_ids
HEIGHT, WIDTH, DIFFERENT, READS = 128, 256, 200, 300
MAPS = ("anchor_label", "probability_label")
STORE, PNG, NPY = "label store", "PNG per image, Pillow", "npy per image"


def image(random: torch.Generator) -> LabelArrays:
    """The arrays of one image: the categories of smooth random logits, most of them active."""
    logits = 4 * interpolate(torch.randn(1, 19, 8, 16, generator=random), size=(HEIGHT, WIDTH), mode="bicubic")[0]
    logits += 0.3 * torch.randn(logits.shape, generator=random)
    largest, predicted = logits.softmax(0).max(0)
    two, order = (logits + 0.5 * torch.randn(logits.shape, generator=random)).topk(2, 0)
    margin = two[0] - two[1]
    active = (margin > 1.0) + 2 * (largest > 0.9).byte()
    near, probable = order[0].byte(), predicted.byte()
    labels = [torch.where(active & bit > 0, of, IGNORE) for bit, of in ((1, near), (2, probable))]
    arrays = (active.byte(), *labels, near, probable, margin.half(), largest.half())
    return LabelArrays(*(array.numpy().copy() for array in arrays))


def write_all(folder: Path, images: list[LabelArrays], count: int) -> dict[str, float]:
    """Milliseconds to write an image, by what is written; the median."""
    store = folder / "labels.zarr"
    create_label_store(store, [f"{i:04}" for i in range(count)], HEIGHT, WIDTH, CITYSCAPES_19, {"margin": 1, "p0": 0.9})
    opened = open_label_store(store)
    for name in ("png", "npy", "npy7"):
        (folder / name).mkdir()

    def as_png(index: int, labels: LabelArrays) -> None:
        for name in MAPS:
            Image.fromarray(getattr(labels, name)).save(folder / "png" / f"{index}.{name}.png")

    def as_npy(place: str, names: tuple[str, ...]) -> Callable[[int, LabelArrays], None]:
        return lambda i, labels: [np.save(folder / place / f"{i}.{name}.npy", getattr(labels, name)) for name in names]

    ways: dict[str, Callable[[int, LabelArrays], object]] = {
        STORE: lambda index, labels: write_labels(opened, index, labels),
        PNG: as_png,
        NPY: as_npy("npy", MAPS),
        f"{NPY}, seven arrays": as_npy("npy7", NAMES),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for index in range(count):
        for way, write in ways.items():
            start = time.perf_counter()
            write(index, images[index % len(images)])
            seconds[way].append(time.perf_counter() - start)
    return {way: 1000 * statistics.median(times) for way, times in seconds.items()}


def read_all(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Milliseconds to read the two label maps of a random image, by how; the median over rounds."""
    store = open_label_store(folder / "labels.zarr")
    ways: dict[str, Callable[[int], list[np.ndarray]]] = {
        STORE: lambda i: [store.read_array(i, name) for name in MAPS],
        PNG: lambda i: [np.asarray(Image.open(folder / "png" / f"{i}.{name}.png")) for name in MAPS],
        NPY: lambda i: [np.load(folder / "npy" / f"{i}.{name}.npy") for name in MAPS],
    }
    random, seconds = np.random.default_rng(0), {way: [] for way in ways}
    for _ in range(rounds):
        chosen = random.integers(0, count, READS).tolist()
        sums = set()
        for way, read in ways.items():
            start = time.perf_counter()
            maps = [read(index) for index in chosen]
            seconds[way].append((time.perf_counter() - start) / READS)
            sums.add(sum(int(one.sum()) for pair in maps for one in pair))
        assert len(sums) == 1, "all ways must read the same values"
    return {way: 1000 * statistics.median(times) for way, times in seconds.items()}


def mebibytes(*paths: Path) -> float:
    """The sum of the sizes of all files below some folders."""
    return sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file()) / 2**20


def formats(count: int, rounds: int) -> None:
    """Prints the table of formats."""
    random = torch.Generator().manual_seed(0)
    images = [image(random) for _ in range(min(count, DIFFERENT))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written, read = write_all(folder, images, count), read_all(folder, count, rounds)
        store = folder / "labels.zarr"
        sizes = {
            STORE: mebibytes(*(store / name for name in MAPS)),
            PNG: mebibytes(folder / "png"),
            NPY: mebibytes(folder / "npy"),
        }
        seven = {STORE: mebibytes(store), f"{NPY}, seven arrays": mebibytes(folder / "npy7")}
    print(
        "| format | size of two label maps | of all seven arrays | write an image | read two label maps | of PNG's time |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for way, milliseconds in written.items():
        cells = [f"{sizes[way]:.0f} MiB" if way in sizes else "", f"{seven[way]:.0f} MiB" if way in seven else "",
                 f"{milliseconds:.2f} ms", f"{read[way]:.3f} ms" if way in read else "",
                 f"{read[way] / read[PNG]:.2f}" if way in read else ""]  # fmt: skip
        print(f"| {way} | {' | '.join(cells)} |")


def experiment(folder: Path, frames: int) -> list[Path]:
    """Manifest, checkpoint, anchors and store of the demo with `frames` random target images; config.json is beside."""
    random = np.random.default_rng(0)
    for name, count in (("source", 4), ("target", frames)):
        for number in range(count):
            content = {"images": random.integers(0, 256, (64, 128, 3)), "labels": random.choice(LABEL_IDS, (64, 128))}
            for kind, values in content.items():
                path = folder / name / kind / f"{number:05}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(path)
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    sets = {name: {"layout": "folder", "root": name} for name in ("source", "target")}
    values |= sets | {"street": None, "data_root": str(folder), "evaluation": sets["source"]}
    values["pretrain"]["iterations"] = 1
    configuration = parse_configuration(values, folder / "config.yaml")
    manifest, checkpoint, anchors, store = (
        folder / name for name in ("manifest.json", "checkpoint.safetensors", "anchors.h5", "labels.zarr")
    )
    check(configuration, manifest)
    pretrain(configuration, seed=0, manifest=manifest, output=checkpoint, state=folder / "state")
    sum_part(configuration, manifest, checkpoint, 1, 1, folder / "sums.h5")
    construct_anchors(configuration, manifest, checkpoint, [folder / "sums.h5"], anchors)
    create_store(configuration, manifest, checkpoint, anchors, store, folder / "created.json")
    write_json(folder / "config.json", configuration.model_dump(mode="json"))
    return [manifest, checkpoint, anchors, store]


def label_job(frames: int) -> tuple[float, float]:
    """The peak memory in MiB, and the seconds, of `label-part` over some frames in a process of its own."""
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as silence:
        with contextlib.redirect_stdout(silence):
            paths = experiment(Path(name), frames)
        given = zip(("--manifest", "--checkpoint", "--anchors", "--store"), map(str, paths), strict=True)
        command = [sys.executable, "-m", "caguda", "label-part", "--config", f"{name}/config.json", "--part", "1",
                   "--parts", "1", "--output", f"{name}/part.json", *(word for pair in given for word in pair)]  # fmt: skip
        start = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=silence)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, "label-part failed"
    return usage.ru_maxrss / 1024, time.perf_counter() - start


def caption(count: int, rounds: int) -> str:
    """The machine, how busy it is, and what is measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return (
        f"{model}, {os.cpu_count()} cores, zarr {zarr.__version__}, pillow {PIL.__version__}, numpy {np.__version__}; "
        f"{count} images of {WIDTH}x{HEIGHT}, medians of {count} writes and of {rounds} rounds of {READS} random reads; "
        f"load before: {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2975)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of random reads, of which the median counts")
    parser.add_argument("--frames", type=int, nargs="*", default=[100, 1000, 3000], help="how many the label job gets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(caption(options.images, options.rounds), end="\n\n")
    formats(options.images, options.rounds)
    print("\n| target frames | peak memory of the label job | takes |\n|---:|---:|---:|")
    for frames in options.frames:
        peak, seconds = label_job(frames)
        print(f"| {frames} | {peak:.0f} MiB | {seconds:.0f} s |")


if __name__ == "__main__":
    main()
