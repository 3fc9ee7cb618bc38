"""The verb `verify`, for everything that a run leaves on disk."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from tqdm import tqdm

from caguda.artifacts.anchors import FORMAT as ANCHORS
from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.atomic import SEAL, is_sealed, read_json, sha256
from caguda.artifacts.chain import inputs_of, provenance_of
from caguda.artifacts.hdf5 import is_sealed as is_sealed_hdf5
from caguda.artifacts.hdf5 import texts_of
from caguda.artifacts.maps import Faults, open_store
from caguda.artifacts.maps_metadata import MapFormat, metadata_digests
from caguda.artifacts.predictions import check_predictions
from caguda.artifacts.provenance import fingerprint
from caguda.artifacts.stores import kind_of_store
from caguda.artifacts.vouched import examine_store
from caguda.config import Configuration
from caguda.configfile import configuration_beside, read_configuration
from caguda.datasets.manifest import read_manifest
from caguda.errors import Faulty, UserError, printable
from caguda.files import read_regular, refuse_irregular
from caguda.paper.evaluations import read_evaluation
from caguda.recorded import other_settings, refuse_misplaced

Digest = Callable[[Path], str]
Check = Callable[[Path], list[str]]
NOT_OURS = "other JSON file"
SUFFIXES = (".json", ".safetensors", ".h5", ".pt", ".zip")
"""How the names of artifacts end that are files."""


def verify(paths: Sequence[Path]) -> None:
    """Decode and check all artifacts among `paths` and in the folders there, to the last bit, and what they were made of.

    Prints a line for each fault, with file and image, and one for each kind of artifact; raises Faulty if any has one.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(f"{missing[0]}: artifacts are needed, found no such file or folder; check its name")
    if others := [path for path in paths if path.is_file() and path.suffix not in SUFFIXES]:
        raise UserError(
            f"{others[0]}: artifacts are needed, files of {', '.join(SUFFIXES)}, found another kind; check its name"
        )
    artifacts = sorted(
        {artifact.resolve(): artifact for path in paths for artifact in _artifacts(path, set())}.values()
    )
    if not artifacts:
        raise UserError(f"{paths[0]}: artifacts are needed, found none there; give their folder")
    digest = cache(sha256)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        done = pool.map(partial(_examine, digest=digest), artifacts)
        found = list(tqdm(done, "verify", len(artifacts), disable=not sys.stderr.isatty()))
    for fault in (fault for _, faults in found for fault in faults):
        print("fault:", printable(" ".join(fault.split())))
    total, faulty = Counter(kind for kind, _ in found), Counter(kind for kind, faults in found if faults)
    for kind, count in sorted(total.items()):
        print(f"{kind}: {count}, " + ("not checked" if kind == NOT_OURS else f"{faulty[kind]} with faults"))
    if faulty:
        raise Faulty(f"verify: {faulty.total()} of {total.total()} artifacts have faults, all listed above")


def _artifacts(path: Path, seen: set[Path]) -> Iterator[Path]:
    """What stands for each artifact at or below a path: its JSON where it has one, else its file or folder."""
    if path.is_dir() and not _is_store(path):
        if (folder := path.resolve()) in seen:  # a link to a folder above would be followed without end
            return
        seen.add(folder)
        try:
            entries = sorted(path.iterdir())
        except OSError as error:
            raise UserError(f"{path}: the folder must be readable, found: {error.strerror}; check its rights") from None
        for entry in entries:
            is_ours = entry.suffix in (".json", ".h5", ".safetensors") or entry.name == "state.pt"
            if (is_ours and entry.is_file()) or (
                entry.is_dir() and not (entry.name.startswith(".") or entry.suffix == ".partial")
            ):
                yield from _artifacts(entry, seen)
    elif path.suffix in (".safetensors", ".zip"):
        yield path.with_suffix(".json")
    elif _is_store(path):
        yield next((file for file in sorted(path.parent.glob("*.json")) if _vouches_for(file, path)), path)
    else:
        yield path


