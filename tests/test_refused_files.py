"""Files that would be waited for, executed or expanded without end are refused in one line before any library opens them."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from miniature import Miniature
from workflow_runs import ROOT, SMOKE, Workflow

from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.labels import open_label_store
from caguda.artifacts.state import lock
from caguda.cli import main
from caguda.configfile import load_configuration
from caguda.errors import UserError
from caguda.workflow import held


@pytest.fixture
def store(mini: Miniature, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mini.folder / "labels" / "labels.zarr", tmp_path / "labels.zarr"))


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["inspect", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "delete" not in error, error
    return error


def test_a_store_of_an_older_zarr_is_not_opened(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its codecs may be pickles, which would be executed."""
    (store / "zarr.json").unlink()
    (store / "zarr.json").mkdir()
    (store / ".zgroup").write_text('{"zarr_format": 2}')
    assert "zarr.json" in refused(store, capsys)


@pytest.mark.parametrize("codec", [{"name": "numcodecs.pickle"}, {"name": "gzip"}, "pickle"])
def test_a_store_with_other_codecs_is_not_opened(
    store: Path, codec: object, capsys: pytest.CaptureFixture[str]
) -> None:
    file = store / "active" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"codecs": [{"name": "bytes"}, codec]}))
    with pytest.raises(UserError, match="must have codecs"):
        open_label_store(store)
    refused(store, capsys)


@pytest.mark.parametrize(
    "name", ["labels/labels.zarr/active", "labels/anchors.h5", "warmup/checkpoint.safetensors", "labels"]
)
def test_what_is_no_label_store_is_said_and_nobody_is_told_to_delete_it(
    mini: Miniature, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(mini.folder / name, capsys)


def test_a_pipe_in_the_place_of_an_artifact_is_not_waited_for(mini: Miniature, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (load_configuration, load_anchors):
        with pytest.raises(UserError, match="found a pipe, socket or device"):
            read(tmp_path / "pipe")


def test_arrays_of_another_file_are_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["anchors"] = np.zeros((2, 3), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["anchors"] = h5py.ExternalLink("other.h5", "/anchors")
    with pytest.raises(UserError, match=r"no array anchors of its own"):
        load_anchors(tmp_path / "a.h5")


def test_a_configuration_that_repeats_itself_without_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"at most 100000 values"):
        load_configuration(path)
    path.write_text("[" * 5000 + "]" * 5000)
    with pytest.raises(UserError, match="nested so deep"):
        load_configuration(path)
    path.write_text("seeds: [0]\nseeds: [1]\n")
    with pytest.raises(UserError, match="this key occurs twice"):
        load_configuration(path)


def test_the_workflow_refuses_a_key_that_occurs_twice(tmp_path: Path) -> None:
    twice = tmp_path / "twice.yaml"
    twice.write_text(SMOKE.read_text() + "\nseeds: [1]\n")
    done = Workflow(tmp_path, twice).run("--dry-run")
    assert (
        done.returncode == 1
        and f"{twice}: seeds: this key occurs twice" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_where_there_are_no_locks_one_call_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", none)
    held(tmp_path / "experiment").close()
    with lock(tmp_path / "state"):
        pass
    assert capsys.readouterr().err.count("no lock is to be had here") == 2


@pytest.mark.parametrize("python", ["old", "none"])
def test_make_needs_a_python_that_is_new_enough_and_leaves_nothing(tmp_path: Path, python: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    interpreter = tmp_path / "python3.10"
    if python == "old":
        interpreter.write_text("#!/bin/sh\nexit 1\n")
        interpreter.chmod(0o755)
    done = subprocess.run(
        ["make", "demo", f"PYTHON={interpreter}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and f"found {interpreter}, which is older or does not run" in done.stderr
    assert not (tmp_path / ".venv").exists()
