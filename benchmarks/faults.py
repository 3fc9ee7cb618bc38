"""What kills at random moments leave behind, and the same command given again after each of them.

    python benchmarks/faults.py --folder FOLDER --seeds 0 1 2 3 4 5 [--processes 1] [--table]

One seed is one run of a miniature experiment from nothing to its end. When a verb is seen at work, up to twice for each, then
after a random part of the time that it takes, SIGKILL, SIGTERM or SIGINT goes to Snakemake, to its whole process group,
to the shell of a rule, to a verb, or to a worker of one. When Snakemake has ended the same command is given again, at once.
At the end everything on disk is compared with an undisturbed run, which FOLDER/reference holds.

FOLDER/kills.jsonl gets a line for each kill and each run; seeds that have finished there are not run again. Prints a table
in Markdown (`--table`: that alone). A seed takes some minutes on two cores. Linux only.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

import psutil
from comparison import differences, experiment
from workflow_runs import Call, Workflow, verb_of

from caguda.artifacts.state import load_state

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
VICTIMS = ("snakemake", "group", "shell", "verb", "worker")
TRAINING_SHARE = 0.3
TIMES, HANG, ORPHAN = 2, 600, 30


def job_of(process: psutil.Process) -> str | None:
    """The verb that a process is, of a training with its model; None for anything else."""
    verb = verb_of(process)
    try:
        words = process.cmdline() if verb == "train" else []
    except psutil.Error:
        return None
    return f"{verb} {words[words.index('--model') + 1]}" if "--model" in words else verb


def victims(call: Call) -> dict[str, list[psutil.Process]]:
    """The processes of a call by what they are."""
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    below = call.below()
    verbs = {process.pid: name for process in below if (name := job_of(process))}
    for process in below:
        try:
            parents = {parent.pid for parent in process.parents()}
            kind = "shell" if process.name() == "bash" else "worker"
        except psutil.Error:
            continue
        if process.pid in verbs and not parents & verbs.keys():
            kind = "verb"
        found[kind].append(process)
    return found


def strike(call: Call, rng: random.Random, kind: str, number: signal.Signals) -> tuple[str, str]:
    """Sends the signal to a process of this kind, or to what there is; what it was, and the verb if it was one."""
    found = victims(call)
    if kind in ("shell", "worker") and not found[kind]:
        kind = "verb"
    if kind == "verb" and not found[kind]:
        kind = "snakemake"
    try:
        if kind == "group":
            os.killpg(call.process.pid, number)
        elif kind == "snakemake":
            call.process.send_signal(number)
        else:
            chosen = rng.choice(found[kind])
            verb = job_of(chosen) or ""
            chosen.send_signal(number)
            return kind, verb
    except (ProcessLookupError, psutil.NoSuchProcess):
        return "nobody", ""
    return kind, ""


def durations(reference: Workflow) -> dict[str, float]:
    """How many seconds each rule took, and each training, the longest of its jobs."""
    longest: dict[str, float] = defaultdict(float)
    for path in reference.results.rglob("benchmark/*.tsv"):
        rule = path.name.split(".")[0].replace("_", "-")
        if rule == "train":
            rule = f"train {'/'.join(path.relative_to(reference.results).parts[1:-2])}"
        longest[rule] = max(longest[rule], float(path.read_text().splitlines()[1].split()[0]))
    return longest


def iterations(workflow: Workflow) -> dict[str, int]:
    """The last iteration that each training has saved."""
    found = {}
    for path in workflow.results.rglob("state.pt"):
        state = load_state(path)
        found[str(path.parent.parent.relative_to(workflow.results))] = state["progress"]["iteration"] if state else -1
    return found


@dataclass
class Campaign:
    """One run of the experiment with kills in it, and what is known of them so far."""

    workflow: Workflow
    seed: int
    usual: dict[str, float]
    records: list[dict[str, Any]] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    seen: set[int] = field(default_factory=set)
    saved: dict[str, int] = field(default_factory=dict)
    strays: list[tuple[psutil.Process, float]] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Kills and calls until a call ends well; calls that fail by themselves, orphans and progress that was lost."""
        rng = random.Random(self.seed)
        deck = [(kind, number) for kind in VICTIMS for number in SIGNALS]
        rng.shuffle(deck)
        refused: list[str] = []
        calls = 0
        while calls < 60:
            calls += 1
            call, first = Call(self.workflow), len(self.records)
            self._until_the_end(call, rng, deck)
            self.strays += [(process, time.monotonic()) for process in call.below()]
            printed = call.printed.read_text()
            code = call.process.returncode
            for record in self.records[first:]:
                record |= {"code": code, "tracebacks": printed.count("Traceback (most recent call last)")}
            if code == 0:
                break
            if len(self.records) == first:
                refused += [line for line in printed.splitlines() if "caguda: " in line] or [f"exit code {code}"]
        return {"calls": calls, "refused": refused, "orphans": self._orphans()}

    def _until_the_end(self, call: Call, rng: random.Random, deck: list[tuple[str, signal.Signals]]) -> None:
        last = time.monotonic()
        while call.process.poll() is None:
            verbs = {process.pid: verb for process in call.below() if (verb := job_of(process))}
            if new := [pid for pid, verb in verbs.items() if pid not in self.seen and self.met[verb] < TIMES]:
                verb = verbs[new[0]]
                self.seen.add(new[0])
                self.met[verb] += 1
                delay = self._moment(call, rng, verb)
                kind, number = deck[len(self.records) % len(deck)]
                self._lost()
                struck, whom = strike(call, rng, kind, number)
                last = time.monotonic()
                record = {"seed": self.seed, "at": verb, "after": round(delay, 2), "signal": number.name}
                self.records.append(record | {"victim": struck, "verb": whom})
            if time.monotonic() - last > HANG:
                self.records[-1]["hang"] = True
                os.killpg(call.process.pid, signal.SIGKILL)
            time.sleep(0.05)

    def _moment(self, call: Call, rng: random.Random, verb: str) -> float:
        """Waits for a random part of a verb's time, of a training once it is under way; how many seconds that was."""
        part, since = rng.uniform(0, self.usual[verb]), time.time()
        if verb.startswith("train "):
            part *= TRAINING_SHARE
            while call.process.poll() is None and not any(
                path.stat().st_mtime > since for path in self.workflow.results.rglob("attempts.txt")
            ):
                time.sleep(0.05)
        time.sleep(part)
        return part

    def _lost(self) -> None:
        """Notes a training that has less in its state than at an earlier kill."""
        now = iterations(self.workflow)
        lost = {run: (before, now.get(run, 0)) for run, before in self.saved.items() if now.get(run, 0) < before}
        if lost:
            self.records[-1]["lost"] = lost
        self.saved |= now

    def _orphans(self) -> list[str]:
        """What still lives long after the call that started it; all of it is ended now."""
        found = []
        for process, since in self.strays:
            try:
                words = " ".join(process.cmdline()[:4])
                process.wait(max(0.0, since + ORPHAN - time.monotonic()))
            except psutil.TimeoutExpired:
                found.append(words)
                process.kill()
            except psutil.Error:
                continue
        return found


