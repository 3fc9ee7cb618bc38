"""Files that this program made; a file that is not recognised as one of them is never replaced or deleted."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from caguda.errors import UserError, first
from caguda.files import SEAL, is_sealed, seal

MADE_BY = "caguda"
"""The text `Software` of every PNG file, and the generator that every page names."""
LONGEST = 255
"""Bytes of a file's name, at most."""
_PARTIAL = re.compile(r".+\.[0-9a-f]{8}\.partial")
_HEAD = 4096
_MARKS = {
    rb'\x89PNG\r\n\x1a\n.*tEXtSoftware\0caguda.*tEXtDescription\0\{"made_by": "([a-z-]+)"': "",
    rb"\x89PNG\r\n\x1a\n.*tEXtSoftware\0caguda": "generate",
    rb"SHA-256 from byte 512 on: [0-9a-f]{64}\n\0": "HDF5",
    rb'<!doctype html>.*<meta name="generator" content="caguda ([a-z-]+)">': "",
    rb'<!doctype html>.*<meta name="generator" content="caguda">': "a version before",
    rb'loaded\(\d+, \{"name": ': "view",
    rb"row,statistics,seed,frames": "table",
    rb"row,origin,": "paper-table",
    rb"statistics,first,second,difference,": "methods",
    rb"# [^\n]*\n\nSeeds: \d": "table",
    rb"# [^\n]*\n\n\| row +\| ": "paper-table",
    rb"% \\usepackage\{booktabs,graphicx\}\n\\begin\{table\}": "paper-table",
    rb"PK\x03\x04.{26}[^\0]*/data\.pkl.*fingerprint": "a training state",
}
"""The first bytes of files without a checksum of their own, and the verb that writes them; empty if the file names its verb.

The tables of `sweep` look like those of `paper-table`.
"""
_FINDINGS = re.compile(rb"((warning|problem|hint): [^\n]*\n)*")


def refuse_foreign(*paths: Path) -> None:
    """Raises UserError unless each path is free or has a file that `is_ours`; a link is never replaced."""
    for path in paths:
        if len(os.fsencode(path.name)) > LONGEST:
            raise UserError(f"{path}: the name of a file must have at most {LONGEST} bytes; choose a shorter one")
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise UserError(
                f"{above}: a folder must be here to write {path.name} in, found none; choose another output"
            )
        if obstacle := _obstacle(path):
            raise UserError(
                f"{path}: only a file that caguda wrote is replaced, found {obstacle}; move it away, or choose another output"
            )


def _obstacle(path: Path) -> str | None:
    """A description of the thing at a path; None if it is free or has a file of this program."""
    if not os.path.lexists(path):
        return None
    if path.is_symlink():
        return "a symbolic link"
    if not path.is_file():
        return "a folder" if path.is_dir() else "a device or a pipe"
    return None if is_ours(path) else "another one, or one that was changed since"


def is_ours(path: Path) -> bool:
    """Whether a file is recognised as one that this program wrote; never for a link.

    JSON, weights and zips are recognised by their checksum, so not once they were changed. Pictures, pages, tables, HDF5 and
    training states are recognised by their first bytes, also if a later byte was changed.
    """
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(seal(b""))))
        tail = file.read()
    if tail.startswith(f' "{SEAL}": '.encode()):
        return is_sealed(path.read_bytes())
    if path.suffix in (".safetensors", ".zip"):
        return agrees_with_json(path)
    findings = path.name == "findings.txt" and _FINDINGS.fullmatch(path.read_bytes())
    return bool(findings or verb_of(path))


def is_partial(path: Path) -> bool:
    """Whether a file has the name of a partial file, of a writer at work or a killed one."""
    return bool(_PARTIAL.fullmatch(path.name))


def verb_of(path: Path) -> str | None:
    """The verb that wrote a file, by its first bytes, or what else the file is, such as a training state; None for others."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for mark, verb in _MARKS.items():
        if match := re.match(mark, head, re.DOTALL | re.IGNORECASE):
            return verb or match[1].decode()
    return None


def agrees_with_json(path: Path) -> bool:
    """Whether weights or a zip have the SHA-256 that the JSON of this program beside them gives."""
    try:
        raw = path.with_suffix(".json").read_bytes()
    except OSError:
        return False
    if not is_sealed(raw):
        return False
    content = json.loads(raw)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest in (content.get("weights_sha256"), content.get("sha256"))


def clear_folder(folder: Path, patterns: Iterable[str], verb: str) -> None:
    """Makes an output folder for a verb, and removes the files of the verb's earlier call that match the patterns.

    UserError, with nothing removed, if the folder has any other file. Hidden and partial files stay.
    """
    refuse_foreign(folder / "any")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: the output must be a folder, found a file or a link; choose another output")
    files = {path for path in _files_below(folder) if path.name[0] != "." and not is_partial(path)}
    ours = {path for pattern in patterns for path in folder.glob(pattern) if is_ours(path) and verb_of(path) == verb}
    if foreign := sorted(path.relative_to(folder).as_posix() for path in files - ours):
        raise UserError(
            f"{folder}: the output folder must be empty, absent, or an earlier output of the same verb, found "
            f"{first(foreign)}; move them away, or choose another output"
        )
    for path in ours:
        path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _files_below(folder: Path) -> list[Path]:
    """All files below a folder, and links to folders."""
    entries = (Path(parent, name) for parent, *both in os.walk(folder) for names in both for name in names)
    return [entry for entry in entries if entry.is_symlink() or not entry.is_dir()]
