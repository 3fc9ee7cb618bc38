"""What this program made: a file of anybody else is never replaced, and never deleted."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from caguda.errors import UserError, first
from caguda.files import SEAL, is_sealed, seal

MADE_BY = "caguda"
"""The text `Software` of every PNG file, and the generator that every page names."""
LONGEST = 255
"""Bytes of a file's name, at most."""

_OUTPUTS = ("output", "csv", "markdown")
_PARTIAL = re.compile(r".+\.[0-9a-f]{8}\.partial")
_HEAD = 4096
_MARKS = re.compile(
    rb"\x89PNG\r\n\x1a\n.*tEXtSoftware\0caguda"
    rb"|SHA-256 from byte 512 on: [0-9a-f]{64}\n\0"
    rb'|<!doctype html>.*<meta name="generator" content="caguda">'
    rb'|loaded\(\d+, \{"name": '
    rb"|row,(statistics,seed,frames|origin),"
    rb"|# [^\n]*\n\n(Seeds: \d|\| row +\| )"
    rb"|% \\usepackage\{booktabs,graphicx\}\n\\begin\{table\}"
    rb"|PK\x03\x04.{26}[^\0]*/data\.pkl.*fingerprint",
    re.DOTALL | re.IGNORECASE,
)
"""How files begin that have no seal: pictures, HDF5, pages and their scripts, tables, the state of a training."""
_FINDINGS = re.compile(rb"((warning|problem|hint): [^\n]*\n)*")


def refuse_foreign(*paths: Path) -> None:
    """Returns when each path is free, or has a file that this program wrote; else a UserError, before anything is lost.

    A link is never followed nor replaced. What was changed after it had been written is no longer recognised.
    """
    for path in paths:
        if len(os.fsencode(path.name)) > LONGEST:
            raise UserError(f"{path}: the name of a file must have at most {LONGEST} bytes; choose a shorter one")
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise UserError(
                f"{above}: a folder must be here to write {path.name} in, found none; choose another output"
            )
        if found := _foreign(path):
            raise UserError(
                f"{path}: only a file that caguda wrote is replaced, found {found}; move it away, or choose another output"
            )


def refuse_outputs(given: Mapping[str, Any]) -> None:
    """UserError, before a verb begins, where one of its outputs would replace another argument or somebody else's file.

    Beside weights and a zip there will be their JSON.
    """
    outputs = [given[key] for key in _OUTPUTS if key in given]
    beside = [path.with_suffix(".json") for path in outputs if path.suffix in (".safetensors", ".zip")]
    inputs = [value for key, value in given.items() if key not in _OUTPUTS]
    named = [path for value in inputs for path in (value if isinstance(value, list | tuple) else [value])]
    taken = [path.resolve() for path in (*named, *outputs, *beside) if isinstance(path, Path)]
    for path in [*outputs, *beside]:
        if taken.count(path.resolve()) > 1:
            raise UserError(f"{path}: an output must be a file of its own, found another argument that names it")
    refuse_foreign(*outputs, *beside)


def _foreign(path: Path) -> str | None:
    """What lies at a path, in words; None where nothing does, or a file of this program."""
    if not os.path.lexists(path):
        return None
    if path.is_symlink():
        return "a symbolic link"
    if not path.is_file():
        return "a folder" if path.is_dir() else "a device or a pipe"
    return None if is_ours(path) else "another one, or one that was changed since"


def is_ours(path: Path) -> bool:
    """Whether a file, which is no link, is to be recognised as one that this program wrote."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, path.stat().st_size - len(seal(b""))))
        tail = file.read()
    if tail.startswith(f' "{SEAL}": '.encode()):
        return is_sealed(path.read_bytes())
    if path.suffix in (".safetensors", ".zip"):
        return _is_vouched_for(path)
    findings = path.suffix == ".txt" and _FINDINGS.fullmatch(path.read_bytes())
    return bool(findings or _MARKS.match(head))


def _is_vouched_for(path: Path) -> bool:
    """Whether the JSON beside weights or a zip is one of this program, and has their digest."""
    try:
        vouching = path.with_suffix(".json").read_bytes()
    except OSError:
        return False
    if not is_sealed(vouching):
        return False
    told = json.loads(vouching)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() in (told.get("weights_sha256"), told.get("sha256"))


def clear_folder(folder: Path, ours: Iterable[str]) -> None:
    """Makes a folder for a verb to fill; what an earlier call left there under the patterns `ours` is removed.

    A UserError, with nothing removed, where anything else lies in it. Hidden files stay, and parts of files.
    """
    refuse_foreign(folder / "any")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: the output must be a folder, found a file or a link; choose another output")
    found = [path for path in _below(folder) if path.name[0] != "." and not _PARTIAL.fullmatch(path.name)]
    known = {path for pattern in ours for path in folder.glob(pattern) if is_ours(path)}
    if others := sorted(path.relative_to(folder).as_posix() for path in set(found) - known):
        raise UserError(
            f"{folder}: the output folder must be empty, absent, or an earlier output of the same verb, found "
            f"{first(others)}; move them away, or choose another output"
        )
    for path in known:
        path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _below(folder: Path) -> list[Path]:
    """All that is no folder below one, links to folders included."""
    entries = (Path(parent, name) for parent, *both in os.walk(folder) for names in both for name in names)
    return [entry for entry in entries if entry.is_symlink() or not entry.is_dir()]
