"""What the rules of the workflow take from the package: the validated experiment, and the lock of its folder. No torch."""

import errno
import fcntl
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from caguda.artifacts.ownership import is_ours, is_partial
from caguda.config import Configuration
from caguda.configfile import BASE, base_of, parse_configuration, read_merged, read_yaml, whole_plugins
from caguda.errors import UserError, first, printable
from caguda.merging import Layer, Merged, merge_all
from caguda.runs import imported_files


@contextmanager
def one_line() -> Iterator[None]:
    """Ends the call with one line for the person at the keyboard where the block finds a mistake of theirs."""
    try:
        yield
    except UserError as error:
        sys.exit(f"caguda: {printable(str(error))}")


def merged_files(files: Iterable[Path], command_line: Mapping[str, Any]) -> Merged:
    """What the YAMLs behind `--configfile` say, each above its own base and the files before it, and `--config` above all.

    The files are read again: Snakemake knows no bases, and of a key that occurs twice in a file it keeps the last.
    """
    if BASE in command_line:
        raise UserError(f"--config: {BASE}: only a file has a base; name this one before the others, by --configfile")
    said = Layer("--config", whole_plugins(command_line, Path(), Path("--config")))
    return merge_all([*map(read_merged, files), Merged(said.values, (said,))])


def merged_by_parent(values: Mapping[str, Any], files: Sequence[Path]) -> Merged:
    """What another workflow says, whose module this one is, above the base that it names.

    Snakemake has merged that workflow's files. A base and plugins are relative to their folder, or
    without any to the working folder.
    """
    for file in files:
        read_yaml(file)
    folders = sorted({file.parent.absolute() for file in files} or {Path()})
    said = {key: value for key, value in values.items() if key != BASE}
    own = Layer("config", whole_plugins(said, folders[0], Path("config")))
    upper = Merged(own.values, (own,))
    if BASE not in values:
        return upper
    base = base_of(values[BASE], folders[0], "config")
    if len(folders) > 1 and not Path(values[BASE]).is_absolute():
        raise UserError(
            f"config: {BASE}: must be an absolute path where configuration files lie in several folders, found {values[BASE]}"
        )
    return merge_all([read_merged(base), upper])


def validated(merged: Merged, name: Path) -> Configuration:
    """The validated experiment of merged files, whose data are there; `name` is what messages call the files."""
    configuration = parse_configuration(merged.values, name, merged.layers)
    _require_files(configuration, name)
    return configuration


def _require_files(configuration: Configuration, name: Path) -> None:
    """Refuse models and data sets that are not there; generated scenes are made by the workflow itself."""
    for run, path in imported_files(configuration).items():
        if not Path(path).is_file():
            raise UserError(
                f"{name}: runs.{run}.file: the checkpoint {path} does not exist; put it there, or name another"
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


def refuse_other_models(asked: Iterable[str], experiment: str, known: Sequence[str], name: Path) -> None:
    """One line and the end for a file of a model that the configuration has not, of which no rule would say why."""
    for target in asked:
        found = re.match(rf"(\./)?{re.escape(experiment)}/seed\d+/([^/]+(?:/stage\d+)?)/", target)
        if found and found[2] not in known:
            sys.exit(
                f"caguda: {name}: runs must have the model of {printable(target)}, found {first(known)}; add it, or ask for "
                "another"
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
            if path.name == "zarr.json" and _is_store(path.parent):
                continue
            beside, suffix = (path, "") if path == output else (output, f".{path.name}")
            names = (beside.with_name(f"{beside.name}.aside{number or ''}{suffix}") for number in count())
            aside = next(name for name in names if not os.path.lexists(name))
            path.rename(aside)
            said = f"{path}: not as caguda wrote it, or without the JSON that vouches for it, kept as {aside.name}"
            print(f"caguda: {printable(said)}", file=sys.stderr)


def tell_of_earlier_layout(folder: Path, runs: Collection[str]) -> None:
    """Says in one line what of an experiment's folder is of an earlier version, and lies where nothing looks for it now.

    The folder of one of the experiment's `runs` is not meant, whatever it is called.
    """
    places = ("seed*/pretrain", "seed*/stage*/labels.json", "seed*/*/stage*/labels.json", "*/report.html")
    if found := sorted({path for place in places for path in folder.glob(place) if path.name not in runs}):
        said = (
            f"{first(found)}: results of an earlier version, which nothing reads any more (runs are named by the YAML, reports are "
            "in reports/, pseudo-labels beside the model that made their evidence); move them away where they are not wanted"
        )
        print(f"caguda: {printable(said)}", file=sys.stderr)


def _is_store(folder: Path) -> bool:
    from caguda.artifacts.stores import is_store_of_ours  # imports zarr, which planning has no need of

    return is_store_of_ours(folder)


def lock_of(folder: Path) -> TextIO:
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
