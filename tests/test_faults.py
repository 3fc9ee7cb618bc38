"""Faults of the machine: a full disk, a read-only one, processes that die, clocks that are wrong."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from miniature import Miniature, label_files
from workflow_runs import ROOT, Call, Workflow, environment, verb_of

from caguda.artifacts.outputs import WRITES
from caguda.artifacts.state import load_state, save_state
from caguda.cli import main

DEMO = ROOT / "config" / "demo.yaml"
CURVES = f"curves --config {DEMO} --report cag --checkpoints a.json --output b.png".split()


def mount(*arguments: object) -> bool:
    """Whether `mount` did what it was asked for."""
    return subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True).returncode == 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder):
        pytest.skip("a file system of a test's own needs Linux and root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leaves no room on the disk."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return


def verb_arguments(mini: Miniature, verb: str, folder: Path) -> list[str]:
    """The words of a verb that reads the miniature's artifacts and writes to `folder`."""
    made, labels = mini.folder, mini.folder / "labels"
    network = f"--manifest {mini.manifest} --checkpoint {mini.weights('warmup')} "
    evidence, stores = f"--evidence {labels}/evidence.json ", label_files(labels / "labels.json")
    options = {
        "check": "",
        "pack": f"--manifest {mini.manifest} --domain source ",
        "train": f"--manifest {mini.manifest} --seed 0 --model pretrain --state {folder}/state ",
        "anchor-part": f"{network}--part 1 --parts 1 ",
        "evidence-store": f"{network}--anchors {labels}/anchors.h5 --store {folder}/evidence.zarr ",
        "labels": f"{evidence}--rule {stores[0].parent.name} --store {folder}/labels.zarr ",
        "diagnose": f"--manifest {mini.manifest} {evidence}--labels {stores[0]} {stores[1]} ",
        "evaluate": network,
        "curves": f"--report cag --checkpoints {made}/pretrain/checkpoint.json ",
    }[verb]
    return f"{verb} --config {made}/faults.yaml {options}--output {folder}/checkpoint{WRITES[verb][0]}".split()


@pytest.fixture
def miniature(mini: Miniature) -> Miniature:
    """The miniature with its configuration in a file."""
    mini.yaml().rename(mini.folder / "faults.yaml")
    return mini


WRITERS = ["check", "pack", "train", "anchor-part", "evidence-store", "labels", "diagnose", "evaluate", "curves"]


@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("verb", WRITERS)
def test_a_disk_that_takes_nothing_is_one_line_and_the_same_call_works_afterwards(
    miniature: Miniature, small: Path, verb: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = verb_arguments(miniature, verb, small)
    if fault == "full":
        fill(small)
    else:
        assert mount("-o", "remount,ro", small)
    before = sorted(small.rglob("*"))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("caguda: error: ") and error.count("\n") == 1 and str(small) in error, error
    assert {"full": "No space left" if verb != "pack" else "make room", "read-only": "Read-only"}[fault] in error
    left = [path for path in small.rglob("*") if path not in before and path.is_file() and path.stat().st_size]
    assert left == [], "a part of a file passes for a whole one"
    assert mount("-o", "remount,rw,size=64m", small)
    assert main(words) == 0
    if verb == "train":
        assert (small / "checkpoint.safetensors").read_bytes() == miniature.weights("pretrain").read_bytes()


def test_a_state_that_finds_no_room_leaves_the_one_before(small: Path) -> None:
    path = small / "state.pt"
    save_state(path, {"fingerprint": "a", "iteration": 1})
    with pytest.raises(OSError, match="No space left"):
        save_state(path, {"fingerprint": "a", "iteration": 2, "weights": torch.zeros(100_000)})
    assert load_state(path) == {"fingerprint": "a", "iteration": 1} and list(small.iterdir()) == [path]


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("caguda.paper.charts.write_curves", interrupted)
    assert main(CURVES) == 130
    assert capsys.readouterr().err == "caguda: interrupted\n"


KILLED, TOO_LITTLE = "a process that loads frames was killed", "lower batch_size, augmentation.crop or"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionResetError(104, "reset"), KILLED),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), KILLED),
        (MemoryError(), TOO_LITTLE),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore of it"), TOO_LITTLE),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
            TOO_LITTLE,
        ),
    ],
)
def test_want_of_memory_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("caguda.paper.charts.write_curves", fail)
    assert main(CURVES) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


