"""The verb `labels`: the check of a whole label store, and the JSON that vouches for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import write_json
from caguda.artifacts.identity import KINDS, contents_of_inputs, read_artifact
from caguda.artifacts.label_remains import remove_partial_files
from caguda.artifacts.labels import LabelStore, open_label_store, verify_label_store
from caguda.errors import UserError, first
from caguda.stages.parts import refuse_apart, refuse_gaps


def verify_labels(store: Path, part_files: Sequence[Path], output: Path) -> None:
    """Decode and check the whole store, and write what is in it: shares of active pixels, quantiles of d2 - d1.

    No part is at work any more: what killed ones left half-written is cleared away. UserError unless every image is as one
    of the parts, whose JSONs are `part_files`, has written it.
    """
    refuse_apart(store, output)
    opened = open_label_store(store)
    remove_partial_files(store)
    attributes = opened.attributes
    summary = {"store": store.name, **attributes, **verify_label_store(store)}
    _refuse_other_chunks(opened, part_files, summary["chunk_sha256"])
    write_json(output, summary)
    share = summary["share"]
    print(
        f"labels: {summary['images']} images, active by anchors {share['anchor']:.1%}, by probability "
        f"{share['probability']:.1%}, by either {share['either']:.1%}; margin {summary['margin']:.3f} -> {output}"
    )


def _refuse_other_chunks(store: LabelStore, part_files: Sequence[Path], found: Mapping[str, Sequence[str]]) -> None:
    """UserError unless the parts have written all images of a label store, and just what is there."""
    written: list[int] = []
    for path in part_files:
        part = read_artifact(path, KINDS["label-part"])
        if part["store"] != store.path.name:
            raise UserError(
                f"{path}: this must be what `label-part` left for {store.path.name}, found something else; name it"
            )
        _refuse_other_store(path, part["provenance"], store)
        start, end = part["first"], part["last"]
        for name, digests in part["chunk_sha256"].items():
            if other := [i for i, sha in enumerate(digests, start) if found[name][i : i + 1] != [sha]]:
                raise UserError(
                    f"{store.path / name}: the labels of every image must be those that `label-part` wrote, found others for "
                    f"{first([store.image_ids[i] for i in other if i < store.count])}; make {path} again"
                )
        written += range(start, end + 1)
    refuse_gaps(part_files, written, range(store.count))


def _refuse_other_store(path: Path, made: Mapping[str, Any], store: LabelStore) -> None:
    """UserError unless a part was written with the thresholds and of the files that the store says of itself."""
    told = store.attributes["provenance"]
    if made["settings"].get("labels") != told["settings"].get("labels") or contents_of_inputs(
        made
    ) != contents_of_inputs(told):
        raise UserError(f"{store.path}: the store must say the thresholds and inputs that {path} was written with, found "
                        "others; put its zarr.json back, or make the labels again")  # fmt: skip
