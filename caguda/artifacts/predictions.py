"""Predictions on disk: a folder with one PNG of label ids for each frame, and a JSON beside it that vouches for them."""

import glob
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from caguda.artifacts.atomic import HEX, at_work, read_json, replace_atomically, sha256
from caguda.artifacts.provenance import fingerprint
from caguda.errors import UserError
from caguda.files import read_regular

FORMAT = "caguda-predictions"
FORMAT_VERSION = 1


def prediction_file(folder: Path, frame: str) -> Path:
    """Where the label ids of a frame belong: its id and `.png`."""
    return folder / f"{frame}.png"


def write_prediction(folder: Path, journal: Path, frame: str, key: str, label_ids: NDArray[np.uint8]) -> str:
    """Writes the label ids (H, W) of a frame as an 8-bit grey PNG, whole or not at all; its SHA-256.

    The journal first has a line more: of what (`key`) the file is made, and its digest. A process that is killed between
    the two leaves a line of a file that is not there, never a file that nothing vouches for. What lies under the name
    must be what `open_journal` has found to be a prediction.
    """
    buffer = io.BytesIO()
    Image.fromarray(label_ids).save(buffer, format="PNG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    line = json.dumps({"id": frame, "key": key, "sha256": digest})
    with journal.open("a", encoding="utf-8") as lines:
        lines.write(f"\n{line}\n")  # the first break ends what a killed writer may have left
    with replace_atomically(prediction_file(folder, frame)) as partial:
        partial.write_bytes(buffer.getvalue())
    return digest


def open_journal(folder: Path, division: str, frames: Collection[str]) -> Path:
    """The journal of one part of the predictions in a folder, such as `1-of-2`; both are made where they are absent.

    A folder without any journal must be empty or absent. Each part has a journal, for no two may write one file. A file
    under the name of one of `frames` must be one that a journal has a line of: it is written again.
    """
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise UserError(f"{folder}: the folder of predictions must be a folder, found a file or a link; choose another")
    if folder.exists() and any(folder.iterdir()) and not _journals(folder):
        raise UserError(
            f"{folder}: the folder of predictions must be empty or absent before the first ones, found files of "
            "something else; move them away, or choose another folder"
        )
    journal = folder.with_name(f"{folder.name}.{division}.journal")
    for path in {*_journals(folder), journal}:
        if os.path.lexists(path) and (
            path.is_symlink() or not path.is_file() or path.read_bytes()[:2] not in (b"", b"\n{")
        ):
            raise UserError(
                f"{path}: a journal of predictions must be here or nothing, found another file; move it away, or choose "
                "another folder"
            )
    _refuse_unknown(folder, [prediction_file(folder, frame) for frame in frames])
    folder.mkdir(parents=True, exist_ok=True)
    journal.touch()
    return journal


def _refuse_unknown(folder: Path, files: Iterable[Path]) -> None:
    """UserError unless each file that is there, and no link, is of a frame that a journal has a line of."""
    ours = {prediction_file(folder, record["id"]) for record in _records(folder)}
    for path in files:
        if os.path.lexists(path) and (path not in ours or path.is_symlink() or not path.is_file()):
            raise UserError(
                f"{path}: the folder of predictions must hold predictions alone, found a file that no whole line of a "
                f"journal, {folder.name}.*.journal, is of; move it away, or choose another folder"
            )


def finished_predictions(folder: Path, keys: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of the finished predictions of the frames in `keys`, by frame.

    Finished are the files of which a line in a journal, of whatever part, has the frame's key and the file's digest.
    """
    vouched: dict[str, set[str]] = {}
    for record in _records(folder):
        if record["key"] == keys.get(record["id"]):
            vouched.setdefault(record["id"], set()).add(record["sha256"])
    files = {frame: prediction_file(folder, frame) for frame in vouched}
    digests = {frame: sha256(path) for frame, path in files.items() if path.is_file()}
    return {frame: digest for frame, digest in digests.items() if digest in vouched[frame]}


def remove_others(folder: Path, frames: Collection[str]) -> None:
    """Deletes predictions that are not of these frames, as journals tell; UserError, first, for any other PNG file.

    Then what killed writers left of any prediction, if no writer is at work.
    """
    kept = {prediction_file(folder, frame) for frame in frames}
    found = sorted({*folder.glob("*.png")} - kept)
    _refuse_unknown(folder, found)
    for path in found:
        path.unlink(missing_ok=True)
    ours = kept.union(found)
    parts = [path for path in folder.glob(f"*.{HEX}.partial") if path.with_suffix("").with_suffix("") in ours]
    with at_work(folder, lambda: parts):
        pass


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
    vouched, files = {(record["id"], record["sha256"]) for record in _records(folder)}, content["files"]
    found = [] if content["digest"] == fingerprint({"files": files}) else [f"{path}: digest must be that of files"]
    for entry in files:
        file = prediction_file(folder, entry["id"])
        if not (file.is_file() and sha256(file) == entry["sha256"]):
            found.append(f"{file}: this must be the file that `predict` wrote, found {_what(file)}; predict again")
        elif not _is_label_map(file, (entry["width"], entry["height"])):
            found.append(f"{file}: this must be an 8-bit grey PNG of {entry['width']}x{entry['height']}; predict again")
        if (entry["id"], entry["sha256"]) not in vouched:
            found.append(f"{folder}: a line of {entry['id']} in a journal must have its digest; predict again")
    expected = {prediction_file(folder, entry["id"]) for entry in files}
    return found + [
        f"{file}: {path.name} lists no such file; move it away" for file in {*folder.glob("*.png")} - expected
    ]


def _what(path: Path) -> str:
    return "another one" if path.is_file() else "none"


def _is_label_map(path: Path, size: tuple[int, int]) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            return (image.mode, image.size) == ("L", size)
    except (OSError, SyntaxError, ValueError):
        return False


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.parent.glob(f"{glob.escape(folder.name)}.*.journal"))


def _records(folder: Path) -> list[dict[str, str]]:
    """The whole lines of all journals of a folder."""
    texts = [read_regular(path, "move it away").decode("utf-8", errors="replace") for path in _journals(folder)]
    lines = [line for text in texts for line in text.splitlines()]
    return [record for line in lines if (record := _record(line))]


def _record(line: str) -> dict[str, str] | None:
    """A line of the journal, or None where it is empty or torn."""
    try:
        record = json.loads(line)
        return {key: record[key] for key in ("id", "key", "sha256")}
    except (ValueError, TypeError, KeyError):
        return None
