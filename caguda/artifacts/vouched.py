"""A store of maps that was decoded and checked to the last image, and the JSON beside it that vouches for it from then on."""

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
    """What a store holds, every image decoded, and all its faults, a line each.

    Keys: `images`, `height`, `width`, `digest`, `metadata_sha256`, `chunk_sha256`. The digest is the SHA-256 of the line
    "n h w", then for each image in order its id, a zero byte and its arrays (C order, little endian). One image is held
    at a time.
    """
    missing = frozenset(store.missing())
    height, width = store.shape
    digest = hashlib.sha256(f"{store.count} {height} {width}\n".encode())
    chunks: dict[str, list[str | None]] = {name: [] for name in store.format.dtypes}
    found: list[str] = []
    decoded: set[int] = set()
    for index, image_id in enumerate(store.image_ids):
        if index in missing:
            found.append(f"image {image_id}: not completely written")
            continue
        try:
            maps = store.read_all(index)
        except UserError as error:
            found.append(str(error).removeprefix(f"{store.path}: ").removesuffix(REMEDY))
            continue
        decoded.add(index)
        found += [f"image {image_id}: {fault}" for fault in faults_of(maps, len(store.categories))]
        for name, digests in store.digests([index]).items():
            chunks[name] += digests
        digest.update(image_id.encode() + b"\0" + b"".join(maps[name].tobytes() for name in store.format.dtypes))
    found += _other_shards(store, decoded)
    summary = {"images": store.count, "height": height, "width": width, "digest": digest.hexdigest()}
    return summary | {"metadata_sha256": metadata_digests(store.path, store.format), "chunk_sha256": chunks}, found


def _other_shards(store: MapStore, decoded: Collection[int]) -> list[str]:
    """The shards that have other bytes than their chunks and their index, a line each, as far as all their images decode.

    A reader looks at nothing else, so that these bytes change no map.
    """
    found = []
    for number, images in enumerate(store.shards):
        if all(index in decoded for index in images):
            for name in store.format.dtypes:
                chunks = [chunk for index in images if (chunk := store.chunk(index, name)) is not None]
                if read_regular(store.path / name / f"c.{number}.0.0") != encoded_shard(chunks, store.per_shard):
                    found.append(f"image {store.image_ids[images[0]]}: {name} is damaged (the shard c.{number}.0.0 must be its "
                                 "chunks and their index alone)")  # fmt: skip
    return found


def verify_store(store: MapStore, faults_of: Faults) -> dict[str, Any]:
    """What a store holds once every image is decoded and found complete and consistent; else a UserError."""
    summary, found = examine_store(store, faults_of)
    if found:
        more = f"; and {len(found) - SHOWN_FAULTS} more" if len(found) > SHOWN_FAULTS else ""
        listed = "; ".join(found[:SHOWN_FAULTS])
        raise UserError(f"{store.path}: all images must be complete and consistent, found {listed}{more}{REMEDY}")
    return summary


def store_of(vouching: Path) -> Path:
    """The folder of the store that a JSON vouches for."""
    name = read_json(vouching).get("store")
    if not isinstance(name, str):
        raise UserError(f"{vouching}: the JSON of a store must name it, found no key store; make it again")
    return vouching.parent / name


def vouched_store(vouching: Path, form: MapFormat) -> MapStore:
    """The store that a JSON vouches for; UserError unless all its images are there, and its metadata are what they were.

    The chunk of each image is compared with its digest in the JSON when it is read.
    """
    told, path = read_json(vouching), store_of(vouching)
    recorded, chunks = told.get("metadata_sha256"), told.get("chunk_sha256")
    if not isinstance(recorded, dict) or not isinstance(chunks, dict) or chunks.keys() != form.dtypes.keys():
        raise UserError(f"{vouching}: this must vouch for a whole {form.title}, found something else; name the right file, or "
                        "make it again")  # fmt: skip
    now = metadata_digests(path, form)
    if changed := sorted(name for name in {*recorded, *now} if recorded.get(name) != now.get(name)):
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
    """The store of a folder, whole or not, or of the JSON that vouches for it; where such a JSON lies beside a folder, by that."""
    if path.is_file():
        return vouched_store(path, form)
    beside = path.with_suffix(".json")
    told = read_json(beside) if beside.is_file() else {}
    is_vouched = "metadata_sha256" in told and told.get("store") == path.name
    return vouched_store(beside, form) if is_vouched else open_store(path, form)


def refuse_other_frames(store: MapStore, image_ids: Sequence[str], manifest: Path) -> None:
    """UserError unless a store has the maps of each target frame, in their order; `manifest` is for the message."""
    if tuple(image_ids) != store.image_ids:
        raise UserError(
            f"{store.path}: the {store.format.title} must hold the target frames of {manifest} in their order, found other "
            "ones; make it again"
        )


def refuse_other_begun(path: Path, form: MapFormat, made: Mapping[str, Any]) -> bool:
    """Whether a store is there already; UserError unless it is of the same files and settings, those of the provenance `made`."""
    if not (path / "zarr.json").is_file():
        return False
    if not same_origin(open_store(path, form).attributes["provenance"], made):
        raise UserError(f"{path}: the {form.title} must be new, or of these files and settings, found another; move it away, or "
                        "choose another folder")  # fmt: skip
    return True
