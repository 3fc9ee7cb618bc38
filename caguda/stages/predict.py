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

from caguda.artifacts.atomic import sha256, write_json
from caguda.artifacts.predictions import (
    FORMAT,
    FORMAT_VERSION,
    prediction_file,
    resume_predictions,
    write_prediction,
)
from caguda.artifacts.provenance import fingerprint, provenance
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.io import read_image
from caguda.datasets.manifest import SetName, read_manifest
from caguda.datasets.transforms import scaled
from caguda.errors import UserError
from caguda.models.inference import most_probable
from caguda.stages.runtime import prepare, restore_network
from caguda.version import METHOD_VERSION


@torch.inference_mode()
def predict(
    configuration: Configuration, manifest: Path, checkpoint: Path, name: SetName, folder: Path, output: Path
) -> None:
    """Write one PNG of label ids for each frame of the set `name` into `folder`, and a JSON that vouches for all.

    A call that was killed goes on where it was: a file is kept if it is whole and of this checkpoint, this image and
    these settings. Batches are the same ones then, as another size of a batch may change last digits.
    """
    started = time.time()
    device = prepare(configuration.compute.threads)
    table = class_table(configuration)
    if table.label_ids.max() > 255:
        raise UserError(f"predict: label ids must be at most 255 for an 8-bit file, found {table.label_ids.max()}")
    read = read_manifest(manifest, [name])
    entries, frames = read.entries(name), read.frames(name)
    network, description = restore_network(checkpoint, device, table)
    settings = configuration.model_dump(mode="json", include={"inference"})
    threads, weights = configuration.compute.threads, description["weights_sha256"]
    decisive = [settings, weights, table.label_ids.tolist(), METHOD_VERSION, threads, device.type]
    keys = {entry["id"]: fingerprint({"image": entry["image_sha256"], "by": decisive}) for entry in entries}
    digests = resume_predictions(folder, keys)
    kept, label_ids = len(digests), table.label_ids.astype(np.uint8)
    with tqdm(total=len(frames), desc="predict", disable=not sys.stderr.isatty()) as bar:
        for batch in batches(entries, configuration.compute.inference_batch_size):
            if not digests.keys() >= {frames[i].id for i in batch}:
                images = torch.stack([read_image(frames[i].image) for i in batch])
                predicted = most_probable(network, scaled(images, device), configuration.inference)
                for i, ids in zip(batch, label_ids[predicted.cpu().numpy()], strict=True):
                    digests[frames[i].id] = write_prediction(folder, frames[i].id, keys[frames[i].id], ids)
            bar.update(len(batch))
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "set": name, "folder": folder.name}
    made_by = provenance("predict", settings, [manifest, checkpoint], description["provenance"]["seed"], started)
    write_json(output, head | summary(folder, entries, digests) | {"provenance": made_by})
    print(f"predict: {len(frames)} frames of the {name} set, {kept} of them from an earlier call -> {folder}")


def batches(entries: Sequence[Mapping[str, Any]], size: int) -> Iterator[list[int]]:
    """The places of every frame once, in order; a batch holds at most `size` neighbouring frames of one size."""
    for _, same in groupby(range(len(entries)), key=lambda i: (entries[i]["height"], entries[i]["width"])):
        places = list(same)
        yield from (places[first : first + size] for first in range(0, len(places), size))


def summary(folder: Path, entries: Sequence[Mapping[str, Any]], digests: Mapping[str, str]) -> dict[str, Any]:
    """What the folder holds: every file is read back, and must be the one that was written."""
    for frame, digest in digests.items():
        if sha256(path := prediction_file(folder, frame)) != digest:
            raise UserError(f"{path}: this file was changed while `predict` was at work; run it again")
    files = [
        {"id": entry["id"], "height": entry["height"], "width": entry["width"], "sha256": digests[entry["id"]]}
        for entry in entries
    ]
    return {"images": len(files), "digest": fingerprint({"files": files}), "files": files}
