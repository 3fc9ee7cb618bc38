"""The dataset check: every image and label is opened, decoded, measured and hashed, on all cores."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from caguda.classes import IGNORE, ClassTable
from caguda.datasets.frame import Frame
from caguda.datasets.io import decode_image, decode_label, read_bytes, to_train_ids
from caguda.errors import UserError

_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Checked:
    """What is known of some frames.

    `entries` has one per readable frame: id, image, label, height, width, classes (the train ids present, void left
    out) and SHA-256 digests. `problems` and `warnings` name a file each. `pixels` counts train ids, (256,).
    """

    entries: list[dict[str, Any]]
    problems: list[str]
    warnings: list[str]
    pixels: NDArray[np.int64]


def _is_constant(image: NDArray[np.uint8]) -> bool:
    """Whether an image (3, H, W) has one colour; most images are told apart by every 16th pixel."""
    sample = image[:, ::16, ::16]
    return bool((sample == sample[:, :1, :1]).all() and (image == image[:, :1, :1]).all())


def _check_image(frame: Frame, found: Checked) -> dict[str, Any]:
    content = read_bytes(frame.image)
    image = decode_image(content, frame.image).numpy()
    if _is_constant(image):
        found.warnings.append(f"{frame.image}: the image has a single colour")
    digest = hashlib.sha256(content).hexdigest()
    return {"height": image.shape[1], "width": image.shape[2], "image_sha256": digest}


def _check_label(frame: Frame, table: ClassTable, found: Checked) -> dict[str, Any]:
    if frame.label is None:
        return {"classes": [], "label_sha256": None, "label_size": None}
    content = read_bytes(frame.label)
    raw = decode_label(content, frame.label, in_red=table.in_red)
    pixels = np.bincount(to_train_ids(raw, table, frame.label).numpy().ravel(), minlength=256)
    found.pixels[:] += pixels
    present = [int(train_id) for train_id in np.flatnonzero(pixels) if train_id != IGNORE]
    if not present:
        found.warnings.append(f"{frame.label}: every pixel of the label is void")
    return {"classes": present, "label_sha256": hashlib.sha256(content).hexdigest(), "label_size": raw.shape}


def check_frame(frame: Frame, table: ClassTable) -> Checked:
    """What is known of one frame: an entry, or the problems that forbid its use."""
    found = Checked([], [], [], np.zeros(256, dtype=np.int64))
    image: dict[str, Any] | None = None
    label: dict[str, Any] | None = None
    try:
        image = _check_image(frame, found)
    except UserError as error:
        found.problems.append(str(error))
    try:
        label = _check_label(frame, table, found)
    except UserError as error:
        found.problems.append(str(error))
    if image is None or label is None:
        return found
    size = label.pop("label_size")
    if size not in (None, (image["height"], image["width"])):
        found.problems.append(
            f"{frame.label}: this label is {size[1]}x{size[0]} and its image {frame.image} is "
            f"{image['width']}x{image['height']}; they must be of one size: correct a file, or leave the frame out "
            f"with the key skip: [{frame.id!r}]"
        )
        return found
    paths = {"image": str(frame.image), "label": None if frame.label is None else str(frame.label)}
    found.entries.append({"id": frame.id, **paths, **image, **label})
    return found


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


def check_frames(frames: Sequence[Frame], table: ClassTable, title: str = "frames") -> Checked:
    """What is known of all frames, in their order; a missing label is no problem here.

    Works in as many processes as this one may use cores: the decoders keep Python's lock, so threads would not help.
    """
    cores = min(len(os.sched_getaffinity(0)), max(1, len(frames)))
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    found = Checked([], [], [], np.zeros(256, dtype=np.int64))
    try:
        with ProcessPoolExecutor(cores, mp_context=context) as pool:
            results = pool.map(partial(check_frame, table=table), frames, chunksize=8)
            for result in _with_progress(results, len(frames), title):
                found.entries.extend(result.entries)
                found.problems.extend(result.problems)
                found.warnings.extend(result.warnings)
                found.pixels[:] += result.pixels
    except BrokenProcessPool:
        raise UserError(f"{title}: a process of the check was killed, often for want of memory; try again") from None
    return found
