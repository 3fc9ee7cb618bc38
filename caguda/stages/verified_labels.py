"""The verb `labels`: the check of a whole label store, and the JSON that vouches for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.label_remains import remove_partial_files
from caguda.artifacts.labels import LabelStore, open_label_store, verify_label_store
from caguda.errors import UserError, first
from caguda.stages.parts import refuse_gaps


def verify_labels(store: Path, part_files: Sequence[Path], output: Path) -> None:
    """Decode and check the whole store, and write what is in it: shares of active pixels, quantiles of d2 - d1.

    No part is at work any more: what killed ones left half-written is cleared away. UserError unless every image is as one
    of the parts, whose JSONs are `part_files`, has written it.
    """
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
    written: set[int] = set()
    for path in part_files:
        part = read_json(path)
        if part.get("store") != store.path.name or not {"first", "last", "chunk_sha256"} <= part.keys():
            raise UserError(
                f"{path}: this must be what `label-part` left for {store.path.name}, found something else; name it"
            )
        start, end = part["first"], part["last"]
        for name, digests in part["chunk_sha256"].items():
            if other := [i for i, sha in enumerate(digests, start) if found[name][i : i + 1] != [sha]]:
                raise UserError(
                    f"{store.path / name}: the labels of every image must be those that `label-part` wrote, found others for "
                    f"{first([store.image_ids[i] for i in other if i < store.count])}; make {path} again"
                )
        written |= set(range(start, end + 1))
    refuse_gaps(part_files, written, range(store.count))
