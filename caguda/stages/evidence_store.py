"""The verbs `evidence-store` and `evidence`: an evidence store is created empty, and checked when it is full. No torch."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.anchors import Anchors, load_anchors
from caguda.artifacts.atomic import write_json
from caguda.artifacts.checkpoint import read_description
from caguda.artifacts.checks import refuse_other_checkpoint, refuse_other_origin
from caguda.artifacts.evidence import EVIDENCE, create_evidence_store, evidence_faults
from caguda.artifacts.identity import KIND_BY_VERB, model_of, read_artifact
from caguda.artifacts.maps import MapStore, open_store, remove_partial_files
from caguda.artifacts.maps_metadata import shard_size
from caguda.artifacts.provenance import new_provenance, same_origin
from caguda.artifacts.vouched import refuse_other_store, verify_store
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError, first
from caguda.files import sha256
from caguda.recorded_settings import recorded_network, settings_of_pass
from caguda.stages.parts import refuse_apart, refuse_gaps


def create_evidence(
    configuration: Configuration, manifest: Path, checkpoint: Path, anchors: Path, store: Path, output: Path
) -> None:
    """Create the empty evidence store of all target frames at the resolution of f_D, and a JSON of its attributes.

    A store of these files and settings is kept if its maps have the size that the network's `feature_stride` gives.
    UserError if there is a store of others, and unless all target frames have one size.
    """
    started = time.time()
    sets, table = read_manifest(manifest, configuration=configuration), class_table(configuration)
    sizes = sorted({(entry["height"], entry["width"]) for entry in sets.entries("target")})
    if len(sizes) > 1:
        raise UserError(f"{manifest}: target frames must have one size for an evidence store, found {sizes[:4]}")
    description = read_description(checkpoint)
    refuse_other_checkpoint(checkpoint, description, table, configuration, manifest)
    distance = anchors_of_model(anchors, manifest, checkpoint, configuration).mean_distance
    seed = description["provenance"]["seed"]
    provenance = evidence_provenance("evidence", configuration, [manifest, checkpoint, anchors], seed, started, store)
    attributes = {
        "model": model_of(description["provenance"]),
        "anchor_distance": distance,
        "provenance": provenance,
    }
    ids, shape = [frame.id for frame in sets.frames("target")], configuration.network.feature_size(sizes[0])
    per_shard = shard_size(len(ids), configuration.compute.inference_batch_size)
    refuse_other_store(store, EVIDENCE, provenance)
    if not (store / "zarr.json").is_file() or open_store(store, EVIDENCE).shape != shape:
        create_evidence_store(store, ids, shape, per_shard, table, attributes)
    written = open_store(store, EVIDENCE).attributes
    write_json(output, {"store": store.name, "images": len(ids), **{name: written[name] for name in attributes}})


def anchors_of_model(path: Path, manifest: Path, checkpoint: Path, configuration: Configuration) -> Anchors:
    """The anchors in a file; UserError unless they are of the configured categories and of the features of this checkpoint.

    Anchors from elsewhere do not name their checkpoint. With `every_stage: false`, they are of the model before the
    chain.
    """
    anchors, attributes = load_anchors(path)
    provenance = attributes["provenance"]
    if attributes["categories"] != list(class_table(configuration).names):
        raise UserError(f"{path}: the anchors must be of the configured categories in their order, found others; make them "
                        "again")  # fmt: skip
    refuse_other_origin(path, configuration, manifest)
    if provenance["made_by"] == "anchors":
        digests = {recorded["sha256"] for recorded in provenance["inputs"].values()}
        if configuration.anchors.every_stage and sha256(checkpoint) not in digests:
            raise UserError(f"{path}: the anchors must be of the features of {checkpoint}, found those of another model; "
                            "make them again")  # fmt: skip
    return anchors


def evidence_provenance(
    verb: str, configuration: Configuration, inputs: Sequence[Path], seed: int | None, started: float, output: Path
) -> dict[str, Any]:
    """The provenance of evidence, with the batch size, which decides last bits and the number of images in a shard."""
    settings = recorded_network(configuration) | settings_of_pass(configuration)
    settings["inference_batch_size"] = configuration.compute.inference_batch_size
    return new_provenance(verb, settings, inputs, seed, started, output)


def verify_evidence(store: Path, part_files: Sequence[Path], output: Path) -> None:
    """Decode and check every image of an evidence store, and write its JSON `output` with the checksums.

    UserError unless every image is as one of the parts wrote it; `part_files` are their JSONs. No part may be running:
    partial files of killed ones are deleted.
    """
    refuse_apart(store, output)
    opened = open_store(store, EVIDENCE)
    remove_partial_files(opened)
    summary = {"store": store.name, **opened.attributes, **verify_store(opened, evidence_faults)}
    _refuse_other_chunks(opened, part_files, summary["chunk_sha256"])
    write_json(output, summary)
    print(f"evidence: {summary['images']} images of {summary['height']}x{summary['width']} -> {output}")


def _refuse_other_chunks(
    store: MapStore, part_files: Sequence[Path], chunk_sha256: Mapping[str, Sequence[str]]
) -> None:
    """UserError unless the parts wrote every image of a store once, with the digests `chunk_sha256` that it has now."""
    written: list[int] = []
    for path in part_files:
        part = read_artifact(path, KIND_BY_VERB["evidence-part"])
        if part["store"] != store.path.name:
            raise UserError(
                f"{path}: this must be what `evidence-part` left for {store.path.name}, found something else; name it"
            )
        same_distance = part["anchor_distance"] == store.attributes["anchor_distance"]
        if not same_distance or not same_origin(part["provenance"], store.attributes["provenance"]):
            raise UserError(f"{store.path}: the store must say the settings, inputs and anchor_distance that {path} was written with, "
                            "found others; put its zarr.json back, or make the evidence again")  # fmt: skip
        images = range(part["first"], part["last"] + 1)
        for name, digests in part["chunk_sha256"].items():
            current = chunk_sha256[name]
            if changed := [i for i, sha in enumerate(digests, images.start) if current[i : i + 1] != [sha]]:
                raise UserError(
                    f"{store.path / name}: the evidence of every image must be what `evidence-part` wrote, found "
                    f"other evidence of {first([store.image_ids[i] for i in changed if i < store.count])}; make {path} again"
                )
        written += images
    refuse_gaps(part_files, written, range(store.count))
