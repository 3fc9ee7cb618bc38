"""What the rules of the workflow take from the package: the validated experiment, and the lock of its folder. No torch."""

import errno
import fcntl
import os
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from caguda.artifacts.label_remains import is_remains
from caguda.artifacts.ownership import is_ours, is_partial
from caguda.config import Configuration
from caguda.configfile import parse_configuration, read_yaml
from caguda.errors import UserError, printable


def validated(values: Any, name: Path, files: Sequence[Path] = ()) -> Configuration:
    """The experiment of a mapping whose data are there, or one line for the person at the keyboard and the end.

    `files` are the YAMLs that Snakemake has merged into it; of a key that occurs twice it would keep the last.
    """
    try:
        for file in files:
            read_yaml(file)
        configuration = parse_configuration(values, name)
        _require_files(configuration, name)
    except UserError as error:
        sys.exit(f"caguda: {printable(str(error))}")
    return configuration


def _require_files(configuration: Configuration, name: Path) -> None:
    """Refuse models and data sets that are not there; generated scenes are made by the workflow itself."""
    for run, path in configuration.start_from.items():
        if not Path(path).is_file():
            raise UserError(
                f"{name}: start_from.{run}: the checkpoint {path} does not exist; put it there, or name another"
            )
    if configuration.street is not None:
        return
    for key in ("source", "target", "evaluation", "test"):
        domain = getattr(configuration, key)
        if domain is not None and not (folder := configuration.domain_root(domain)).is_dir():
            raise UserError(
                f"{name}: data_root, {key}.root: the folder {folder} does not exist; "
                "put the data set there, or give its folder with --config data_root=FOLDER"
            )


def refuse_stages(asked: Iterable[str], experiment: str, count: int, name: Path) -> None:
    """One line and the end for a file of a stage beyond the last one: Table 4 has one more, which its rule alone plans."""
    for target in asked:
        stage = re.match(rf"(\./)?{re.escape(experiment)}/.*/stage(\d+)/", target)
        if stage and int(stage[2]) > count:
            sys.exit(
                f"caguda: {name}: stages.count must be {stage[2]} or more for {printable(target)}, found {count}; raise it, "
                "or ask for an earlier stage"
            )


def set_aside(outputs: Iterable[Path]) -> None:
    """Renames what lies in the place of outputs, and is not as caguda wrote it, to a free name, each told in one line.

    Snakemake removes a job's outputs before it starts the job. The name is `NAME.aside`, of a file in a folder
    `FOLDER.aside.NAME`, with a number where that is taken. Hidden files and parts of files of an earlier call go with their
    folder; so does the group file of a label store.
    """
    for output in outputs:
        files = sorted(output.rglob("*")) if output.is_dir() and not output.is_symlink() else [output]
        for path in files:
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder or not os.path.lexists(path) or path.name.startswith(".") or is_partial(path) or is_ours(path):
                continue
            if path.name == "zarr.json" and is_remains(path.parent):
                continue
            beside, suffix = (path, "") if path == output else (output, f".{path.name}")
            names = (beside.with_name(f"{beside.name}.aside{number or ''}{suffix}") for number in count())
            aside = next(name for name in names if not os.path.lexists(name))
            path.rename(aside)
            said = f"{path}: not as caguda wrote it, or without the JSON that vouches for it, kept as {aside.name}"
            print(f"caguda: {printable(said)}", file=sys.stderr)


def held(folder: Path) -> TextIO:
    """A file in `folder` that keeps a second call out of it for as long as this process lives.

    Snakemake's own lock, which the default profile turns off, would outlive a SIGKILL and ask for `--unlock`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        sys.exit(f"caguda: {path}: the lock must be a file or nothing, found something else; move it away")
    file = path.open("a")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            sys.exit(f"caguda: {folder}: one call at a time may work here, found another; wait for it or end it")
        print(f"caguda: {folder}: no lock is to be had here ({error.strerror}); make sure that no second call works here",
              file=sys.stderr)  # fmt: skip
    return file