def campaign(workflow: Workflow, seed: int, reference: Workflow) -> list[dict[str, Any]]:
    """The lines of one seed: its kills, then the run as a whole."""
    shutil.rmtree(workflow.results, ignore_errors=True)
    started = time.monotonic()
    at_work = Campaign(workflow, seed, durations(reference))
    outcome = at_work.run()
    outcome |= {"differences": differences(reference, workflow), "left": len(workflow.plan())}
    outcome |= {"partial": [path.name for path in workflow.results.rglob("*.partial")]}
    attempts = {
        str(path.parent.relative_to(workflow.results)): json.loads(path.read_text())["metrics"]["attempts"]
        for path in workflow.results.rglob("checkpoint.json")
    }
    kills = len(at_work.records)
    run = {"seed": seed, "kills": kills, "attempts": attempts, "seconds": round(time.monotonic() - started), **outcome}
    return [*at_work.records, run]


def table(lines: list[dict[str, Any]]) -> str:
    """Kills by victim and signal, then what was found in all runs."""
    kills, runs = [line for line in lines if "victim" in line], [line for line in lines if "kills" in line]
    text = ["| victim | " + " | ".join(number.name for number in SIGNALS) + " |", "|---|---:|---:|---:|"]
    for victim in [*VICTIMS, "nobody"]:
        counts = [sum(k["victim"] == victim and k["signal"] == number.name for k in kills) for number in SIGNALS]
        text.append(f"| {victim} | " + " | ".join(map(str, counts)) + " |")
    wrong = [name for run in runs for name in run["differences"]]
    text += [""]
    text.append(
        f"{len(kills)} kills in {len(runs)} runs (seeds {', '.join(str(run['seed']) for run in runs)}), "
        f"{sum(run['calls'] for run in runs)} calls of the same command. Hangs: {sum('hang' in k for k in kills)}. "
        f"Trainings that lost progress: {sum('lost' in k for k in kills)}. Artifacts that differ: {len(wrong)} {wrong}. "
        f"Jobs left to do: {sum(run['left'] for run in runs)}. Partial files: {sum(len(r['partial']) for r in runs)}. "
        f"Orphans: {[o for run in runs for o in run['orphans']]}. "
        f"Calls that failed by themselves: {[line for run in runs for line in run['refused']]}."
    )
    return "\n".join(text)


def main() -> None:
    """Runs what has not run yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--processes", type=int, default=1, help="how many share a training; a folder has one number")
    given = parser.parse_args()
    # A job in the background of a shell ignores SIGINT, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, known = given.folder.resolve(), given.folder / "kills.jsonl"
    reference = experiment(folder / "reference", given.processes)
    lines = [json.loads(line) for line in known.read_text().splitlines()] if known.exists() else []
    if not given.table and reference.plan():
        done = reference.run()
        assert done.returncode == 0, done.stderr
    for seed in () if given.table else given.seeds:
        if not any("kills" in line and line["seed"] == seed for line in lines):
            new = campaign(experiment(folder / f"seed{seed}", given.processes), seed, reference)
            lines += new
            with known.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in new)
            print(new[-1], flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
