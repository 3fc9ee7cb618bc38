"""The check of a whole store of maps, and the JSON beside it that vouches for what the check found."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import read_json
from caguda.artifacts.maps import REMEDY, Faults, MapStore, encoded_shard, open_store
from caguda.artifacts.maps_metadata import MapFormat, metadata_digests
from caguda.artifacts.provenance import same_origin
from caguda.errors import UserError
from caguda.files import read_regular

SHOWN_FAULTS = 5


def examine_store(store: MapStore, faults_of: Faults) -> tuple[dict[str, Any], list[str]]:
    """Decodes every image of a store, one at a time; returns a summary and all faults, a line each.

    The summary has the keys `images`, `height`, `width`, `digest`, `metadata_sha256` and `chunk_sha256`. The digest is the
    SHA-256 of the line "n h w", then for each image in order its id, a zero byte and its arrays (C order, little endian).
    """
    missing = frozenset(store.missing())
    height, width = store.shape
    digest = hashlib.sha256(f"{store.count} {height} {width}\n".encode())
    chunks: dict[str, list[str | None]] = {name: [] for name in store.format.dtypes}
    faults: list[str] = []
    decoded: set[int] = set()
    for index, image_id in enumerate(store.image_ids):
        if index in missing:
            faults.append(f"image {image_id}: not completely written")
            continue
        try:
            maps = store.read_all(index)
        except UserError as error:
            faults.append(str(error).removeprefix(f"{store.path}: ").removesuffix(REMEDY))
            continue
        decoded.add(index)
        faults += [f"image {image_id}: {fault}" for fault in faults_of(maps, len(store.categories))]
        for name, digests in store.digests([index]).items():
            chunks[name] += digests
        digest.update(image_id.encode() + b"\0" + b"".join(maps[name].tobytes() for name in store.format.dtypes))
    faults += _stray_bytes(store, decoded)
    summary = {"images": store.count, "height": height, "width": width, "digest": digest.hexdigest()}
    return summary | {"metadata_sha256": metadata_digests(store.path, store.format), "chunk_sha256": chunks}, faults


def _stray_bytes(store: MapStore, decoded: Collection[int]) -> list[str]:
    """The shards with bytes besides their chunks and index, a line each. No reader looks at such bytes.

    A shard with an image that is not in `decoded` is skipped.
    """
    faults = []
    for number, images in enumerate(store.shards):
        if all(index in decoded for index in images):
            for name in store.format.dtypes:
                chunks = [chunk for index in images if (chunk := store.chunk(index, name)) is not None]
                if read_regular(store.path / name / f"c.{number}.0.0") != encoded_shard(chunks, store.per_shard):
                    faults.append(f"image {store.image_ids[images[0]]}: {name} is damaged (the shard c.{number}.0.0 must be its "
                                  "chunks and their index alone)")  # fmt: skip
    return faults


def verify_store(store: MapStore, faults_of: Faults) -> dict[str, Any]:
    """The summary of `examine_store`; UserError unless every image is complete and consistent."""
    summary, faults = examine_store(store, faults_of)
    if faults:
        more = f"; and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        listed = "; ".join(faults[:SHOWN_FAULTS])
        raise UserError(f"{store.path}: all images must be complete and consistent, found {listed}{more}{REMEDY}")
    return summary


def changed_metadata(recorded: Mapping[str, str], path: Path, form: MapFormat) -> list[str]:
    """The files of a store, other than chunks, that differ from the recorded digests; no library opens them."""
    current = metadata_digests(path, form)
    return sorted(name for name in {*recorded, *current} if recorded.get(name) != current.get(name))


def vouched_store(vouching: Path, form: MapFormat) -> MapStore:
    """The store that a JSON vouches for; UserError unless all its images are there and its metadata are unchanged.

    The chunk of each image is compared with its digest in the JSON when it is read.
    """
    content = read_json(vouching)
    if not isinstance(content.get("store"), str):
        raise UserError(f"{vouching}: the JSON of a store must name it, found no key store; make it again")
    path = vouching.parent / content["store"]
    recorded, chunks = content.get("metadata_sha256"), content.get("chunk_sha256")
    if not isinstance(recorded, dict) or not isinstance(chunks, dict) or chunks.keys() != form.dtypes.keys():
        raise UserError(f"{vouching}: this must vouch for a whole {form.title}, found something else; name the right file, or "
                        "make it again")  # fmt: skip
    if changed := changed_metadata(recorded, path, form):
        raise UserError(
            f"{path / changed[0]}: the {form.title} must be the one that {vouching.name} vouches for, found another file or "
            "none; put it back, or make the store again"
        )
    store = replace(open_store(path, form), chunk_sha256=chunks)
    if missing := store.missing():
        raise UserError(
            f"{store.path}: the {form.title} must hold all {store.count} images, found {len(missing)} not completely "
            f"written, such as {store.image_ids[missing[0]]}; move this folder away and make it again"
        )
    return store


def store_at(path: Path, form: MapFormat) -> MapStore:
    """The store at a folder or its vouching JSON; a folder may be incomplete, and a vouching JSON beside it is used."""
    if path.is_file():
        return vouched_store(path, form)
    beside = path.with_suffix(".json")
    content = read_json(beside) if beside.is_file() else {}
    is_vouched = "metadata_sha256" in content and content.get("store") == path.name
    return vouched_store(beside, form) if is_vouched else open_store(path, form)


def refuse_other_frames(store: MapStore, image_ids: Sequence[str], manifest: Path) -> None:
    """Raises UserError unless a store has the maps of the target frames of a manifest, `image_ids`, in their order."""
    if tuple(image_ids) != store.image_ids:
        raise UserError(
            f"{store.path}: the {store.format.title} must hold the target frames of {manifest} in their order, found other "
            "ones; make it again"
        )


def refuse_other_store(path: Path, form: MapFormat, provenance: Mapping[str, Any]) -> None:
    """Raises UserError if a store is there already, with other settings or inputs than those of `provenance`."""
    is_there = (path / "zarr.json").is_file()
    if is_there and not same_origin(open_store(path, form).attributes["provenance"], provenance):
        raise UserError(f"{path}: the {form.title} must be new, or of these files and settings, found another; move it away, or "
                        "choose another folder")  # fmt: skip
