"""The Slurm profile: it lists the right rules, and under a real Slurm no fault changes a weight."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from slurm_node import output, slurm_node, wait_until
from workflow_runs import ROOT, SMOKE, Workflow, environment

PROFILE = yaml.safe_load((ROOT / "slurm" / "config.yaml").read_text())
RULES = re.findall(
    r"^ *rule (\w+):\n.*?threads: (.*?)params:.*?shell:(.*?)(?=^ *rule |\Z)",
    "".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk"))),
    re.DOTALL | re.MULTILINE,
)
DEMO = ROOT / "config" / "demo.yaml"
LONGER = (
    "--config",
    "runs={pretrain: {iterations: 300}, warmup: {iterations: 300}, cag: {iterations: 300, stages: 1}, control: {iterations: 300}}",
    "tables={table1: [cag/stage1], table2: [cag/stage1]}",
)
KINDS = {SMOKE: ("pretrain", "warmup"), DEMO: ("source_only", "warm-up")}
"""What the models before the stages are called."""


def test_the_profile_lists_every_rule_that_takes_more_than_one_core() -> None:
    assert (ROOT / "slurm").readlink() == Path("workflow/profiles/slurm")
    asks = {name: asked for name, asked, _ in RULES}
    small = {rule for rule, asked in asks.items() if asked.startswith("1\n") and "gpu=" not in asked}
    assert set(PROFILE["set-resources"]) == asks.keys() - small
    assert set(PROFILE["set-threads"]) == {rule for rule, asked in asks.items() if asked.startswith("8\n")}
    assert set(PROFILE["preemptible-rules"]) == {name for name, _, command in RULES if "--state" in command}


def test_no_shell_stands_between_a_trainer_and_the_signal_on_which_it_saves() -> None:
    commands = [command for _, _, command in RULES if "--state" in command]
    assert len(commands) == 1 and all(command.lstrip(' \n"').startswith("exec ") for command in commands)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Slurm on this machine, while the tests below run."""
    with slurm_node(tmp_path_factory.mktemp("slurm")):
        yield


def start(directory: Path, *arguments: str, configfile: Path = SMOKE) -> subprocess.Popen[str]:
    """`snakemake --profile slurm` at the project's root, with results in another folder; what it prints is printed.txt."""
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--configfile", str(configfile)]
    with (directory / "printed.txt").open("w") as printed:
        return subprocess.Popen(
            [*command, "--directory", str(directory), *arguments], cwd=ROOT, env=environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def trainer(run: Path) -> tuple[str, str]:
    """The process that trains a run and has saved a state, and its Slurm job; empty if there is none."""
    lock = run / "state" / "lock"
    found = re.search(r"pid (\d+), job (\d+)", lock.read_text()) if lock.with_name("state.pt").exists() else None
    return (found[1], found[2]) if found else ("", "")


def weights(results: Path) -> dict[str, bytes]:
    """All weights of an experiment by their place in it."""
    return {str(path.relative_to(results)): path.read_bytes() for path in results.rglob("checkpoint.safetensors")}


CANCEL = "scancel {job}"
# Slurm lets a job that is queued again wait for two minutes, unless it is told otherwise.
REQUEUE = (
    "scontrol requeue {job}; until squeue --noheader --states=PENDING --jobs={job} | grep -q .; do sleep 0.2; done;"
    " scontrol update JobId={job} StartTime=now"
)
# Slurm looks at time limits every 30 seconds, longer than these trainings take; it wakes what it signals.
LIMIT = "kill -STOP {pid}; scontrol update JobId={job} TimeLimit=1"
FAULTS = {
    "cag/stage1": [CANCEL],
    "oracle": [CANCEL, REQUEUE],
    "control": [CANCEL, LIMIT],
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize(("configfile", "changes"), [(SMOKE, LONGER), (DEMO, ())], ids=["miniature", "demo"])
def test_faults_in_every_kind_of_training_change_no_weight(
    tmp_path: Path, configfile: Path, changes: tuple[str, ...]
) -> None:
    alone, disturbed = (Workflow(tmp_path / name, configfile) for name in ("alone", "disturbed"))
    alone.directory.mkdir()
    disturbed.directory.mkdir()
    call = start(disturbed.directory, *changes, configfile=configfile)
    hit: dict[str, str] = {}
    faults = FAULTS | {run: [CANCEL] for run in KINDS[configfile]}
    left = {run: list(planned) for run, planned in faults.items()}
    commands = []
    while call.poll() is None:
        for run, planned in left.items():
            pid, job = trainer(disturbed.results / "seed0" / run)
            if planned and job and pid != hit.get(run):
                hit[run] = pid
                commands.append(subprocess.Popen(planned.pop(0).format(pid=pid, job=job), shell=True))
        time.sleep(0.02)
    assert not any(command.wait() for command in commands)
    printed = (disturbed.directory / "printed.txt").read_text()
    assert call.returncode == 0, printed
    assert not any(left.values()), printed
    for run, planned in faults.items():
        description = json.loads((disturbed.results / "seed0" / run / "checkpoint.json").read_text())
        assert description["metrics"]["attempts"] == len(planned) + 1, run
    done = alone.run(*changes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights(disturbed.results) == weights(alone.results) != {}
    assert disturbed.planned(*changes) == set()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("slurm")
def test_a_trainer_that_outlives_its_snakemake_is_not_doubled(tmp_path: Path) -> None:
    target = (
        "results/smoke/seed0/pretrain/checkpoint.safetensors",
        "--config",
        "runs={pretrain: {iterations: 1000000}}",
    )
    run = tmp_path / "results" / "smoke" / "seed0" / "pretrain"
    first = start(tmp_path, *target)
    wait_until(lambda: trainer(run) != ("", ""), 120)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    _, orphan = trainer(run)
    again = start(tmp_path, *target, "--preemptible-retries", "1")
    assert again.wait() != 0
    told = (tmp_path / "printed.txt").read_text()
    assert f"one trainer at a time may work here, found another (host {os.uname().nodename}" in told
    assert told.count("has been submitted") == 2 and trainer(run)[1] == orphan
    subprocess.run(["scancel", orphan], check=True)
    wait_until(lambda: not output("squeue", "--noheader"), 60)
