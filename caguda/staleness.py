"""The artifacts of an experiment that its configuration and its frames would make otherwise now. No torch.

Snakemake remembers in `.snakemake` how it made a file, but that does not travel with results. Artifacts do: each records its
settings and its inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import read_json
from caguda.artifacts.chain import FROM_ELSEWHERE, Input, files_below, inputs_of, provenance_of, recorded_sha256
from caguda.artifacts.checks import misplacement
from caguda.artifacts.given_anchors import folder_around, folder_of
from caguda.artifacts.identity import model_of
from caguda.artifacts.provenance import content_digest
from caguda.config import Configuration
from caguda.config_run import run_name
from caguda.datasets.changes import changed_frames
from caguda.datasets.scenes import other_scenes
from caguda.errors import UserError, first
from caguda.files import sha256
from caguda.recorded_settings import differing_settings
from caguda.runs import anchors_files, imported_files

_FOLDERS_NOT_EXAMINED = ("check", "check-test", "check-translated", "log", "benchmark", "state", "data", "packed")
_CHECKS = ("check", "check-test", "check-translated")
_PART_VERBS = ("anchor-part", "evidence-part", "predict-part")
"""The verbs whose jobs share a pass over frames by whole batches, so that all need the same batch size."""


def stale_artifacts(configuration: Configuration, folder: Path) -> dict[Path, str]:
    """The artifacts in an experiment's folder that must be made again, each with the reason.

    An artifact is stale if its settings are not the configuration's, if it lies in the folder of another seed or run, or if
    an input is missing or has another content; a manifest is, if frames were added, removed or changed. An unreadable
    artifact is left to the verb that reads it, which refuses it.
    """
    compared_inputs = partial(inputs_of, digest=cache(recorded_sha256), content=cache(content_digest))
    reasons = {}
    for path in files_below(folder, _may_hold_artifacts):
        if path.suffix not in (".json", ".h5") or path.name == "config.json":
            continue
        try:
            reason = _reason(configuration, path, compared_inputs)
        except (UserError, OSError, LookupError, TypeError, ValueError, AttributeError):
            continue
        if reason:
            reasons[path] = reason
    return reasons


def products_without_provenance(experiment: Path) -> list[Path]:
    """The tables, pictures, pages and archives in an experiment's folder, which do not record all their inputs."""
    tables = [
        f"{folder}/*.{suffix}"
        for folder in ("tables", "reports/*", "methods")
        for suffix in ("csv", "md", "tex", "html", "png")
    ]
    patterns = (*tables, "reports/*/labels/*", "seed*/**/submission.zip")
    return sorted(path for pattern in patterns for path in experiment.glob(pattern))


def _may_hold_artifacts(folder: Path) -> bool:
    is_of_a_run_or_rule = re.fullmatch(r"seed\d+|labels", folder.parent.name)  # a run may be called `log` or `data`
    return folder.suffix not in (".zarr", ".partial") and (
        bool(is_of_a_run_or_rule) or folder.name not in _FOLDERS_NOT_EXAMINED
    )


def _reason(configuration: Configuration, path: Path, inputs: Callable[[Path], list[Input]]) -> str | None:
    """The reason why an artifact is stale; None if it is not, or has no provenance."""
    if not (provenance := provenance_of(path)):
        return None
    made_by = provenance["made_by"]
    if path.name == "checkpoint.json" and (reason := _reason_of_a_model(configuration, path, provenance)):
        return reason
    settings = differing_settings(configuration, provenance, path)
    if settings := settings + _differences_of_kind(configuration, path, provenance):
        return f"made with {first(settings)}"
    if misplaced := misplacement(path, provenance):
        return misplaced
    changes = changed_frames(configuration, read_json(path), path) if made_by in _CHECKS else []
    if not changes and made_by not in FROM_ELSEWHERE:
        changes = [change for item in inputs(path) if (change := _change(item))]
    return first(changes) if changes else None


def _reason_of_a_model(configuration: Configuration, path: Path, provenance: Mapping[str, Any]) -> str | None:
    """The reason if a model was trained that is to be imported now, or the other way round; None if it is neither.

    An imported file of the same path that has not changed since it was copied is not read again.
    """
    if provenance["made_by"] not in ("train", "import"):
        return f"made by {provenance['made_by']}, a verb of an earlier version"
    imported = imported_files(configuration).get(model_of(provenance))
    if provenance["made_by"] == "train":
        return f"trained, where {imported} is to be imported" if imported else None
    if imported is None:
        return "imported, where it is to be trained"
    file = Path(imported)
    if not file.is_file():  # the verb that opens it refuses that
        return None
    same = str(file.absolute()) == provenance["imported"]["path"] and file.stat().st_ctime <= path.stat().st_mtime
    recorded = [item["sha256"] for item in provenance["inputs"].values()]
    return None if same or sha256(file) in recorded else f"imported from another file than {imported}"


def _differences_of_kind(configuration: Configuration, path: Path, provenance: Mapping[str, Any]) -> list[str]:
    """The differing settings that only one kind of artifact has, and that are no section of the configuration."""
    made_by, settings = provenance["made_by"], provenance["settings"]
    folder = path.parents[1] if made_by in _PART_VERBS else path.parent
    if made_by in (*_PART_VERBS, "evidence") and not (folder / f"{path.name.split('.')[0]}{path.suffix}").exists():
        size, recorded = configuration.compute.inference_batch_size, settings["inference_batch_size"]
        if size != recorded:
            return [f"compute.inference_batch_size {recorded}, not {size}"]
    if made_by == "evidence":
        is_of_a_stage = re.search(r"/seed\d+/[^/]+/stage\d+/evidence/[^/]+$", path.absolute().as_posix())
        has_own_anchors = any(item["from_here"] == "anchors.h5" for item in provenance["inputs"].values())
        if is_of_a_stage and has_own_anchors != configuration.anchors.every_stage:
            return [f"anchors.every_stage {has_own_anchors}, not {configuration.anchors.every_stage}"]
    if made_by == "train" and (file := anchors_files(configuration).get(run_name(model_of(provenance)))):
        found = {folder_around(Path(name)) for name in provenance["inputs"]} - {""}
        if Path(file).is_file() and found != {folder_of(Path(file))}:
            return [f"other anchors than {file}"]
    if made_by == "generate":
        if owner := other_scenes(configuration):
            return [f"scenes below {configuration.root} of {owner}, with other settings"]
        count, recorded = sum(1 for _ in configuration.root.glob("*/**/*.png")), read_json(path)["files"]
        if count < recorded:
            return [f"{recorded} files below {configuration.root}, where {count} are"]
    return []


def _change(item: Input) -> str | None:
    """The change of an input since it was used; None if it is unchanged."""
    if item.path.suffix == ".safetensors" and not item.path.with_suffix(".json").exists():
        return f"{item.path.with_suffix('.json')} missing"
    store = item.path.with_suffix(".zarr")
    if item.path.name in ("labels.json", "evidence.json") and not (store / "zarr.json").is_file():
        return f"{store} missing"
    return None if item.state == "unchanged" else f"{item.path} {item.state}"
