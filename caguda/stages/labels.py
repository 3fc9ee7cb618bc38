"""ATI and PLA: the frozen network over the target, into a label store (Algorithm 1, lines 5 and 6)."""

import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.atomic import write_json
from caguda.artifacts.labels import LabelArrays, create_label_store, open_label_store, write_labels
from caguda.artifacts.provenance import provenance
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.config import Labels as Thresholds
from caguda.datasets.io import read_image
from caguda.datasets.loader import inference_batches
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.errors import UserError
from caguda.method.labels import by_anchor, by_probability, pseudo_labels
from caguda.stages.common import refuse_other_frames
from caguda.stages.runtime import prepare, restore_network


@torch.inference_mode()
def create_store(
    configuration: Configuration, manifest: Path, checkpoint: Path, anchors: Path, store: Path, output: Path
) -> None:
    """Create the empty label store of all target frames at the resolution of f_D, and a JSON that says so."""
    started = time.time()
    device = prepare(configuration.compute.threads)
    read = read_manifest(manifest)
    sizes = sorted({(entry["height"], entry["width"]) for entry in read.entries("target")})
    if len(sizes) > 1:
        raise UserError(f"{manifest}: target frames must have one size for a label store, found {sizes[:4]}")
    network, _ = restore_network(checkpoint, device, class_table(configuration))
    frames = read.frames("target")
    features, _ = network(scaled(read_image(frames[0].image)[None], device))
    settings = configuration.model_dump(mode="json", include={"network", "labels"})
    found, _ = load_anchors(anchors)
    attributes = {
        "margin": absolute_margin(configuration.labels, found.mean_distance),
        "p0": configuration.labels.p0,
        "provenance": provenance("labels", settings, [manifest, checkpoint, anchors], None, started),
    }
    ids = [frame.id for frame in frames]
    create_label_store(store, ids, features.shape[-2], features.shape[-1], class_table(configuration), attributes)
    write_json(output, {"store": store.name, "images": len(ids), **attributes})


def absolute_margin(thresholds: Thresholds, mean_distance: float) -> float:
    """The margin of Eq. 6 in the units of the features."""
    return thresholds.margin * (mean_distance if thresholds.margin_unit == "mean_anchor_distance" else 1.0)


@torch.inference_mode()
def write_part(
    configuration: Configuration,
    manifest: Path,
    checkpoint: Path,
    anchors: Path,
    store: Path,
    part: int,
    parts: int,
    output: Path,
) -> None:
    """Write the labels of part `part` of `parts` (1-based, consecutive frames) into the store.

    Eq. 5 to 7 by anchors, and the probability rule of Eq. 11. Frames are divided by whole batches of inference, since
    the last bits of a feature may depend on the size of its batch: any number of parts gives the same labels.
    """
    if not 1 <= part <= parts:
        raise UserError(f"--part {part} --parts {parts}: parts count from 1, and none is beyond the last")
    device = prepare(configuration.compute.threads)
    network, _ = restore_network(checkpoint, device, class_table(configuration))
    found, _ = load_anchors(anchors)
    vectors = torch.from_numpy(found.vectors).to(device)
    present = torch.from_numpy(found.present).to(device)
    opened = open_label_store(store)
    margin, p0 = float(opened.attributes["margin"]), float(opened.attributes["p0"])
    frames = read_manifest(manifest).frames("target")
    refuse_other_frames(opened, frames, manifest)
    size = configuration.compute.inference_batch_size
    first, last = bounds(len(frames), part, parts, size)
    with tqdm(total=last - first, desc=f"labels {part}/{parts}", disable=not sys.stderr.isatty()) as bar:
        for indices, images in inference_batches(frames[first:last], size):
            features, logits = network(scaled(images, device))
            anchored = by_anchor(features, vectors, present, margin)
            probable = by_probability(logits, p0)
            arrays = {
                "active": anchored.active.byte() + 2 * probable.active.byte(),
                "anchor_label": pseudo_labels(anchored.nearest, anchored.active),
                "probability_label": pseudo_labels(probable.predicted, probable.active),
                "nearest_anchor": anchored.nearest,
                "predicted": probable.predicted,
                "margin": anchored.margin.half(),
                "confidence": probable.confidence.half(),
            }
            rows = {name: values.cpu().numpy() for name, values in arrays.items()}
            for place, index in enumerate(indices):
                write_labels(store, first + index, LabelArrays(**{name: row[place] for name, row in rows.items()}))
            bar.update(len(indices))
    write_json(output, {"store": store.name, "part": part, "parts": parts, "first": first, "last": last - 1})
    print(f"labels: part {part} of {parts}, frames {first} to {last - 1} -> {store}")


def bounds(frames: int, part: int, parts: int, batch_size: int) -> tuple[int, int]:
    """The first frame of a part and the one after its last; parts differ by one batch of inference at most."""
    batches = -(-frames // batch_size)
    first, last = (min(batches * done // parts * batch_size, frames) for done in (part - 1, part))
    return first, last
