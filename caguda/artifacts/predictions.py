"""Predictions on disk: a folder with one PNG of label ids for each frame, and a JSON beside it that vouches for them."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from caguda.artifacts.atomic import read_json, sha256, write_atomically
from caguda.errors import UserError

FORMAT = "caguda-predictions"
FORMAT_VERSION = 1


def prediction_file(folder: Path, frame: str) -> Path:
    """Where the label ids of a frame belong: its id and `.png`."""
    return folder / f"{frame}.png"


def write_prediction(folder: Path, frame: str, key: str, label_ids: NDArray[np.uint8]) -> str:
    """Writes the label ids (H, W) of a frame as an 8-bit grey PNG, whole or not at all; its SHA-256.

    The journal of the folder then has a line more: of what (`key`) the file was made, and its digest. The line comes
    after the file, so a process that is killed between the two leaves a file that nothing vouches for.
    """
    buffer = io.BytesIO()
    Image.fromarray(label_ids).save(buffer, format="PNG")
    with write_atomically(prediction_file(folder, frame)) as partial:
        partial.write_bytes(buffer.getvalue())
        digest = sha256(partial)
    line = json.dumps({"id": frame, "key": key, "sha256": digest})
    with _journal(folder).open("a", encoding="utf-8") as journal:
        journal.write(f"\n{line}\n")  # the first break ends what a killed writer may have left
    return digest


def resume_predictions(folder: Path, keys: Mapping[str, str]) -> dict[str, str]:
    """Readies the folder for predictions of the frames in `keys`; the SHA-256 of those that are finished, by frame.

    Finished are the files whose last line in the journal has the frame's key, and that still have the digest there.
    Every other PNG is deleted, and what killed writers left. A folder without a journal must be empty or absent.
    """
    journal = _journal(folder)
    if not journal.exists():
        if folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"{folder}: the folder of predictions must be empty or absent before the first ones, found files of "
                "something else; remove them, or choose another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        journal.touch()
    lines = journal.read_text(encoding="utf-8", errors="replace").splitlines()
    records = {record["id"]: record for line in lines if (record := _record(line))}
    finished = {
        frame: record["sha256"]
        for frame, record in records.items()
        if record["key"] == keys.get(frame) and _has_digest(prediction_file(folder, frame), record["sha256"])
    }
    kept = {prediction_file(folder, frame) for frame in finished}
    for path in {*folder.glob("*.png"), *folder.glob("*.partial")} - kept:
        path.unlink(missing_ok=True)
    return finished


def read_predictions(path: Path) -> dict[str, Any]:
    """The JSON that vouches for predictions; UserError if it is missing, damaged or something else."""
    content = read_json(path)
    found = (content.get("format"), content.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise UserError(f"{path}: this must be {FORMAT} {FORMAT_VERSION}, found {found[0]} {found[1]}; run `predict`")
    return content


def _journal(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.journal")


def _record(line: str) -> dict[str, str] | None:
    """A line of the journal, or None where it is empty or torn."""
    try:
        record = json.loads(line)
        return {key: record[key] for key in ("id", "key", "sha256")}
    except (ValueError, TypeError, KeyError):
        return None


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest
