"""What a trainer needs to resume after it was killed, and the lock that keeps a second trainer out."""

import fcntl
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import torch

from caguda.artifacts.atomic import remains_of, write_atomically
from caguda.errors import LockHeld, UserError


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes the training state atomically: tensors, numbers, strings, None, and dicts, lists and tuples of them."""
    with write_atomically(path) as partial:
        torch.save(state, partial)


def load_state(path: Path) -> dict[str, Any] | None:
    """The training state on the CPU, or None when there is none to resume from.

    Nothing but plain values is unpickled. A damaged file is moved aside to `*.damaged`, or to another free name, which
    one line on stderr says. Nothing is ever moved over.
    """
    if not path.exists():
        return None
    try:
        return _read(path)
    except Exception as error:  # noqa: BLE001  torch.load raises whatever the damage leads to
        names = (f"{path.name}.damaged{number or ''}" for number in count())
        aside = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
        os.rename(path, aside)
        reason = str(error).partition("\n")[0]
        print(f"{path}: cannot be resumed from ({reason}); moved to {aside.name}, starting afresh", file=sys.stderr)
        return None


def check_state(path: Path) -> None:
    """Returns when the state in a file can be resumed from, every checksum in it right; else a UserError."""
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()
        _read(path)
    except Exception as error:  # noqa: BLE001  as above
        damaged = str(error).partition("\n")[0]
    if damaged:
        raise UserError(f"{path}: a training state must be whole, found damage ({damaged}); delete it to start afresh")


def _read(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def count_attempt(path: Path, fingerprint: str) -> int:
    """How often a training with this fingerprint has been started, this time included; `path` gets a line for each."""
    _refuse_another(path, _ATTEMPTS)
    with path.open("a+", encoding="utf-8") as file:
        file.write(f"\n{fingerprint}\n")  # the first break ends what a full disk may have left
        file.seek(0)
        return file.read().splitlines().count(fingerprint)


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Holds a state directory (made if need be) for this process alone; LockHeld names the holder if there is one.

    The lock goes with the process, SIGKILL included. It is a POSIX lock and not flock's, because forked workers
    inherit the latter and would hold it after the trainer's death. What a killed trainer left half-written is removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _refuse_another(directory / "lock", _HOLDER)
    with (directory / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "its name is not written yet"
            raise LockHeld(
                f"{directory}: one trainer at a time may work here, found another ({holder}); wait for it or end it"
            ) from None
        _write_over(file, f"host {platform.node()}, pid {os.getpid()}, job {os.environ.get('SLURM_JOB_ID', 'none')}")
        for stale in remains_of(directory / "state.pt"):
            stale.unlink(missing_ok=True)
        try:
            yield
        finally:
            _write_over(file, "")


_HOLDER = re.compile(rb"(host [^\n]*, pid \d+, job [^\n]*)?")
_ATTEMPTS = re.compile(rb"(\n[0-9a-z]*)*\n?")


def _refuse_another(path: Path, form: re.Pattern[bytes]) -> None:
    """UserError unless a file that is about to be written on is absent, or has the form that this program gives it."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file() or not form.fullmatch(path.read_bytes()):
        raise UserError(
            f"{path}: the folder of a state must have no {path.name} of something else, found one; move it away, or "
            "choose another folder"
        )


def _write_over(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
