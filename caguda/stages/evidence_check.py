"""The verb `evidence`: the check of a whole evidence store. No torch, to start at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from caguda.artifacts.atomic import write_json
from caguda.artifacts.evidence import EVIDENCE, evidence_faults
from caguda.artifacts.identity import KIND_BY_VERB, read_artifact
from caguda.artifacts.maps import MapStore, open_store, remove_partial_files
from caguda.artifacts.provenance import same_origin
from caguda.artifacts.vouched import verify_store
from caguda.errors import UserError, first
from caguda.stages.parts import refuse_apart, refuse_gaps


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
