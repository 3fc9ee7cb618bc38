"""What every verb takes in this version of the program beside an earlier one.

    python benchmarks/versions.py [--before e1c332f] [--rounds 3]

Prints a table in Markdown. Both versions run their demo with one stage of a few iterations, by their own Snakefile on one
core, in turn, each in a folder of its own; the earlier one is checked out from this repository. What a verb took is what
Snakemake noted of its jobs (benchmark/*.tsv), start-up included, all jobs of the verb together: medians over the rounds.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import yaml
from startup import jobs_of

from workflow import ENVIRONMENT, ROOT, called

FEW = {"pretrain": 80, "warmup": 60, "stages": 80}  # iterations, by section of an earlier version's YAML
OF_RUNS = {"source_only": 80, "warm-up": 60, "cag": 80, "control": 80}  # the same, by run
TRAININGS = ("pretrain", "warmup", "adapt", "control", "oracle")
"""Verbs of an earlier version in place of `train`."""
SINCE = "e1c332f"  # the last version before anything was made faster for its own sake


def few(root: Path) -> str:
    """The demo of a version as a YAML, with one stage and few iterations."""
    values = yaml.safe_load((root / "config" / "demo.yaml").read_text(encoding="utf-8"))
    if "runs" in values:
        for name, iterations in OF_RUNS.items():
            values["runs"][name]["iterations"] = iterations
        values["runs"]["cag"]["stages"] = 1
        return yaml.safe_dump(values | {"tables": {}}, sort_keys=False)
    for name, iterations in FEW.items():
        values[name]["iterations"] = iterations
    values["stages"]["count"] = 1
    return yaml.safe_dump(values)


def seconds_of(root: Path, folder: Path) -> dict[str, float]:
    """The seconds of every verb in a run of a version's whole workflow."""
    folder.mkdir()
    configfile = folder / "few.yaml"
    configfile.write_text(few(root), encoding="utf-8")
    fixed = ["--snakefile", str(root / "workflow" / "Snakefile"), "--configfile", str(configfile), "--cores", "1"]
    command = ["-m", "snakemake", *fixed, "--quiet", "all"]
    called(folder, "env", f"PYTHONPATH={root}", "python", *command)
    found: dict[str, float] = {}
    for verb, times in jobs_of(folder / "results").items():
        name = "train" if verb in TRAININGS else verb
        found[name] = found.get(name, 0.0) + sum(times)
    return found | {"all verbs": sum(found.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", default=SINCE, help="the revision of the earlier version")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.before} and this version, {os.cpu_count()} cores, medians of {options.rounds}; "
          f"load before: {os.getloadavg()[0]:.1f}.\n")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder, earlier = Path(name), Path(name, "earlier")
        for command in (
            ["clone", "--quiet", str(ROOT), str(earlier)],
            ["-C", str(earlier), "checkout", "--quiet", options.before],
        ):
            subprocess.run(["git", *command], check=True, env=ENVIRONMENT)
        rounds = [
            [seconds_of(root, folder / f"{kind}{number}") for kind, root in (("before", earlier), ("now", ROOT))]
            for number in range(options.rounds)
        ]
    print("| verb | before, s | now, s | ratio |\n|---|---:|---:|---:|")
    for verb in sorted(rounds[0][1], key=lambda verb: -rounds[0][1][verb]):
        before, now = (statistics.median(one[kind].get(verb, 0.0) for one in rounds) for kind in (0, 1))
        print(f"| {verb} | {before:.1f} | {now:.1f} | {f'{now / before:.2f}' if before else ''} |")


if __name__ == "__main__":
    main()
