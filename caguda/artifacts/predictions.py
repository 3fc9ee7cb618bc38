"""Predictions on disk: a folder with one PNG of label ids for each frame, and a JSON beside it that vouches for them."""

import hashlib
import io
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from caguda.artifacts.atomic import HEX, at_work, read_json, replace_atomically
from caguda.artifacts.journal import Journals, refuse_irregular_journal
from caguda.artifacts.provenance import json_digest
from caguda.errors import UserError
from caguda.files import sha256

FORMAT = "caguda-predictions"
FORMAT_VERSION = 1


def prediction_file(folder: Path, frame: str) -> Path:
    """The path of a frame's label ids: its id and `.png`."""
    return folder / f"{frame}.png"


def _journals(folder: Path) -> Journals:
    return Journals(folder, "id", "sha256")


def write_prediction(folder: Path, part: str, frame: str, key: str, label_ids: NDArray[np.uint8]) -> str:
    """Writes the label ids (H, W) of a frame atomically as an 8-bit grey PNG, and returns the SHA-256 of the file.

    Before that, the journal of the part gets a line with the file's SHA-256 and `key`, the digest of all that decides the
    file. A kill between the two leaves a line without a file, never a file without a line. `prepare_folder` has checked that
    a file of that name may be replaced.
    """
    buffer = io.BytesIO()
    Image.fromarray(label_ids).save(buffer, format="PNG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    _journals(folder).append(part, frame, key, digest)
    with replace_atomically(prediction_file(folder, frame)) as partial:
        partial.write_bytes(buffer.getvalue())
    return digest


def prepare_folder(folder: Path, part: str, frames: Collection[str]) -> None:
    """Makes a folder of predictions and the journal of one part, such as `1-of-2`, unless they exist.

    UserError unless the folder is empty, absent or has a journal, and the frame of every file to be replaced, one with the
    name of one of `frames`, has a line in a journal.
    """
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise UserError(f"{folder}: the folder of predictions must be a folder, found a file or a link; choose another")
    journals = _journals(folder)
    if folder.exists() and any(folder.iterdir()) and not journals.paths():
        raise UserError(
            f"{folder}: the folder of predictions must be empty or absent before the first ones, found files of "
            "something else; move them away, or choose another folder"
        )
    for path in {*journals.paths(), journals.path(part)}:
        refuse_irregular_journal(path)
        if path.exists() and path.read_bytes()[:2] not in (b"", b"\n{"):
            raise UserError(
                f"{path}: the journal must be one of predictions, found another file; move it away, or choose another folder"
            )
    _refuse_foreign_files(folder, [prediction_file(folder, frame) for frame in frames])
    folder.mkdir(parents=True, exist_ok=True)
    journals.path(part).touch()


def _refuse_foreign_files(folder: Path, files: Iterable[Path]) -> None:
    """UserError if one of the files exists and is no regular file, or its frame has no line in a journal."""
    predictions = {prediction_file(folder, line["id"]) for line in _journals(folder).lines()}
    for path in files:
        if os.path.lexists(path) and (path not in predictions or path.is_symlink() or not path.is_file()):
            raise UserError(
                f"{path}: the folder of predictions must hold predictions alone, found a file that no whole line of a "
                f"journal, {folder.name}.*.journal, is of; move it away, or choose another folder"
            )


def finished_predictions(folder: Path, keys: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of the finished predictions of the frames in `keys`, by frame; see Journals.finished."""

    def current_digest(frame: str) -> str | None:
        path = prediction_file(folder, frame)
        return sha256(path) if path.is_file() else None

    return _journals(folder).finished(keys, current_digest)


def remove_others(folder: Path, frames: Collection[str]) -> None:
    """Deletes the predictions of all other frames, then partial files of killed writers unless a writer is at work.

    UserError, and nothing is deleted, if there is a PNG file of another frame that has no line in a journal.
    """
    kept = {prediction_file(folder, frame) for frame in frames}
    others = sorted({*folder.glob("*.png")} - kept)
    _refuse_foreign_files(folder, others)
    for path in others:
        path.unlink(missing_ok=True)
    complete = kept.union(others)
    partial_files = [
        path for path in folder.glob(f"*.{HEX}.partial") if path.with_suffix("").with_suffix("") in complete
    ]
    with at_work(folder, lambda: partial_files):
        pass


def read_predictions(path: Path) -> dict[str, Any]:
    """The JSON that vouches for predictions; UserError if it is missing, damaged or something else."""
    content = read_json(path)
    name, version = content.get("format"), content.get("format_version")
    if (name, version) != (FORMAT, FORMAT_VERSION):
        raise UserError(f"{path}: this must be {FORMAT} {FORMAT_VERSION}, found {name} {version}; run `predict`")
    return content


def check_predictions(path: Path) -> list[str]:
    """The faults of the files that the JSON at `path` vouches for, a line each that names the file."""
    content = read_predictions(path)
    folder, files = path.parent / content["folder"], content["files"]
    recorded = {(line["id"], line["sha256"]) for line in _journals(folder).lines()}
    faults = [] if content["digest"] == json_digest({"files": files}) else [f"{path}: digest must be that of files"]
    for entry in files:
        file = prediction_file(folder, entry["id"])
        if not file.is_file():
            faults.append(f"{file}: this must be the file that `predict` wrote, found none; predict again")
        elif sha256(file) != entry["sha256"]:
            faults.append(f"{file}: this must be the file that `predict` wrote, found another one; predict again")
        elif not _is_label_map(file, (entry["width"], entry["height"])):
            faults.append(
                f"{file}: this must be an 8-bit grey PNG of {entry['width']}x{entry['height']}; predict again"
            )
        if (entry["id"], entry["sha256"]) not in recorded:
            faults.append(f"{folder}: a line of {entry['id']} in a journal must have its digest; predict again")
    expected = {prediction_file(folder, entry["id"]) for entry in files}
    unlisted = {*folder.glob("*.png")} - expected
    return faults + [f"{file}: {path.name} lists no such file; move it away" for file in unlisted]


def _is_label_map(path: Path, size: tuple[int, int]) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            return (image.mode, image.size) == ("L", size)
    except (OSError, SyntaxError, ValueError):
        return False
