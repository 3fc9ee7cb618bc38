"""Files that would be waited for, executed or expanded without end are refused in one line before any library opens them."""

import copy
import errno
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from miniature import Miniature
from workflow_runs import ROOT, SMOKE, Workflow

from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.atomic import write_json
from caguda.artifacts.maps import open_store
from caguda.artifacts.maps_metadata import MapFormat
from caguda.artifacts.state import lock
from caguda.artifacts.stores import kind_of_store
from caguda.cli import main
from caguda.configfile import load_configuration
from caguda.errors import UserError
from caguda.workflow import lock_of

STORES = ["evidence.zarr", "anchor-0.05-mean_anchor_distance/labels.zarr", "probability-0.3/labels.zarr"]


@pytest.fixture
def labels(mini: Miniature, tmp_path: Path) -> Path:
    """What `diagnose` tells of sound labels, in a folder with their stores; above it the config.json of the workflow."""
    write_json(tmp_path / "config.json", mini.configuration().model_dump(mode="json"))
    return Path(shutil.copytree(mini.folder / "labels", tmp_path / "labels")) / "labels.json"


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, labels: Path) -> Path:
    return labels.parent / str(request.param)


def form_of(store: Path) -> MapFormat:
    return kind_of_store(store)[0]


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["inspect", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "delete" not in error, error
    return error


def refused_by_all(store: Path, labels: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By what opens a store by itself, or by a JSON: the one beside it, or that of `diagnose`; and by `verify` and `provenance`."""
    with pytest.raises(UserError, match=word):
        open_store(store, form_of(store))
    for path in (store, store.with_suffix(".json"), labels):
        refused(path, capsys)
    assert main(["provenance", str(store)]) == 2 and capsys.readouterr().err.count("\n") == 1
    assert main(["verify", str(store)]) == 1 and "Traceback" not in capsys.readouterr().err


def test_sound_labels_and_evidence_are_looked_at(labels: Path) -> None:
    for path in (labels, labels.with_name("evidence.json"), labels.with_name("evidence.zarr")):
        assert main(["inspect", str(path)]) == 0


def test_a_store_of_an_older_zarr_is_not_opened(store: Path, labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its codecs may be pickles, which would be executed."""
    (store / "zarr.json").unlink()
    (store / "zarr.json").mkdir()
    (store / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(UserError, match=r"zarr\.json"):
        open_store(store, form_of(store))
    assert "zarr.json" in refused(labels, capsys)
    assert "zarr.json" in refused(store, capsys) or store.name == "labels.zarr", "which is not looked at by itself"


CODECS: dict[str, Callable[[dict[str, Any]], object]] = {
    "of the array": lambda told: told.update(codecs=[{"name": "bytes"}, {"name": "numcodecs.pickle"}]),
    "of the array, in the place of shards": lambda told: told["codecs"].append({"name": "gzip"}),
    "of the array, no mapping": lambda told: told["codecs"].append("pickle"),
    "of no list": lambda told: told.update(codecs="pickle"),
    "of the chunks in a shard": lambda told: inner(told)["codecs"].append({"name": "numcodecs.pickle"}),
    "of the chunks in a shard, no mapping": lambda told: inner(told)["codecs"].append("pickle"),
    "of the index of a shard": lambda told: inner(told)["index_codecs"].append({"name": "numcodecs.pickle"}),
    "shards in shards": lambda told: inner(told)["codecs"].insert(0, copy.deepcopy(told["codecs"][0])),
    "a shard that says nothing": lambda told: told["codecs"][0].pop("configuration"),
}


def inner(told: dict[str, Any]) -> dict[str, Any]:
    """What the sharding codec of an array says."""
    found: dict[str, Any] = told["codecs"][0]["configuration"]
    return found


@pytest.mark.parametrize("name", CODECS)
def test_a_store_with_other_codecs_is_not_opened(
    store: Path, labels: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for array in form_of(store).dtypes:
        file = store / array / "zarr.json"
        content = file.read_bytes()
        told = json.loads(content)
        CODECS[name](told)
        file.write_text(json.dumps(told))
        refused_by_all(store, labels, "must have codecs", capsys)
        file.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    ["labels/evidence.zarr/margin", "labels/anchors.h5", "warmup/checkpoint.safetensors", "labels", "labels/1.json",
     "labels/probability-0.3", "labels/probability-0.3/labels.zarr"],
)  # fmt: skip
def test_what_is_no_evidence_is_said_and_nobody_is_told_to_delete_it(
    mini: Miniature, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(mini.folder / name, capsys)


def test_a_pipe_in_the_place_of_an_artifact_is_not_waited_for(mini: Miniature, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (load_configuration, load_anchors):
        with pytest.raises(UserError, match="found a pipe, socket or device"):
            read(tmp_path / "pipe")


@pytest.mark.parametrize("verb", ["config", "plan", "verify", "provenance", "inspect"])
def test_a_link_to_itself_is_one_line(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert main([verb, str(tmp_path / "loop")]) != 0
    assert capsys.readouterr().err.count("\n") == 1


def test_the_folder_that_one_is_in_may_be_named(labels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = labels.with_name("evidence.zarr")
    for inside, name in ((store, "."), (store / "margin", "..")):
        monkeypatch.chdir(inside)
        assert main(["inspect", name]) == 0


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
    lock_of(tmp_path / "experiment").close()
    with lock(tmp_path / "state"):
        pass
    assert capsys.readouterr().err.count("its file system gives no locks") == 2


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
