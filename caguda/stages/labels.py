"""ATI and PLA: the frozen network over the target, into a label store (Algorithm 1, lines 5 and 6)."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from tqdm import tqdm

from caguda.artifacts.anchors import Anchors, load_anchors
from caguda.artifacts.atomic import sha256, write_json
from caguda.artifacts.chain import refuse_changed_inputs, refuse_other_manifest
from caguda.artifacts.label_arrays import NAMES
from caguda.artifacts.label_journal import Journal
from caguda.artifacts.labels import (
    LabelArrays,
    LabelStore,
    create_label_store,
    open_label_store,
    write_labels,
)
from caguda.artifacts.provenance import provenance, same_origin
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.config import Labels as Thresholds
from caguda.datasets.frame import Frame
from caguda.datasets.io import image_of
from caguda.datasets.loader import read_ahead
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.datasets.workers import behind
from caguda.equations.labels import ByAnchor, ByProbability, by_anchor, by_probability, pseudo_labels
from caguda.errors import UserError
from caguda.networks.layers.network import Outputs, SegmentationNetwork
from caguda.recorded import refuse_misplaced, refuse_other_settings
from caguda.stages.parts import share
from caguda.stages.runtime import prepare, restore_network
from caguda.stages.vouched import refuse_other_frames


@torch.inference_mode()
def create_store(
    configuration: Configuration,
    manifest: Path,
    checkpoint: Path,
    anchors: Path,
    store: Path,
    output: Path,
    margin: float | None = None,
    p0: float | None = None,
) -> None:
    """Create the empty label store of all target frames at the resolution of f_D, and a JSON that says so.

    One that was created of the same files with the same settings is kept with all that is in it.
    `margin` and `p0` are thresholds in place of the configured ones.
    """
    started = time.time()
    thresholds = _thresholds(configuration.labels, margin, p0)
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    read = read_manifest(manifest, configuration=configuration)
    sizes = sorted({(entry["height"], entry["width"]) for entry in read.entries("target")})
    if len(sizes) > 1:
        raise UserError(f"{manifest}: target frames must have one size for a label store, found {sizes[:4]}")
    network, _ = restore_network(checkpoint, device, class_table(configuration), configuration, manifest)
    frames = read.frames("target")
    features = network(scaled(image_of(frames[0])[None], device)).features
    found = _anchors_of(anchors, network, manifest, checkpoint, configuration)
    attributes: dict[str, Any] = {
        "margin": absolute_margin(thresholds, found.mean_distance),
        "p0": thresholds.p0,
        "provenance": _provenance("labels", configuration, thresholds, [manifest, checkpoint, anchors], started, store),
    }
    ids = [frame.id for frame in frames]
    if (store / "zarr.json").is_file():
        _refuse_other_begun(store, attributes["provenance"])
    else:
        create_label_store(store, ids, features.shape[-2], features.shape[-1], class_table(configuration), attributes)
    written = open_label_store(store).attributes
    write_json(output, {"store": store.name, "images": len(ids), **{name: written[name] for name in attributes}})


def _refuse_other_begun(path: Path, made: Mapping[str, Any]) -> None:
    """UserError unless the label store that is there was created of the same files with the same settings: it is kept."""
    if not same_origin(open_label_store(path).attributes["provenance"], made):
        raise UserError(f"{path}: a label store must be new, or of these files and settings, found another; move it away, or "
                        "choose another folder")  # fmt: skip


def _anchors_of(
    path: Path, network: SegmentationNetwork, manifest: Path, checkpoint: Path, configuration: Configuration
) -> Anchors:
    """The anchors in a file; UserError unless they are of the configured categories, and of the checkpoint's features.

    Those of the authors say nothing of their origin: they must have as many channels as the network's features.
    """
    found, attributes = load_anchors(path)
    made = attributes["provenance"]
    if attributes["categories"] != list(class_table(configuration).names):
        raise UserError(f"{path}: the anchors must be of the configured categories in their order, found others; make them "
                        "again")  # fmt: skip
    if (channels := found.vectors.shape[1]) != (wanted := network.classifier.in_channels):
        raise UserError(f"{path}: anchors must have the {wanted} channels of the network's features, found {channels}; name "
                        "those of this network")  # fmt: skip
    if made["made_by"] == "anchors":
        refuse_other_settings(path, configuration, made)
        refuse_misplaced(path, made)
        refuse_changed_inputs(path)
        refuse_other_manifest(path, manifest)
        recorded = {given["sha256"] for given in made["inputs"].values()}
        if configuration.anchors.every_stage and sha256(checkpoint) not in recorded:
            raise UserError(f"{path}: the anchors must be of the features of {checkpoint}, found those of another model; "
                            "make them again")  # fmt: skip
    return found


def _thresholds(configured: Thresholds, margin: float | None, p0: float | None) -> Thresholds:
    """The configured thresholds but for those that are given."""
    given = {key: value for key, value in (("margin", margin), ("p0", p0)) if value is not None}
    try:
        return Thresholds.model_validate(configured.model_dump() | given)
    except ValueError:
        raise UserError(f"label-store: --margin must be 0 or more and --p0 0 to 1, found {given}") from None


def _provenance(
    verb: str,
    configuration: Configuration,
    thresholds: Thresholds,
    inputs: Sequence[Path],
    started: float,
    output: Path,
) -> dict[str, Any]:
    settings = configuration.model_dump(mode="json", include={"network"}) | {
        "labels": thresholds.model_dump(mode="json")
    }
    if verb == "label-part":  # which frames are its own follows from whole batches
        settings["inference_batch_size"] = configuration.compute.inference_batch_size
    return provenance(verb, settings, inputs, None, started, output)


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
    the last bits of a feature may depend on the size of its batch: any number of parts gives the same labels. Batches
    that an earlier call has finished are kept: those in a journal of the store, if they are as they were written. UserError if the store was created for other inputs. While the network is at
    one batch, the next is read and the labels of the one before are written.
    """
    started = time.time()
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    frames = read_manifest(manifest, configuration=configuration).frames("target")
    network, _ = restore_network(checkpoint, device, class_table(configuration), configuration, manifest)
    found = _anchors_of(anchors, network, manifest, checkpoint, configuration)
    vectors, present = (torch.from_numpy(values).to(device) for values in (found.vectors, found.present))
    opened, thresholds = _opened(configuration, store, frames, [manifest, checkpoint, anchors])
    margin, p0 = float(opened.attributes["margin"]), float(opened.attributes["p0"])
    size = configuration.compute.inference_batch_size
    batches = [range(first, min(first + size, len(frames))) for first in range(0, len(frames), size)]
    own = share(batches, part, parts, "target")
    first, last = own[0].start, own[-1].stop - 1
    journal = Journal(store, f"{part}-of-{parts}", opened.attributes["provenance"])
    stored = journal.written(range(first, last + 1))
    left = [batch for batch in own if not all(index in stored for index in batch)]

    @torch.inference_mode()  # which holds for one thread alone
    def write(seen: tuple[range, Outputs]) -> None:
        batch, (features, logits, _) = seen
        rows = _labels(by_anchor(features, vectors, present, margin), by_probability(logits, p0))
        for place, index in enumerate(batch):
            write_labels(opened, index, LabelArrays(**{name: row[place] for name, row in rows.items()}))
            stored[index] = journal.add(index)

    seen = ((batch, network(scaled(images, device))) for batch, images in read_ahead(frames, left))
    for _ in tqdm(behind(seen, write), f"labels {part}/{parts}", len(left), disable=not sys.stderr.isatty()):
        pass
    chunks = {name: [stored[index][name] for index in range(first, last + 1)] for name in NAMES}
    made_by = _provenance("label-part", configuration, thresholds, [manifest, checkpoint, anchors], started, output)
    told = {"store": store.name, "part": part, "parts": parts, "first": first, "last": last, "chunk_sha256": chunks}
    write_json(output, told | {"provenance": made_by})
    kept = f"{sum(map(len, own)) - sum(map(len, left))} of them from an earlier call"
    print(f"labels: part {part} of {parts}, frames {first} to {last}, {kept} -> {store}")


