"""Two runs of the miniature experiment side by side: what must be the same on disk, whatever happened on the way."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from workflow_runs import SMOKE, Workflow

from caguda.artifacts.maps import open_store
from caguda.artifacts.stores import kind_of_store
from caguda.artifacts.vouched import verify_store
from caguda.files import SEAL

VOLATILE = {"provenance", "seconds", "attempts", "root", "metadata_sha256", SEAL}


def experiment(folder: Path, processes: int = 1) -> Workflow:
    """The miniature of the tests in a folder, with one stage, a packed cache and workers that load frames.

    Several processes that share a training on CPUs cannot train statistics of batch normalisation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load(SMOKE.read_text())
    values["runs"]["cag"]["stages"] = 1
    values |= {"cache": True, "tables": {}, "compute": {"save_every": 5, "workers": 1, "processes": processes}}
    if processes > 1:
        values["training"]["batch_norm"] = "frozen"
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(values))
    return Workflow(folder, path)


def content(path: Path) -> Any:
    """What of an artifact is the same in every run: all but names of folders and what times and attempts there were."""
    if path.suffix == ".json":
        return _lasting(json.loads(path.read_text()))
    if path.suffix == ".h5":
        found: dict[str, bytes] = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.update({name: np.asarray(item).tobytes()} if _is_array(item) else {})
            )
        return found
    if path.suffix == ".zarr":
        form, faults_of = kind_of_store(path)
        return verify_store(open_store(path, form), faults_of)["digest"]
    if path.suffix == ".journal":
        return _finished(path)
    return path.read_bytes()


def _finished(journal: Path) -> set[str]:
    """The lines of a journal that are whole: a killed writer may leave a torn one, or have its work told twice."""
    return {line for line in journal.read_text(errors="replace").splitlines() if _is_json(line)}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_array(item: Any) -> bool:
    return isinstance(item, h5py.Dataset)


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if key not in VOLATILE}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def artifacts(workflow: Workflow) -> Iterator[Path]:
    """Every artifact, relative to the experiment's folder; a store is one. Report and manifest name folders."""
    for path in sorted(workflow.results.rglob("*")):
        relative = path.relative_to(workflow.results)
        if {"log", "benchmark", "state", "check"} & set(relative.parts) or ".zarr" in str(relative.parent):
            continue
        if (path.is_file() or path.suffix == ".zarr") and relative.name not in ("lock", "report.html"):
            yield relative


def differences(reference: Workflow, other: Workflow) -> list[str]:
    """The artifacts that one of the two lacks or that differ between them; none after a run that nothing harmed."""
    names = sorted({*artifacts(reference), *artifacts(other)})
    wrong = [
        str(name) for name in names if not (other.results / name).exists() or not (reference.results / name).exists()
    ]
    both = [name for name in names if str(name) not in wrong]
    return wrong + [str(name) for name in both if content(reference.results / name) != content(other.results / name)]
