"""The verb `predict-part`: the label ids that a trained network predicts for the frames of a set."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from caguda.artifacts.atomic import write_json
from caguda.artifacts.predictions import finished_predictions, prepare_folder, write_prediction
from caguda.artifacts.provenance import json_digest, new_provenance
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.image_batches import read_ahead, scaled
from caguda.datasets.manifest import SetName, read_manifest
from caguda.datasets.workers import in_background
from caguda.errors import UserError
from caguda.networks.layers.inference import Views, largest, views
from caguda.stages.parts import prediction_settings, units_of_part
from caguda.stages.runtime import configure_torch, restore_network
from caguda.version import METHOD_VERSION


@torch.inference_mode()
def predict_part(
    configuration: Configuration, manifest: Path, checkpoint: Path, name: SetName, folder: Path, part: int, parts: int,
    output: Path,
) -> None:  # fmt: skip
    """Write one PNG of label ids for each frame of part `part` of `parts` (1-based) of the set `name` into `folder`.

    Labels are not read, and may be absent. Label ids are those of the configured classes, whatever values the set's layout has.
    A killed call is continued: intact files of this checkpoint, these images and these settings are kept, whichever part
    wrote them. Settings include the batch size, which may change last digits. `output` is a JSON that lists the files.
    """
    started = time.time()
    device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
    table = class_table(configuration)
    if table.label_ids.max() > 255:
        raise UserError(f"predict: label ids must be at most 255 for an 8-bit file, found {table.label_ids.max()}")
    checked = read_manifest(manifest, [name], configuration)
    frames, part_name = checked.frames(name), f"{part}-of-{parts}"
    batches = units_of_part(checked.batches(name, configuration.compute.inference_batch_size), part, parts, name)
    checked_manifest = None if name == "test" else manifest  # the test set has a manifest of its own
    network, description = restore_network(checkpoint, device, table, configuration, checked_manifest)
    settings, compute = prediction_settings(configuration), configuration.compute
    decisive = [settings, description["weights_sha256"], table.label_ids.tolist(), METHOD_VERSION, compute.threads,
                device.type]  # fmt: skip
    images = {frames[i].id: frames[i].image_sha256 for batch in batches for i in batch}
    keys = {frame: json_digest({"image": image, "by": decisive}) for frame, image in images.items()}
    prepare_folder(folder, part_name, keys)
    digests = finished_predictions(folder, keys)
    kept, label_ids = len(digests), table.label_ids.astype(np.uint8)
    remaining = [batch for batch in batches if not digests.keys() >= {frames[i].id for i in batch}]

    @torch.inference_mode()  # which holds for one thread alone
    def write(item: tuple[Sequence[int], Views]) -> None:
        batch, logits = item
        for i, ids in zip(batch, label_ids[largest(logits, network.align_corners).cpu().numpy()], strict=True):
            digests[frames[i].id] = write_prediction(folder, part_name, frames[i].id, keys[frames[i].id], ids)

    inference, read = configuration.inference, read_ahead(frames, remaining)
    written = in_background(
        ((batch, views(network, scaled(images, device), inference)) for batch, images in read), write
    )
    for _ in tqdm(written, f"predict {part}/{parts}", len(remaining), disable=not sys.stderr.isatty()):
        pass
    seed = description["provenance"]["seed"]
    provenance = new_provenance("predict-part", settings, [manifest, checkpoint], seed, started, output)
    write_json(output, {"part": part, "parts": parts, "files": digests, "provenance": provenance})
    print(f"predict: part {part} of {parts}, {len(keys)} frames, {kept} of them from an earlier call -> {folder}")
