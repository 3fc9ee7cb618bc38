"""Which artifacts of an experiment are not what its configuration and its frames would give now. No torch.

Snakemake remembers in `.snakemake` with what it made a file, and that does not travel with results. Artifacts do: each
says its settings and its inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import read_json, sha256
from caguda.artifacts.chain import Input, inputs_of, provenance_of, recorded_sha256
from caguda.artifacts.identity import model_of
from caguda.artifacts.provenance import content_of
from caguda.config import Configuration
from caguda.datasets.changes import changed_frames
from caguda.datasets.scenes import other_scenes
from caguda.errors import UserError, first
from caguda.recorded import other_settings, refuse_misplaced
from caguda.runs import imported_files

_UNREAD = ("check", "check-test", "log", "benchmark", "state", "data", "packed")
_PARTS = ("anchor-part", "evidence-part", "predict-part")
"""The verbs of which several share a pass over frames: it is divided by batches, whose size must be the same for all."""

Compared = Callable[[Path], list[Input]]
"""What an artifact was made of, beside what is there now."""


def stale_artifacts(configuration: Configuration, folder: Path) -> dict[Path, str]:
    """Of the artifacts in an experiment's folder, those that must be made again, each with the reason.

    An artifact is stale when its settings are not the configuration's, when it lies in the folder of another seed or run,
    or when something that it was made of is gone or has another content; a manifest, when frames were added, removed or
    changed. What cannot be read is left to the verb that reads it, which says so.
    """
    compared = partial(inputs_of, digest=cache(recorded_sha256), content=cache(content_of))
    found = {}
    for path in _artifacts(folder, set()):
        try:
            reason = _reason(configuration, path, provenance_of(path), compared)
        except (UserError, OSError, LookupError, TypeError, ValueError, AttributeError):
            continue
        if reason:
            found[path] = reason
    return found


def silent_products(experiment: Path) -> list[Path]:
    """Tables, pictures, pages and archives in an experiment's folder, which do not say all that they were made of."""
    tables = [
        f"{folder}/*.{suffix}" for folder in ("tables", "reports/*") for suffix in ("csv", "md", "tex", "html", "png")
    ]
    places = (*tables, "reports/*/labels/*", "seed*/**/submission.zip")
    return sorted(path for place in places for path in experiment.glob(place))


def _artifacts(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """The files in an experiment's folder that say what they were made of; no chunks are looked at."""
    if (place := folder.resolve()) in seen or not folder.is_dir():
        return
    seen.add(place)
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            is_of_a_run = re.fullmatch(r"seed\d+", folder.name)  # whatever it is called
            if entry.suffix not in (".zarr", ".partial") and (is_of_a_run or entry.name not in _UNREAD):
                yield from _artifacts(entry, seen)
        elif entry.suffix in (".json", ".h5") and entry.is_file() and entry.name != "config.json":
            yield entry


def _reason(configuration: Configuration, path: Path, made: Mapping[str, Any], compared: Compared) -> str | None:
    """Why an artifact is stale; None where it is not, and where it says nothing of its making."""
    if not made:
        return None
    if path.name == "checkpoint.json" and (origin := _other_origin(configuration, path, made)):
        return origin
    if found := other_settings(configuration, made, path) + _of_its_kind(configuration, path, made):
        return f"made with {first(found)}"
    try:
        refuse_misplaced(path, made)
    except UserError as error:
        return str(error).partition(": ")[2]
    if made["made_by"] in ("check", "check-test") and (changed := changed_frames(configuration, read_json(path), path)):
        return first(changed)
    if made["made_by"] == "import":
        return None
    changed = [text for item in compared(path) if (text := _changed(item))]
    return first(changed) if changed else None


def _other_origin(configuration: Configuration, path: Path, made: Mapping[str, Any]) -> str | None:
    """Whether a model was trained or brought, where the configuration says other; None where it agrees.

    A brought file of the same name to which nothing has happened since it was copied is not read again.
    """
    if made["made_by"] not in ("train", "import"):
        return f"made by {made['made_by']}, a verb of an earlier version"
    brought = imported_files(configuration).get(model_of(made))
    if made["made_by"] == "train":
        return f"trained, where {brought} is to be imported" if brought else None
    if brought is None:
        return "imported, where it is to be trained"
    file = Path(brought)
    if not file.is_file():  # whoever opens it says so
        return None
    same = str(file.absolute()) == made["imported"]["path"] and file.stat().st_ctime <= path.stat().st_mtime
    recorded = [item["sha256"] for item in made["inputs"].values()]
    return None if same or sha256(file) in recorded else f"imported from another file than {brought}"


def _of_its_kind(configuration: Configuration, path: Path, made: Mapping[str, Any]) -> list[str]:
    """The settings that decide one kind of artifact and are no section of the configuration, where they are others."""
    kind, settings = made["made_by"], made["settings"]
    folder = path.parents[1] if kind in _PARTS else path.parent
    if kind in (*_PARTS, "evidence") and not (folder / f"{path.name.split('.')[0]}{path.suffix}").exists():
        size, recorded = configuration.compute.inference_batch_size, settings["inference_batch_size"]
        if size != recorded:
            return [f"compute.inference_batch_size {recorded}, not {size}"]
    if kind == "evidence":
        return _other_anchors(configuration, path, made)
    if kind == "generate":
        if owner := other_scenes(configuration):
            return [f"scenes below {configuration.root} of {owner}, with other settings"]
        there = sum(1 for _ in configuration.root.glob("*/**/*.png"))
        files = read_json(path)["files"]
        return [] if there >= files else [f"{files} files below {configuration.root}, where {there} are"]
    return []


def _other_anchors(configuration: Configuration, path: Path, made: Mapping[str, Any]) -> list[str]:
    """Whether the evidence of a stage is made with its own anchors or those that its chain started from, where the others are due."""
    is_of_a_stage = re.search(r"/seed\d+/[^/]+/stage\d+/evidence/[^/]+$", path.absolute().as_posix())
    own = any(item["from_here"] == "anchors.h5" for item in made["inputs"].values())
    wanted = configuration.anchors.every_stage
    return [f"anchors.every_stage {own}, not {wanted}"] if is_of_a_stage and own != wanted else []


def _changed(item: Input) -> str | None:
    """What has become of something that an artifact was made of; None where it is unchanged."""
    if item.path.suffix == ".safetensors" and not item.path.with_suffix(".json").exists():
        return f"{item.path.with_suffix('.json')} missing"
    if item.path.name in ("labels.json", "evidence.json") and not _store_exists(item.path):
        return f"{item.path.with_suffix('.zarr')} missing"
    return None if item.state == "unchanged" else f"{item.path} {item.state}"


def _store_exists(vouching: Path) -> bool:
    return (vouching.with_suffix(".zarr") / "zarr.json").is_file()
