"""The verbs `check`, `check-test` and `check-translated`: every frame is opened, and a manifest is written unless there is a problem.

Each keeps a folder of its name beside the manifest. It has a record of all files, so that the next check opens only
changed ones, and all problems and warnings in `findings.txt`. No rule has it as an output: Snakemake never deletes it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import write_atomically, write_json
from caguda.artifacts.provenance import json_digest, new_provenance
from caguda.classes import IGNORE, class_table
from caguda.config import Configuration
from caguda.config_frames import Domain
from caguda.datasets.check import CheckResult, check_frames
from caguda.datasets.frame import Frame, shortened
from caguda.datasets.layout import layout_of
from caguda.datasets.manifest import SET_NAMES, Entry, SetName, read_manifest, refuse_unsafe_ids
from caguda.datasets.record import record_path
from caguda.datasets.requirements import missing_target_labels, parts_problems, size_problems
from caguda.datasets.scenes import refuse_other_scenes
from caguda.datasets.summary import summary
from caguda.datasets.survey import Survey, survey
from caguda.datasets.translated import find_frames, translation_problems
from caguda.errors import UserError, first, printable
from caguda.recorded_settings import plugins_of
from caguda.registry import plugin_digests

_PRINTED = 20
_NAMED_IN_ERROR = 3


def _missing_labels(domain: Domain, root: Path, frames: Sequence[Frame]) -> list[str]:
    """One line for each frame without a label, or one for a folder of images none of which has a label."""
    folders: dict[Path, list[Frame]] = {}
    for frame in frames:
        folders.setdefault(frame.image.parent, []).append(frame)
    lines, layout = [], layout_of(domain)
    for folder, in_folder in folders.items():
        missing = {
            frame.image: layout.label_path(domain, root, frame.image) for frame in in_folder if frame.label is None
        }
        if len(missing) == len(in_folder):
            names = first([image.name for image in missing])
            lines.append(
                f"{next(iter(missing.values()))}: none of the {len(missing)} images of the folder {folder} has a label "
                f"({names}), this is where the first one belongs"
            )
        else:
            lines += [f"{image}: this image has no label, it belongs in {label}" for image, label in missing.items()]
    return lines


def _check_set(
    name: SetName, configuration: Configuration, record: Path, source: Sequence[Entry]
) -> tuple[dict[str, Any], Survey, CheckResult]:
    """The manifest's content for one set, the survey of its folders, and the result of checking its frames.

    `source` are the checked source frames that translated ones are compared with.
    """
    domain = configuration.frame_set(name)
    assert domain is not None
    root, table = configuration.domain_root(domain), class_table(configuration, domain)
    images, frames = find_frames(configuration, name)
    refuse_unsafe_ids(root, [frame.id for frame in frames])
    folders = survey(domain, root, images, len(frames))
    plugins = sorted(plugin_digests("layout", [domain.layout]).values())
    result = check_frames(frames, table, record, name, " ".join([domain.layout, *plugins]))
    result.warnings.extend(folders.warnings())
    if name == "target":
        problems, warnings = missing_target_labels(configuration, root, frames)
        result.problems.extend(problems)
        result.warnings.extend(warnings)
    elif name == "translated":
        result.problems.extend(translation_problems(source, frames, result.entries))
    elif name != "test":
        result.problems.extend(_missing_labels(domain, root, frames))
    result.problems.extend(size_problems(configuration, name, result.entries))
    result.problems.extend(parts_problems(configuration, name, len(frames)))
    entries = [_relative(entry, root.absolute()) for entry in result.entries]
    identity = [[entry[key] for key in ("id", "image_sha256", "label_sha256")] for entry in entries]
    content = {
        "layout": domain.layout,
        "root": str(root.absolute()),
        "digest": json_digest({"frames": identity} | ({"plugins": plugins} if plugins else {})),
        "train_ids": table.pairs,
        "pixels": {category: int(n) for category, n in zip(table.names, result.pixels, strict=False)},
        "void_pixels": int(result.pixels[IGNORE]),
        "frames": entries,
    }
    return content, folders, result


def _relative(entry: Entry, root: Path) -> dict[str, Any]:
    """An entry with the paths below the root of its set relative to it."""
    paths = {key: str(shortened(Path(entry[key]), root)) for key in ("image", "label") if entry[key] is not None}
    return {**entry, **paths}


def _hints(configuration: Configuration, name: SetName, result: CheckResult) -> list[str]:
    """The key `skip` of a set, to be pasted into the YAML, that leaves out every frame whose label has another size."""
    domain = configuration.frame_set(name)
    if domain is None or not result.unequal:
        return []
    ids = json.dumps([*domain.skip, *result.unequal], ensure_ascii=False)
    return [f"skip: {ids}  leaves out every frame whose label has another size than its image"]


def _report(findings: Mapping[str, Sequence[str]], file: Path) -> None:
    """Writes the findings, lines by their kind, to a file, and prints the first lines of each kind."""
    with write_atomically(file) as partial:
        text = "".join(f"{kind}: {line}\n" for kind, lines in findings.items() for line in lines)
        partial.write_text(text, encoding="utf-8")
    for kind, lines in findings.items():
        for line in lines[:_PRINTED]:
            print(f"{kind}: {line}", flush=True)
        if len(lines) > _PRINTED:
            print(f"{kind}: and {len(lines) - _PRINTED} more, all are in {file}", flush=True)


def _refuse_problems(problems: Sequence[str], file: Path) -> None:
    """UserError, with the first problems, if there are any; all are in the file."""
    if problems:
        count = len(problems)
        more = f"; and {count - _NAMED_IN_ERROR} more, all are in {file}" if count > _NAMED_IN_ERROR else ""
        raise UserError(
            f"the check found {count} problem(s), no manifest was written: {'; '.join(problems[:_NAMED_IN_ERROR])}{more}"
        )


def check(configuration: Configuration, output: Path) -> None:
    """Writes the manifest of the source, target and evaluation sets, and prints a summary of them.

    The problems and warnings of every set are written to `check/findings.txt` beside the manifest, and the first ones
    are printed. UserError if there is a problem: no manifest is written then, and nothing trains.
    """
    _check_sets(configuration, SET_NAMES, output, "check")


def check_test(configuration: Configuration, output: Path) -> None:
    """Writes the manifest of the test set, in the same way. It is a file of its own because no training depends on it."""
    if configuration.test is None:
        raise UserError("check-test: the configuration must have a section `test`, found none")
    _check_sets(configuration, ("test",), output, "check-test")


def check_translated(configuration: Configuration, manifest: Path, output: Path) -> None:
    """Writes the manifest of the translated source frames, in the same way; `manifest` has the source frames.

    It is a file of its own because only the trainings that read translated frames depend on it. UserError unless every
    source frame has a translated one of its size, and every translated frame a source frame.
    """
    if configuration.translated is None:
        raise UserError("check-translated: the configuration must have a section `translated`, found none")
    _check_sets(configuration, ("translated",), output, "check-translated", manifest)


def _check_sets(
    configuration: Configuration, names: Sequence[SetName], output: Path, verb: str, manifest: Path | None = None
) -> None:
    """Checks some sets and writes their manifest; `manifest` is that of the source frames for translated ones."""
    started = time.time()
    source = [] if manifest is None else read_manifest(manifest, ["source"], configuration).entries("source")
    refuse_other_scenes(configuration)
    record = record_path(output, verb)
    findings_file = record.with_name("findings.txt")
    sets: dict[str, dict[str, Any]] = {}
    surveys: dict[str, Survey] = {}
    findings: dict[str, list[str]] = {"warning": [], "problem": [], "hint": []}
    for name in names:
        try:
            sets[name], surveys[name], result = _check_set(name, configuration, record, source)
        except UserError as error:
            findings["problem"].append(printable(f"{name}: {error}"))
            continue
        if configuration.street is not None:
            surveys[name] = dataclasses.replace(surveys[name], published=None)
        new_findings = {
            "warning": result.warnings,
            "problem": result.problems,
            "hint": _hints(configuration, name, result),
        }
        for kind, lines in new_findings.items():
            findings[kind].extend(printable(f"{name}: {line}") for line in lines)
    print("\n".join(map(printable, summary(sets, surveys))), flush=True)
    _report(findings, findings_file)
    _refuse_problems(findings["problem"], findings_file)
    sections = ["source" if name == "translated" else name for name in names]  # whose layout the translated frames have
    settings = configuration.model_dump(mode="json", include={"street", "classes", "ignore", *sections})
    settings |= plugins_of(configuration, sections)
    inputs = [] if manifest is None else [manifest]
    provenance = new_provenance(verb, settings, inputs, None, started, output)
    classes = list(class_table(configuration).names)
    write_json(output, {**sets, "classes": classes, "warnings": findings["warning"], "provenance": provenance})
