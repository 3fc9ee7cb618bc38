"""Processes that share a training: whatever ends one ends all, with the exit code and the one line of its cause."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from test_training import toy_setup
from workflow_runs import environment

from caguda.errors import UserError
from caguda.launch import Outcome, end_with, launch
from caguda.stages import parallel
from caguda.stages.training import train

HERE = Path(__file__).parent
LAUNCHER = """
import sys
from functools import partial
from pathlib import Path
from test_launch import waiting
from caguda.launch import launch
if __name__ == "__main__":
    sys.exit(launch(2, partial(waiting, Path(sys.argv[1]))).code)
"""


def ending(how: str, number: int) -> Outcome:
    """One process ends in some way while the other waits for it in a sum."""
    if parallel.rank() != number:
        parallel.all_reduce_sum(torch.ones(1))
        parallel.all_reduce_sum(torch.ones(1))
        return Outcome(0)
    parallel.all_reduce_sum(torch.ones(1))
    if how == "fault":
        raise ZeroDivisionError("of the program")
    if how == "exit":
        raise SystemExit(143)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(2, "caguda: error: what it has to say")


@pytest.mark.parametrize(
    ("how", "number", "code", "said"),
    [
        ("error", 1, 2, "caguda: error: what it has to say"),
        pytest.param("error", 0, 2, "caguda: error: what it has to say", marks=pytest.mark.slow),
        pytest.param("fault", 1, 1, "ZeroDivisionError: of the program", marks=pytest.mark.slow),
        pytest.param("exit", 1, 143, "", marks=pytest.mark.slow),
        ("kill", 1, 137, "was ended by SIGKILL"),
    ],
)
def test_what_ends_one_ends_all_and_is_what_is_told(how: str, number: int, code: int, said: str) -> None:
    started = time.monotonic()
    outcome = launch(2, partial(ending, how, number))
    assert outcome.code == code and said in outcome.message, outcome
    assert outcome.fault == (how == "fault") and (outcome.fault or "\n" not in outcome.message)
    assert time.monotonic() - started < 120, "a sum waits half an hour for a process that has ended"


def disagreeing(directory: Path) -> Outcome:
    """A training whose second process has read other inputs."""
    try:
        train(toy_setup(), directory, f"inputs {parallel.rank()}", 10)
    except UserError as error:
        return Outcome(error.exit_code, str(error))
    return Outcome(0)


@pytest.mark.slow
def test_processes_that_have_read_different_inputs_take_no_step(tmp_path: Path) -> None:
    outcome = launch(2, partial(disagreeing, tmp_path))
    assert outcome.code == 2 and "must read the same inputs" in outcome.message and "\n" not in outcome.message
    assert not (tmp_path / "state.pt").exists()


def resuming(directory: Path) -> Outcome:
    """A finished training whose second process finds no state where it looks: no step is left that would part them."""
    job = toy_setup(iterations=20)
    own = directory if parallel.rank() == 0 else directory / "elsewhere"
    train(job, own, "f", 10)
    weights = torch.cat([weight.detach().flatten() for weight in job.modules["network"].parameters()])
    same = torch.equal(parallel.all_reduce_sum(weights), 2 * weights)
    return Outcome(0 if same else 3, "other weights")


def test_all_go_on_from_the_state_that_the_first_has_read(tmp_path: Path) -> None:
    train(toy_setup(iterations=20), tmp_path, "f", 10)
    assert launch(2, partial(resuming, tmp_path)) == Outcome(0)


def waiting(folder: Path) -> Outcome:
    """Both processes say that they are there, then one waits for the other, which sleeps."""
    (folder / str(os.getpid())).touch()
    if parallel.rank() == 1:
        time.sleep(600)
    parallel.all_reduce_sum(torch.ones(1))
    return Outcome(0)


def ranks(folder: Path, launcher: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that a launcher has started, once both are at work."""
    deadline = time.monotonic() + 120
    while len(list(folder.iterdir())) < 2:
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return [psutil.Process(int(path.name)) for path in folder.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_processes_end_with_the_one_that_started_them(tmp_path: Path, number: signal.Signals) -> None:
    words = [sys.executable, "-c", LAUNCHER, str(tmp_path)]
    with subprocess.Popen(words, env=environment(HERE)) as launcher:
        started = ranks(tmp_path, launcher)
        launcher.send_signal(number)
        assert psutil.wait_procs(started, 30)[1] == []
        assert launcher.wait(30) == (-9 if number == signal.SIGKILL else 143)


@pytest.mark.parametrize("inherited", [None, "", "junk", "-1", "0", "1.5", "\u00b2", "9" * 30])
def test_a_workflow_that_is_none_means_nothing(inherited: str | None) -> None:
    end_with(inherited)


def test_the_end_of_a_process_that_started_nothing_of_this_one_means_nothing() -> None:
    """The number of a workflow of yesterday, which another process has today."""
    code = "import sys, time; from caguda.launch import end_with; end_with(sys.argv[1]); input(); time.sleep(0.5)"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        words = [sys.executable, "-c", code, str(stranger.pid)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, env=environment()) as verb:
            time.sleep(0.5)
            stranger.communicate(b"\n")
            verb.communicate(b"\n", timeout=60)
            assert verb.returncode == 0


def test_a_verb_ends_with_the_workflow_above_it() -> None:
    code = (
        "import os, time; from caguda.launch import end_with; end_with(str(os.getppid())); print('.'); time.sleep(60)"
    )
    script = f"{sys.executable} -u -c {code!r} & wait"
    with subprocess.Popen(
        ["bash", "-c", script.replace("'.'", "1")], stdout=subprocess.PIPE, env=environment()
    ) as shell:
        assert shell.stdout is not None and shell.stdout.readline() == b"1\n"
        verbs = psutil.Process(shell.pid).children()
        shell.kill()
        assert psutil.wait_procs(verbs, 30)[1] == []
