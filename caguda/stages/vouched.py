"""Opens label stores: what the JSON beside a store vouches for, and of which frames and files it is."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import refuse_changed_inputs, refuse_other_manifest
from caguda.artifacts.labels import LabelStore, metadata_digests, open_label_store
from caguda.config import Configuration
from caguda.datasets.frame import Frame
from caguda.errors import UserError
from caguda.recorded import refuse_misplaced, refuse_other_settings


def vouched_store(labels: Path) -> LabelStore:
    """The label store that the JSON `labels` vouches for: each chunk is compared with its digest when it is read."""
    told, path = read_json(labels), store_of(labels)
    recorded = told.get("metadata_sha256")
    if not isinstance(recorded, dict) or "chunk_sha256" not in told:
        raise UserError(
            f"{labels}: this must be what `labels` wrote of a whole store, found something else; make it again"
        )
    now = metadata_digests(path)
    if changed := sorted(name for name in {*recorded, *now} if recorded.get(name) != now.get(name)):
        raise UserError(
            f"{path / changed[0]}: the label store must be the one that {labels.name} vouches for, found another file or "
            "none; put it back, or make the labels again"
        )
    return replace(open_label_store(path), chunk_sha256=told["chunk_sha256"])


def label_store(path: Path) -> LabelStore:
    """The label store of a folder, or of the JSON that vouches for it; where such a JSON lies beside a folder, by that."""
    if path.is_file():
        return vouched_store(path)
    beside = path.with_suffix(".json")
    told = read_json(beside) if beside.is_file() else {}
    is_vouched = "metadata_sha256" in told and told.get("store") == path.name
    return vouched_store(beside) if is_vouched else open_label_store(path)


def verified_labels(labels: Path, frames: Sequence[Frame], manifest: Path) -> LabelStore:
    """The label store that the JSON `labels` vouches for; UserError unless it is of just these frames of `manifest`.

    The chunks of all images are there; each is compared with its digest in the JSON when it is read.
    """
    store = vouched_store(labels)
    refuse_other_frames(store, frames, manifest)
    if missing := store.missing():
        raise UserError(
            f"{store.path}: the label store must hold all {store.count} images, found {len(missing)} not completely "
            f"written, such as {store.image_ids[missing[0]]}; move this folder away and make the labels again"
        )
    return store


def refuse_other_origin(labels: Path, store: LabelStore, configuration: Configuration, manifest: Path) -> None:
    """UserError unless labels are of the configuration's settings, or a sweep's, of the manifest's frames, and of the files
    that are there now."""
    refuse_other_manifest(labels, manifest)
    refuse_other_settings(labels, configuration, store.attributes["provenance"])
    refuse_misplaced(labels, store.attributes["provenance"])
    refuse_changed_inputs(labels)


def store_of(labels: Path) -> Path:
    """The folder of the label store that the JSON `labels` names."""
    name = read_json(labels).get("store")
    if not isinstance(name, str):
        raise UserError(f"{labels}: the JSON of a label store must name it, found no key store; make it with `labels`")
    return labels.parent / name


def refuse_other_frames(store: LabelStore, frames: Sequence[Frame], manifest: Path) -> None:
    """UserError unless a label store has one row for each frame, in their order; `manifest` is for the message."""
    if [frame.id for frame in frames] != list(store.image_ids):
        raise UserError(
            f"{store.path}: a label store must hold the target frames of {manifest} in their order, found other ones; "
            "make the label store again"
        )
