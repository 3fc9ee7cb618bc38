"""The state from which a killed training resumes, and the lock that keeps a second trainer out."""

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

from caguda.artifacts.atomic import remains_of, write_atomically
from caguda.errors import LockHeld, UserError
from caguda.files import sha256


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes a training state atomically: tensors, numbers, strings, None, and dicts, lists and tuples of them.

    The SHA-256 of all bytes is appended.
    """
    with write_atomically(path) as partial:
        torch.save(state, partial)
        digest = sha256(partial)
        with partial.open("ab") as file:
            file.write(f"{digest}\n".encode())


def load_state(path: Path) -> dict[str, Any] | None:
    """The training state on the CPU; None if there is none to resume from.

    Only plain values are unpickled. A file that does not end with its digest is damaged: it is renamed to `*.damaged`, or
    another free name, and one line on stderr says so. A file that cannot be read for another reason is a UserError and
    stays.
    """
    try:
        if not os.path.lexists(path):
            return None
        is_whole = _is_whole(path)
    except OSError as error:
        raise UserError(
            f"{path}: the training state must be readable, found: {error.strerror}; put that right and give the same "
            "command again, it is still there"
        ) from None
    if is_whole:
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
    """Raises UserError unless a training state ends with the digest of its bytes."""
    if not _is_whole(path):
        raise UserError(
            f"{path}: a training state must be whole, found another digest than the one at its end; the training that it "
            "is of starts afresh"
        )


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the digest of all bytes before it."""
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path}: a training state must be a regular file, found something else; move it away")
    digest, remaining = hashlib.sha256(), path.stat().st_size - _DIGEST_BYTES
    with path.open("rb") as file:
        while remaining > 0 and (piece := file.read(min(remaining, 1 << 20))):
            digest.update(piece)
            remaining -= len(piece)
        return remaining == 0 and file.read() == f"{digest.hexdigest()}\n".encode()


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001  the file is undamaged: the cause is another one
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: the training state must be loaded, found: {reason}; put that right and give the same command again, "
            "or name another folder for the state"
        ) from None


def count_attempt(path: Path, fingerprint: str) -> int:
    """The number of starts of a training with this fingerprint, including this one; appends a line to `path` for each."""
    _refuse_foreign_content(path, _ATTEMPTS)
    with path.open("a+", encoding="utf-8") as file:
        file.write(f"\n{fingerprint}\n")  # the first line break ends a line that a full disk may have cut
        file.seek(0)
        return file.read().splitlines().count(fingerprint)


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Locks a state directory (made if need be) for this process; LockHeld names the holder if there is one.

    The lock ends with the process, also by SIGKILL. It is a POSIX lock: forked workers would inherit one of flock, and hold
    it after the trainer's death. Partial files of a killed trainer are removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _refuse_foreign_content(directory / "lock", _HOLDER)
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
            print(f"{directory}: its file system gives no locks ({error.strerror}); make sure that no second trainer works here",
                  file=sys.stderr)  # fmt: skip
        _overwrite(file, f"host {platform.node()}, pid {os.getpid()}, job {os.environ.get('SLURM_JOB_ID', 'none')}")
        for part in remains_of(directory / "state.pt"):
            part.unlink(missing_ok=True)
        try:
            yield
        finally:
            _overwrite(file, "")


_DIGEST_BYTES = 65  # with the end of its line
_HOLDER = re.compile(rb"(host [^\n]*, pid \d+, job [^\n]*)?")
_ATTEMPTS = re.compile(rb"(\n[0-9a-z]*)*\n?")


def _refuse_foreign_content(path: Path, form: re.Pattern[bytes]) -> None:
    """Raises UserError unless a file to write to is absent, or has the form that this program gives it."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file() or not form.fullmatch(path.read_bytes()):
        raise UserError(
            f"{path}: the folder of a state must have no {path.name} of something else, found one; move it away, or "
            "choose another folder"
        )


def _overwrite(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
