"""What the confusion matrix of one image of Cityscapes' size costs, beside cityscapesScripts and torchmetrics.

    python benchmarks/evaluation.py [--threads 1] [--repeats 15]

Prints a table in Markdown: medians, and how many times as long as the first row of the kind takes. All rows are measured
in turn, round by round, each for at least a fifth of a second, so that what else the machine does falls on each of them
alike; all must find the same matrix.

"In memory" has both label maps as arrays; cityscapesScripts, which knows files alone, is then given them in place of
files. "From files" begins with PNG files. "As shipped" is cityscapesScripts with its defaults, which scores instances
too and reads a third file for that; ours does not. The image has 7 people and 12 cars, about what one of Cityscapes has.
"""

import argparse
import copy
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from PIL import Image, ImageDraw
from torchmetrics.functional.classification import multiclass_confusion_matrix

from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.datasets.io import read_label
from caguda.equations.metrics import confusion_matrix
from caguda.stages.evaluate import confusion_of

if not hasattr(np, "in1d"):  # a stand-in: cityscapesScripts 2.3 scores instances by what NumPy 2.4 has under this name
    np.in1d = np.isin  # type: ignore[attr-defined]

HEIGHT, WIDTH = 1024, 2048
LABEL_IDS = CITYSCAPES_19.label_ids.tolist()
VOID, ROAD, SKY, PERSON, CAR = [0, 3, 4], 7, 23, 24, 26
SHIPPED, ALONE = "cityscapesScripts as shipped", "cityscapesScripts without instance scores"
OURS, BY_TWO, AS_EVALUATE = "ours", "ours, two images at a time", "ours as in `evaluate`: the prediction is in memory"
SAMPLE = 0.2  # seconds


