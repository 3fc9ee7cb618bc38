"""The record of the check: the result for each frame, one JSON array per line, so that unchanged files are not opened again.

A line is appended by one `write` and ends with a checksum of itself. A line that is torn or differs from its checksum is
skipped: a check that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from caguda.datasets.frame import Frame
from caguda.errors import UserError
from caguda.files import refuse_irregular

_BEGINNING = re.compile(rb"\n+(\[|\Z)|\Z")
FrameKey = tuple[str | int | None, ...]
"""A digest of how files are read, then path, size, mtime and ctime of the image, and the same four of the label."""


class FileState(NamedTuple):
    """A file as the check read it: its size in bytes, the time of its last change in nanoseconds, and its SHA-256."""

    size: int
    mtime_ns: int
    sha256: str | None


def record_path(manifest: Path, verb: str) -> Path:
    """The record beside a manifest that `verb`, check or one like it, writes."""
    return manifest.parent / verb / "frames.jsonl"


def frame_key(frame: Frame, reader: str) -> FrameKey | None:
    """The key of a frame's line; a line holds as long as the key is the same. None if a file cannot be examined.

    It has the ctime because the system sets it at every change, whereas any program may set the mtime.
    """
    key: list[str | int | None] = [reader]
    try:
        for path in (frame.image, frame.label):
            if path is None:
                key += [None] * 4
            else:
                status = path.stat()
                key += [str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    except OSError:
        return None
    return tuple(key)


def read_record(path: Path) -> dict[FrameKey, tuple[dict[str, Any], NDArray[np.int64]]]:
    """The manifest entry and the pixel counts (256,) per train id of each key; empty if there is no record."""
    recorded = {}
    refuse_irregular(path)
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            content, _, checksum = line.decode().removesuffix('"]').rpartition(', "')
            if checksum != _checksum(content + "]"):
                continue
            key, entry, counts = json.loads(content + "]")
            pixels = np.zeros(256, dtype=np.int64)
            pixels[[int(train_id) for train_id in counts]] = list(counts.values())
            recorded[tuple(key)] = (dict(entry), pixels)
        except (ValueError, TypeError, AttributeError, IndexError):
            continue
    return recorded


def read_file_states(path: Path) -> dict[str, FileState]:
    """The last recorded state of each file in a record, by the file's path."""
    states = {}
    for key, (entry, _) in read_record(path).items():
        for kind, (file, size, mtime_ns, _) in (("image", key[1:5]), ("label", key[5:9])):
            if isinstance(file, str) and isinstance(size, int) and isinstance(mtime_ns, int):
                states[file] = FileState(size, mtime_ns, entry[f"{kind}_sha256"])
    return states


@contextmanager
def open_record(path: Path) -> Iterator[IO[str]]:
    """Opens a record to append lines; UserError if another file has its place. The first new line ends a torn one."""
    if os.path.lexists(path.parent) and not path.parent.is_dir():
        raise UserError(f"{path.parent}: this must be the folder of the check, found another file; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path) and (
        path.is_symlink() or not path.is_file() or not _BEGINNING.match(path.read_bytes()[:9])
    ):
        raise UserError(
            f"{path}: this must be the record of the check, found another file; move it away, or choose another output"
        )
    with path.open("a", encoding="utf-8", buffering=1) as file:
        file.write("\n")
        yield file


def append_line(file: IO[str], key: FrameKey, entry: Mapping[str, Any], pixels: NDArray[np.int64]) -> None:
    """Appends the line of one frame."""
    counts = {train_id: count for train_id, count in enumerate(pixels.tolist()) if count}
    line = json.dumps([key, entry, counts], ensure_ascii=False)
    file.write(f'{line.removesuffix("]")}, "{_checksum(line)}"]\n')


def _checksum(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()[:16]
