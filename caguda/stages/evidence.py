"""Makes the evidence store: margins and probabilities of a frozen model on the target (Eq. 5), before any threshold."""

import sys
import time
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from caguda.artifacts.anchors import Anchors, load_anchors
from caguda.artifacts.atomic import sha256, write_json
from caguda.artifacts.checks import refuse_other_origin
from caguda.artifacts.evidence import EVIDENCE, ShardJournal, create_evidence_store
from caguda.artifacts.identity import model_of
from caguda.artifacts.maps import MapStore, open_store, shard_size, write_shard
from caguda.artifacts.provenance import new_provenance, same_origin
from caguda.artifacts.vouched import refuse_other_frames, refuse_other_store
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.datasets.io import frame_image
from caguda.datasets.loader import read_ahead
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.datasets.workers import in_background
from caguda.equations.labels import by_anchor, by_probability
from caguda.errors import UserError
from caguda.networks.layers.network import SegmentationNetwork
from caguda.recorded_settings import refuse_other_settings
from caguda.stages.parts import units_of_part
from caguda.stages.runtime import prepare, restore_network


@torch.inference_mode()
def create_evidence(
    configuration: Configuration, manifest: Path, checkpoint: Path, anchors: Path, store: Path, output: Path
) -> None:
    """Create the empty evidence store of all target frames at the resolution of f_D, and a JSON of its attributes."""
    started = time.time()
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    sets = read_manifest(manifest, configuration=configuration)
    sizes = sorted({(entry["height"], entry["width"]) for entry in sets.entries("target")})
    if len(sizes) > 1:
        raise UserError(f"{manifest}: target frames must have one size for an evidence store, found {sizes[:4]}")
    table = class_table(configuration)
    network, description = restore_network(checkpoint, device, table, configuration, manifest)
    seed, frames = description["provenance"]["seed"], sets.frames("target")
    features = network(scaled(frame_image(frames[0])[None], device)).features
    distance = _load_anchors(anchors, network, manifest, checkpoint, configuration).mean_distance
    provenance = _provenance("evidence", configuration, [manifest, checkpoint, anchors], seed, started, store)
    attributes = {
        "model": model_of(description["provenance"]),
        "anchor_distance": None if np.isnan(distance) else distance,
        "provenance": provenance,
    }
    ids, shape = [frame.id for frame in frames], (features.shape[-2], features.shape[-1])
    per_shard = shard_size(len(ids), configuration.compute.inference_batch_size)
    refuse_other_store(store, EVIDENCE, provenance)
    if not (store / "zarr.json").is_file():
        create_evidence_store(store, ids, shape, per_shard, table, attributes)
    written = open_store(store, EVIDENCE).attributes
    write_json(output, {"store": store.name, "images": len(ids), **{name: written[name] for name in attributes}})


def _load_anchors(
    path: Path, network: SegmentationNetwork, manifest: Path, checkpoint: Path, configuration: Configuration
) -> Anchors:
    """The anchors in a file; UserError unless they are of the configured categories and of the network's features.

    Anchors that `convert-anchors` made do not name their checkpoint: only their number of channels is compared.
    """
    anchors, attributes = load_anchors(path)
    provenance = attributes["provenance"]
    if attributes["categories"] != list(class_table(configuration).names):
        raise UserError(f"{path}: the anchors must be of the configured categories in their order, found others; make them "
                        "again")  # fmt: skip
    if (channels := anchors.vectors.shape[1]) != (expected := network.classifier.in_channels):
        raise UserError(f"{path}: anchors must have the {expected} channels of the network's features, found {channels}; name "
                        "those of this network")  # fmt: skip
    if provenance["made_by"] == "anchors":
        refuse_other_origin(path, configuration, manifest)
        digests = {recorded["sha256"] for recorded in provenance["inputs"].values()}
        if configuration.anchors.every_stage and sha256(checkpoint) not in digests:
            raise UserError(f"{path}: the anchors must be of the features of {checkpoint}, found those of another model; "
                            "make them again")  # fmt: skip
    return anchors


