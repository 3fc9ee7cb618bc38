"""The verbs `check` and `check-test`: every frame is opened, and a manifest written unless there is a problem.

Beside the manifest they keep a folder of their name, which no rule calls its output and nothing deletes: what was found in
each file, so that the next check opens the changed ones alone, and all that a person should know, by name.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import write_atomically, write_json
from caguda.artifacts.provenance import fingerprint, provenance
from caguda.classes import IGNORE, class_table
from caguda.config import Configuration
from caguda.config_frames import Domain
from caguda.datasets.check import Checked, check_frames
from caguda.datasets.demands import size_problems, target_labels
from caguda.datasets.frames import Frame, find_images, label_path, narrowed
from caguda.datasets.manifest import SET_NAMES, SetName, refuse_unsafe_ids
from caguda.datasets.scenes import refuse_other_scenes
from caguda.datasets.summary import summary
from caguda.datasets.survey import Survey, survey
from caguda.errors import UserError, first, printable
from caguda.kinds import plugin_digests
from caguda.recorded import plugins_of

_SHOWN = 20
_NAMED = 3


def _missing_labels(domain: Domain, root: Path, frames: Sequence[Frame]) -> list[str]:
    """One line for each frame without a label, or for each folder of images where none has one."""
    folders: dict[Path, list[Frame]] = {}
    for frame in frames:
        folders.setdefault(frame.image.parent, []).append(frame)
    lines = []
    for folder, inside in folders.items():
        missing = [frame for frame in inside if frame.label is None]
        if missing and len(missing) == len(inside):
            names = first([frame.image.name for frame in missing])
            lines.append(
                f"{label_path(domain, root, missing[0].image)}: none of the {len(missing)} images of the folder {folder} "
                f"has a label ({names}), this is where the first one belongs"
            )
            continue
        lines += [
            f"{frame.image}: this image has no label, it belongs in {label_path(domain, root, frame.image)}"
            for frame in missing
        ]
    return lines


def _check_set(name: SetName, configuration: Configuration, record: Path) -> tuple[dict[str, Any], Survey, Checked]:
    """The content of the manifest for one set, what lies on disk, and what was found; target and test may lack labels."""
    domain: Domain = getattr(configuration, name)
    root, table = configuration.domain_root(domain), class_table(configuration, domain)
    images = find_images(domain, root)
    frames = narrowed(domain, root, images)
    refuse_unsafe_ids(root, [frame.id for frame in frames])
    on_disk = survey(domain, root, images, len(frames))
    plugins = sorted(plugin_digests("layout", [domain.layout]).values())
    found = check_frames(frames, table, record, name, " ".join([domain.layout, *plugins]))
    found.warnings.extend(on_disk.warnings())
    if name not in ("target", "test"):
        found.problems.extend(_missing_labels(domain, root, frames))
    if name == "target":
        for told, lines in zip(
            (found.problems, found.warnings), target_labels(configuration, root, frames), strict=True
        ):
            told.extend(lines)
    found.problems.extend(size_problems(configuration, name, found.entries))
    place = root.absolute()
    entries = [_relative(entry, place) for entry in found.entries]
    identity = [[entry[key] for key in ("id", "image_sha256", "label_sha256")] for entry in entries]
    content = {
        "layout": domain.layout,
        "root": str(place),
        "digest": fingerprint({"frames": identity} | ({"plugins": plugins} if plugins else {})),
        "pixels": {category: int(n) for category, n in zip(table.names, found.pixels, strict=False)},
        "void_pixels": int(found.pixels[IGNORE]),
        "frames": entries,
    }
    return content, on_disk, found


def _relative(entry: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """An entry whose paths are relative to the root of its set, where they are below it."""
    paths = {key: Path(entry[key]) for key in ("image", "label") if entry[key] is not None}
    below = {key: str(path.relative_to(root)) for key, path in paths.items() if path.is_relative_to(root)}
    return {**entry, **below}


def _hints(domain: Domain, found: Checked) -> list[str]:
    """The key that leaves out every frame whose label has another size, to be pasted into the YAML."""
    if not found.unequal:
        return []
    ids = json.dumps([*domain.skip, *found.unequal], ensure_ascii=False)
    return [f"skip: {ids}  leaves out every frame whose label has another size than its image"]


def _tell(told: Mapping[str, Sequence[str]], file: Path) -> None:
    """Write everything that a person should know to a file, and print the first lines of each kind."""
    with write_atomically(file) as partial:
        lines = [f"{kind}: {printable(line)}\n" for kind, found in told.items() for line in found]
        partial.write_text("".join(lines), encoding="utf-8")
    for kind, found in told.items():
        for line in found[:_SHOWN]:
            print(f"{kind}: {printable(line)}", flush=True)
        if len(found) > _SHOWN:
            print(f"{kind}: and {len(found) - _SHOWN} more, all are in {file}", flush=True)


def _refuse(problems: Sequence[str], file: Path) -> None:
    if problems:
        more = f"; and {len(problems) - _NAMED} more, all are in {file}" if len(problems) > _NAMED else ""
        raise UserError(
            f"the check found {len(problems)} problem(s), no manifest was written: "
            + "; ".join(problems[:_NAMED])
            + more
        )


def check(configuration: Configuration, output: Path) -> None:
    """Write the manifest of the source, the target and the evaluation set, and print what they hold.

    Problems and warnings of every set are in `check/findings.txt` beside the manifest, the first of them are printed;
    with a problem a UserError names the first ones, no manifest is written, and nothing trains.
    """
    _check_sets(configuration, SET_NAMES, output, "check")


def check_test(configuration: Configuration, output: Path) -> None:
    """Write the manifest of the test set, likewise. It has one of its own: no training depends on it."""
    if configuration.test is None:
        raise UserError("check-test: the configuration must have a section `test`, found none")
    _check_sets(configuration, ("test",), output, "check-test")


def _check_sets(configuration: Configuration, names: Sequence[SetName], output: Path, notes: str) -> None:
    started = time.time()
    table = class_table(configuration)
    refuse_other_scenes(configuration)
    folder = output.parent / notes
    sets: dict[str, dict[str, Any]] = {}
    surveys: dict[str, Survey] = {}
    told: dict[str, list[str]] = {"warning": [], "problem": [], "hint": []}
    for name in names:
        domain: Domain = getattr(configuration, name)
        try:
            sets[name], surveys[name], found = _check_set(name, configuration, folder / "frames.jsonl")
        except UserError as error:
            told["problem"].append(printable(f"{name}: {error}"))
            continue
        if configuration.street is not None:
            surveys[name] = dataclasses.replace(surveys[name], published=None)
        for kind, lines in (("warning", found.warnings), ("problem", found.problems), ("hint", _hints(domain, found))):
            told[kind].extend(printable(f"{name}: {line}") for line in lines)
    print("\n".join(map(printable, summary(sets, surveys))), flush=True)
    _tell(told, folder / "findings.txt")
    _refuse(told["problem"], folder / "findings.txt")
    settings = configuration.model_dump(mode="json", include={"street", "classes", "ignore", *names})
    settings |= plugins_of(configuration, names)
    made = provenance(notes, settings, [], None, started, output)
    manifest: dict[str, Any] = {name: sets[name] for name in names}
    write_json(output, {**manifest, "classes": list(table.names), "warnings": told["warning"], "provenance": made})
