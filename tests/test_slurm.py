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

pytestmark = pytest.mark.xdist_group("slurm")

PROFILE = yaml.safe_load((ROOT / "slurm" / "config.yaml").read_text())
LONGER = ("--config", "pretrain={iterations: 600}", "warmup={iterations: 400}", "stages={iterations: 400}")


def test_the_profile_lists_every_rule_that_takes_more_than_one_core() -> None:
    assert (ROOT / "slurm").readlink() == Path("workflow/profiles/slurm")
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    asks = {
        name: asked
        for name, asked in re.findall(r"^ *rule (\w+):\n.*?threads: (.*?)params:", rules, re.DOTALL | re.MULTILINE)
    }
    small = {rule for rule, asked in asks.items() if asked.startswith("1\n") and "gpu=" not in asked}
    assert set(PROFILE["set-resources"]) == asks.keys() - small
    assert set(PROFILE["set-threads"]) == {rule for rule, asked in asks.items() if asked.startswith("8\n")}
    assert set(PROFILE["preemptible-rules"]) == {rule for rule, asked in asks.items() if "gpu=PROCESSES" in asked}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Slurm on this machine, while the tests below run."""
    with slurm_node(tmp_path_factory.mktemp("slurm")):
        yield


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """`snakemake --profile slurm` at the project's root, with results in another folder; what it prints is printed.txt."""
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--configfile", str(SMOKE)]
    with (directory / "printed.txt").open("w") as printed:
        return subprocess.Popen(
            [*command, "--directory", str(directory), *arguments], cwd=ROOT, env=environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def trainer(run: Path) -> str:
    """The Slurm job that trains a run and has saved a state; empty if there is none."""
    if not (run / "state" / "state.pt").exists():
        return ""
    return "".join(re.findall(r"job (\d+)", (run / "state" / "lock").read_text()))


def weights(results: Path) -> dict[str, bytes]:
    """All weights of an experiment by their place in it."""
    return {str(path.relative_to(results)): path.read_bytes() for path in results.rglob("checkpoint.safetensors")}


CANCEL = "scancel {}"
REQUEUE = "scontrol requeue {}"
LIMIT = "scontrol update JobId={} TimeLimit=1"
FAULTS = {
    "pretrain": [CANCEL],
    "warmup": [CANCEL],
    "cag/stage1": [CANCEL],
    "cag/stage2": [REQUEUE],
    "oracle": [CANCEL, REQUEUE],
    "control": [CANCEL, LIMIT],
}


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_faults_in_every_kind_of_training_change_no_weight(tmp_path: Path) -> None:
    alone, disturbed = Workflow(tmp_path / "alone"), Workflow(tmp_path / "disturbed")
    alone.directory.mkdir()
    disturbed.directory.mkdir()
    call = start(disturbed.directory, *LONGER)
    faults = [(disturbed.results / "seed0" / run, fault) for run, planned in FAULTS.items() for fault in planned]
    hit: dict[Path, str] = {}
    while call.poll() is None:
        for run, fault in {run: fault for run, fault in reversed(faults)}.items():
            job = trainer(run)
            if job and job != hit.get(run):
                hit[run] = job
                faults.remove((run, fault))
                subprocess.run(fault.format(job).split(), check=True)
                if fault == REQUEUE:  # which Slurm delays by two minutes
                    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
        time.sleep(0.05)
    printed = (disturbed.directory / "printed.txt").read_text()
    assert call.returncode == 0, printed
    assert faults == [], printed
    for run, planned in FAULTS.items():
        description = json.loads((disturbed.results / "seed0" / run / "checkpoint.json").read_text())
        assert description["metrics"]["attempts"] == len(planned) + 1, run
    done = alone.run(*LONGER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights(disturbed.results) == weights(alone.results) != {}
    assert disturbed.planned(*LONGER) == set()


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_trainer_that_outlives_its_snakemake_is_not_doubled(tmp_path: Path) -> None:
    target = ("results/smoke/seed0/pretrain/checkpoint.safetensors", "--config", "pretrain={iterations: 1000000}")
    run = tmp_path / "results" / "smoke" / "seed0" / "pretrain"
    first = start(tmp_path, *target)
    wait_until(lambda: trainer(run) != "", 120)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    orphan = trainer(run)
    again = start(tmp_path, *target, "--preemptible-retries", "1")
    assert again.wait() != 0
    told = (tmp_path / "printed.txt").read_text()
    assert f"one trainer at a time may work here, found another (host {os.uname().nodename}" in told
    assert told.count("has been submitted") == 2 and trainer(run) == orphan
    subprocess.run(["scancel", orphan], check=True)
    wait_until(lambda: not output("squeue", "--noheader"), 60)