def _provenance(
    verb: str, configuration: Configuration, inputs: Sequence[Path], seed: int | None, started: float, output: Path
) -> dict[str, Any]:
    """The provenance of evidence, with the batch size, which decides last bits and the number of images in a shard."""
    settings = configuration.model_dump(mode="json", include={"network"})
    settings["inference_batch_size"] = configuration.compute.inference_batch_size
    return new_provenance(verb, settings, inputs, seed, started, output)


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
    """Write the evidence of part `part` of `parts` (1-based, consecutive shards) into the store: Eq. 5 and softmax.

    A shard is whole batches, since the last bits of a feature may depend on its batch: the evidence does not depend on the
    number of parts. Finished shards of an earlier call are kept, if a journal lists them and their checksums still hold.
    Background threads read and write while the network computes. UserError if the store was created for other inputs.
    """
    started = time.time()
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    network, _ = restore_network(checkpoint, device, class_table(configuration), configuration, manifest)
    loaded = _load_anchors(anchors, network, manifest, checkpoint, configuration)
    vectors, present = (torch.from_numpy(values).to(device) for values in (loaded.vectors, loaded.present))
    sets = read_manifest(manifest, configuration=configuration)
    frames, inputs = sets.frames("target"), [manifest, checkpoint, anchors]
    opened = _open_created(configuration, store, frames, inputs)
    shards = units_of_part(range(len(opened.shards)), part, parts, "target")
    journal = ShardJournal(opened, f"{part}-of-{parts}")
    digests = journal.written(shards)
    unfinished = [shard for shard in shards if shard not in digests]
    size = configuration.compute.inference_batch_size
    batches = [sets.batches("target", size, opened.shards[shard]) for shard in unfinished]
    outputs = (network(scaled(images, device)) for _, images in read_ahead(frames, list(chain(*batches))))
    maps = (_evidence_maps(output.features, output.logits, vectors, present) for output in outputs)
    maps_by_shard = (_concatenated(list(islice(maps, len(of_shard)))) for of_shard in batches)

    def write(item: tuple[int, dict[str, NDArray[Any]]]) -> None:
        shard, shard_maps = item
        digests[shard] = write_shard(opened, shard, shard_maps)
        journal.add(shard, digests[shard])

    written = in_background(zip(unfinished, maps_by_shard, strict=True), write)
    for _ in tqdm(written, f"evidence {part}/{parts}", len(unfinished), disable=not sys.stderr.isatty()):
        pass
    images = range(opened.shards[shards[0]].start, opened.shards[shards[-1]].stop)
    chunks = {name: [sha for shard in shards for sha in digests[shard][name]] for name in EVIDENCE.dtypes}
    provenance = _provenance("evidence-part", configuration, inputs, None, started, output)
    content = {"store": store.name, "part": part, "parts": parts, "first": images[0], "last": images[-1]}
    content["anchor_distance"] = opened.attributes["anchor_distance"]
    write_json(output, content | {"chunk_sha256": chunks, "provenance": provenance})
    kept = f"{len(shards) - len(unfinished)} of {len(shards)} shards from an earlier call"
    print(f"evidence: part {part} of {parts}, frames {images[0]} to {images[-1]}, {kept} -> {store}")


def _concatenated(batches: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The maps of a shard, (s, h, w) each, from those of its batches."""
    return {name: np.concatenate([maps[name] for maps in batches]) for name in EVIDENCE.dtypes}


def _open_created(
    configuration: Configuration, path: Path, frames: Sequence[Frame], inputs: Sequence[Path]
) -> MapStore:
    """The evidence store that `create_evidence` made; UserError unless for these frames, inputs and settings."""
    store = open_store(path, EVIDENCE)
    provenance = store.attributes["provenance"]
    refuse_other_settings(path, configuration, provenance)
    refuse_other_frames(store, [frame.id for frame in frames], inputs[0])
    if not same_origin(provenance, _provenance("evidence", configuration, inputs, None, time.time(), path)):
        raise UserError(
            f"{path}: the evidence store must be created for this manifest, checkpoint and these anchors with this "
            "compute.inference_batch_size, found one for others; create it again with `evidence-store`"
        )
    return store


def _evidence_maps(features: Tensor, logits: Tensor, vectors: Tensor, present: Tensor) -> dict[str, NDArray[Any]]:
    """The arrays of the evidence store for the images of a batch, (n, h, w) each."""
    anchored, probable = by_anchor(features, vectors, present, 0.0), by_probability(logits, 0.0)
    maps = {
        "nearest_anchor": anchored.nearest,
        "margin": anchored.margin,
        "predicted": probable.predicted,
        "confidence": probable.confidence,
    }
    return {name: values.cpu().numpy() for name, values in maps.items()}
