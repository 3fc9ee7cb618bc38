"""Every test checks the types and shapes of the method at run time, and draws the same examples in every run."""

import fcntl
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from caguda.datasets.workers import fork_server

if TYPE_CHECKING:
    from miniature import Miniature
    from workflow_runs import Workflow

install_import_hook("caguda.equations", "beartype.beartype")

settings.register_profile("caguda", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("caguda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the finished workflow come first: they are the longest, and one process makes it while others test."""
    items.sort(key=lambda item: "finished" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> None:
    """The process that the verbs' workers are forked from knows all modules: a verb that is called first needs few of them."""
    fork_server(
        [
            "caguda.datasets.check",
            "caguda.datasets.io",
            "caguda.stages.pack",
            "caguda.stages.training",
            "caguda.stages.evidence",
            "caguda.street.frames",
        ]
    )


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> "Miniature":
    """The experiment in miniature up to stage 1, which tests leave as it is."""
    from miniature import make_miniature  # after the hook

    made = make_miniature(tmp_path_factory.mktemp("miniature"))
    made.chain()
    return made


@pytest.fixture
def elsewhere(mini: "Miniature", tmp_path: Path) -> "Miniature":
    """The same frames and manifest, and a folder without other artifacts."""
    shutil.copy(mini.manifest, tmp_path / "manifest.json")
    return replace(mini, folder=tmp_path)


@pytest.fixture
def own(mini: "Miniature", tmp_path: Path) -> "Miniature":
    """A copy of the miniature's results and frames, to be spoilt."""
    from miniature import edit_sealed

    shutil.copytree(mini.folder, tmp_path / "results")
    shutil.copytree(mini.root, tmp_path / "data")
    copy = replace(mini, root=tmp_path / "data", folder=tmp_path / "results")
    edit_sealed(copy.manifest, lambda text: text.replace(str(mini.root), str(copy.root)))
    return copy


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "Workflow":
    """The miniature workflow (smoke.yaml), run once for all processes that run tests; no test changes it."""
    from workflow_runs import Workflow

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            done = Workflow(folder).run()
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "whole").touch()
    return Workflow(folder)
