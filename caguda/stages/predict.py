"""The verb `predict`: what a finished network says about every frame of a set, as label ids."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from caguda.artifacts.atomic import write_json
from caguda.artifacts.predictions import finished_predictions, open_journal, write_prediction
from caguda.artifacts.provenance import fingerprint, provenance
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.loader import read_ahead
from caguda.datasets.manifest import SetName, read_manifest
from caguda.datasets.transforms import scaled
from caguda.datasets.workers import in_background
from caguda.errors import UserError
from caguda.networks.layers.inference import Views, largest, views
from caguda.stages.parts import divided, units_of_part
from caguda.stages.runtime import prepare, restore_network
from caguda.version import METHOD_VERSION


@torch.inference_mode()
def predict_part(
    configuration: Configuration,
    manifest: Path,
    checkpoint: Path,
    name: SetName,
    folder: Path,
    part: int,
    parts: int,
    output: Path,
) -> None:
    """Write one PNG of label ids for each frame of part `part` of `parts` (1-based) of the set `name` into `folder`.

    A call that was killed goes on where it was: a file is kept if it is whole and of this checkpoint, this image and
    these settings, whichever part had it. Batches are the same ones then, as another size of a batch may change last
    digits. `output` is a JSON that lists the files.
    """
    started = time.time()
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    table = class_table(configuration)
    if table.label_ids.max() > 255:
        raise UserError(f"predict: label ids must be at most 255 for an 8-bit file, found {table.label_ids.max()}")
    read = read_manifest(manifest, [name], configuration)
    frames, size = read.frames(name), configuration.compute.inference_batch_size
    own = units_of_part(list(batches(read.entries(name), size)), part, parts, name)
    of = manifest if name == "evaluation" else None  # the test set has a manifest of its own
    network, description = restore_network(checkpoint, device, table, configuration, of)
    settings = configuration.model_dump(mode="json", include={"inference"})
    threads, weights = configuration.compute.threads, description["weights_sha256"]
    decisive = [settings, weights, table.label_ids.tolist(), METHOD_VERSION, threads, device.type]
    images = {frames[i].id: frames[i].image_sha256 for batch in own for i in batch}
    keys = {frame: fingerprint({"image": image, "by": decisive}) for frame, image in images.items()}
    journal = open_journal(folder, f"{part}-of-{parts}", images)
    digests = finished_predictions(folder, keys)
    kept, label_ids = len(digests), table.label_ids.astype(np.uint8)
    left = [batch for batch in own if not digests.keys() >= {frames[i].id for i in batch}]

    @torch.inference_mode()  # which holds for one thread alone
    def write(seen: tuple[list[int], Views]) -> None:
        batch, found = seen
        for i, ids in zip(batch, label_ids[largest(found).cpu().numpy()], strict=True):
            digests[frames[i].id] = write_prediction(folder, journal, frames[i].id, keys[frames[i].id], ids)

    inference = configuration.inference
    seen = ((batch, views(network, scaled(images, device), inference)) for batch, images in read_ahead(frames, left))
    for _ in tqdm(in_background(seen, write), f"predict {part}/{parts}", len(left), disable=not sys.stderr.isatty()):
        pass
    inputs, seed = [manifest, checkpoint], description["provenance"]["seed"]
    made_by = provenance("predict-part", divided(configuration), inputs, seed, started, output)
    write_json(output, {"part": part, "parts": parts, "files": digests, "provenance": made_by})
    print(f"predict: part {part} of {parts}, {len(keys)} frames, {kept} of them from an earlier call -> {folder}")


def batches(entries: Sequence[Mapping[str, Any]], size: int) -> Iterator[list[int]]:
    """The places of every frame once, in order; a batch holds at most `size` neighbouring frames of one size."""
    for _, same in groupby(range(len(entries)), key=lambda i: (entries[i]["height"], entries[i]["width"])):
        places = list(same)
        yield from (places[first : first + size] for first in range(0, len(places), size))
