"""The check of frames: every image and label is opened, decoded, measured and hashed once, on all cores.

Only the functions that open files import torch: a check of unchanged files starts without it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from caguda.classes import IGNORE, ClassTable
from caguda.datasets.frame import Frame
from caguda.datasets.record import append_line, frame_key, open_record, read_record
from caguda.datasets.workers import workers
from caguda.errors import UserError

_CHECK_VERSION = 2
"""Raised when the check looks for more: files that passed an earlier version are then opened again."""
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class CheckResult:
    """The result of checking one or more frames.

    `entries` has one per usable frame: id, image, label, height, width, whether the image has a single colour, classes
    (the train ids in the label, without void) and the SHA-256 of both files. `problems` and `warnings` are lines that
    name a file. `pixels` (256,) counts the pixels of each train id. `unequal` has the ids of frames whose label has
    another size than the image.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    unequal: list[str] = field(default_factory=list)


def _is_constant(image: NDArray[np.uint8]) -> bool:
    """Whether an image (3, H, W) has a single colour; a sample of the pixels decides this for most images."""
    sample = image[:, ::16, ::16]
    return bool((sample == sample[:, :1, :1]).all() and (image == image[:, :1, :1]).all())


def _check_image(frame: Frame) -> dict[str, Any]:
    from caguda.datasets.io import decode_image, read_bytes

    content = read_bytes(frame.image)
    image = decode_image(content, frame.image).numpy()
    return {
        "height": image.shape[1],
        "width": image.shape[2],
        "single_colour": _is_constant(image),
        "image_sha256": hashlib.sha256(content).hexdigest(),
    }


def _check_label(frame: Frame, table: ClassTable, pixels: NDArray[np.int64]) -> dict[str, Any]:
    from caguda.datasets.io import raw_values, read_bytes, to_train_ids

    if frame.label is None:
        return {"classes": [], "label_sha256": None, "label_size": None}
    content = read_bytes(frame.label)
    raw = raw_values(content, frame.label, table)
    pixels[:] = to_train_ids(raw, table, frame.label).flatten().bincount(minlength=256).numpy()
    classes = [int(train_id) for train_id in np.flatnonzero(pixels) if train_id != IGNORE]
    return {"classes": classes, "label_sha256": hashlib.sha256(content).hexdigest(), "label_size": raw.shape}


def _passed(entry: dict[str, Any], pixels: NDArray[np.int64]) -> CheckResult:
    """The result for a frame without a problem."""
    warnings = []
    if entry["single_colour"]:
        warnings.append(f"{entry['image']}: the image has a single colour")
    if entry["label"] is not None and not entry["classes"]:
        warnings.append(f"{entry['label']}: every pixel of the label is void")
    return CheckResult([entry], warnings=warnings, pixels=pixels)


def check_frame(frame: Frame, table: ClassTable) -> CheckResult:
    """Opens both files of a frame; the result has an entry, or the problems that make the frame unusable."""
    problems: list[str] = []
    pixels = np.zeros(256, dtype=np.int64)
    label = None if frame.label is None else str(frame.label)
    entry: dict[str, Any] = {"id": frame.id, "image": str(frame.image), "label": label}
    for check_file in (partial(_check_image, frame), partial(_check_label, frame, table, pixels)):
        try:
            entry |= check_file()
        except UserError as error:
            problems.append(str(error))
    if problems:
        return CheckResult(problems=problems, pixels=pixels)
    size, height, width = entry.pop("label_size"), entry["height"], entry["width"]
    if size not in (None, (height, width)):
        problem = (
            f"{label}: this label is {size[1]}x{size[0]} and its image {frame.image} is {width}x{height}; they must be of "
            f"one size: correct a file, or leave the frame out with the key skip: "
            f"{json.dumps([frame.id], ensure_ascii=False)}"
        )
        return CheckResult(problems=[problem], pixels=pixels, unequal=[frame.id])
    return _passed(entry, pixels)


def _with_progress(results: Iterable[CheckResult], total: int, title: str) -> Iterator[CheckResult]:
    """The same results; meanwhile a terminal shows a progress bar, and a log gets a line every ten seconds."""
    if sys.stderr.isatty():
        yield from tqdm(results, total=total, desc=title, unit=" frames")
        return
    last = time.monotonic()
    for done, result in enumerate(results, start=1):
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{title}: {done} of {total} frames checked", flush=True)
        yield result


def _check_in_parallel(frames: Sequence[Frame], table: ClassTable, title: str) -> Iterator[CheckResult]:
    """Yields the result for each frame, in order, from one process per core. Threads would wait for Python's lock."""
    with workers(len(frames), [__name__, "caguda.datasets.io"], "check") as pool:
        results = pool.map(partial(check_frame, table=table), frames, chunksize=8)
        yield from _with_progress(results, len(frames), title)


def _reader_digest(layout: str, table: ClassTable) -> str:
    """A digest of everything that decides how files are read: version of the check, layout, plugin and class table."""
    content = json.dumps([_CHECK_VERSION, layout, table.count, sorted(table.train_id.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def check_frames(
    frames: Sequence[Frame], table: ClassTable, record: Path, title: str = "frames", layout: str = ""
) -> CheckResult:
    """The results for all frames together, in their order; a missing label is no problem here.

    `record` is the file with the results of earlier checks; new results are appended to it, except for frames with a
    problem. `layout` is the name of the set's layout, followed by the SHA-256 of the plugin that defines it, if any.
    """
    reader = _reader_digest(layout, table)
    keys = {frame.id: frame_key(frame, reader) for frame in frames}
    recorded = read_record(record)
    results = {name: _passed(*recorded[key]) for name, key in keys.items() if key is not None and key in recorded}
    new = [frame for frame in frames if frame.id not in results]
    if results:
        print(f"{title}: {len(results)} of {len(frames)} frames are as an earlier check found them", flush=True)
    if new:
        with open_record(record) as file:
            for frame, result in zip(new, _check_in_parallel(new, table, title), strict=True):
                results[frame.id] = result
                key = keys[frame.id]
                if result.entries and key is not None:
                    append_line(file, key, result.entries[0], result.pixels)
    total = CheckResult()
    for frame in frames:
        result = results[frame.id]
        total.entries.extend(result.entries)
        total.problems.extend(result.problems)
        total.warnings.extend(result.warnings)
        total.pixels[:] += result.pixels
        total.unequal.extend(result.unequal)
    return total
