"""Resume state and the lock of its directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from caguda.artifacts.state import load_state, lock, save_state
from caguda.errors import LockHeld

HOLDER = """
import os, sys, time; from pathlib import Path; from caguda.artifacts.state import lock
with lock(Path(sys.argv[1])):
    worker = os.fork()
    if worker:
        print(worker, flush=True)
    time.sleep(60)
"""


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state" / "state.pt"
    assert load_state(path) is None
    state = {"iteration": 7, "weights": {"a": torch.ones(2)}, "rng": torch.get_rng_state(), "order": [3, 1], "p": None}
    save_state(path, state)
    loaded = load_state(path)
    assert loaded is not None and loaded.keys() == state.keys() and loaded["order"] == [3, 1]
    assert torch.equal(loaded["rng"], torch.get_rng_state()) and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["truncated", "empty", "no dict"])
def test_a_damaged_state_is_moved_aside(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"weights": torch.ones(1000)})
    if damage == "no dict":
        torch.save(torch.ones(1), path)
    else:
        path.write_bytes(path.read_bytes()[: 500 * (damage == "truncated")])
    assert load_state(path) is None
    printed = capsys.readouterr().err
    assert str(path) in printed and printed.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt.damaged"]


def test_a_state_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"a": Evil()}, tmp_path / "state.pt")
    assert load_state(tmp_path / "state.pt") is None
    assert not (tmp_path / "owned").exists()


def test_a_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        try:
            with pytest.raises(LockHeld) as held, lock(directory):
                pass
            assert f"pid {process.pid}," in str(held.value) and held.value.exit_code == 75
            assert "\n" not in str(held.value)
            (directory / "state.pt.01234567.partial").touch()
            process.send_signal(signal.SIGKILL)
            process.wait()
            with lock(directory):  # although a worker that the holder forked still lives
                assert f"pid {os.getpid()}," in (directory / "lock").read_text()
                assert [entry.name for entry in directory.iterdir()] == ["lock"]
        finally:
            process.kill()
            os.kill(worker, signal.SIGKILL)
    assert (directory / "lock").read_text() == ""