def _is_store(path: Path) -> bool:
    return path.suffix == ".zarr" or (path / "zarr.json").exists()


def _vouches_for(file: Path, store: Path) -> bool:
    try:
        content = read_json(file)
    except UserError:
        return False
    return content.get("store") == store.name and "metadata_sha256" in content


def _examine(path: Path, digest: Digest) -> tuple[str, list[str]]:
    """The kind of an artifact, and what is wrong with it, a line each; whatever the bytes are, no error is raised."""
    kind = "damaged file"
    try:
        kind, check = _kind(path)
        faults = check(path)
        return kind, faults if kind == NOT_OURS else [*faults, *_faults_of_provenance(path, digest)]
    except UserError as error:
        return kind, [str(error)]
    except Exception as error:  # noqa: BLE001  whatever a library makes of bytes that nobody has thought of
        reason = str(error).partition("\n")[0]
        return kind, [f"{path}: this must be an artifact, found damage ({type(error).__name__}: {reason})"]


def _kind(path: Path) -> tuple[str, Check]:
    """What an artifact is, and its check; a UserError where its own digest does not agree, so that nothing opens it."""
    if path.is_dir():
        form, faults_of = kind_of_store(path)
        return form.title, partial(_unvouched_faults, form=form, faults_of=faults_of)
    if path.suffix == ".pt":
        return "training state", _once(_read_state)
    if path.suffix == ".h5":
        refuse_irregular(path)
        _require(path, sealed=is_sealed_hdf5(path))
        if texts_of(path).get("format") == ANCHORS:
            return "anchors", _once(load_anchors)
        if texts_of(path).get("format") == "caguda-class-sums":
            return "class sums", _once(_read_class_sums)
        return "packed cache", _once(_read_packed)
    raw = read_regular(path)
    try:
        content = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: the file must hold JSON, found: {error}; make it again") from None
    keys = content.keys() if isinstance(content, dict) else ()
    if not {SEAL, "provenance", "runs", "recipes"}.intersection(keys):  # every artifact has two of them
        return NOT_OURS, lambda _: []
    _require(path, sealed=is_sealed(raw))
    return next((KINDS[key] for key in KINDS if key in keys), (NOT_OURS, lambda _: []))


def _require(path: Path, *, sealed: bool) -> None:
    if not sealed:
        raise UserError(f"{path}: the file must have the SHA-256 that it gives itself, found another; make it again")


def _faults_of_provenance(path: Path, digest: Digest) -> list[str]:
    made = provenance_of(path)
    found = [] if not made or made["configuration"] == fingerprint(made["settings"]) else [
        f"{path}: provenance: configuration must be the digest of settings, found another; make it again"
    ]  # fmt: skip
    if made and (configuration := _configuration_of(path)):
        found += [f"{path}: this must be made with the settings of its experiment's config.json, found {line}; make it "
                  "again" for line in other_settings(configuration, made, path)]  # fmt: skip
    try:
        refuse_misplaced(path, made)
    except UserError as error:
        found.append(str(error))
    changed = [item for item in inputs_of(path, digest) if item.state != "unchanged"]
    return found + [f"{path}: what it was made of must be there unchanged, found {i.path} {i.state}" for i in changed]


def _configuration_of(path: Path) -> Configuration | None:
    """That of the experiment that an artifact lies in; None where it cannot be read, which is a fault of its own."""
    try:
        return configuration_beside(path)
    except UserError:
        return None


def _once(read: Callable[[Path], object]) -> Check:
    """The check of an artifact that is sound where it can be read."""

    def check(path: Path) -> list[str]:
        read(path)
        return []

    return check


def _read_packed(path: Path) -> None:
    from caguda.artifacts.packed import check_packed  # torch takes seconds to import: only where it is needed

    check_packed(path)


def _read_class_sums(path: Path) -> None:
    from caguda.artifacts.class_sums import load_class_sums

    load_class_sums(path)


