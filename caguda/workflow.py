"""The helpers of the workflow's rules: the validated experiment, and the lock and the old files of its folder. No torch."""

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
from caguda.configfile import BASE, base_of, parse_configuration, read_merged, read_yaml, with_absolute_plugins
from caguda.errors import UserError, first, printable
from caguda.merging import Layer, Merged, merge_all, with_nulls
from caguda.runs import anchors_files, imported_files


@contextmanager
def one_line() -> Iterator[None]:
    """Ends the call with one line if the block raises UserError."""
    try:
        yield
    except UserError as error:
        sys.exit(f"caguda: {printable(str(error))}")


def merged_files(files: Iterable[Path], command_line: Mapping[str, Any]) -> Merged:
    """Merges the YAMLs of `--configfile`, each above its own base and the files before it, and `--config` above all.

    The files are read again: Snakemake knows no bases, and if a key occurs twice in a file, it keeps the last.
    """
    if BASE in command_line:
        raise UserError(f"--config: {BASE}: only a file has a base; name this one before the others, by --configfile")
    layer = Layer("--config", with_absolute_plugins(with_nulls(command_line), Path(), Path("--config")))
    return merge_all([*map(read_merged, files), Merged(layer.values, (layer,))])


def merged_by_parent(values: Mapping[str, Any], files: Sequence[Path]) -> Merged:
    """Merges the configuration of a workflow that imports this one as a module, above the base that it names.

    Snakemake has merged that workflow's files. A base and plugins are relative to the folder of the files, or without files
    to the working folder.
    """
    for file in files:
        read_yaml(file)
    folders = sorted({file.parent.absolute() for file in files} or {Path()})
    without_base = {key: value for key, value in values.items() if key != BASE}
    layer = Layer("config", with_absolute_plugins(without_base, folders[0], Path("config")))
    upper = Merged(layer.values, (layer,))
    if BASE not in values:
        return upper
    base = base_of(values[BASE], folders[0], "config")
    if len(folders) > 1 and not Path(values[BASE]).is_absolute():
        raise UserError(
            f"config: {BASE}: must be an absolute path where configuration files lie in several folders, found {values[BASE]}"
        )
    return merge_all([read_merged(base), upper])


def validated(merged: Merged, name: Path) -> Configuration:
    """The validated experiment of merged files, called `name` in messages; UserError if a model, anchors or data are missing.

    With `street`, the folders of the frames may be missing: the workflow makes them.
    """
    configuration = parse_configuration(merged.values, name, merged.layers)
    for run, path in imported_files(configuration).items():
        _refuse_file(f"{name}: runs.{run}.file", f"the checkpoint {path}", path, configuration.experiment)
    for run, path in anchors_files(configuration).items():
        _refuse_file(f"{name}: runs.{run}.anchors", f"the anchors file {path}", path, configuration.experiment)
    for key in ("source", "target", "evaluation", "test", "translated") if configuration.street is None else ():
        domain = configuration.frame_set(key)
        if domain is not None and not os.path.isdir(folder := configuration.domain_root(domain)):
            raise UserError(
                f"{name}: data_root, {key}.root: the folder {folder} does not exist{_or_is_hidden(folder)}; "
                "put the data set there, or give its folder with --config data_root=FOLDER"
            )
    return configuration


def _refuse_file(key: str, file: str, path: str, experiment: str) -> None:
    """Raises UserError if a file from elsewhere is missing, or is one that this experiment makes.

    The same error if Snakemake would fill in what its path has in braces.
    """
    if not os.path.isfile(path):
        raise UserError(f"{key}: {file} does not exist{_or_is_hidden(Path(path))}; put it there, or name another")
    own = os.path.realpath(f"results/{experiment}")
    if os.path.commonpath([own, os.path.realpath(path)]) == own:
        raise UserError(
            f"{key}: must be a file that this experiment does not make, found {path}, which it makes again after a change; copy it "
            "to another folder, and name the copy"
        )
    if set("{}") & set(path):
        raise UserError(f"{key}: the path must be without {{ and }}, found {path}; rename the file or its folder")


def _or_is_hidden(path: Path) -> str:
    """What else a missing file or folder may be, for messages: one in a folder that may not be read."""
    try:
        os.stat(path)
    except PermissionError:
        return ", or a folder above it may not be read"
    except OSError:
        pass
    return ""


def explain_unknown_model(targets: Iterable[str], experiment: str, models: Sequence[str], name: Path) -> None:
    """Ends the call with one line if a target is of a model that the configuration lacks; Snakemake would not say why."""
    for target in targets:
        match = re.match(rf"(\./)?{re.escape(experiment)}/seed\d+/([^/]+(?:/stage\d+)?)/", target)
        if match and match[2] not in models:
            sys.exit(
                f"caguda: {name}: runs must have the model of {printable(target)}, found {first(models)}; add it, or ask for "
                "another"
            )


def set_aside(outputs: Iterable[Path]) -> None:
    """Renames files at the paths of outputs that are not as caguda wrote them, and prints a line for each.

    Snakemake would remove them with a job's outputs before it starts the job. The new name is `NAME.aside`, or
    `FOLDER.aside.NAME` for a file in an output folder, with a number if that is taken. Hidden and partial files are left to
    be removed, and so is the group file of a store.
    """
    for output in outputs:
        files = sorted(output.rglob("*")) if output.is_dir() and not output.is_symlink() else [output]
        for path in files:
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder or not os.path.lexists(path) or path.name.startswith(".") or is_partial(path) or is_ours(path):
                continue
            if path.name == "zarr.json":
                from caguda.artifacts.stores import is_store_of_ours  # imports zarr, which planning does not need

                if is_store_of_ours(path.parent):
                    continue
            beside, suffix = (path, "") if path == output else (output, f".{path.name}")
            names = (beside.with_name(f"{beside.name}.aside{number or ''}{suffix}") for number in count())
            aside = next(name for name in names if not os.path.lexists(name))
            path.rename(aside)
            message = f"{path}: not as caguda wrote it, or without the JSON that vouches for it, kept as {aside.name}"
            print(f"caguda: {printable(message)}", file=sys.stderr)


def tell_of_earlier_layout(folder: Path, runs: Collection[str]) -> None:
    """Prints one line that names files of an earlier version in an experiment's folder, at paths that nothing reads now.

    The folders of the experiment's `runs` are left out, whatever their names.
    """
    patterns = ("seed*/pretrain", "seed*/stage*/labels.json", "seed*/*/stage*/labels.json", "*/report.html")
    if paths := sorted({path for pattern in patterns for path in folder.glob(pattern) if path.name not in runs}):
        message = (
            f"{first(paths)}: results of an earlier version, which nothing reads any more (runs are named by the YAML, reports are "
            "in reports/, pseudo-labels beside the model that made their evidence); move them away where they are not wanted"
        )
        print(f"caguda: {printable(message)}", file=sys.stderr)


def lock_of(folder: Path) -> TextIO:
    """Locks an experiment's folder until this process ends; returns the open lock file, and ends a second call.

    Snakemake's own lock, which the default profile turns off, would outlive SIGKILL and ask for `--unlock`.
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
        print(f"caguda: {folder}: its file system gives no locks ({error.strerror}); make sure that no second call works here",
              file=sys.stderr)  # fmt: skip
    return file