def _opened(
    configuration: Configuration, path: Path, frames: Sequence[Frame], inputs: Sequence[Path]
) -> tuple[LabelStore, Thresholds]:
    """A label store to be filled, and its thresholds.

    UserError unless it was created for these frames and files, the configured settings and this version of the method.
    """
    store = open_label_store(path)
    made = store.attributes["provenance"]
    refuse_other_settings(path, configuration, made)
    refuse_other_frames(store, frames, inputs[0])
    thresholds = Thresholds.model_validate(made["settings"]["labels"])
    if not same_origin(made, _provenance("labels", configuration, thresholds, inputs, time.time(), path)):
        raise UserError(
            f"{path}: the label store must be created for this manifest, checkpoint and these anchors, found one for "
            "others; create it again with `label-store`"
        )
    return store, thresholds


def _labels(anchored: ByAnchor, probable: ByProbability) -> dict[str, NDArray[Any]]:
    """The seven arrays of some images, (n, h, w) each."""
    arrays = {
        "active": anchored.active.byte() + 2 * probable.active.byte(),
        "anchor_label": pseudo_labels(anchored.nearest, anchored.active),
        "probability_label": pseudo_labels(probable.predicted, probable.active),
        "nearest_anchor": anchored.nearest,
        "predicted": probable.predicted,
        "margin": anchored.margin.half(),
        "confidence": probable.confidence.half(),
    }
    return {name: values.cpu().numpy() for name, values in arrays.items()}
