"""What label stores and evidence cost on disk and in time, beside a PNG and a npy file per image, and what their jobs need.

    python benchmarks/labels.py [--images 2975] [--rounds 15] [--frames 100 1000 3000]

Prints two tables in Markdown. The first is of images of 128x256 labels, smooth regions of 19 categories as a network
leaves them, DIFFERENT ones in turn, shard by shard. A training job reads the label maps of both rules of random images, and
`labels` all evidence of an image: medians over rounds in which every way reads the same images in turn, all of them in the
page cache; all must read the same values. The second is of the verbs evidence-part, with a small network on images of
64x128, and labels, without one: the peak memory of a process of its own.
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
from collections.abc import Callable, Mapping, Sequence
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
from caguda.artifacts.evidence import EVIDENCE, create_evidence_store
from caguda.artifacts.labels import LABELS, create_label_store
from caguda.artifacts.maps import open_store, write_shard
from caguda.artifacts.maps_metadata import shard_size
from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.configfile import load_configuration, parse_configuration
from caguda.runs import rules_by_folder
from caguda.stages.anchors import construct_anchors, sum_part
from caguda.stages.check import check
from caguda.stages.evidence_store import create_evidence, verify_evidence
from caguda.stages.train import train_model

ROOT = Path(__file__).parents[1]
LABEL_IDS = CITYSCAPES_19.label_ids
HEIGHT, WIDTH, DIFFERENT, READS, BATCH = 128, 256, 200, 300, 8
RULES = ("anchor", "probability")
STORES, PNG, NPY = "label stores of both rules", "PNG per label map, Pillow", "npy per label map"
SEEN, SEEN_NPY = "evidence store", "npy per array of evidence"
MEASURED = (
    "import re, sys; from pathlib import Path; from caguda.cli import main; code = main(sys.argv[1:]); "
    r"print(*re.findall(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())); sys.exit(code)"
)
"""Calls a verb, and prints its peak memory in KiB: that of the process that started it is not counted, as in ru_maxrss."""
Maps = dict[str, np.ndarray]


def image(random: torch.Generator) -> tuple[Maps, dict[str, Maps]]:
    """The evidence of one image, and its labels by rule: of smooth random logits, most pixels active."""
    logits = 4 * interpolate(torch.randn(1, 19, 8, 16, generator=random), size=(HEIGHT, WIDTH), mode="bicubic")[0]
    logits += 0.3 * torch.randn(logits.shape, generator=random)
    largest, predicted = logits.softmax(0).max(0)
    two, order = (logits + 0.5 * torch.randn(logits.shape, generator=random)).topk(2, 0)
    seen = {
        "nearest_anchor": order[0].byte(),
        "margin": two[0] - two[1],
        "predicted": predicted.byte(),
        "confidence": largest,
    }
    active = {
        "anchor": (seen["margin"] > 1.0, seen["nearest_anchor"]),
        "probability": (largest > 0.9, seen["predicted"]),
    }
    labels = {
        rule: {"active": where.byte().numpy(), "label": torch.where(where, of, IGNORE).byte().numpy()}
        for rule, (where, of) in active.items()
    }
    return {name: values.numpy().copy() for name, values in seen.items()}, labels


def shard_of(maps: Sequence[Maps]) -> Maps:
    """The maps of some images as a shard has them."""
    return {name: np.stack([one[name] for one in maps]) for name in maps[0]}


def write_all(folder: Path, images: list[tuple[Maps, dict[str, Maps]]], count: int) -> dict[str, float]:
    """Milliseconds to write an image, by what is written; the median over shards, of which all ways write one in turn."""
    ids, shape, per_shard = [f"{i:04}" for i in range(count)], (HEIGHT, WIDTH), shard_size(count, BATCH)
    create_evidence_store(folder / "evidence.zarr", ids, shape, per_shard, CITYSCAPES_19, {})
    for rule in RULES:
        create_label_store(folder / f"{rule}.zarr", ids, shape, per_shard, CITYSCAPES_19, {})
    seen = open_store(folder / "evidence.zarr", EVIDENCE)
    labels = {rule: open_store(folder / f"{rule}.zarr", LABELS) for rule in RULES}
    for name in ("png", "npy", "seen"):
        (folder / name).mkdir()

    def chosen(shard: range) -> list[tuple[Maps, dict[str, Maps]]]:
        return [images[index % len(images)] for index in shard]

    def as_labels(number: int) -> None:
        for rule, store in labels.items():
            write_shard(store, number, shard_of([of[rule] for _, of in chosen(store.shards[number])]))

    def as_evidence(number: int) -> None:
        write_shard(seen, number, shard_of([of for of, _ in chosen(seen.shards[number])]))

    def as_png(number: int) -> None:
        for index, (_, of) in zip(seen.shards[number], chosen(seen.shards[number]), strict=True):
            for rule in RULES:
                Image.fromarray(of[rule]["label"]).save(folder / "png" / f"{index}.{rule}.png")

    def as_npy(number: int) -> None:
        for index, (_, of) in zip(seen.shards[number], chosen(seen.shards[number]), strict=True):
            for rule in RULES:
                np.save(folder / "npy" / f"{index}.{rule}.npy", of[rule]["label"])

    def seen_as_npy(number: int) -> None:
        for index, (of, _) in zip(seen.shards[number], chosen(seen.shards[number]), strict=True):
            for name, values in of.items():
                np.save(folder / "seen" / f"{index}.{name}.npy", values)

    ways = {STORES: as_labels, PNG: as_png, NPY: as_npy, SEEN: as_evidence, SEEN_NPY: seen_as_npy}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number, shard in enumerate(seen.shards):
        for way, write in ways.items():
            start = time.perf_counter()
            write(number)
            seconds[way].append((time.perf_counter() - start) / len(shard))
    return {way: 1000 * statistics.median(times) for way, times in seconds.items()}


def read_all(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Milliseconds to read the label maps, or the evidence, of a random image, by how; the median over rounds."""
    labels = [open_store(folder / f"{rule}.zarr", LABELS) for rule in RULES]
    seen = open_store(folder / "evidence.zarr", EVIDENCE)
    of_labels: dict[str, Callable[[int], list[np.ndarray]]] = {
        STORES: lambda i: [store.read(i, "label") for store in labels],
        PNG: lambda i: [np.asarray(Image.open(folder / "png" / f"{i}.{rule}.png")) for rule in RULES],
        NPY: lambda i: [np.load(folder / "npy" / f"{i}.{rule}.npy") for rule in RULES],
    }
    of_evidence: dict[str, Callable[[int], list[np.ndarray]]] = {
        SEEN: lambda i: list(seen.read_all(i).values()),
        SEEN_NPY: lambda i: [np.load(folder / "seen" / f"{i}.{name}.npy") for name in EVIDENCE.dtypes],
    }
    random, seconds = np.random.default_rng(0), {way: list[float]() for way in (*of_labels, *of_evidence)}
    for _ in range(rounds):
        chosen = random.integers(0, count, READS).tolist()
        for ways in (of_labels, of_evidence):
            sums = set()
            for way, read in ways.items():
                start = time.perf_counter()
                maps = [read(index) for index in chosen]
                seconds[way].append((time.perf_counter() - start) / READS)
                sums.add(sum(float(one.sum(dtype=np.float64)) for each in maps for one in each))
            assert len(sums) == 1, "all ways must read the same values"
    return {way: 1000 * statistics.median(times) for way, times in seconds.items()}


