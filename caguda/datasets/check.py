"""The dataset check: every image and label is opened once, decoded, measured and hashed, on all cores.

Torch is imported by what opens files alone: a check that finds nothing changed starts without it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from caguda.classes import IGNORE, ClassTable
from caguda.datasets.frame import Frame
from caguda.datasets.record import Stamp, add, appended, read_record, stamp
from caguda.datasets.workers import workers
from caguda.errors import UserError

_CHECK_VERSION = 2
"""A check that looks for more has a new one, and opens files again that an earlier check has passed."""
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Checked:
    """What is known of some frames.

    `entries` has one per frame that can be used: id, image, label, height, width, whether the image has a single
    colour, classes (the train ids present, void left out) and SHA-256 digests. `problems` and `warnings` name a file
    each. `pixels` counts train ids, (256,). `unequal` are the ids of frames whose label is not of the image's size.
    """

    entries: list[dict[str, Any]]
    problems: list[str]
    warnings: list[str]
    pixels: NDArray[np.int64]
    unequal: list[str] = field(default_factory=list)


def _is_constant(image: NDArray[np.uint8]) -> bool:
    """Whether an image (3, H, W) has one colour; most images are told apart by every 16th pixel."""
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
    present = [int(train_id) for train_id in np.flatnonzero(pixels) if train_id != IGNORE]
    return {"classes": present, "label_sha256": hashlib.sha256(content).hexdigest(), "label_size": raw.shape}


def _usable(entry: dict[str, Any], pixels: NDArray[np.int64]) -> Checked:
    """What is known of a frame without a problem."""
    warnings = []
    if entry["single_colour"]:
        warnings.append(f"{entry['image']}: the image has a single colour")
    if entry["label"] is not None and not entry["classes"]:
        warnings.append(f"{entry['label']}: every pixel of the label is void")
    return Checked([entry], [], warnings, pixels)


def check_frame(frame: Frame, table: ClassTable) -> Checked:
    """What is known of one frame: an entry, or the problems that forbid its use."""
    problems: list[str] = []
    pixels = np.zeros(256, dtype=np.int64)
    label = None if frame.label is None else str(frame.label)
    entry: dict[str, Any] = {"id": frame.id, "image": str(frame.image), "label": label}
    for look in (partial(_check_image, frame), partial(_check_label, frame, table, pixels)):
        try:
            entry |= look()
        except UserError as error:
            problems.append(str(error))
    if problems:
        return Checked([], problems, [], pixels)
    size, height, width = entry.pop("label_size"), entry["height"], entry["width"]
    if size not in (None, (height, width)):
        problem = (
            f"{label}: this label is {size[1]}x{size[0]} and its image {frame.image} is {width}x{height}; they must be of "
            f"one size: correct a file, or leave the frame out with the key skip: "
            f"{json.dumps([frame.id], ensure_ascii=False)}"
        )
        return Checked([], [problem], [], pixels, [frame.id])
    return _usable(entry, pixels)


def _with_progress(results: Iterable[Checked], total: int, title: str) -> Iterator[Checked]:
    """The results as they come: behind a bar on a terminal, with a line every ten seconds in a log."""
    if sys.stderr.isatty():
        yield from tqdm(results, total=total, desc=title, unit=" frames")
        return
    last = time.monotonic()
    for done, result in enumerate(results, start=1):
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{title}: {done} of {total} frames checked", flush=True)
        yield result


def _opened(frames: Sequence[Frame], table: ClassTable, title: str) -> Iterator[Checked]:
    """What is found in each frame, in as many processes as this one may use cores.

    Processes and not threads, because the decoders keep Python's lock.
    """
    with workers(len(frames), [__name__, "caguda.datasets.io"], "check") as pool:
        results = pool.map(partial(check_frame, table=table), frames, chunksize=8)
        yield from _with_progress(results, len(frames), title)


def _reading(layout: str, table: ClassTable) -> str:
    """How files are read, as a digest: an entry of the record holds for no other layout, table and check.

    `layout` is its name, and the digest of the plugin that it comes from.
    """
    content = json.dumps([_CHECK_VERSION, layout, table.count, sorted(table.train_id.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _known(frames: Sequence[Frame], stamps: Mapping[str, Stamp | None], record: Path) -> dict[str, Checked]:
    """What the record holds of the frames that are still as they were, by id."""
    recorded = read_record(record)
    known = {}
    for frame in frames:
        key = stamps[frame.id]
        if key is not None and key in recorded:
            entry, counts = recorded[key]
            pixels = np.zeros(256, dtype=np.int64)
            pixels[[int(train_id) for train_id in counts]] = list(counts.values())
            known[frame.id] = _usable(entry, pixels)
    return known


def check_frames(
    frames: Sequence[Frame],
    table: ClassTable,
    record: Path,
    title: str = "frames",
    layout: str = "",
) -> Checked:
    """What is known of all frames, in their order; a missing label is no problem here.

    `record` is the file of what earlier checks have found, which this one adds to. A frame with a problem is not in it.
    `layout` is the name of the set's layout, and the digest of the plugin that it comes from.
    """
    how = _reading(layout, table)
    stamps = {frame.id: stamp(frame, how) for frame in frames}
    results = _known(frames, stamps, record)
    new = [frame for frame in frames if frame.id not in results]
    if results:
        print(f"{title}: {len(results)} of {len(frames)} frames are as an earlier check found them", flush=True)
    if new:
        with appended(record) as file:
            for frame, result in zip(new, _opened(new, table, title), strict=True):
                results[frame.id] = result
                key = stamps[frame.id]
                if result.entries and key is not None:
                    add(file, key, result.entries[0], result.pixels)
    found = Checked([], [], [], np.zeros(256, dtype=np.int64))
    for frame in frames:
        result = results[frame.id]
        found.entries.extend(result.entries)
        found.problems.extend(result.problems)
        found.warnings.extend(result.warnings)
        found.pixels[:] += result.pixels
        found.unequal.extend(result.unequal)
    return found
