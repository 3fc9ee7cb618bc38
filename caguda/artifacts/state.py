"""What a trainer needs to resume after it was killed, and the lock that keeps a second trainer out."""

import fcntl
import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any

import torch

from caguda.artifacts.atomic import remains_of, sha256, write_atomically
from caguda.errors import LockHeld, UserError


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes the training state atomically: tensors, numbers, strings, None, and dicts, lists and tuples of them.

    The SHA-256 of all bytes follows them.
    """
    with write_atomically(path) as partial:
        torch.save(state, partial)
        digest = sha256(partial)
        with partial.open("ab") as file:
            file.write(f"{digest}\n".encode())


def load_state(path: Path) -> dict[str, Any] | None:
    """The training state on the CPU, or None when there is none to resume from.

    Nothing but plain values is unpickled. A file without its digest is damaged: it is moved aside to `*.damaged`, or to
    another free name, which one line on stderr says. One that cannot be read for another reason is a UserError and stays.
    """
    try:
        if not os.path.lexists(path):
            return None
        whole = _is_whole(path)
    except OSError as error:
        raise UserError(
            f"{path}: the training state must be readable, found: {error.strerror}; put that right and give the same "
            "command again, it is still there"
        ) from None
    if whole:
        return _read(path)
    names = (f"{path.name}.damaged{number or ''}" for number in count())
    aside = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    os.rename(path, aside)
    print(
        f"{path}: cannot be resumed from, its content does not have the digest at its end; moved to {aside.name}, starting "
        "afresh",
        file=sys.stderr,
    )
    return None


def check_state(path: Path) -> None:
    """Returns when the state in a file is, to the last bit, as it was written; else a UserError."""
    if not _is_whole(path):
        raise UserError(
            f"{path}: a training state must be whole, found another digest than the one at its end; the training that it "
            "is of starts afresh"
        )


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the digest of all bytes before it."""
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path}: a training state must be a regular file, found something else; move it away")
    digest, left = hashlib.sha256(), path.stat().st_size - _END
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
        return left == 0 and file.read() == f"{digest.hexdigest()}\n".encode()


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001  its bytes are those that were written
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: the training state must be loaded, found: {reason}; put that right and give the same command again, "
            "or name another folder for the state"
        ) from None


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
        except OSError as error:  # a file system without locks
            print(f"{directory}: no lock is to be had here ({error.strerror}); make sure that no second trainer works here",
                  file=sys.stderr)  # fmt: skip
        _write_over(file, f"host {platform.node()}, pid {os.getpid()}, job {os.environ.get('SLURM_JOB_ID', 'none')}")
        for stale in remains_of(directory / "state.pt"):
            stale.unlink(missing_ok=True)
        try:
            yield
        finally:
            _write_over(file, "")


_END = 65  # bytes of a digest and the end of its line
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
