"""Files that are either whole or absent, whenever the process dies."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from caguda.artifacts.ownership import LONGEST, refuse_foreign
from caguda.errors import UserError
from caguda.files import SEAL, is_sealed, read_regular, refuse_irregular, seal

_ROOM = 1 << 20
HEX = "[0-9a-f]" * 8

__all__ = ["HEX", "SEAL", "at_work", "is_sealed", "partial_of", "read_json", "remains_of", "replace_atomically", "sha256", "write_atomically",
           "write_json"]  # fmt: skip


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A path in the same folder to write to, which becomes `path` when the block ends without an error.

    Readers see the old file or the whole new one. A file that this program did not make is a UserError, and stays.
    After an error nothing is left; after SIGKILL a `*.partial` file is, until the next writer of this file that is
    alone in the folder. A disk that is full is an OSError, also where a library calls it something else.
    """
    refuse_foreign(path)
    with replace_atomically(path) as part:
        yield part


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """The same for one who knows already that what lies at `path` was made by this program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with at_work(path.parent, partial(remains_of, path)):
        part = partial_of(path)
        try:
            yield part
            _flush(part)
            os.replace(part, path)
            _flush(path.parent)
        except RuntimeError as error:  # of HDF5 or torch.save
            if shutil.disk_usage(path.parent).free > _ROOM:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        finally:
            part.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """A new name for a part of a file: `NAME.XXXXXXXX.partial`, of a long NAME what fits."""
    return path.with_name(f"{_beginning(path)}.{secrets.token_hex(4)}.partial")


def remains_of(path: Path) -> list[Path]:
    """The parts of a file that writers at work, or killed ones, have in its folder."""
    found = path.parent.glob(f"{glob.escape(_beginning(path))}.{HEX}.partial")
    return [left for left in found if left.is_file() and not left.is_symlink()]


def _beginning(path: Path) -> str:
    kept = os.fsencode(path.name)[: LONGEST - len(".01234567.partial")]
    return path.name if kept == os.fsencode(path.name) else kept.decode(errors="ignore")


@contextmanager
def at_work(folder: Path, remains: Callable[[], Iterable[Path]] = tuple) -> Iterator[None]:
    """Marks a folder as written to while the block runs; first removes `remains` if no writer is at work there.

    The mark is a lock of the folder itself (flock), which goes with the process. Where a file system has none, what
    killed writers left stays.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _locked(opened, fcntl.LOCK_EX):
            for left in remains():
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
        for _ in range(100):  # another one may be removing remains
            if _locked(opened, fcntl.LOCK_SH) is not False:
                break
            time.sleep(0.01)
        yield
    finally:
        os.close(opened)


def _locked(opened: int, kind: int) -> bool | None:
    """Whether a lock was to be had; None where the file system has none."""
    try:
        fcntl.flock(opened, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as indented UTF-8 JSON, atomically; nan and infinity, which JSON lacks, are a ValueError.

    One key more comes last: the SHA-256 of all the bytes in the lines above it.
    """
    text = json.dumps({**content, SEAL: ""}, indent=1, ensure_ascii=False, allow_nan=False)
    above = text.removesuffix(f' "{SEAL}": ""\n}}').encode()
    with write_atomically(path) as part:
        part.write_bytes(above + seal(above))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON that `write_json` wrote, without its seal; a UserError when it is missing or another one."""
    raw = read_regular(path)
    if not is_sealed(raw):
        raise UserError(
            f"{path}: the file must be as a verb of caguda wrote it, found another {SEAL} or none; make it again, or name the "
            "right file"
        )
    content = dict(json.loads(raw.decode("utf-8")))
    del content[SEAL]
    return content


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal; a UserError when the file cannot be read."""
    try:
        refuse_irregular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: the file must be readable, found: {error.strerror}; make it first") from None
