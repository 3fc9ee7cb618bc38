"""The verb `predict`: what several jobs have written is read back, checked and listed. No torch, to start at once."""

import time
from collections.abc import Sequence
from pathlib import Path

from caguda.artifacts.atomic import sha256, write_json
from caguda.artifacts.identity import KINDS, MODEL, read_artifact, refuse_other_checkpoint
from caguda.artifacts.predictions import FORMAT, FORMAT_VERSION, prediction_file, remove_others
from caguda.artifacts.provenance import fingerprint, provenance
from caguda.config import Configuration
from caguda.datasets.manifest import SetName, read_manifest
from caguda.errors import UserError
from caguda.stages.parts import divided, refuse_apart, refuse_gaps, refuse_others


def list_predictions(
    configuration: Configuration,
    manifest: Path,
    checkpoint: Path,
    name: SetName,
    folder: Path,
    part_files: Sequence[Path],
    output: Path,
) -> None:
    """Write the JSON that vouches for the predictions of the set `name`, whose parts' JSONs are `part_files`.

    Every file is read back, and must be the one that was written; then predictions of other frames are deleted.
    """
    started = time.time()
    entries = read_manifest(manifest, [name], configuration).entries(name)
    parts = {path: read_artifact(path, KINDS["predict-part"]) for path in part_files}
    seed = read_artifact(checkpoint.with_suffix(".json"), MODEL)["provenance"]["seed"]
    refuse_other_checkpoint(checkpoint, configuration, manifest if name == "evaluation" else None)
    refuse_apart(folder, output)
    settings = divided(configuration)
    made_by = provenance("predict", settings, [manifest, checkpoint], seed, started, output)
    for path, content in parts.items():
        refuse_others(path, content["provenance"], made_by)
    made_in = {frame: path for path, content in parts.items() for frame in content["files"]}
    written = [frame for content in parts.values() for frame in content["files"]]
    refuse_gaps(part_files, written, [entry["id"] for entry in entries])
    digests = {frame: parts[path]["files"][frame] for frame, path in made_in.items()}
    for frame, digest in digests.items():
        if not (file := prediction_file(folder, frame)).is_file() or sha256(file) != digest:
            raise UserError(
                f"{file}: this must be the file that `predict-part` wrote, found another one or none; "
                f"move {made_in[frame]} away and predict again"
            )
    remove_others(folder, made_in)
    files = [
        {"id": entry["id"], "height": entry["height"], "width": entry["width"], "sha256": digests[entry["id"]]}
        for entry in entries
    ]
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "set": name, "folder": folder.name}
    listed = {"images": len(files), "digest": fingerprint({"files": files}), "files": files}
    write_json(output, head | listed | {"provenance": made_by})
    print(f"predict: {len(files)} frames of the {name} set -> {folder}")
