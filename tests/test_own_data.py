"""The example of docs/own_data.md, taken from the page and run as a reader would."""

import json
import shlex
import subprocess
import sys

import pytest
from documentation import block
from workflow_runs import Workflow, environment

from caguda.configfile import load_configuration
from caguda.runs import rules_of

NAMES = ["sky", "building", "road", "tree", "car"]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The example's frames and YAML in a folder of its own, after both of its commands."""
    folder = tmp_path_factory.mktemp("own data")
    (folder / "make_data.py").write_text(block("own_data.md", "python"), encoding="utf-8")
    (folder / "own.yaml").write_text(block("own_data.md", "yaml"), encoding="utf-8")
    subprocess.run([sys.executable, "make_data.py"], cwd=folder, check=True)
    workflow = Workflow(folder, folder / "own.yaml")
    for line in block("own_data.md", "sh").splitlines():
        command = shlex.split(line)
        assert command[0] == "snakemake"
        done = subprocess.run(
            [sys.executable, "-m", *command, "--snakefile", str(workflow.snakefile)], cwd=folder, check=False,
            env=environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert (folder / command[1]).exists()
    return workflow


@pytest.mark.slow
def test_the_example_has_five_categories_and_the_frames_it_says(example: Workflow) -> None:
    configuration = load_configuration(example.configfile)
    assert not isinstance(configuration.classes, str)
    assert [entry.name for entry in configuration.classes] == NAMES
    manifest = json.loads((example.directory / "results/own/manifest.json").read_text(encoding="utf-8"))
    assert [len(manifest[name]["frames"]) for name in ("source", "target", "evaluation")] == [24, 16, 8]
    assert manifest["classes"] == NAMES and manifest["warnings"] == []
    shares = manifest["source"]["pixels"]
    assert all(shares[name] > 0 for name in NAMES) and manifest["source"]["void_pixels"] == 0


@pytest.mark.slow
def test_the_example_reaches_stage_1(example: Workflow) -> None:
    stage = example.directory / "results/own/seed0/cag/stage1"
    scores = json.loads((stage / "evaluation.json").read_text(encoding="utf-8"))["as_trained"]
    assert len(scores["iou"]) == len(NAMES)
    assert scores["miou"] > 0.4
    warm_up = stage.parents[1] / "warm-up"
    rules = rules_of(load_configuration(example.configfile), "cag/stage1").values()
    files = [warm_up / "evidence/evidence.json", *(warm_up / "labels" / rule.folder / "labels.json" for rule in rules)]
    assert [json.loads(file.read_text(encoding="utf-8"))["images"] for file in files] == [16] * 3


@pytest.mark.slow
def test_a_second_check_in_the_workflow_opens_nothing(example: Workflow) -> None:
    manifest = example.directory / "results/own/manifest.json"
    log = example.directory / "results/own/log/check.txt"
    before = json.loads(manifest.read_text(encoding="utf-8"))
    assert "are as an earlier check found them" not in log.read_text(encoding="utf-8")
    done = example.run("results/own/manifest.json", "--forcerun", "check")
    assert done.returncode == 0, done.stdout + done.stderr
    for name, count in (("source", 24), ("target", 16), ("evaluation", 8)):
        assert f"{name}: {count} of {count} frames are as an earlier check found them" in log.read_text(
            encoding="utf-8"
        )
        assert json.loads(manifest.read_text(encoding="utf-8"))[name] == before[name]
