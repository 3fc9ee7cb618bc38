"""What the workflow costs beside its verbs, and how long Snakemake takes to plan.

    python benchmarks/workflow.py [--configfile config/demo.yaml] [--added config/ablations.yaml config/sweep.yaml] [--repeats 1]

Prints two tables in Markdown. For the first, an experiment with generated frames is run by Snakemake on one core, and then
by hand: the commands that Snakemake printed, one after another in a shell, in a folder of their own. The overhead is the
ratio of the two times less one, its median over the repeats. For the second, `snakemake --dry-run` is timed five times for
each target, before anything has run and afterwards; "everything" is with the runs and tables of `--added` above the
experiment. `--configfile tests/smoke.yaml --added` takes some minutes in all; there the overhead says little, since its
jobs are a few seconds each.
"""

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from caguda.configfile import read_merged
from caguda.merging import merge_all

ROOT = Path(__file__).parents[1]
PLANS = 5
CONFIG = ROOT / "config"
EVERYTHING = ("all", "runs", "figure2", "submission")
# As Snakemake runs a job on one core: with its own interpreter and one thread.
ENVIRONMENT = os.environ | {
    "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")},
}


def called(folder: Path, *command: str) -> tuple[float, str]:
    """The seconds that a command took in a folder, and what it printed; it must succeed."""
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return seconds, done.stdout


def snakemake(folder: Path, configfiles: Sequence[Path], *arguments: str) -> tuple[float, str]:
    """The same of a call of Snakemake at work in a folder."""
    fixed = [
        "--snakefile",
        str(ROOT / "workflow" / "Snakefile"),
        "--cores",
        "1",
        "--configfile",
        *map(str, configfiles),
    ]
    return called(folder, sys.executable, "-m", "snakemake", *arguments, *fixed)


def by_hand(folder: Path, commands: list[str], settings: Path) -> float:
    """The seconds that the commands of the workflow take one after another, with the settings file that it wrote."""
    for name in [str(settings), *re.findall(r"> (\S+) 2>&1", "\n".join(commands))]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder.parent / "workflow" / settings, folder / settings)
    return sum(called(folder, "bash", "-c", command)[0] for command in commands)


def overhead(folder: Path, configfile: Path) -> tuple[float, float, int]:
    """Seconds of an experiment by Snakemake and by hand, and the number of its jobs."""
    for name in ("workflow", "hand"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    seconds, printed = snakemake(folder / "workflow", [configfile])
    commands = re.findall(r"^ *Shell command: ((?:exec )?python .*)$", printed, re.MULTILINE)
    (settings,) = {re.findall(r"--config (\S+)", command)[0] for command in commands if "--config" in command}
    return seconds, by_hand(folder / "hand", commands, Path(settings)), len(commands)


def plan(folder: Path, configfiles: Sequence[Path], *arguments: str) -> tuple[float, int]:
    """The median time of a dry run in seconds, and the number of its jobs."""
    timed = [snakemake(folder, configfiles, "--dry-run", *arguments) for _ in range(PLANS)]
    jobs = re.findall(r"^total +(\d+)$", timed[0][1], re.MULTILINE)
    return statistics.median(seconds for seconds, _ in timed), int(jobs[0]) if jobs else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--configfile", type=Path, default=ROOT / "config" / "demo.yaml")
    parser.add_argument("--added", type=Path, nargs="*", default=[CONFIG / "ablations.yaml", CONFIG / "sweep.yaml"])
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    configfile, added = arguments.configfile.resolve(), [path.resolve() for path in arguments.added]
    everything = (*EVERYTHING, *merge_all(map(read_merged, (configfile, *added))).values.get("tables", {}))
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {configfile.name}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        print("| jobs | by Snakemake, s | by hand, s | overhead |\n|---|---|---|---|")
        ratios = []
        for _ in range(arguments.repeats):
            whole, alone, jobs = overhead(folder, configfile)
            ratios.append(whole / alone - 1)
            print(f"| {jobs} | {whole:.1f} | {alone:.1f} | {ratios[-1]:.1%} |", flush=True)
        print(f"| | | median | {statistics.median(ratios):.1%} |\n")
        print("| dry run | state | jobs | s |\n|---|---|---|---|")
        many = ("--config", f"seeds={list(range(10))}")
        for state in ("empty", "workflow"):
            for title, files, targets in (
                ("all", [configfile], ("all",)),
                ("everything", [configfile, *added], everything),
                ("everything, 10 seeds", [configfile, *added], everything),
            ):
                extra = many if "10 seeds" in title else ()
                seconds, jobs = plan(folder / state, files, *targets, *extra)
                print(
                    f"| {title} | {'finished' if state == 'workflow' else state} | {jobs} | {seconds:.2f} |", flush=True
                )


if __name__ == "__main__":
    main()
