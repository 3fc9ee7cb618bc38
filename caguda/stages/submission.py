"""The verb `submission`: predictions as the zip that Cityscapes' test server takes. No torch, to start at once."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.artifacts.atomic import sha256, write_atomically, write_json
from caguda.artifacts.chain import provenance_of, recorded_sha256, refuse_changed_inputs, refuse_other_manifest
from caguda.artifacts.predictions import read_predictions
from caguda.artifacts.provenance import provenance
from caguda.artifacts.submission import IMAGES, SIZE, faults, pack
from caguda.datasets.manifest import read_manifest
from caguda.errors import UserError, printable
from caguda.kinds import known


def submission(manifest: Path, predictions: Path, output: Path) -> None:
    """Write the zip of all that lies in the predictions' folder, and a JSON beside it that says what it is.

    The zip is checked against the server's rules before it gets its name; a fault of any file is a UserError after one
    line for each of them, and nothing is written.
    """
    started = time.time()
    made = read_predictions(predictions)
    refuse_changed_inputs(predictions)
    refuse_other_manifest(predictions, manifest)
    _refuse_another_model(predictions, output)
    read = read_manifest(manifest, [made["set"]])
    taken = [name for name, layout in known("layout").items() if layout.on_test_server]
    if (layout := read.sets[made["set"]]["layout"]) not in taken:
        raise UserError(f"{manifest}: the test server takes frames of layout {', '.join(taken)}, found layout {layout}")
    frames = {entry["id"]: (entry["height"], entry["width"]) for entry in read.entries(made["set"])}
    folder = predictions.parent / made["folder"]
    files = sorted(path for path in folder.glob("[!.]*") if path.is_file() and path.suffix != ".partial")
    with write_atomically(output) as archive:
        pack(files, archive)
        _refuse(_with_changed(faults(archive, frames), files, made["files"]), folder)
        written = {"images": len(files), "sha256": sha256(archive), "set": made["set"]}
        made_by = provenance("submission", {}, [manifest, predictions], made["provenance"]["seed"], started, output)
        output.unlink(missing_ok=True)  # without the JSON that tells of it, it would be anybody's
        write_json(output.with_suffix(".json"), {**written, "provenance": made_by})
    for note in _notes(made["set"], frames):
        print(f"note: {note}")
    print(f"submission: {len(files)} files, all as the server wants them -> {output}")


def _refuse_another_model(predictions: Path, output: Path) -> None:
    """UserError where the zip would lie beside a checkpoint, and the predictions are of another one."""
    beside = output.with_name("checkpoint.safetensors")
    if beside.is_file() and recorded_sha256(beside) not in {
        item["sha256"] for item in provenance_of(predictions)["inputs"].values()
    }:
        raise UserError(f"{predictions}: predictions whose zip lies beside a checkpoint must be of {beside}, found those of another "
                        "model; name its predictions, or choose another output")  # fmt: skip


def _with_changed(found: list[str], files: Sequence[Path], listed: Sequence[Mapping[str, Any]]) -> list[str]:
    """The faults, and those files without one that are not what `predict` wrote."""
    named = {fault.partition(": ")[0] for fault in found}
    digests = {f"{entry['id']}.png": entry["sha256"] for entry in listed}
    changed = [path for path in files if path.name not in named and sha256(path) != digests.get(path.name)]
    return found + [f"{path.name}: this is not the file that `predict` wrote" for path in changed]


def _refuse(found: Sequence[str], folder: Path) -> None:
    for fault in found:
        print(f"problem: {printable(fault)}", flush=True)
    if found:
        more = f"; and {len(found) - 3} more, all listed above" if len(found) > 3 else ""
        raise UserError(
            f"{folder}: the test server would refuse {len(found)} file(s), no zip was written: {'; '.join(found[:3])}"
            f"{more}; move {folder.name}.json and parts/ beside the folder away and predict again"
        )


def _notes(name: str, frames: Mapping[str, tuple[int, int]]) -> list[str]:
    """What keeps a sound zip from being scored by the server: it is a rehearsal then."""
    notes = [] if name == "test" else [f"these are frames of the {name} set, the server scores those of the test split"]
    if others := sum(size != SIZE for size in frames.values()):
        notes.append(f"{others} of the images are not {SIZE[1]}x{SIZE[0]}, as all of Cityscapes are")
    if len(frames) != IMAGES:
        notes.append(f"the test split has {IMAGES} frames, these are {len(frames)}")
    return notes