def test_a_verb_of_a_workflow_that_has_ended_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as workflow:
        pass
    monkeypatch.setenv("CAGUDA_WORKFLOW", str(workflow.pid))
    with pytest.raises(SystemExit) as end:
        main(CURVES)
    assert end.value.code == 143


def test_workers_end_with_the_verb_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "verb.py"
    script.write_text(
        "import os, time; from caguda.datasets.workers import workers\n"
        "if __name__ == '__main__':\n"
        "    with workers(2, [], 'verb') as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment()) as verb:
        assert verb.stdout is not None
        worker = int(verb.stdout.readline())
        started = psutil.Process(verb.pid).children(recursive=True)
        assert worker in [process.pid for process in started]
        verb.kill()
    assert psutil.wait_procs(started, 30)[1] == []


def trainer(call: Call) -> psutil.Process:
    """The verb of a call that runs one."""
    return next(process for process in call.below() if verb_of(process))


def gone(call: Call) -> None:
    """Waits for everything that a call has started to end."""
    deadline = time.monotonic() + 60
    while call.below():
        assert time.monotonic() < deadline, f"these go on: {[process.cmdline() for process in call.below()]}"
        time.sleep(0.05)


def test_one_call_at_a_time_and_nothing_trains_on_when_it_is_killed(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    folder = workflow.results / "seed0" / "pretrain"
    checkpoint, state = folder / "checkpoint.safetensors", folder / "state" / "state.pt"
    before, target = checkpoint.read_bytes(), str(checkpoint.relative_to(tmp_path))
    checkpoint.unlink()
    state.unlink()
    first = Call(workflow, [target])
    while not state.exists():
        assert first.process.poll() is None, first.printed.read_text()
        time.sleep(0.005)
    trainer(first).suspend()
    second = workflow.run(target)
    said = [line for line in second.stderr.splitlines() if line.startswith("caguda: ")]
    assert second.returncode == 1 and len(said) == 1 and "one call at a time" in said[0], second.stderr
    first.process.kill()
    first.process.wait()
    trainer(first).resume()
    gone(first)
    log = folder / "log" / "train.txt"
    assert "stopped by signal 15" in log.read_text() and "state saved" in log.read_text()
    (folder / "state" / "lock").write_text("host elsewhere, pid 1, job none")
    third = workflow.run(target)
    assert third.returncode == 0, third.stderr
    assert "continues after iteration" in log.read_text() and checkpoint.read_bytes() == before


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_results_on_a_disk_that_takes_nothing_are_one_line(small: Path, fault: str) -> None:
    workflow = Workflow(small.parent)
    workflow.results.parent.mkdir()
    workflow.results.symlink_to(small, target_is_directory=True)
    if fault == "full":
        fill(small)
    else:
        assert mount("-o", "remount,ro", small)
    done = workflow.run()
    said = [line for line in done.stderr.splitlines() if line.startswith("caguda: ")]
    reason = {"full": "No space left on device", "read-only": "Read-only file system"}[fault]
    assert done.returncode == 1 and len(said) == 1 and reason in said[0] and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_an_hour_wrong_runs_nothing_again(finished: Workflow, tmp_path: Path, hours: int) -> None:
    workflow = finished.copy(tmp_path)
    for path in workflow.results.rglob("*"):
        moment = path.stat().st_mtime + 3600 * hours
        os.utime(path, (moment, moment))
    assert workflow.planned() == set()
