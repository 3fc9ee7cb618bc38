"""The verb `verify`: the check of all artifacts on disk. Tables, pictures and pages are none."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from zipfile import ZipFile

from tqdm import tqdm

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import files_below, inputs_of, provenance_of
from caguda.artifacts.checks import misplacement
from caguda.artifacts.hdf5 import checksum_agrees, texts_of
from caguda.artifacts.maps import Faults, open_store
from caguda.artifacts.maps_metadata import MapFormat
from caguda.artifacts.predictions import check_predictions
from caguda.artifacts.provenance import json_digest
from caguda.artifacts.stores import kind_of_store
from caguda.artifacts.vouched import changed_metadata, examine_store
from caguda.config import Configuration
from caguda.configfile import configuration_beside
from caguda.datasets.manifest import read_manifest
from caguda.errors import Faulty, UserError, printable
from caguda.files import SEAL, is_sealed, read_regular, refuse_irregular, sha256
from caguda.recorded_settings import differing_settings

Digest = Callable[[Path], str]
Check = Callable[[Path], list[str]]
NOT_OURS = "other JSON file"
SUFFIXES = (".json", ".safetensors", ".h5", ".pt", ".zip")
"""The suffixes of artifacts that are files."""


def verify(paths: Sequence[Path]) -> None:
    """Decode and check all artifacts at and below `paths`, to the last bit, and compare their inputs.

    Prints a line for each fault, with file and image, and one for each kind of artifact; raises Faulty if there is a fault.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(f"{missing[0]}: artifacts are needed, found no such file or folder; check its name")
    if others := [path for path in paths if path.is_file() and path.suffix not in SUFFIXES]:
        raise UserError(
            f"{others[0]}: artifacts are needed, files of {', '.join(SUFFIXES)}, found another kind; check its name"
        )
    artifacts = sorted(
        {os.path.realpath(artifact): artifact for path in paths for artifact in _artifacts(path)}.values()
    )
    if not artifacts:
        raise UserError(f"{paths[0]}: artifacts are needed, found none there; give their folder")
    digest = cache(sha256)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        examined = pool.map(partial(_examine, digest=digest), artifacts)
        results = list(tqdm(examined, "verify", len(artifacts), disable=not sys.stderr.isatty()))
    for fault in (fault for _, faults in results for fault in faults):
        print("fault:", printable(" ".join(fault.split())))
    total, faulty = Counter(kind for kind, _ in results), Counter(kind for kind, faults in results if faults)
    for kind, count in sorted(total.items()):
        print(f"{kind}: {count}, " + ("not checked" if kind == NOT_OURS else f"{faulty[kind]} with faults"))
    if faulty:
        raise Faulty(f"verify: {faulty.total()} of {total.total()} artifacts have faults, all listed above")


def _artifacts(path: Path) -> Iterator[Path]:
    """Yields one path for each artifact at or below a path: its JSON if it has one, else its file or store."""
    entries = [path] if _is_store(path) else files_below(path, lambda each: not (_is_store(each) or _is_skipped(each)))
    for entry in entries:
        if entry.is_dir():
            if entry == path or not _is_skipped(entry):
                yield next((file for file in sorted(entry.parent.glob("*.json")) if _vouches_for(file, entry)), entry)
        elif entry == path or (
            entry.is_file() and (entry.suffix in (".json", ".h5", ".safetensors") or entry.name == "state.pt")
        ):
            yield entry.with_suffix(".json") if entry.suffix in (".safetensors", ".zip") else entry


def _is_store(path: Path) -> bool:
    return path.suffix == ".zarr" or (path / "zarr.json").exists()


