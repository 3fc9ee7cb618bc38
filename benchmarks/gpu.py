"""Every measurement that needs a GPU, by one command of at most ten minutes, as tables in Markdown.

    python benchmarks/gpu.py [--output FILE]

On a GPU the sizes are those of the recipes: one image of each domain, DeepLab v3+ on 512x896 and DeepLab v2 on 640x1280. On a CPU
they are so small that the command only shows that it works. The first line says which.

1. The passes evidence-part and anchor-part beside the bare forward pass, by `passes.py`.
2. A step of a stage in every way of `step.py`: time and peak memory. float16 has AMP's scaler and fused SGD; the last column
   has the scale that the steps left. It begins at 65,536, and every update that is left out for an infinite gradient halves it.
3. Frames a second that the loader gives, by `loader.py`, beside those that a step takes: one of each domain for each image.
4. The step on two GPUs, each with a process and a batch of its own, beside that on one.

Every row is measured in a process of its own, with a limit of time. A row that fails or takes too long says so. Times are medians;
ratios are to rows of the same run.
"""

import argparse
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import loader
import passes
import step
import torch
from step_inputs import Setting, configured, frame_images, setting

from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.datasets.loader import TrainingFrames
from caguda.launch import Outcome, launch
from caguda.stages.parallel import rank

ON_GPU = torch.cuda.is_available()
NETWORKS = ("deeplab_v3plus", "deeplab_v2")
PASSES = ("evidence-part", "anchor-part, anchors")
CONSUMERS = (step.OURS, "ours, bfloat16", "ours, all of it")
SMALL_CROP, SMALL_BACKBONE = (64, 128), "resnet50"
SAMPLE = 2.0 if ON_GPU else 0.2  # seconds of steps in a row
PASS_SIZE, PASS_FRAMES, PASS_ROUNDS = ((512, 1024), 16, 3) if ON_GPU else ((64, 128), 3, 1)
READ_FRAMES, READ_CROPS, READ_WORKERS = (8, 24, 4) if ON_GPU else (2, 2, 1)
ROW, SHORTEST, RESERVE = 100.0, 5.0, 120.0  # seconds: of a row, at least, and of steps 3 and 4 after 1 and 2
Medians = dict[tuple[str, str], float]


def sized(network: str, **compute: Any) -> tuple[Configuration, tuple[int, int, int]]:
    """The configuration with this network, and the shape (n, H, W) of a domain's batch, as the device allows."""
    if ON_GPU:
        configuration = configured(network, **compute)
        return configuration, frame_images(configuration, 1)
    configuration = configured(network, **{"threads": 1, **compute})
    smaller = configuration.network.model_copy(update={"backbone": SMALL_BACKBONE})
    return configuration.model_copy(update={"network": smaller}), (1, *SMALL_CROP)


def given_to_step(network: str, way: str) -> Setting:
    """What the step of a network is given in this way."""
    return setting(*sized(network, **(step.WAYS | step.ON_GPU)[way]))


# What the process of a row does: each function returns values for JSON.
def step_cost(network: str, way: str) -> step.Cost:
    """What the steps of a network cost."""
    return step.cost_of(given_to_step(network, way), way, SAMPLE)


def pass_costs() -> dict[str, passes.PassCost]:
    """What the passes cost, by name: with DeepLab v3+, on a CPU with the demo's network."""
    changes = {"network": passes.V3PLUS} if ON_GPU else {}
    with tempfile.TemporaryDirectory() as name:
        sets = [("whole", PASS_FRAMES), ("single", 1)]
        made = [passes.Experiment.create(Path(name) / part, frames, PASS_SIZE, 1, **changes) for part, frames in sets]
        return {each: passes.cost_of(each, *made, PASS_ROUNDS) for each in PASSES}


