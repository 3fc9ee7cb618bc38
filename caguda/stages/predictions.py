"""The verb `predict`: the predictions of all parts are read back, checked and listed. No torch, which is slow to import."""

import time
from collections.abc import Sequence
from pathlib import Path

from caguda.artifacts.atomic import write_json
from caguda.artifacts.checks import refuse_other_origin
from caguda.artifacts.identity import CHECKPOINT, KIND_BY_VERB, read_artifact
from caguda.artifacts.predictions import FORMAT, FORMAT_VERSION, prediction_file, remove_others
from caguda.artifacts.provenance import json_digest, new_provenance
from caguda.config import Configuration
from caguda.datasets.manifest import SetName, read_manifest
from caguda.errors import UserError
from caguda.files import sha256
from caguda.stages.parts import prediction_settings, refuse_apart, refuse_gaps, refuse_other_part


def list_predictions(
    configuration: Configuration,
    manifest: Path,
    checkpoint: Path,
    name: SetName,
    folder: Path,
    part_files: Sequence[Path],
    output: Path,
) -> None:
    """Write the JSON that vouches for the predictions of the set `name`; `part_files` are the JSONs of its parts.

    UserError unless the SHA-256 of every file is that of its part's JSON. Then predictions of other frames are deleted.
    """
    started = time.time()
    entries = read_manifest(manifest, [name], configuration).entries(name)
    parts = {path: read_artifact(path, KIND_BY_VERB["predict-part"]) for path in part_files}
    seed = read_artifact(checkpoint.with_suffix(".json"), CHECKPOINT)["provenance"]["seed"]
    refuse_other_origin(checkpoint, configuration, None if name == "test" else manifest)
    refuse_apart(folder, output)
    settings = prediction_settings(configuration)
    provenance = new_provenance("predict", settings, [manifest, checkpoint], seed, started, output)
    for path, content in parts.items():
        refuse_other_part(path, content["provenance"], provenance)
    written = [frame for content in parts.values() for frame in content["files"]]
    refuse_gaps(part_files, written, [entry["id"] for entry in entries])
    digests: dict[str, str] = {}
    for path, content in parts.items():
        digests |= content["files"]
        for frame, digest in content["files"].items():
            if not (file := prediction_file(folder, frame)).is_file() or sha256(file) != digest:
                raise UserError(
                    f"{file}: this must be the file that `predict-part` wrote, found another one or none; "
                    f"move {path} away and predict again"
                )
    remove_others(folder, digests)
    files = [
        {"id": entry["id"], "height": entry["height"], "width": entry["width"], "sha256": digests[entry["id"]]}
        for entry in entries
    ]
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "set": name, "folder": folder.name}
    listed = {"images": len(files), "digest": json_digest({"files": files}), "files": files}
    write_json(output, head | listed | {"provenance": provenance})
    print(f"predict: {len(files)} frames of the {name} set -> {folder}")
