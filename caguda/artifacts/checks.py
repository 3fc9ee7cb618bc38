"""The checks before an artifact is used: it belongs to its folder, the configuration and the files there now. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from caguda.artifacts.chain import FROM_ELSEWHERE, chain_of, inputs_of, provenance_of, recorded_sha256
from caguda.artifacts.given_anchors import folder_around, folder_by
from caguda.artifacts.provenance import content_digest
from caguda.classes import ClassTable
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.files import sha256
from caguda.recorded_settings import refuse_other_settings
from caguda.version import METHOD_VERSION

_VERBS_OF_A_MODEL = ("anchor-part", "anchors", "evidence-store", "evidence", "evidence-part", "labels", "diagnose")
"""The verbs whose artifacts are of one model and lie beside it."""


def refuse_other_origin(path: Path, configuration: Configuration | None = None, manifest: Path | None = None) -> None:
    """Raises UserError unless an artifact belongs here. Neither weights nor maps are read.

    1. It lies in the folder of its seed, its run and its model.
    2. It was made with the settings of the configuration, and so was all that it was made of, as far as that is still there.
    3. The files that it was made of have not changed since. Missing ones, as after a partial copy, prove nothing.
    4. It was made of the frames of the manifest.

    An imported model and anchors from elsewhere are exempt from 3 and 4. Inputs without provenance are exempt
    from 2.
    """
    provenance = provenance_of(path)
    _refuse_misplaced(path, provenance)
    if configuration is not None:
        for file in chain_of(path):
            if (recorded := provenance_of(file)) or file == path:
                refuse_other_settings(file, configuration, recorded)
    if provenance.get("made_by") in FROM_ELSEWHERE:
        return
    for item in inputs_of(path, recorded_sha256):
        if item.state == "changed since":
            raise UserError(
                f"{path}: this must be made of the files that are there now, found one for which {item.path} was another "
                "file; put back what belongs here, or make it again"
            )
    if provenance and manifest is not None:
        digests = {item.get(key) for item in provenance.get("inputs", {}).values() for key in ("sha256", "content")}
        if digests.isdisjoint({sha256(manifest), content_digest(manifest)}):
            raise UserError(
                f"{path}: this must be made of the frames of {manifest}, found one of other frames; name the manifest that it "
                "was made of, or make it again"
            )


def refuse_other_checkpoint(
    path: Path,
    description: Mapping[str, Any],
    table: ClassTable,
    configuration: Configuration | None = None,
    manifest: Path | None = None,
) -> None:
    """Raises UserError unless a checkpoint is of this version of the method and these categories, and belongs here.

    What belongs here is said by refuse_other_origin. `description` is the checkpoint's.
    """
    if (version := description["provenance"].get("method_version")) != METHOD_VERSION:
        raise UserError(
            f"{path}: the checkpoint must be of version {METHOD_VERSION} of the method, found {version}; train it again, or "
            "bring it by a run whose method is imported"
        )
    refuse_other_origin(path, configuration, manifest)
    refuse_other_classes(path, description["classes"], table, "train it again")


def refuse_other_classes(path: Path, found: Sequence[str], table: ClassTable, remedy: str) -> None:
    """Raises UserError unless a checkpoint has the configured categories in their order."""
    if list(found) != list(table.names):
        raise UserError(
            f"{path}: the checkpoint must be for the configured categories, {table.count} of them, found one for "
            f"{len(found)} other or otherwise ordered ones; {remedy}"
        )


def refuse_other_network(path: Path, found: Mapping[str, Any], configuration: Configuration, remedy: str) -> None:
    """Raises UserError unless a checkpoint has the configured network; only the key `weights` may differ."""
    expected = configuration.network.model_dump(mode="json")
    found = {"align_corners": False, **found}  # checkpoints of earlier versions do not have the key
    for key in sorted({*expected, *found} - {"weights"}):
        if found.get(key) != expected.get(key):
            raise UserError(
                f"{path}: the checkpoint must be of the configured network, found {key} {found.get(key)} instead of "
                f"{expected.get(key)}; {remedy}"
            )


def refuse_broken_chain(paths: Sequence[Path], configuration: Configuration) -> None:
    """Raises UserError unless artifacts whose results are shown together belong together, back to their frames.

    They and all that they were made of are there unchanged, lie in the folders of their seeds, runs and models, and were
    made with the settings of the configuration and the frames of one manifest. The chain ends at an imported model and at
    anchors from elsewhere: their file has to be the one that was imported.
    """
    digest = cache(recorded_sha256)
    provenances: dict[Path, dict[str, Any]] = {}
    for file in chain_of(*paths):
        for item in inputs_of(file, digest):
            if item.state != "unchanged":
                raise UserError(
                    f"{file}: all that it was made of must be there unchanged, found {item.path} {item.state}; make it again"
                )
        if provenance := provenance_of(file):
            provenances[file] = provenance
    manifests = [
        file for file, provenance in provenances.items() if provenance.get("made_by") in ("check", "check-test")
    ]
    if len(set(map(content_digest, manifests))) > 1:
        raise UserError(f"{paths[0]}: all files must be of one experiment's frames, found {paths[-1]} or another one made of "
                        "other frames; name those of one experiment")  # fmt: skip
    for file, provenance in provenances.items():
        refuse_other_settings(file, configuration, provenance)
        _refuse_misplaced(file, provenance)


def _refuse_misplaced(path: Path, provenance: Mapping[str, Any]) -> None:
    """Raises UserError if an artifact lies in the folder of another seed, run or model."""
    if fault := misplacement(path, provenance):
        raise UserError(f"{path}: {fault}")


def misplacement(path: Path, provenance: Mapping[str, Any]) -> str:
    """The fault of an artifact in the folder of another seed, run, model or anchors; empty in its own."""
    if provenance.get("made_by") == "convert-anchors":
        return _misplacement_of_converted(path.absolute(), provenance)
    path = path.absolute()
    if (place := _place_of(path)) is None:
        return ""
    seed, folder, model = place
    if provenance.get("seed") not in (None, seed):
        return f"the folder is of seed {seed}, found a file of seed {provenance['seed']}; put it back"
    run = provenance.get("settings", {}).get("run")
    if isinstance(run, dict) and run["name"] != folder:
        return f"the folder is of {folder or 'no run'}, found a file of {run['name']}; put it back"
    if provenance.get("made_by") in _VERBS_OF_A_MODEL and folder != model:
        inputs = provenance["inputs"].items()
        # Where the inputs lie now if they were moved with the artifact, and where they lay by their names.
        now = [Path(os.path.normpath(path.parent / item["from_here"])) for _, item in inputs]
        earlier = [Path(name).absolute() for name, _ in inputs]
        for file in (*now, *earlier):
            if (actual := _model_behind(file)) not in ("", f"seed{seed}/{model}"):
                return f"the folder is of seed{seed}/{model}, found a file of the model in {actual}; put it back"
        own = folder_around(path)
        for files in (now, earlier):
            found = sorted({*map(folder_around, files)} - {""})
            if found != ([own] if own else []):
                named = [name or "the anchors of a model" for name in (own, " and ".join(found))]
                return f"the folder is of {named[0]}, found a file made with {named[1]}; put it back"
    return ""


def _misplacement_of_converted(path: Path, provenance: Mapping[str, Any]) -> str:
    """The fault of converted anchors in the folder of others; empty in a folder of no anchors."""
    contents = [item["content"] for item in provenance["inputs"].values() if "content" in item]
    if not (folder := folder_around(path)) or not contents or folder == folder_by(contents[0]):
        return ""
    return f"the folder is of {folder}, found a file of {folder_by(contents[0])}; put it back"


def _place_of(path: Path) -> tuple[int, str, str] | None:
    """The seed of a file's folder `seedS`, the folder below it, and the model in that or above it, RUN or RUN/stageK."""
    seeds = [index for index, part in enumerate(path.parts[:-1]) if re.fullmatch(r"seed\d+", part)]
    if not seeds:
        return None
    below = path.parts[seeds[-1] + 1 : -1]
    beside = ("evidence", "labels", "predictions", folder_around(path))
    ends = [index for index, part in enumerate(below) if part in beside and index > 0]
    model = below[: ends[0]] if ends else below
    return int(path.parts[seeds[-1]].removeprefix("seed")), "/".join(below), "/".join(model)


def _model_behind(file: Path) -> str:
    """The model, as `seedS/MODEL`, of an artifact with this input; empty if it does not tell.

    A manifest does not, nor do anchors, which all stages of a chain may share.
    """
    may_be_shared = file.suffix == ".h5" and "parts" not in file.parts
    if (place := _place_of(file)) is None or may_be_shared:
        return ""
    seed, folder, model = place
    return f"seed{seed}/{model}" if model and (folder != model or file.suffix == ".safetensors") else ""
