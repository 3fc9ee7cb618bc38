"""The verb `pack`: decodes the frames of a domain once into one file, from which training reads crops."""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from caguda.artifacts.packed import Decoded, PackedFrames, open_packed, write_packed
from caguda.artifacts.provenance import new_provenance
from caguda.classes import ClassTable, class_table
from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.datasets.io import frame_image, frame_labels
from caguda.datasets.manifest import Manifest, SetName, read_manifest
from caguda.datasets.workers import workers
from caguda.errors import UserError

_SECONDS_BETWEEN_LINES = 10.0


def pack(configuration: Configuration, manifest: Path, domain: SetName, output: Path) -> None:
    """Write the packed cache of the source with its labels, or of the target without: adaptation must not see its truth.

    The translated source has none of its own: a training takes those of the source. UserError if a file has changed since the manifest was written.
    """
    started = time.time()
    table = class_table(configuration, configuration.frame_set(domain))
    checked = read_manifest(manifest, [domain], configuration)
    frames = checked.frames(domain)
    labelled = domain == "source"
    settings = configuration.model_dump(mode="json", include={"classes", "ignore"})

    def attributes() -> dict[str, Any]:
        return {
            "domain": domain,
            "frames_digest": checked.digest(domain),
            "categories": list(table.names),
            "classes": _identity(table),
            "provenance": new_provenance("pack", settings, [manifest], None, started, output),
        }

    sizes = [(int(entry["height"]), int(entry["width"])) for entry in checked.entries(domain)]
    decoded = _decoded(frames, table, labelled=labelled)
    write_packed(output, [frame.id for frame in frames], sizes, decoded, attributes, labelled=labelled)
    size = output.stat().st_size / 2**30
    print(f"pack: {len(frames)} frames of the {domain}, {size:.2f} GiB in {time.time() - started:.0f} s -> {output}")


def open_caches(paths: Sequence[Path], manifest: Manifest, configuration: Configuration) -> dict[str, PackedFrames]:
    """The packed caches by domain; UserError unless each is of the manifest's frames and the configured classes."""
    caches: dict[str, PackedFrames] = {}
    for path in paths:
        cache = open_packed(path)
        domain: SetName = cache.attributes["domain"]
        if domain not in manifest.sets:
            raise UserError(f"{path}: a packed cache must be of frames that the training reads, found those of the {domain}; leave it "
                            "out")  # fmt: skip
        if cache.attributes["frames_digest"] != manifest.digest(domain):
            raise UserError(f"{path}: a packed cache must be of the manifest's frames, found other ones; make it again")
        if cache.attributes["classes"] != _identity(class_table(configuration, configuration.frame_set(domain))):
            raise UserError(f"{path}: a packed cache must be for the configured classes, found others; make it again")
        if domain in caches:
            raise UserError(f"{path}: each domain must have one packed cache, found two of the {domain}; leave one out")
        caches[domain] = cache
    return caches


def _identity(table: ClassTable) -> list[Any]:
    """The category names and raw values that decide the train ids of a label, as JSON values."""
    return [list(table.names), table.pairs]


def _decode(frame: Frame, table: ClassTable, labelled: bool) -> Decoded:
    """The image (H, W, 3) and the label map (H, W) of a frame; UserError if its files are not those of the manifest."""
    image = frame_image(frame).movedim(0, -1).numpy()
    return image, frame_labels(frame, table).numpy() if labelled else None


def _decoded(frames: Sequence[Frame], table: ClassTable, *, labelled: bool) -> Iterator[Decoded]:
    """The decoded frames in order, decoded on all cores, a few frames ahead."""
    last_line = time.monotonic()
    with workers(len(frames), [__name__], "pack") as pool:
        submitted = (pool.submit(_decode, frame, table, labelled) for frame in frames)
        pending = deque(islice(submitted, 4 * len(os.sched_getaffinity(0))))
        for done in range(len(frames)):
            yield pending.popleft().result()
            pending.extend(islice(submitted, 1))
            if time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                print(f"pack: {done + 1} of {len(frames)} frames", flush=True)
