"""What the check found in each frame, one JSON a line, so that files that have not changed are not opened again.

A line is only ever added, by one `write`, and ends with a digest of itself. One that is not whole, or not as it was written,
is passed over: after a SIGKILL the check goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from caguda.datasets.frame import Frame
from caguda.errors import UserError
from caguda.files import refuse_irregular

_BEGINNING = re.compile(rb"\n+(\[|\Z)|\Z")
Stamp = tuple[str | int | None, ...]


def stamp(frame: Frame, reading: str) -> Stamp | None:
    """What has to be the same for a line to hold: path, size and times of both files, and how they are read.

    Of the times, a program may set that of the content as it likes; the system sets that of the file at every change.
    None where the files cannot be looked at.
    """
    found: list[str | int | None] = [reading]
    try:
        for path in (frame.image, frame.label):
            status = None if path is None else path.stat()
            found.extend(
                (None,) * 4 if status is None else (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            )
    except OSError:
        return None
    return tuple(found)


def read_record(path: Path) -> dict[Stamp, tuple[dict[str, Any], dict[str, int]]]:
    """The entry and the number of pixels of each train id that each stamp stands for; empty if there is no record."""
    known = {}
    refuse_irregular(path)
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            content, _, seal = line.decode().removesuffix('"]').rpartition(', "')
            if seal != _seal(content + "]"):
                continue
            key, entry, pixels = json.loads(content + "]")
            known[tuple(key)] = (dict(entry), dict(pixels))
        except (ValueError, TypeError):
            continue
    return known


@contextmanager
def appended(path: Path) -> Iterator[IO[str]]:
    """A record to add lines to; whatever a killed check left of its last line stays a line of its own."""
    if os.path.lexists(path.parent) and not path.parent.is_dir():
        raise UserError(
            f"{path.parent}: the folder of the check must be here or nothing, found another file; move it away"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path) and (
        path.is_symlink() or not path.is_file() or not _BEGINNING.match(path.read_bytes()[:9])
    ):
        raise UserError(
            f"{path}: the record of the check must be here or nothing, found another file; move it away, or choose "
            "another output"
        )
    with path.open("a", encoding="utf-8", buffering=1) as file:
        file.write("\n")
        yield file


def add(file: IO[str], key: Stamp, entry: Mapping[str, Any], pixels: NDArray[np.int64]) -> None:
    """Adds the line of one frame."""
    present = {train_id: count for train_id, count in enumerate(pixels.tolist()) if count}
    line = json.dumps([key, entry, present], ensure_ascii=False)
    file.write(f'{line.removesuffix("]")}, "{_seal(line)}"]\n')


def _seal(line: str) -> str:
    """The digest of a line's content."""
    return hashlib.sha256(line.encode()).hexdigest()[:16]
