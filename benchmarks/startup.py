"""How long a verb takes to start, of what that is made up, and where the wall time of a finished experiment went.

    python benchmarks/startup.py [--repeats 7] [--results results/street]

Prints two tables in Markdown, and a third where `make demo`, or what --results names, has left results. The first: a
verb has started when it has read its configuration and imported what it needs, in a fresh process whose files are in
the page cache; medians. The second is of `python -X importtime` for `train`: what each package adds to the ones above
it, in the order of import.

The third reads what Snakemake noted of every job (benchmark/*.tsv) and what every checkpoint says of its training loop.
"Start-up" is the number of jobs times the first table's figure, measured now; "else" is what remains: reading and writing
of artifacts, passes over frames, and in training verbs the statistics of the target.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from caguda.verbs import VERBS

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "config" / "demo.yaml"
FINISHED = ROOT / "results" / "street"  # what `make demo` leaves
SHOWN = ("train", "evidence-part", "anchor-part", "evaluate", "generate", "check", "labels", "diagnose", "table",
         "report")  # fmt: skip
PACKAGES = ("numpy", "torch", "torchvision", "zarr", "h5py", "caguda")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start_of(verb: str) -> list[str]:
    """The command of a process that does what `caguda VERB` does until its function is called."""
    module = VERBS[verb].function.partition(":")[0]
    code = (
        "import importlib, pathlib; from caguda.cli import _parsers; from caguda.configfile import load_configuration; "
        f"_parsers(); load_configuration(pathlib.Path({str(DEMO)!r})); importlib.import_module('caguda.{module}')"
    )
    return [sys.executable, "-c", code]


def seconds_of(command: Sequence[str]) -> float:
    """The wall time of a process that must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True)
    return time.perf_counter() - started


def started(verbs: Sequence[str], repeats: int) -> dict[str, float]:
    """The median start-up of each verb, and of other commands, measured in turn."""
    commands = {
        "python, nothing else": [sys.executable, "-c", "pass"],
        "python -m caguda --help": [sys.executable, "-m", "caguda", "--help"],
        "python -m snakemake --version": [sys.executable, "-m", "snakemake", "--version"],
        **{verb: start_of(verb) for verb in verbs},
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats + 1):  # the first fills the page cache
        for name, command in commands.items():
            found[name].append(seconds_of(command))
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def imports() -> dict[str, float]:
    """The seconds that each package adds when `train` starts, with what it imports itself that nothing before did."""
    command = [sys.executable, "-X", "importtime", *start_of("train")[1:]]
    told = subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True, text=True).stderr
    # "import time:  own |  cumulative | name", each after all that it imports, which are indented by two more
    lines = [(int(own), int(both), len(indent), name) for own, both, indent, name in
             re.findall(r"^import time: +(\d+) \| +(\d+) \|( +)(\S+)$", told, re.MULTILINE)]  # fmt: skip
    found = dict.fromkeys(PACKAGES, 0.0)
    above: list[tuple[int, str]] = []  # what is being imported, from the outermost in
    for own, _, indent, name in reversed(lines):
        while above and above[-1][0] >= indent:
            above.pop()
        package = name.partition(".")[0]
        blamed = package if package in found else (above[-1][1] if above else "others")
        if above and above[-1][1] == "torchvision":
            blamed = "torchvision"  # which is what asks for more of torch
        above.append((indent, blamed))
        found[blamed] = found.get(blamed, 0.0) + own / 1e6
    return found


def jobs_of(results: Path) -> dict[str, list[float]]:
    """The seconds of every job below a folder, by verb."""
    found: dict[str, list[float]] = {}
    for path in results.rglob("benchmark/*.tsv"):
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        verb = path.name.partition(".")[0].replace("_", "-")
        found.setdefault(verb, []).append(float(rows[-1][rows[0].index("s")]))
    return found


def loops_of(results: Path) -> dict[str, float]:
    """The seconds of all training loops below a folder, by verb."""
    found: dict[str, float] = {}
    for path in results.rglob("checkpoint.json"):
        description = json.loads(path.read_text(encoding="utf-8"))
        verb = description["provenance"]["made_by"]
        found[verb] = found.get(verb, 0.0) + description["metrics"].get("seconds", 0.0)
    return found


def spent(results: Path, repeats: int) -> None:
    """Prints where the time of an experiment went."""
    jobs, loops = jobs_of(results), loops_of(results)
    start = started([verb for verb in jobs if verb in VERBS], repeats)
    everything = sum(map(sum, jobs.values()))
    print(f"\n{results.name}: {sum(map(len, jobs.values()))} jobs, {everything:.0f} s of them together.\n")
    print("| verb | jobs | seconds | share | training loop | start-up | else |\n|---|---:|---:|---:|---:|---:|---:|")
    sums = [0.0, 0.0, 0.0, 0.0]
    for verb, times in sorted(jobs.items(), key=lambda item: -sum(item[1])):
        loop, begun = loops.get(verb, 0.0), len(times) * start.get(verb, 0.0)
        cells = [sum(times), loop, begun, sum(times) - loop - begun]
        sums = [total + cell for total, cell in zip(sums, cells, strict=True)]
        print(f"| {verb} | {len(times)} | {cells[0]:.0f} | {cells[0] / everything:.1%} | {loop:.0f} | {begun:.0f} | "
              f"{cells[3]:.0f} |")  # fmt: skip
    shares = " | ".join(f"{total / everything:.1%}" for total in sums[1:])
    print(f"| all | {sum(map(len, jobs.values()))} | {everything:.0f} | 100.0% | {shares} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed starts, of which the median counts")
    parser.add_argument("--results", type=Path, default=FINISHED, help="of a finished experiment")
    options = parser.parse_args()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "snakemake"))
    print(f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}; medians of "
          f"{options.repeats}; load before: {os.getloadavg()[0]:.1f}.\n")  # fmt: skip
    print("| what | start-up |\n|---|---:|")
    for name, seconds in started(SHOWN, options.repeats).items():
        print(f"| {name if ' ' in name else f'`{name}`'} | {seconds:.2f} s |", flush=True)
    found = imports()
    print("\n| imports of `train` | seconds | share |\n|---|---:|---:|")
    for name, seconds in sorted(found.items(), key=lambda item: -item[1]):
        print(f"| {name} | {seconds:.2f} | {seconds / sum(found.values()):.0%} |")
    if jobs_of(options.results):
        spent(options.results, options.repeats)


if __name__ == "__main__":
    main()
