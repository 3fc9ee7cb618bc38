"""The verb `submission`: the zip of predictions for Cityscapes' test server. No torch, which is slow to import."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import write_atomically, write_json
from caguda.artifacts.chain import provenance_of, recorded_sha256
from caguda.artifacts.checks import refuse_other_origin
from caguda.artifacts.predictions import read_predictions
from caguda.artifacts.provenance import new_provenance
from caguda.artifacts.submission import IMAGES, SIZE, faults, pack
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError, printable
from caguda.files import sha256
from caguda.registry import registered

_SCORED = ("test", "evaluation")
"""The sets of a zip: the split that the server scores, and the one with public labels, for a rehearsal."""


def submission(manifest: Path, predictions: Path, output: Path) -> None:
    """Write the zip of all files in the predictions' folder, and a JSON beside it with its SHA-256 and provenance.

    The zip is checked against the server's rules before it gets its name. If any file has a fault, a line is printed for
    each fault, a UserError raised and nothing written.
    """
    started = time.time()
    listed = read_predictions(predictions)
    name = listed["set"]
    _refuse_training_frames(predictions, name)
    refuse_other_origin(predictions, manifest=manifest)
    _refuse_another_model(predictions, output)
    checked = read_manifest(manifest, [name])
    accepted = [layout for layout, cls in registered("layout").items() if cls.on_test_server]
    if (layout := checked.sets[name]["layout"]) not in accepted:
        raise UserError(
            f"{manifest}: the test server takes frames of layout {', '.join(accepted)}, found layout {layout}"
        )
    frames = {entry["id"]: (entry["height"], entry["width"]) for entry in checked.entries(name)}
    folder = predictions.parent / listed["folder"]
    files = sorted(path for path in folder.glob("[!.]*") if path.is_file() and path.suffix != ".partial")
    with write_atomically(output, output.with_suffix(".json")) as archive:
        pack(files, archive)
        lines = faults(archive, frames)
        _refuse_faults([*lines, *_changed_files(files, listed["files"], lines)], folder)
        content = {"images": len(files), "sha256": sha256(archive), "set": name}
        seed, inputs = listed["provenance"]["seed"], [manifest, predictions]
        provenance = new_provenance("submission", {}, inputs, seed, started, output)
        # The new JSON would not vouch for an older zip, which could then never be replaced.
        output.unlink(missing_ok=True)
        write_json(output.with_suffix(".json"), {**content, "provenance": provenance})
    for note in _notes(name, frames):
        print(f"note: {note}")
    print(f"submission: {len(files)} files, checked as docs/submission.md says -> {output}")


def _refuse_training_frames(predictions: Path, name: str) -> None:
    """UserError for predictions of the source or the target, which the server scores neither in earnest nor as a rehearsal."""
    if name not in _SCORED:
        raise UserError(
            f"{predictions}: a zip must be of the set {' or '.join(_SCORED)}, found {name}; name predictions of such a set"
        )


def _refuse_another_model(predictions: Path, output: Path) -> None:
    """UserError if a checkpoint lies beside the zip, and the predictions are of another one."""
    checkpoint = output.with_name("checkpoint.safetensors")
    inputs = [item["sha256"] for item in provenance_of(predictions)["inputs"].values()]
    if checkpoint.is_file() and recorded_sha256(checkpoint) not in inputs:
        raise UserError(f"{predictions}: predictions whose zip lies beside a checkpoint must be of {checkpoint}, found those of another "
                        "model; name its predictions, or choose another output")  # fmt: skip


def _changed_files(files: Sequence[Path], listed: Sequence[Mapping[str, Any]], faults: Sequence[str]) -> list[str]:
    """A line for each file that differs from the one that `predict` wrote and is not named in `faults`."""
    faulty = {fault.partition(": ")[0] for fault in faults}
    digests = {f"{entry['id']}.png": entry["sha256"] for entry in listed}
    changed = [path for path in files if path.name not in faulty and sha256(path) != digests.get(path.name)]
    return [f"{path.name}: this is not the file that `predict` wrote" for path in changed]


def _refuse_faults(lines: Sequence[str], folder: Path) -> None:
    """UserError if there are any faults, after a line for each."""
    for line in lines:
        print(f"problem: {printable(line)}", flush=True)
    if lines:
        more = f"; and {len(lines) - 3} more, all listed above" if len(lines) > 3 else ""
        raise UserError(
            f"{folder}: the test server would refuse {len(lines)} file(s), no zip was written: {'; '.join(lines[:3])}"
            f"{more}; move {folder.name}.json and parts/ beside the folder away and predict again"
        )


def _notes(name: str, frames: Mapping[str, tuple[int, int]]) -> list[str]:
    """The reasons why the server would not score a zip without faults."""
    notes = [] if name == "test" else [f"these are frames of the {name} set, the server scores those of the test split"]
    if other_sizes := sum(size != SIZE for size in frames.values()):
        notes.append(f"{other_sizes} of the images are not {SIZE[1]}x{SIZE[0]}, as all of Cityscapes are")
    if len(frames) != IMAGES:
        notes.append(f"the test split has {IMAGES} frames, these are {len(frames)}")
    return notes
