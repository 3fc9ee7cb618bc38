"""Files that are either complete or absent, whenever the process dies."""

import errno
import fcntl
import glob
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from caguda.artifacts.ownership import LONGEST, refuse_foreign
from caguda.errors import UserError
from caguda.files import SEAL, is_sealed, read_regular, seal

_ROOM = 1 << 20  # bytes; with less free space, an error of a library means a full disk
HEX = "[0-9a-f]" * 8


@contextmanager
def write_atomically(path: Path, *within: Path) -> Iterator[Path]:
    """Yields a path in the same folder to write to; it replaces `path` when the block ends without an error.

    Readers see the old file or the complete new one. UserError if `path` is a file of another program, which stays. An error
    leaves nothing behind. SIGKILL leaves a `*.partial` file; the next writer of `path` removes it if no other writer is at
    work in the folder, and those of the files that are written `within` the block, whose writers cannot. A full disk is an
    OSError, also where a library raises something else.
    """
    refuse_foreign(path, *within)
    with replace_atomically(path, *within) as part:
        yield part


@contextmanager
def replace_atomically(path: Path, *within: Path) -> Iterator[Path]:
    """The same without the check of `path`, for callers that know that this program made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with at_work(path.parent, lambda: chain.from_iterable(map(remains_of, (path, *within)))):
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
    """A new name for a partial file: `NAME.XXXXXXXX.partial`, with a long NAME cut to fit."""
    return path.with_name(f"{_prefix(path)}.{secrets.token_hex(4)}.partial")


def remains_of(path: Path) -> list[Path]:
    """The partial files of `path` in its folder, of writers at work or killed ones."""
    parts = path.parent.glob(f"{glob.escape(_prefix(path))}.{HEX}.partial")
    return [part for part in parts if part.is_file() and not part.is_symlink()]


def _prefix(path: Path) -> str:
    kept = os.fsencode(path.name)[: LONGEST - len(".01234567.partial")]
    return path.name if kept == os.fsencode(path.name) else kept.decode(errors="ignore")


@contextmanager
def at_work(folder: Path, remains: Callable[[], Iterable[Path]] = tuple) -> Iterator[None]:
    """Marks a folder as written to during the block; first removes `remains` if no other writer is at work there.

    The mark is a shared lock of the folder itself (flock), which ends with the process. On a file system without locks, the
    remains of killed writers stay.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _locked(descriptor, fcntl.LOCK_EX):
            for path in remains():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        for _ in range(100):  # another process may be removing remains
            if _locked(descriptor, fcntl.LOCK_SH) is not False:
                break
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool | None:
    """Whether this process got a lock at once; None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
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

    One more key comes last: the SHA-256 of all bytes above its line.
    """
    text = json.dumps({**content, SEAL: ""}, indent=1, ensure_ascii=False, allow_nan=False)
    above = text.removesuffix(f' "{SEAL}": ""\n}}').encode()
    with write_atomically(path) as part:
        part.write_bytes(above + seal(above))


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON of `write_json` without its checksum; UserError if missing, damaged or of another program."""
    raw = read_regular(path)
    if not is_sealed(raw):
        raise UserError(
            f"{path}: the file must be as a verb of caguda wrote it, found another {SEAL} or none; make it again, or name the "
            "right file"
        )
    content = dict(json.loads(raw.decode("utf-8")))
    del content[SEAL]
    return content
