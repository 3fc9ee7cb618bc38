"""What this program made: a file of anybody else is never replaced, and never deleted."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.errors import UserError, first, is_plain
from caguda.files import SEAL, is_sealed, refuse_irregular, seal

MADE_BY = "caguda"
"""The text `Software` of every PNG file, and the generator that every page names."""
LONGEST = 255
"""Bytes of a file's name, at most."""
PRINTED = "paper-table"
"""Stands for `sweep` too: the tables of these two verbs cannot be told apart."""

OUTPUTS = ("output", "csv", "markdown")
"""The arguments that name a file to be written."""

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
    rb"row,origin,": PRINTED,
    rb"# [^\n]*\n\nSeeds: \d": "table",
    rb"# [^\n]*\n\n\| row +\| ": PRINTED,
    rb"% \\usepackage\{booktabs,graphicx\}\n\\begin\{table\}": PRINTED,
    rb"PK\x03\x04.{26}[^\0]*/data\.pkl.*fingerprint": "a training state",
}
"""How files begin that have no seal, and the verb that writes such: pictures, pages and their scripts, tables, and HDF5.

Where it is empty, the file names its verb.
"""
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


def refuse_outputs(given: Mapping[str, Any], outputs: Sequence[Path]) -> None:
    """UserError, before a verb begins, where one of its outputs would replace another argument or somebody else's file.

    The same error if a file is given twice, if a folder for many files is a file, or if an output would lie in a store.
    """
    inputs = [value for key, value in given.items() if key not in OUTPUTS]
    named = [path for value in inputs for path in (value if isinstance(value, list | tuple) else [value])]
    _refuse_repeated(given)
    _refuse_other_forms(given)
    named += [
        path.with_suffix(".json")
        for path in named
        if isinstance(path, Path) and path.suffix in (".safetensors", ".zip")
    ]
    taken = [path.resolve() for path in (*named, *outputs) if isinstance(path, Path)]
    for path in outputs:
        if taken.count(path.resolve()) > 1:
            raise UserError(f"{path}: an output must be a file of its own, found another argument that names it")
    _refuse_places_in_stores(given, outputs)
    for folder in (given[key] for key in ("state", "folder", "store") if key in given):
        if len(os.fsencode(folder.name)) > _LONGEST_FOLDER:
            raise UserError(
                f"{folder}: the name of this folder must have at most {_LONGEST_FOLDER} bytes; choose a shorter one"
            )
        if not folder.is_file() or folder != given.get("store"):  # which may be the JSON of one
            refuse_foreign(folder / "any")
    refuse_foreign(*outputs)


def _refuse_places_in_stores(given: Mapping[str, Any], outputs: Sequence[Path]) -> None:
    """UserError where an output would lie in a store, or a folder for many files would or is one."""
    folders = [given[key] for key in ("output", "folder", "state", "plot") if isinstance(given.get(key), Path)]
    for path in (*outputs, *folders):
        around = path.absolute().parents if path in outputs else (path.absolute(), *path.absolute().parents)
        if inside := next((folder for folder in around if (folder / "zarr.json").exists()), None):
            raise UserError(f"{path}: an output must not lie in a store, found {inside}; choose another output")


_LONGEST_FOLDER = 200
"""Bytes of the name of a folder, beside which files with longer names are put."""
_FOLDERS = ("paths", "artifact", "store", "stores", "folder", "state", "plot", *OUTPUTS)
"""The arguments that may be a folder."""


def _refuse_other_forms(given: Mapping[str, Any]) -> None:
    """UserError where an argument is a pipe or a device, which would be waited for, or a folder in the place of a file."""
    for key, value in given.items():
        for path in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(path, Path):
                continue
            if not is_plain(str(path)):
                raise UserError(
                    f"{path!s:.300}: a path must be UTF-8 without control characters, found another; rename it"
                )
            refuse_irregular(path)
            if path.is_dir() and key not in _FOLDERS:
                raise UserError(f"{path}: a file must be named, found a folder; name the file in it")


def _refuse_repeated(given: Mapping[str, Any]) -> None:
    """UserError where an argument names a file twice: it would count twice."""
    for key, paths in given.items():
        found = [path.resolve() for path in paths if isinstance(path, Path)] if isinstance(paths, list | tuple) else []
        if key != "paths" and (twice := [path for path in paths if found.count(path.resolve()) > 1] if found else []):
            raise UserError(f"{twice[0]}: a file must be named once, found it {len(twice)} times; leave it out")


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
    findings = path.name == "findings.txt" and _FINDINGS.fullmatch(path.read_bytes())
    return bool(findings or _verb_of(head))


def is_partial(path: Path) -> bool:
    """Whether a file has the name of a part that a writer at work, or a killed one, has left."""
    return bool(_PARTIAL.fullmatch(path.name))


def verb_of(path: Path) -> str | None:
    """The verb that wrote a picture, page or table, by its first bytes; None where they do not say."""
    with path.open("rb") as file:
        return _verb_of(file.read(_HEAD))


def _verb_of(head: bytes) -> str | None:
    for mark, verb in _MARKS.items():
        if found := re.match(mark, head, re.DOTALL | re.IGNORECASE):
            return verb or found[1].decode()
    return None


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


def clear_folder(folder: Path, ours: Iterable[str], verb: str) -> None:
    """Makes a folder for a verb to fill; what an earlier call of it left there under the patterns `ours` is removed.

    A UserError, with nothing removed, where anything else lies in it. Hidden files stay, and parts of files.
    """
    refuse_foreign(folder / "any")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: the output must be a folder, found a file or a link; choose another output")
    found = [path for path in _below(folder) if path.name[0] != "." and not _PARTIAL.fullmatch(path.name)]
    below = {path for pattern in ours for path in folder.glob(pattern) if is_ours(path)}
    known = {path for path in below if verb_of(path) == verb}
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