def loader_rates() -> dict[str, float]:
    """Resized crops of 640x1280 a second, by what the frames are read from."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "This DataLoader will create")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = loader.write_frames(folder, READ_FRAMES)
        loader.pack(paths, folder / "packed.h5")
        frames, ways = [Frame(path.stem, path, None) for path in paths], loader.sources(paths, folder / "packed.h5")
        return {
            way: loader.crops_per_second(
                TrainingFrames(frames, None, loader.RESIZED, 0, "benchmark", ways[way]), READ_WORKERS, READ_CROPS
            )
            for way in (loader.BASE, "packed cache")
        }


def shared_cost(network: str, processes: int) -> step.Cost:
    """What the steps cost in several processes, each with a batch of its own; of rank 0."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "cost.json"
        outcome = launch(processes, functools.partial(_write_shared_cost, network, file))
        if outcome.code:
            raise RuntimeError(outcome.message.splitlines()[-1])
        return step.Cost(*json.loads(file.read_text(encoding="utf-8")))


def _write_shared_cost(network: str, file: Path) -> Outcome:
    cost = step_cost(network, step.OURS)
    if rank() == 0:
        file.write_text(json.dumps(cost), encoding="utf-8")
    return Outcome(0)


def value_of_row(kind: str, *words: str) -> Any:
    """The values of a row."""
    if kind == "step":
        return step_cost(*words)
    if kind == "processes":
        return shared_cost(words[0], int(words[1]))
    return {"passes": pass_costs, "loader": loader_rates}[kind]()


# The tables.