class InMemory:
    """What cityscapesScripts asks of an opened image: its size, and its values as an array."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.size = values, values.shape[::-1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values


def label_maps() -> dict[str, np.ndarray]:
    """Truth with void regions and its instances, and a prediction that errs at contours and in places, as label ids."""
    random = np.random.default_rng(0)
    instances = Image.new("I", (WIDTH, HEIGHT), SKY)
    draw = ImageDraw.Draw(instances)

    def regions(count: int, values: list[int]) -> None:
        for _ in range(count):
            centre, size = random.integers(0, (WIDTH, HEIGHT)), random.integers(20, 400, 2)
            angles = np.linspace(0, 2 * np.pi, 24)
            corners = centre + size * np.stack([np.cos(angles), np.sin(angles)], 1) * random.uniform(0.6, 1, (24, 1))
            draw.polygon([tuple(corner) for corner in corners.tolist()], fill=int(random.choice(values)))

    regions(150, [*VOID, *LABEL_IDS])
    for number in range(19):
        x, y = random.integers(0, (WIDTH - 150, HEIGHT - 150)).tolist()
        kind, width, height = (PERSON, 55, 150) if number < 7 else (CAR, 150, 100)
        draw.ellipse((x, y, x + width, y + height), fill=1000 * kind + number)
    truth = np.array(instances)
    regions(15, LABEL_IDS)
    wrong = np.roll(np.array(instances), (3, 5), (0, 1))
    guess = np.where(wrong < 1000, wrong, wrong // 1000)
    return {
        "labelIds": np.where(truth < 1000, truth, truth // 1000).astype(np.uint8),
        "instanceIds": truth.astype(np.uint16),
        "prediction": np.where(np.isin(guess, LABEL_IDS), guess, ROAD).astype(np.uint8),
    }


def scripts(opened: Callable[[str], Any], truth: str, prediction: str, instances: bool) -> torch.Tensor:
    """The matrix of cityscapesScripts among its 19 judged categories; `opened` is how it opens a file.

    What it prints and writes about all images together is left out.
    """
    settings = copy.copy(official.args)
    settings.evalInstLevelScore = instances
    official.Image = SimpleNamespace(open=opened)
    matrix, found = official.generateMatrix(settings), official.generateInstanceStats(settings)
    official.evaluatePair(prediction, truth, matrix, found, {}, settings)
    return torch.from_numpy(matrix[np.ix_(LABEL_IDS, LABEL_IDS)].astype(np.int64))


def rows(folder: Path) -> dict[tuple[str, str], Callable[[], torch.Tensor]]:
    """What is measured, by what it begins with and by who does it; ours is the first of each kind."""
    arrays = label_maps()
    files = {name: folder / f"{name}.png" for name in arrays}
    for name, values in arrays.items():
        Image.fromarray(values).save(files[name])
    truth, prediction = (read_label(files[name], CITYSCAPES_19)[None] for name in ("labelIds", "prediction"))
    long_truth, opened, pool = truth.long(), Image.open, ThreadPoolExecutor(2)

    def read(path: Path) -> torch.Tensor:
        return read_label(path, CITYSCAPES_19)[None]

    def counted(_: int = 0) -> torch.Tensor:
        return confusion_matrix(read(files["prediction"]), read(files["labelIds"]), 19)

    def torchmetrics(validate: bool) -> torch.Tensor:
        found: torch.Tensor = multiclass_confusion_matrix(
            prediction, long_truth, 19, ignore_index=IGNORE, validate_args=validate
        )
        return found

    def of_files(instances: bool) -> torch.Tensor:
        return scripts(opened, str(files["labelIds"]), str(files["prediction"]), instances)

    memory, disk = "in memory", "from files"
    return {
        (memory, OURS): lambda: confusion_matrix(prediction, truth, 19),
        (memory, ALONE): lambda: scripts(lambda name: InMemory(arrays[name]), "labelIds", "prediction", False),
        (memory, "torchmetrics"): lambda: torchmetrics(True),
        (memory, "torchmetrics, unchecked"): lambda: torchmetrics(False),
        (disk, OURS): counted,
        (disk, BY_TWO): lambda: next(iter(list(pool.map(counted, range(2))))),
        (disk, AS_EVALUATE): lambda: confusion_of(prediction[0], files["labelIds"], CITYSCAPES_19),
        (disk, SHIPPED): lambda: of_files(True),
        (disk, ALONE): lambda: of_files(False),
    }


def seconds_of(run: Callable[[], object]) -> float:
    """The mean time of as many calls as take SAMPLE seconds."""
    calls, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SAMPLE:
        run()
        calls += 1
    return passed / calls


def caption(repeats: int) -> str:
    """The machine, how busy it is, and whose versions are measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    threads = torch.get_num_threads()
    return (
        f"{model}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}, "
        f"numpy {np.__version__}, an image of {WIDTH}x{HEIGHT}, median of {repeats}; cityscapesScripts "
        f"{'with' if official.CSUPPORT else 'without'} its cython part; load before: {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of torch; the others have one")
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each row, of which the median counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{caption(options.repeats)}\n\n| what | by | time | times ours |\n|---|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        measured = rows(Path(folder))
        expected = measured["in memory", OURS]()
        for row, run in measured.items():
            assert torch.equal(run(), expected), f"{row} found another matrix"
        seconds: dict[tuple[str, str], list[float]] = {row: [] for row in measured}
        for _ in range(options.repeats):
            for row, run in measured.items():
                seconds[row].append(seconds_of(run) / (2 if row[1] == BY_TWO else 1))
    medians = {row: statistics.median(times) for row, times in seconds.items()}
    for (what, name), median in medians.items():
        ratio = "" if name == OURS else f"{median / medians[what, OURS]:.1f}"
        print(f"| {what} | {name} | {1000 * median:.1f} ms | {ratio} |")
    for name in (BY_TWO, AS_EVALUATE):
        print(f"\n{SHIPPED}: {medians['from files', SHIPPED] / medians['from files', name]:.1f} times {name}.")


if __name__ == "__main__":
    main()
