"""What is installed: pinned, the same for pip and conda, once, and with every verb of the workflow."""

import importlib
import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from caguda.verbs import VERBS
from caguda.version import VERSION

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
OPTIONAL = [Requirement(line) for extra in PROJECT["optional-dependencies"].values() for line in extra]


def constraints() -> dict[str, Requirement]:
    """Every pinned distribution by its normalised name."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {normalised(pinned.name): pinned for pinned in map(Requirement, lines)}


def normalised(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned_within_what_it_allows() -> None:
    pinned = constraints()
    for requirement in REQUIRED + OPTIONAL:
        (specifier,) = (pinned.get(normalised(requirement.name), requirement)).specifier
        assert specifier.operator == "==", requirement
        assert requirement.specifier.contains(specifier.version), requirement


def test_every_distribution_that_comes_along_is_pinned() -> None:
    missing, seen, queue = set(), set(), [normalised(requirement.name) for requirement in REQUIRED]
    while queue:
        name = queue.pop()
        if name in seen or name in {"torch", "torchvision"}:
            continue
        seen.add(name)
        missing |= {name} - constraints().keys()
        needed = map(Requirement, importlib.metadata.requires(name) or [])
        queue += [normalised(r.name) for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert missing - {"setuptools"} == set()


def test_constraints_name_no_place_to_download_from() -> None:
    assert not any(pinned.url for pinned in constraints().values())


def test_conda_gets_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.removeprefix("python="))
    assert pip == {"pip": ["-c constraints.txt", "-e .[test]"]}


def test_a_step_that_conda_runs_gets_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "workflow" / "envs" / "caguda.yaml").read_text())
    python, _, pip = environment["dependencies"]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.removeprefix("python="))
    needed = {normalised(requirement.name): requirement for requirement in REQUIRED}
    given = {normalised(pinned.name): pinned.specifier for pinned in map(Requirement, pip["pip"])}
    assert given.keys() == needed.keys() - {"snakemake"}
    assert given == {name: constraints().get(name, needed[name]).specifier for name in given}


def test_the_command_runs_and_lists_every_verb() -> None:
    assert PROJECT["scripts"] == {"caguda": "caguda.cli:main"}
    done = subprocess.run(
        [sys.executable, "-m", "caguda", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(f"    {verb} " in done.stdout or f"    {verb}\n" in done.stdout for verb in VERBS)


def test_every_verb_has_a_rule_that_gives_it_all_its_options() -> None:
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    calls = re.findall(r"python -m caguda ([a-z-]+)(.*?)> \{log:q\}", rules, re.DOTALL)
    given = {verb: set(re.findall(r"--[a-z0-9-]+", options)) for verb, options in calls}
    for_a_person = {"config", "inspect", "plan", "provenance", "schema", "verify", "view"}  # two are in rules too
    assert {verb: options for verb, options in given.items() if verb not in for_a_person} == {
        name: {option.flag for option in verb.options}
        for name, verb in VERBS.items()
        if name != "convert-checkpoint"  # for a file that a person has
        and name not in for_a_person
    }


@pytest.mark.parametrize("name", VERBS)
def test_the_options_of_a_verb_are_the_arguments_of_its_function(name: str) -> None:
    module, function = VERBS[name].function.split(":")
    arguments = inspect.signature(getattr(importlib.import_module(f"caguda.{module}"), function)).parameters
    assert sorted(option.argument for option in VERBS[name].options) == sorted(arguments)


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the Makefile and what it depends on, and a Python that only writes down what it is asked for."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$@" >> calls\nmkdir -p .venv/bin && cp "$0" .venv/bin/python\ntest ! -e broken\n'
    )
    python.chmod(0o755)
    return tmp_path


def make(project: Path, target: str) -> tuple[int, list[str]]:
    """The exit code of a call of make, and what Python was asked for meanwhile."""
    (project / "calls").write_text("")
    done = subprocess.run(["make", target, "PYTHON=./python"], cwd=project, capture_output=True, check=False)
    calls = (project / "calls").read_text().splitlines()
    return done.returncode, [call for call in calls if not call.startswith("-c ")]  # whether it is new enough


def test_make_installs_once_and_again_after_a_change(project: Path) -> None:
    code, first = make(project, "test")
    assert code == 0 and [call.split()[1] for call in first] == ["venv", "pip", "pytest"]
    code, second = make(project, "test")
    assert code == 0 and [call.split()[1] for call in second] == ["pytest"]
    (project / "constraints.txt").write_text("# other versions\n")
    code, third = make(project, "test")
    assert code == 0 and [call.split()[1] for call in third] == ["venv", "pip", "pytest"]


def test_an_interrupted_installation_is_taken_up_again(project: Path) -> None:
    (project / "broken").touch()
    code, _ = make(project, "test")
    assert code != 0
    (project / "broken").unlink()
    code, calls = make(project, "test")
    assert code == 0 and [call.split()[1] for call in calls] == ["venv", "pip", "pytest"]


def test_a_machine_without_a_fitting_python_is_told_so(project: Path) -> None:
    done = subprocess.run(["make", "demo", "PYTHON="], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