def _is_skipped(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.suffix == ".partial"


def _vouches_for(file: Path, store: Path) -> bool:
    try:
        content = read_json(file)
    except UserError:
        return False
    return content.get("store") == store.name and "metadata_sha256" in content


def _examine(path: Path, digest: Digest) -> tuple[str, list[str]]:
    """The kind and the faults of an artifact, a line each; raises nothing, whatever its bytes are."""
    kind = "damaged file"
    try:
        kind, check = _kind_and_check(path)
        faults = check(path)
        return kind, faults if kind == NOT_OURS else [*faults, *_faults_of_provenance(path, digest)]
    except UserError as error:
        return kind, [str(error)]
    except Exception as error:  # noqa: BLE001  a library may raise anything on damaged bytes
        reason = str(error).partition("\n")[0]
        return kind, [f"{path}: this must be an artifact, found damage ({type(error).__name__}: {reason})"]


def _kind_and_check(path: Path) -> tuple[str, Check]:
    """The kind of an artifact and its check; a UserError if its checksum does not agree, so that no library opens it."""
    if path.is_dir():
        form, faults_of = kind_of_store(path)
        return form.title, partial(_faults_of_unvouched_store, form=form, faults_of=faults_of)
    if path.suffix == ".pt":
        return "training state", _sound_if("artifacts.state", "check_state")
    if path.suffix == ".h5":
        refuse_irregular(path)
        _refuse_damaged(path, checksum_agrees(path))
        return _HDF5_KINDS.get(texts_of(path).get("format", ""), _PACKED_CACHE)
    raw = read_regular(path)
    try:
        content = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: the file must hold JSON, found: {error}; make it again") from None
    keys = content.keys() if isinstance(content, dict) else ()
    if not {SEAL, "provenance", "runs", "recipes"}.intersection(keys):  # every artifact has two of them
        return NOT_OURS, lambda _: []
    _refuse_damaged(path, is_sealed(raw))
    return next((_JSON_KINDS[key] for key in _JSON_KINDS if key in keys), (NOT_OURS, lambda _: []))


def _refuse_damaged(path: Path, agrees: bool) -> None:
    if not agrees:
        raise UserError(f"{path}: the file must have the SHA-256 that it gives itself, found another; make it again")


def _faults_of_provenance(path: Path, digest: Digest) -> list[str]:
    """The faults of an artifact's settings, place and inputs; none if it has no provenance."""
    if not (provenance := provenance_of(path)):
        return []
    faults = []
    if provenance["configuration"] != json_digest(provenance["settings"]):
        faults.append("provenance: configuration must be the digest of settings, found another; make it again")
    if configuration := _configuration_of(path):
        faults += [
            f"this must be made with the settings of its experiment's config.json, found {line}; make it again"
            for line in differing_settings(configuration, provenance, path)
        ]
    if misplaced := misplacement(path, provenance):
        faults.append(misplaced)
    faults += [
        f"what it was made of must be there unchanged, found {item.path} {item.state}"
        for item in inputs_of(path, digest)
        if item.state != "unchanged"
    ]
    return [f"{path}: {fault}" for fault in faults]


def _configuration_of(path: Path) -> Configuration | None:
    """The configuration of the experiment that an artifact lies in; None if unreadable, which is a fault of its own."""
    try:
        return configuration_beside(path)
    except UserError:
        return None


def _sound_if(module: str, reader: str, suffix: str | None = None) -> Check:
    """The check of an artifact that is sound if a function of `caguda.MODULE` reads it, from the file of this suffix.

    The module is imported by the check, since several import torch, which takes seconds.
    """

    def check(path: Path) -> list[str]:
        getattr(import_module(f"caguda.{module}"), reader)(path.with_suffix(suffix) if suffix else path)
        return []

    return check


def _faults_of_store(path: Path) -> list[str]:
    """The faults of the store of a vouching JSON; damaged metadata are found by their bytes, and never opened."""
    recorded = read_json(path)
    store = path.parent / recorded["store"]
    form, faults_of = kind_of_store(store)
    if changed := changed_metadata(recorded["metadata_sha256"], store, form):
        return [f"{store / name}: the file must be as it was when it was verified, found another" for name in changed]
    opened = open_store(store, form)
    _, faults = examine_store(opened, faults_of)
    for index, image_id in enumerate(opened.image_ids):
        same = opened.digests([index]) == {name: [digests[index]] for name, digests in recorded["chunk_sha256"].items()}
        if not same and not any(fault.startswith(f"image {image_id}:") for fault in faults):
            faults.append(f"image {image_id}: its maps must be as they were when they were verified, found others")
    return [f"{store}: {fault}" for fault in faults]


def _faults_of_unvouched_store(path: Path, form: MapFormat, faults_of: Faults) -> list[str]:
    faults = [f"{path}: {fault}" for fault in examine_store(open_store(path, form), faults_of)[1]]
    return [*faults, f"{path}: a JSON beside a store must vouch for it, found none; run `evidence` or `labels`"]


def _faults_of_submission(path: Path) -> list[str]:
    archive = path.with_suffix(".zip")
    if sha256(archive) != read_json(path)["sha256"]:
        return [f"{archive}: the zip must have the SHA-256 that {path.name} gives, found another; make it again"]
    with ZipFile(archive) as content:
        damaged = content.testzip()
    return [f"{archive}: {damaged} is damaged"] if damaged else []


def _faults_of_manifest(path: Path) -> list[str]:
    """The frames that are not those that `check` read; all files are read again, whatever their sizes and times."""
    names = [name for name, value in read_json(path).items() if isinstance(value, dict) and "frames" in value]
    manifest = read_manifest(path, names, _configuration_of(path))  # type: ignore[arg-type]
    faults = []
    for name, content in manifest.sets.items():
        root = manifest.roots[name]
        if not root.is_dir():
            faults.append(f"{path}: the folder of the {name} set must be there, found none at {root}")
            continue
        for entry in content["frames"]:
            for kind in ("image", "label"):
                if entry[kind] is not None and not _has_digest(root / entry[kind], entry[f"{kind}_sha256"]):
                    faults.append(f"{root / entry[kind]}: image {entry['id']}: this {kind} of the {name} set must be as it was when "
                                  "it was checked, found another or none; check again")  # fmt: skip
    return faults


def _has_digest(file: Path, digest: str) -> bool:
    return file.is_file() and sha256(file) == digest


_PACKED_CACHE = ("packed cache", _sound_if("artifacts.packed", "check_packed"))
_HDF5_KINDS: dict[str, tuple[str, Check]] = {
    "caguda-anchors": ("anchors", _sound_if("artifacts.anchors", "load_anchors")),
    "caguda-class-sums": ("class sums", _sound_if("artifacts.class_sums", "load_class_sums")),
}
_READABLE_JSON = _sound_if("artifacts.atomic", "read_json")
_CONFIGURATION = ("configuration", _sound_if("configfile", "read_configuration"))
_JSON_KINDS: dict[str, tuple[str, Check]] = {
    "runs": _CONFIGURATION,
    "recipes": _CONFIGURATION,  # of an earlier version, which is refused
    "weights_sha256": ("checkpoint", _sound_if("artifacts.checkpoint", "load_checkpoint", ".safetensors")),
    "folder": ("predictions", check_predictions),
    "as_trained": ("evaluation", _sound_if("paper.evaluations", "read_evaluation")),
    "images_with_truth": ("label report", _READABLE_JSON),
    "evidence_digest": ("label store", _faults_of_store),
    "metadata_sha256": ("evidence store", _faults_of_store),
    "store": ("part of evidence", _READABLE_JSON),
    "warnings": ("manifest", _faults_of_manifest),
    "street": ("generated frames", _READABLE_JSON),
    "parts": ("part of predictions", _READABLE_JSON),
    "set": ("submission", _faults_of_submission),
}
"""The kind of a JSON by the first of these keys that it has, so their order matters; and its check."""
