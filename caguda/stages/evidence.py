"""What the frozen network says of the target, into an evidence store (Algorithm 1, lines 5 and 6, before any threshold)."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from caguda.artifacts.anchors import Anchors, load_anchors
from caguda.artifacts.atomic import sha256, write_json
from caguda.artifacts.evidence import EVIDENCE, create_evidence_store, evidence_faults
from caguda.artifacts.identity import KINDS, model_of, read_artifact, refuse_other_origin
from caguda.artifacts.journal import Journal
from caguda.artifacts.maps import MapStore, open_store, remove_partial_files, shard_size, write_shard
from caguda.artifacts.provenance import provenance, same_origin
from caguda.artifacts.vouched import refuse_other_begun, refuse_other_frames, verify_store
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.datasets.io import image_of
from caguda.datasets.loader import read_ahead
from caguda.datasets.manifest import read_manifest
from caguda.datasets.transforms import scaled
from caguda.datasets.workers import in_background
from caguda.equations.labels import by_anchor, by_probability
from caguda.errors import UserError, first
from caguda.networks.layers.network import SegmentationNetwork
from caguda.recorded import refuse_other_settings
from caguda.stages.parts import refuse_apart, refuse_gaps, units_of_part
from caguda.stages.runtime import prepare, restore_network


@torch.inference_mode()
def create_evidence(
    configuration: Configuration, manifest: Path, checkpoint: Path, anchors: Path, store: Path, output: Path
) -> None:
    """Create the empty evidence store of all target frames at the resolution of f_D, and a JSON that says so."""
    started = time.time()
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    read = read_manifest(manifest, configuration=configuration)
    sizes = sorted({(entry["height"], entry["width"]) for entry in read.entries("target")})
    if len(sizes) > 1:
        raise UserError(f"{manifest}: target frames must have one size for an evidence store, found {sizes[:4]}")
    table = class_table(configuration)
    network, description = restore_network(checkpoint, device, table, configuration, manifest)
    seed, frames = description["provenance"]["seed"], read.frames("target")
    features = network(scaled(image_of(frames[0])[None], device)).features
    distance = _anchors_of(anchors, network, manifest, checkpoint, configuration).mean_distance
    made_by = _provenance("evidence", configuration, [manifest, checkpoint, anchors], seed, started, store)
    attributes = {
        "model": model_of(description["provenance"]),
        "anchor_distance": None if np.isnan(distance) else distance,
        "provenance": made_by,
    }
    ids, shape = [frame.id for frame in frames], (features.shape[-2], features.shape[-1])
    per_shard = shard_size(len(ids), configuration.compute.inference_batch_size)
    if not refuse_other_begun(store, EVIDENCE, made_by):
        create_evidence_store(store, ids, shape, per_shard, table, attributes)
    written = open_store(store, EVIDENCE).attributes
    write_json(output, {"store": store.name, "images": len(ids), **{name: written[name] for name in attributes}})


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
        refuse_other_origin(path, configuration, manifest)
        if configuration.anchors.every_stage and sha256(checkpoint) not in {
            given["sha256"] for given in made["inputs"].values()
        }:
            raise UserError(f"{path}: the anchors must be of the features of {checkpoint}, found those of another model; "
                            "make them again")  # fmt: skip
    return found


def _provenance(
    verb: str, configuration: Configuration, inputs: Sequence[Path], seed: int | None, started: float, of: Path
) -> dict[str, Any]:
    """Which frames share a batch decides last bits, and which a shard."""
    settings = configuration.model_dump(mode="json", include={"network"})
    settings["inference_batch_size"] = configuration.compute.inference_batch_size
    return provenance(verb, settings, inputs, seed, started, of)


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
    """Write the evidence of part `part` of `parts` (1-based, consecutive shards) into the store.

    Eq. 5 and the classifier's probabilities. Shards are whole batches of inference, since the last bits of a feature may
    depend on the size of its batch: any number of parts gives the same evidence. Shards that an earlier call has finished
    are kept: those in a journal of the store, if they are as they were written. UserError if the store was created for other
    inputs. While the network is at one batch, the next is read and the shard before is written.
    """
    started = time.time()
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    network, _ = restore_network(checkpoint, device, class_table(configuration), configuration, manifest)
    found = _anchors_of(anchors, network, manifest, checkpoint, configuration)
    vectors, present = (torch.from_numpy(values).to(device) for values in (found.vectors, found.present))
    frames = read_manifest(manifest, configuration=configuration).frames("target")
    inputs = [manifest, checkpoint, anchors]
    opened = _opened(configuration, store, frames, inputs)
    own = units_of_part(range(len(opened.shards)), part, parts, "target")
    journal = Journal(opened, f"{part}-of-{parts}")
    done = journal.written(own)
    left = [number for number in own if number not in done]
    batches = _batches([opened.shards[number] for number in left], configuration.compute.inference_batch_size)
    outputs = (network(scaled(images, device)) for _, images in read_ahead(frames, batches))
    seen = (_evidence(each.features, each.logits, vectors, present) for each in outputs)
    made = _by_shard(seen, [len(opened.shards[number]) for number in left])

    def write(item: tuple[int, dict[str, NDArray[Any]]]) -> None:
        number, maps = item
        done[number] = write_shard(opened, number, maps)
        journal.add(number, done[number])

    written = in_background(zip(left, made, strict=True), write)
    for _ in tqdm(written, f"evidence {part}/{parts}", len(left), disable=not sys.stderr.isatty()):
        pass
    images = range(opened.shards[own[0]].start, opened.shards[own[-1]].stop)
    chunks = {name: [sha for number in own for sha in done[number][name]] for name in EVIDENCE.dtypes}
    made_by = _provenance("evidence-part", configuration, inputs, None, started, output)
    content = {"store": store.name, "part": part, "parts": parts, "first": images[0], "last": images[-1]}
    content["anchor_distance"] = opened.attributes["anchor_distance"]
    write_json(output, content | {"chunk_sha256": chunks, "provenance": made_by})
    kept = f"{len(own) - len(left)} of {len(own)} shards from an earlier call"
    print(f"evidence: part {part} of {parts}, frames {images[0]} to {images[-1]}, {kept} -> {store}")


def _batches(shards: Sequence[range], size: int) -> list[range]:
    """The images of some shards in batches of inference, of which each shard has whole ones."""
    return [range(start, min(start + size, shard.stop)) for shard in shards for start in shard[::size]]


def _by_shard(seen: Iterator[dict[str, NDArray[Any]]], lengths: Sequence[int]) -> Iterator[dict[str, NDArray[Any]]]:
    """The maps of batches joined to those of shards, which are whole batches."""
    for length in lengths:
        batches: list[dict[str, NDArray[Any]]] = []
        while sum(len(batch["margin"]) for batch in batches) < length:
            batches.append(next(seen))
        yield {name: np.concatenate([batch[name] for batch in batches]) for name in EVIDENCE.dtypes}


def _opened(configuration: Configuration, path: Path, frames: Sequence[Frame], inputs: Sequence[Path]) -> MapStore:
    """An evidence store to be filled.

    UserError unless it was created for these frames and files, the configured settings and this version of the method.
    """
    store = open_store(path, EVIDENCE)
    made = store.attributes["provenance"]
    refuse_other_settings(path, configuration, made)
    refuse_other_frames(store, [frame.id for frame in frames], inputs[0])
    if not same_origin(made, _provenance("evidence", configuration, inputs, None, time.time(), path)):
        raise UserError(
            f"{path}: the evidence store must be created for this manifest, checkpoint and these anchors with this "
            "compute.inference_batch_size, found one for others; create it again with `evidence-store`"
        )
    return store


def _evidence(features: Tensor, logits: Tensor, vectors: Tensor, present: Tensor) -> dict[str, NDArray[Any]]:
    """The four maps of some images, (n, h, w) each."""
    anchored, probable = by_anchor(features, vectors, present, 0.0), by_probability(logits, 0.0)
    maps = {
        "nearest_anchor": anchored.nearest,
        "margin": anchored.margin,
        "predicted": probable.predicted,
        "confidence": probable.confidence,
    }
    return {name: values.cpu().numpy() for name, values in maps.items()}


def verify_evidence(store: Path, part_files: Sequence[Path], output: Path) -> None:
    """Decode and check a whole evidence store, and write the JSON that vouches for it.

    No part is at work any more: what killed ones left half-written is cleared away. UserError unless every image is as one
    of the parts, whose JSONs are `part_files`, has written it.
    """
    refuse_apart(store, output)
    opened = open_store(store, EVIDENCE)
    remove_partial_files(opened)
    summary = {"store": store.name, **opened.attributes, **verify_store(opened, evidence_faults)}
    _refuse_other_chunks(opened, part_files, summary["chunk_sha256"])
    write_json(output, summary)
    print(f"evidence: {summary['images']} images of {summary['height']}x{summary['width']} -> {output}")


def _refuse_other_chunks(store: MapStore, part_files: Sequence[Path], found: Mapping[str, Sequence[str]]) -> None:
    """UserError unless the parts have written all images of a store, and just what is there."""
    written: list[int] = []
    for path in part_files:
        part = read_artifact(path, KINDS["evidence-part"])
        if part["store"] != store.path.name:
            raise UserError(
                f"{path}: this must be what `evidence-part` left for {store.path.name}, found something else; name it"
            )
        told = store.attributes
        same = part["anchor_distance"] == told["anchor_distance"]
        if not same or not same_origin(part["provenance"], told["provenance"]):
            raise UserError(f"{store.path}: the store must say the settings, inputs and anchor_distance that {path} was written with, "
                            "found others; put its zarr.json back, or make the evidence again")  # fmt: skip
        start, end = part["first"], part["last"]
        for name, digests in part["chunk_sha256"].items():
            if other := [i for i, sha in enumerate(digests, start) if found[name][i : i + 1] != [sha]]:
                raise UserError(
                    f"{store.path / name}: the evidence of every image must be what `evidence-part` wrote, found other of "
                    f"{first([store.image_ids[i] for i in other if i < store.count])}; make {path} again"
                )
        written += range(start, end + 1)
    refuse_gaps(part_files, written, range(store.count))