def mebibytes(*paths: Path) -> float:
    """The sum of the sizes of all files below some folders."""
    return sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file()) / 2**20


def number_of_files(folder: Path) -> int:
    """How many files a folder holds."""
    return sum(path.is_file() for path in folder.rglob("*"))


def formats(count: int, rounds: int) -> None:
    """Prints the table of formats."""
    random = torch.Generator().manual_seed(0)
    images = [image(random) for _ in range(min(count, DIFFERENT))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written, read = write_all(folder, images, count), read_all(folder, count, rounds)
        places = {
            STORES: [f"{rule}.zarr" for rule in RULES],
            PNG: ["png"],
            NPY: ["npy"],
            SEEN: ["evidence.zarr"],
            SEEN_NPY: ["seen"],
        }
        sizes = {way: mebibytes(*(folder / place for place in named)) for way, named in places.items()}
        files = {way: sum(map(number_of_files, (folder / place for place in named))) for way, named in places.items()}
    print("| format | size | files | write an image | read an image | of PNG's time |\n|---|---:|---:|---:|---:|---:|")
    for way, milliseconds in written.items():
        of_png = f"{read[way] / read[PNG]:.2f}" if way in (STORES, PNG, NPY) else ""
        cells = [f"{sizes[way]:.0f} MiB", str(files[way]), f"{milliseconds:.2f} ms", f"{read[way]:.3f} ms", of_png]
        print(f"| {way} | {' | '.join(cells)} |")


def experiment(folder: Path, frames: int) -> list[Path]:
    """Manifest, checkpoint, anchors and evidence store of the demo with `frames` random target images; config.json is beside."""
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
    values["runs"]["source_only"]["iterations"], values["compute"]["parts"] = 1, 1
    configuration = parse_configuration(values, folder / "config.yaml")
    manifest, checkpoint, anchors, store = (
        folder / name for name in ("manifest.json", "checkpoint.safetensors", "anchors.h5", "evidence.zarr")
    )
    check(configuration, manifest)
    train_model(configuration, 0, "source_only", [manifest], checkpoint, folder / "state")
    sum_part(configuration, manifest, checkpoint, 1, 1, folder / "sums.h5")
    construct_anchors(configuration, manifest, checkpoint, [folder / "sums.h5"], anchors)
    create_evidence(configuration, manifest, checkpoint, anchors, store, folder / "created.json")
    write_json(folder / "config.json", configuration.model_dump(mode="json"))
    return [manifest, checkpoint, anchors, store]


def jobs(frames: int) -> list[tuple[float, float]]:
    """The peak memory in MiB, and the seconds, of `evidence-part` and of `labels` by anchors over some frames."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            paths = experiment(folder, frames)
        given = dict(zip(("manifest", "checkpoint", "anchors", "store"), paths, strict=True))
        found = [job("evidence-part", folder, given | {"part": 1, "parts": 1, "output": folder / "part.json"})]
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            verify_evidence(paths[-1], [folder / "part.json"], folder / "evidence.json")
        rule, *_ = rules_by_folder(load_configuration(folder / "config.json"))
        given = {
            "evidence": folder / "evidence.json",
            "store": folder / "labels.zarr",
            "output": folder / "labels.json",
        }
        return [*found, job("labels", folder, given | {"rule": rule})]


def job(verb: str, folder: Path, given: Mapping[str, object]) -> tuple[float, float]:
    """The peak memory in MiB, and the seconds, of a verb in a process of its own."""
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-c", MEASURED, verb, "--config", f"{folder}/config.json", *options]
    start = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
    )
    return int(done.stdout.splitlines()[-1]) / 1024, time.perf_counter() - start


def caption(count: int, rounds: int) -> str:
    """The machine, how busy it is, and what is measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return (
        f"{model}, {os.cpu_count()} cores, zarr {zarr.__version__}, pillow {PIL.__version__}, numpy {np.__version__}; "
        f"{count} images of {WIDTH}x{HEIGHT}, medians of the writes of all shards and of {rounds} rounds of {READS} random reads; "
        f"load before: {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2975)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of random reads, of which the median counts")
    parser.add_argument(
        "--frames", type=int, nargs="*", default=[100, 1000, 3000], help="how many target frames the jobs get"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(caption(options.images, options.rounds), end="\n\n")
    formats(options.images, options.rounds)
    print("\n| target frames | peak memory of evidence-part | takes | of labels | takes |\n|---:|---:|---:|---:|---:|")
    for frames in options.frames:
        cells = [cell for peak, seconds in jobs(frames) for cell in (f"{peak:.0f} MiB", f"{seconds:.0f} s")]
        print(f"| {frames} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
