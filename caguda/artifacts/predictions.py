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
from caguda.artifacts.provenance import fingerprint
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
    records = _records(journal)
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


def check_predictions(path: Path) -> list[str]:
    """What is wrong with the files that the JSON at `path` vouches for, a line each that names the file."""
    content = read_predictions(path)
    folder = path.parent / content["folder"]
    records, files = _records(_journal(folder)), content["files"]
    found = [] if content["digest"] == fingerprint({"files": files}) else [f"{path}: digest must be that of files"]
    for entry in files:
        file = prediction_file(folder, entry["id"])
        if not _has_digest(file, entry["sha256"]):
            found.append(f"{file}: this must be the file that `predict` wrote, found {_what(file)}; predict again")
        elif not _is_label_map(file, (entry["width"], entry["height"])):
            found.append(f"{file}: this must be an 8-bit grey PNG of {entry['width']}x{entry['height']}; predict again")
        if records.get(entry["id"], {}).get("sha256") != entry["sha256"]:
            found.append(f"{_journal(folder)}: the last line of {entry['id']} must have its digest; predict again")
    expected = {prediction_file(folder, entry["id"]) for entry in files}
    return found + [f"{file}: {path.name} lists no such file; remove it" for file in {*folder.glob("*.png")} - expected]


def _what(path: Path) -> str:
    return "another one" if path.is_file() else "none"


def _is_label_map(path: Path, size: tuple[int, int]) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            return (image.mode, image.size) == ("L", size)
    except (OSError, SyntaxError, ValueError):
        return False


def _records(journal: Path) -> dict[str, dict[str, str]]:
    """The last line of each frame in the journal."""
    lines = journal.read_text(encoding="utf-8", errors="replace").splitlines()
    return {record["id"]: record for line in lines if (record := _record(line))}


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
