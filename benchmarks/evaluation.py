"""What the confusion matrix of one image of Cityscapes' size costs, beside cityscapesScripts and torchmetrics.

    python benchmarks/evaluation.py [--threads 1] [--repeats 15]

Prints a table in Markdown: medians, and how many times as long as ours. All rows are measured in turn, round by round,
each for at least a fifth of a second, so that what else the machine does falls on each of them alike; all must find the
same matrix. "Counting" has both label maps in memory; cityscapesScripts, which knows files alone, is then given arrays
in place of them. "Reading and counting" begins with two PNG files.
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
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from PIL import Image
from torchmetrics.functional.classification import multiclass_confusion_matrix

from caguda.classes import CITYSCAPES_19, IGNORE
from caguda.datasets.io import read_label
from caguda.method.metrics import confusion_matrix

HEIGHT, WIDTH = 1024, 2048
LABEL_IDS = [next(raw for raw, train in CITYSCAPES_19.train_id.items() if train == c) for c in range(19)]
OURS = "ours"
SAMPLE = 0.2  # seconds


class InMemory:
    """What cityscapesScripts asks of an opened image: its size, and its values as an array."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.size = values, values.shape[::-1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.values


def label_ids() -> tuple[np.ndarray, np.ndarray]:
    """Truth with void regions, and a prediction that errs on a fifth of its pixels, as Cityscapes' label ids."""
    random = np.random.default_rng(0)
    squares = random.choice(np.array([0, 3, 4, *LABEL_IDS], dtype=np.uint8), (HEIGHT // 32, WIDTH // 32))
    truth = squares.repeat(32, 0).repeat(32, 1)
    guess = random.choice(np.array(LABEL_IDS, dtype=np.uint8), truth.shape)
    keep = np.isin(truth, LABEL_IDS) & (random.random(truth.shape) < 0.8)
    return truth, np.where(keep, truth, guess)


def scripts(opened: Callable[[str], Any], truth: str, prediction: str) -> torch.Tensor:
    """The matrix of cityscapesScripts among its 19 judged categories; `opened` is how it opens a file."""
    settings = copy.copy(official.args)
    settings.evalInstLevelScore, settings.quiet = False, True
    official.Image = SimpleNamespace(open=opened)
    matrix = official.generateMatrix(settings)
    official.evaluatePair(prediction, truth, matrix, {}, {}, settings)
    return torch.from_numpy(matrix[np.ix_(LABEL_IDS, LABEL_IDS)].astype(np.int64))


def rows(folder: Path) -> dict[tuple[str, str], Callable[[], torch.Tensor]]:
    """What is measured, by what it begins with and by who does it; ours is the first of each kind."""
    arrays = dict(zip(("truth", "prediction"), label_ids(), strict=True))
    files = {name: str(folder / f"{name}.png") for name in arrays}
    for name, values in arrays.items():
        Image.fromarray(values).save(files[name])
    truth, prediction = (read_label(Path(files[name]), CITYSCAPES_19)[None] for name in ("truth", "prediction"))
    long_truth, opened = truth.long(), Image.open

    def torchmetrics(validate: bool) -> torch.Tensor:
        found: torch.Tensor = multiclass_confusion_matrix(
            prediction, long_truth, 19, ignore_index=IGNORE, validate_args=validate
        )
        return found

    def read_and_count() -> torch.Tensor:
        both = (read_label(Path(files[name]), CITYSCAPES_19)[None] for name in ("prediction", "truth"))
        return confusion_matrix(*both, 19)

    counting, reading = "counting", "reading and counting"
    return {
        (counting, OURS): lambda: confusion_matrix(prediction, truth, 19),
        (counting, "cityscapesScripts"): lambda: scripts(lambda name: InMemory(arrays[name]), "truth", "prediction"),
        (counting, "torchmetrics"): lambda: torchmetrics(True),
        (counting, "torchmetrics, unchecked"): lambda: torchmetrics(False),
        (reading, OURS): read_and_count,
        (reading, "cityscapesScripts"): lambda: scripts(opened, files["truth"], files["prediction"]),
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
    print(f"{caption(options.repeats)}\n\n| what | by | time | ours is faster |\n|---|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        measured = rows(Path(folder))
        expected = measured["counting", OURS]()
        for row, run in measured.items():
            assert torch.equal(run(), expected), f"{row} found another matrix"
        seconds: dict[tuple[str, str], list[float]] = {row: [] for row in measured}
        for _ in range(options.repeats):
            for row, run in measured.items():
                seconds[row].append(seconds_of(run))
    medians = {row: statistics.median(times) for row, times in seconds.items()}
    for (what, name), median in medians.items():
        ratio = "" if name == OURS else f"{median / medians[what, OURS]:.1f} times"
        print(f"| {what} | {name} | {1000 * median:.1f} ms | {ratio} |")


if __name__ == "__main__":
    main()
