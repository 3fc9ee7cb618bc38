"""The verb `evidence-part`: margins and probabilities of a frozen model on the target (Eq. 5), before any threshold."""

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

from caguda.artifacts.anchors import Anchors
from caguda.artifacts.atomic import write_json
from caguda.artifacts.evidence import EVIDENCE, ShardJournal
from caguda.artifacts.maps import MapStore, open_store, write_shard
from caguda.artifacts.provenance import same_origin
from caguda.artifacts.vouched import refuse_other_frames
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.datasets.image_batches import read_ahead, scaled
from caguda.datasets.manifest import read_manifest
from caguda.datasets.workers import in_background
from caguda.equations.labels import by_anchor, by_probability
from caguda.errors import UserError
from caguda.networks.layers.inference import refuse_not_finite
from caguda.networks.layers.network import Outputs, SegmentationNetwork
from caguda.recorded_settings import refuse_other_settings
from caguda.stages.evidence_store import anchors_of_model, evidence_provenance
from caguda.stages.parts import units_of_part
from caguda.stages.runtime import configure_torch, restore_network


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
    device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
    network, _ = restore_network(checkpoint, device, class_table(configuration), configuration, manifest)
    loaded = anchors_of_model(anchors, manifest, checkpoint, configuration)
    vectors, present = _tensors(loaded, network, anchors)
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
    maps = (_evidence_maps(_of_size(opened, output), vectors, present) for output in outputs)
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
    provenance = evidence_provenance("evidence-part", configuration, inputs, None, started, output)
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
    if not same_origin(provenance, evidence_provenance("evidence", configuration, inputs, None, time.time(), path)):
        raise UserError(
            f"{path}: the evidence store must be created for this manifest, checkpoint and these anchors with this "
            "compute.inference_batch_size, found one for others; create it again with `evidence-store`"
        )
    return store


def _tensors(anchors: Anchors, network: SegmentationNetwork, path: Path) -> tuple[Tensor, Tensor]:
    """The vectors of anchors and which are present, on the network's device; UserError unless of its features' channels."""
    weights = network.classifier.weight
    if (channels := anchors.vectors.shape[1]) != (expected := weights.shape[1]):
        raise UserError(f"{path}: anchors must have the {expected} channels of the network's features, found {channels}; name "
                        "those of this network")  # fmt: skip
    return torch.from_numpy(anchors.vectors).to(weights.device), torch.from_numpy(anchors.present).to(weights.device)


def _of_size(store: MapStore, outputs: Outputs) -> Outputs:
    """The outputs of a network; UserError unless features and logits are finite and of the size of the store's maps."""
    for name, values in ("features", outputs.features), ("logits", outputs.logits):
        if (found := tuple(values.shape[-2:])) != store.shape:
            raise UserError(
                f"{store.path}: the {name} of the network must be of {store.shape}, the size of the maps in the store, found "
                f"{found}; create the store again with `evidence-store`, or correct the network's feature_stride"
            )
    refuse_not_finite(outputs.features, outputs.logits)
    return outputs


def _evidence_maps(outputs: Outputs, vectors: Tensor, present: Tensor) -> dict[str, NDArray[Any]]:
    """The arrays of the evidence store for the images of a batch, (n, h, w) each."""
    anchored, probable = by_anchor(outputs.features, vectors, present, 0.0), by_probability(outputs.logits, 0.0)
    maps = {
        "nearest_anchor": anchored.nearest,
        "margin": anchored.margin,
        "predicted": probable.predicted,
        "confidence": probable.confidence,
    }
    return {name: values.cpu().numpy() for name, values in maps.items()}