def _read_state(path: Path) -> None:
    from caguda.artifacts.state import check_state

    check_state(path)


def _read_checkpoint(path: Path) -> None:
    from caguda.artifacts.checkpoint import load_checkpoint

    load_checkpoint(path.with_suffix(".safetensors"))


def _store_faults(path: Path) -> list[str]:
    """Against the JSON that vouches for a store: first the bytes of the metadata, so that damaged ones are never opened."""
    told = read_json(path)
    store = path.parent / told["store"]
    form, faults_of = kind_of_store(store)
    recorded, now = told["metadata_sha256"], metadata_digests(store, form)
    if changed := sorted(name for name in {*recorded, *now} if recorded.get(name) != now.get(name)):
        return [f"{store / name}: the file must be as it was when it was verified, found another" for name in changed]
    opened = open_store(store, form)
    _, found = examine_store(opened, faults_of)
    for index, image_id in enumerate(opened.image_ids):
        same = opened.digests([index]) == {name: [digests[index]] for name, digests in told["chunk_sha256"].items()}
        if not same and not any(fault.startswith(f"image {image_id}:") for fault in found):
            found.append(f"image {image_id}: its maps must be as they were when they were verified, found others")
    return [f"{store}: {fault}" for fault in found]


def _unvouched_faults(path: Path, form: MapFormat, faults_of: Faults) -> list[str]:
    found = [f"{path}: {fault}" for fault in examine_store(open_store(path, form), faults_of)[1]]
    return [*found, f"{path}: a JSON beside a store must vouch for it, found none; run `evidence` or `labels`"]


def _submission_faults(path: Path) -> list[str]:
    archive = path.with_suffix(".zip")
    if sha256(archive) != read_json(path)["sha256"]:
        return [f"{archive}: the zip must have the SHA-256 that {path.name} gives, found another; make it again"]
    with ZipFile(archive) as content:
        damaged = content.testzip()
    return [f"{archive}: {damaged} is damaged"] if damaged else []


def _manifest_faults(path: Path) -> list[str]:
    """Frames that are not what `check` read: every file is read again, whatever its size and time are."""
    names = [name for name, value in read_json(path).items() if isinstance(value, dict) and "frames" in value]
    manifest = read_manifest(path, names, _configuration_of(path))  # type: ignore[arg-type]
    found = []
    for name, content in manifest.sets.items():
        root = manifest.roots[name]
        if not root.is_dir():
            found.append(f"{path}: the folder of the {name} set must be there, found none at {root}")
            continue
        for entry in content["frames"]:
            kinds = [
                kind for kind in ("image", "label") if entry[kind] is not None and not _is_as_checked(root, entry, kind)
            ]
            found += [f"{root / entry[kind]}: image {entry['id']}: this {kind} of the {name} set must be as it was when "
                      "it was checked, found another or none; check again" for kind in kinds]  # fmt: skip
    return found


def _is_as_checked(root: Path, entry: Mapping[str, Any], kind: str) -> bool:
    file = root / entry[kind]
    return file.is_file() and sha256(file) == str(entry[f"{kind}_sha256"])


KINDS: dict[str, tuple[str, Check]] = {
    "runs": ("configuration", _once(read_configuration)),
    "recipes": ("configuration", _once(read_configuration)),  # of an earlier version, which is refused
    "weights_sha256": ("checkpoint", _once(_read_checkpoint)),
    "folder": ("predictions", check_predictions),
    "as_trained": ("evaluation", _once(read_evaluation)),
    "images_with_truth": ("pseudo-labels", _once(read_json)),
    "evidence_digest": ("label store", _store_faults),
    "metadata_sha256": ("evidence store", _store_faults),
    "store": ("evidence job", _once(read_json)),
    "warnings": ("manifest", _manifest_faults),
    "street": ("generated frames", _once(read_json)),
    "parts": ("prediction job", _once(read_json)),
    "set": ("submission", _submission_faults),
}
"""The first of these keys that a JSON has tells its kind: their order matters."""
