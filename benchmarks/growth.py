"""How the cost of the passes over frames grows with their number, their size, the categories, the parts and the stages.

    python benchmarks/growth.py [--images 100 300 1000]

Prints two tables in Markdown. Each cell of the first is of a process of its own that makes one pass with the demo's
network (evidence-part, anchor-part, or the three passes of evaluate): its seconds, those of all cores together and without
its start, and its peak memory (VmHWM). The exponent is the slope of log time over log size by least squares: 1 where
cost is proportional, 0 where it stays. With parts, seconds are those of all parts, and memory is the largest of a part.
The second table is of the workflow with more stages: jobs and the seconds of a dry run.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from passes import Experiment, machine

from caguda.artifacts.atomic import write_json
from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.configfile import load_configuration
from workflow import plan

ROOT = Path(__file__).parents[1]
PASSES = {"evidence-part": Experiment.evidence, "anchor-part": Experiment.sums, "evaluate": Experiment.evaluation}
DIVIDED = ("evidence-part", "anchor-part")
FEW, SIZE, CATEGORIES = 100, (128, 256), (19, 50, 150)
SIZES = ((64, 128), (128, 256), (256, 512))
PARTS, STAGES = (1, 2, 4), (1, 3, 9)


def classes(count: int) -> dict[str, Any]:
    """The 19 categories of the frames, and others that no frame has."""
    table = CITYSCAPES_19.train_id
    known = {train: value for value, train in table.items() if train != IGNORE}
    ids = [known[train] if train in known else 40 + train for train in range(count)]
    names = [*CITYSCAPES_19.names, *(f"category {train}" for train in range(19, count))]
    entries = [{"id": i, "name": name, "color": [i, i, i]} for i, name in zip(ids, names, strict=True)]
    return {"classes": entries, "ignore": [value for value, train in table.items() if train == IGNORE]}


def created(folder: Path, frames: int, size: tuple[int, int] = SIZE, **changes: Any) -> Path:
    """The folder of an experiment that another process can make a pass in."""
    made = Experiment.create(folder, frames, size, 8, **changes)
    write_json(folder / "config.json", made.configuration.model_dump(mode="json"))
    return folder


def one(name: str, folder: Path, part: int, parts: int) -> None:
    """A pass in this process; prints its seconds and its peak memory in MiB."""
    experiment = Experiment(folder, load_configuration(folder / "config.json"))
    began = time.process_time()
    PASSES[name](experiment, *((part, parts) if name in DIVIDED else ()))
    seconds = time.process_time() - began
    peak = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0]
    print(json.dumps([seconds, int(peak) / 1024]))


def passed(name: str, folder: Path, parts: int = 1) -> tuple[float, float]:
    """The same of all parts, each in a process of its own: seconds together, and the largest peak."""
    if name == "evidence-part":
        for left in (*folder.glob("evidence.zarr/*/c.*.0.0"), *folder.glob("evidence.zarr.*.journal")):
            left.unlink()
    found = []
    for part in range(1, parts + 1):
        command = [sys.executable, __file__, "--one", name, str(folder), str(part), str(parts)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(printed.splitlines()[-1]))
    seconds, peaks = zip(*found, strict=True)
    return sum(seconds), max(peaks)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log size by least squares."""
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(c) for c in costs]).slope


def row(what: str, name: str, sizes: Sequence[float], found: Sequence[tuple[float, float]], shown: str) -> None:
    """Prints a row: the costs at three sizes, the exponent, and the peaks."""
    seconds, peaks = zip(*found, strict=True)
    cells = [what, name, shown, ", ".join(f"{s:.2f}" for s in seconds), f"{exponent(sizes, seconds):.2f}",
             ", ".join(f"{p:.0f}" for p in peaks)]  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)


def passes(root: Path, images: Sequence[int]) -> None:
    """Prints the table of passes."""
    print("| with more | pass | of | seconds | exponent | peak memory, MiB |\n|---|---|---|---:|---:|---:|")
    folders = {count: created(root / f"images{count}", count) for count in images}
    for name in PASSES:
        row("images", name, images, [passed(name, folders[n]) for n in images], ", ".join(map(str, images)))
    middle = folders[images[len(images) // 2]]
    for name in DIVIDED:
        row("parts", name, PARTS, [passed(name, middle, n) for n in PARTS], ", ".join(map(str, PARTS)))
    sized = [created(root / f"size{width}", FEW, (height, width)) for height, width in SIZES]
    pixels = [height * width for height, width in SIZES]
    for name in PASSES:
        shown = ", ".join(f"{height}x{width}" for height, width in SIZES)
        row("pixels", name, pixels, [passed(name, folder) for folder in sized], shown)
    many = [created(root / f"classes{count}", FEW, **classes(count)) for count in CATEGORIES]
    for name in PASSES:
        row("categories", name, CATEGORIES, [passed(name, folder) for folder in many], ", ".join(map(str, CATEGORIES)))


def stages(root: Path) -> None:
    """Prints the table of stages."""
    print("\n| stages | jobs | dry run, s |\n|---:|---:|---:|")
    values = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8")) | {"tables": {}}
    for count in STAGES:
        values["runs"]["cag"]["stages"] = count
        configfile = root / f"stages{count}.yaml"
        configfile.write_text(yaml.safe_dump(values), encoding="utf-8")
        (root / f"plan{count}").mkdir()
        seconds, jobs = plan(root / f"plan{count}", [configfile], "all")
        print(f"| {count} | {jobs} | {seconds:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--one", nargs=4, metavar=("PASS", "FOLDER", "PART", "PARTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, folder, part, parts = options.one
        return one(name, Path(folder), int(part), int(parts))
    print(f"{machine()}; load before: {os.getloadavg()[0]:.1f}.\n")
    with tempfile.TemporaryDirectory() as root:
        passes(Path(root), options.images)
        stages(Path(root))
    return None


if __name__ == "__main__":
    main()
