"""The verb `check`: opens every frame of the three sets and writes their manifest, unless there is a problem."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import write_json
from caguda.artifacts.provenance import fingerprint, provenance
from caguda.classes import IGNORE, ClassTable, class_table
from caguda.config import Configuration
from caguda.config_frames import Domain
from caguda.datasets.check import Checked, check_frames
from caguda.datasets.frames import Frame, label_path, list_frames
from caguda.datasets.manifest import SET_NAMES, SetName
from caguda.errors import UserError

_SHOWN_WARNINGS = 20


def _missing_labels(domain: Domain, root: Path, frames: Sequence[Frame]) -> list[str]:
    """One line for each frame without a label, or a single one where no frame has a label."""
    missing = [(frame.image, label_path(domain, root, frame.image)) for frame in frames if frame.label is None]
    if missing and len(missing) == len(frames):
        return [f"{missing[0][1]}: none of the {len(frames)} images has a label, this is where the first one belongs"]
    return [f"{image}: this image has no label, it belongs in {label}" for image, label in missing]


def _check_set(name: SetName, domain: Domain, root: Path, table: ClassTable) -> tuple[dict[str, Any], Checked]:
    """The content of the manifest for one set, and what was found; the target may lack labels."""
    frames = list_frames(domain, root)
    found = check_frames(frames, table, title=name)
    if name != "target":
        found.problems.extend(_missing_labels(domain, root, frames))
    place = root.absolute()
    entries = [_relative(entry, place) for entry in found.entries]
    identity = [[entry[key] for key in ("id", "image_sha256", "label_sha256")] for entry in entries]
    content = {
        "layout": domain.layout,
        "root": str(place),
        "digest": fingerprint({"frames": identity}),
        "pixels": {category: int(n) for category, n in zip(table.names, found.pixels, strict=False)},
        "void_pixels": int(found.pixels[IGNORE]),
        "frames": entries,
    }
    return content, found


def _relative(entry: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """An entry whose paths are relative to the root of its set, where they are below it."""
    paths = {key: Path(entry[key]) for key in ("image", "label") if entry[key] is not None}
    below = {key: str(path.relative_to(root)) for key, path in paths.items() if path.is_relative_to(root)}
    return {**entry, **below}


def _sizes(entries: Sequence[Mapping[str, Any]]) -> str:
    """The three most frequent sizes, width x height, of some entries."""
    sizes = Counter((entry["width"], entry["height"]) for entry in entries)
    shown = ", ".join(f"{width}x{height} ({count})" for (width, height), count in sizes.most_common(3))
    return shown if len(sizes) <= 3 else f"{shown} and {len(sizes) - 3} more sizes"


def summary(sets: Mapping[SetName, Mapping[str, Any]]) -> list[str]:
    """The lines that tell a person what the sets hold: frames, labels, sizes, and each category's share of pixels."""
    lines = []
    for name, content in sets.items():
        entries = content["frames"]
        labelled = sum(entry["label"] is not None for entry in entries)
        lines.append(f"{name:<10} {len(entries)} frames, {labelled} with a label, {_sizes(entries)}")
    lines.append(f"{'% of pixels':<22}" + "".join(f"{name:>12}" for name in sets))
    counts = [{**content["pixels"], "(void)": content["void_pixels"]} for content in sets.values()]
    for category in counts[0]:
        shares = [f"{100 * n[category] / total:12.1f}" if (total := sum(n.values())) else f"{'-':>12}" for n in counts]
        lines.append(f"{category:<22}" + "".join(shares))
    return lines


def _refuse(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"problem: {problem}", flush=True)
    if problems:
        more = f"; and {len(problems) - 3} more, all listed above" if len(problems) > 3 else ""
        raise UserError(
            f"the check found {len(problems)} problem(s), nothing was written: " + "; ".join(problems[:3]) + more
        )


def check(configuration: Configuration, output: Path) -> None:
    """Write the manifest of the source, the target and the evaluation set.

    Every problem of every set is printed before a UserError sums them up; then nothing is written, and nothing trains.
    """
    started = time.time()
    table = class_table(configuration)
    sets: dict[SetName, dict[str, Any]] = {}
    problems: list[str] = []
    warnings: list[str] = []
    for name in SET_NAMES:
        domain: Domain = getattr(configuration, name)
        try:
            raw = class_table(configuration, domain)
            sets[name], found = _check_set(name, domain, configuration.domain_root(domain), raw)
        except UserError as error:
            problems.append(f"{name}: {error}")
            continue
        problems.extend(f"{name}: {problem}" for problem in found.problems)
        warnings.extend(f"{name}: {warning}" for warning in found.warnings)
    for warning in warnings[:_SHOWN_WARNINGS]:
        print(f"warning: {warning}", flush=True)
    if len(warnings) > _SHOWN_WARNINGS:
        print(f"warning: and {len(warnings) - _SHOWN_WARNINGS} more, all are kept in the manifest", flush=True)
    _refuse(problems)
    print("\n".join(summary(sets)), flush=True)
    settings = configuration.model_dump(mode="json", include={"classes", "ignore", *SET_NAMES})
    made = provenance("check", settings, [], None, started)
    manifest: dict[str, Any] = {name: sets[name] for name in SET_NAMES}
    write_json(output, {**manifest, "classes": list(table.names), "warnings": warnings, "provenance": made})