class Rows:
    """The processes of the rows, within the time of the whole run."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def measure(self, *words: str, reserve: float = 0.0) -> Any:
        """The values of a row; or, as one str, why there are none. `reserve` seconds are left for later rows."""
        seconds = min(ROW, self.end - reserve - time.monotonic())
        if seconds < SHORTEST:
            return "left out: the time of the run was over"
        command = [sys.executable, __file__, "--row", *words]
        kept: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, start_new_session=True, **kept)
        try:
            printed, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s"
        finally:
            if process.poll() is None:  # with all that it has started
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode == 0:
            return json.loads(printed.splitlines()[-1])
        last = (said.strip().splitlines() or [f"ended with {process.returncode}"])[-1]
        return f"failed: {last[:200].replace('|', '/')}"


def row(cells: Sequence[str], width: int) -> str:
    """A line of a table; missing cells are empty."""
    return f"| {' | '.join([*cells, *[''] * (width - len(cells))])} |"


def head(title: str, *columns: str) -> Iterator[str]:
    """The head of a table; columns that begin with `>` are aligned to the right."""
    yield from ("", f"## {title}", "")
    yield row([column.lstrip(">") for column in columns], len(columns))
    yield f"|{'|'.join('---:' if column.startswith('>') else '---' for column in columns)}|"


def table_of_passes(rows: Rows) -> Iterator[str]:
    """Passes beside the bare forward pass."""
    yield from head(
        f"Passes, {'DeepLab v3+' if ON_GPU else 'small'}",
        "pass",
        ">bare forward pass, ms an image",
        ">ours",
        ">ratio",
        ">once, s",
    )
    found = rows.measure("passes")
    for name in PASSES:
        if isinstance(found, str):
            yield row([name, found], 5)
            continue
        cost = passes.PassCost(*found[name])
        times = [f"{1000 * cost.bare:.2f}", f"{1000 * cost.ours:.2f}", f"{cost.ours / cost.bare:.3f}"]
        yield row([name, *times, f"{cost.once:.2f}"], 5)


def table_of_steps(rows: Rows, medians: Medians) -> Iterator[str]:
    """Steps in every way; the median seconds are added to `medians`. "Of ours" is the ratio to float32."""
    columns = (">s", ">of ours", ">peak GiB", ">of ours", ">scale")
    yield from head("A step of a stage", "network, images of each domain", "step", *columns)
    slow = ("ours, compiled", "ours, all of it")
    ways = [step.OURS, *(way for way in step.WAYS | step.ON_GPU if way not in (step.OURS, *slow)), *slow]
    peaks: dict[str, int] = {}
    for way in ways:  # of both networks in turn, so that the slow ones come last
        for network in NETWORKS:
            count, height, width = sized(network)[1]
            cells = [f"{network}, {count} x {height}x{width}", way]
            if way in step.ON_GPU and not ON_GPU:
                yield row([*cells, "left out: needs a GPU"], 7)
                continue
            found = rows.measure("step", network, way, reserve=RESERVE)
            if isinstance(found, str):
                yield row([*cells, found], 7)
                continue
            cost = step.Cost(*found)
            seconds = medians[network, way] = statistics.median(cost.seconds)
            if way == step.OURS:
                peaks[network] = cost.peak
            cells += [f"{seconds:.3g}", ratio(seconds, medians.get((network, step.OURS)))]
            cells += [f"{cost.peak / 2**30:.2f}", ratio(cost.peak, peaks.get(network))]
            yield row([*cells, f"{cost.scale:g}"], 7)


def ratio(value: float, base: float | None) -> str:
    """How many times the base; `-` if that was not measured."""
    return "-" if base is None else f"{value / base:.2f}"


def table_of_loader(rows: Rows, medians: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """Frames a second that the loader gives and that a step takes; images alone, without label maps."""
    columns = (">frames/s", "a step of", ">takes frames/s", ">loader / step")
    yield from head(f"Loader, {READ_WORKERS} worker(s), and step", "crops of 640x1280 from", *columns)
    found = rows.measure("loader")
    if isinstance(found, str):
        yield row(["frames of 2048x1024", found], 5)
        return
    consumers = [(network, way) for network in NETWORKS for way in CONSUMERS if (network, way) in medians]
    for way, rate in found.items():
        if not consumers:
            yield row([way, f"{rate:.0f}", "no step was measured"], 5)
        for network, consumer in consumers:
            taken = 2 * sized(network)[1][0] / medians[network, consumer]
            yield row([way, f"{rate:.0f}", f"{network}, {consumer}", f"{taken:.1f}", f"{rate / taken:.2f}"], 5)


def table_of_processes(rows: Rows, medians: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """A step in two processes with a GPU each, beside one; a line that says so if there are fewer GPUs."""
    if (count := torch.cuda.device_count()) < 2:
        yield from ("", f"Two processes: left out, since they need two GPUs and {count} are here.")
        return
    yield from head(
        "Two processes, a GPU and a batch each", "network", ">s", ">of one process", ">images a second, of one"
    )
    for network in NETWORKS:
        found = rows.measure("processes", network, "2")
        if isinstance(found, str):
            yield row([network, found], 4)
            continue
        seconds, alone = statistics.median(step.Cost(*found).seconds), medians.get((network, step.OURS))
        faster = "-" if alone is None else f"{2 * alone / seconds:.2f}"
        yield row([network, f"{seconds:.3g}", ratio(seconds, alone), faster], 4)


def caption() -> str:
    """The device and the sizes."""
    device = torch.cuda.get_device_name() if ON_GPU else "no GPU: sizes are small, and times mean nothing"
    backbone = "ResNet-101" if ON_GPU else SMALL_BACKBONE
    size = "x".join(map(str, PASS_SIZE))
    return (
        f"{device}; torch {torch.__version__}, {os.cpu_count()} cores, load before: {os.getloadavg()[0]:.1f}; {backbone}; passes over "
        f"{PASS_FRAMES} frames of {size}, medians of {PASS_ROUNDS}; steps for {SAMPLE:g} s, medians."
    )


def lines(seconds: float) -> Iterator[str]:
    """The whole output, line by line as it is measured."""
    rows, medians = Rows(seconds), Medians()
    yield caption()
    yield from table_of_passes(rows)
    yield from table_of_steps(rows, medians)
    yield from table_of_loader(rows, medians)
    yield from table_of_processes(rows, medians)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the tables there, line by line")
    parser.add_argument("--seconds", type=float, default=590.0, help="rows that do not fit are left out, and say so")
    parser.add_argument("--row", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(value_of_row(*options.row)))
        return
    with open(options.output or os.devnull, "w", encoding="utf-8") as file:
        for line in lines(options.seconds):
            print(line, flush=True)
            print(line, file=file, flush=True)


if __name__ == "__main__":
    main()
