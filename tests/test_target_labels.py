"""No training opens a label of the target: without these files every step gives the same bytes, and all else is made."""

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from miniature import Miniature, label_files, make_miniature
from workflow_runs import SMOKE, Job, Workflow

from caguda.artifacts.atomic import read_json
from caguda.datasets.frame import Frame, require_labels
from caguda.errors import UserError
from caguda.merging import merge
from caguda.stages.diagnose import diagnose
from caguda.stages.train import train_model


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    """The experiment in miniature whose target has, after the check, a folder in the place of every label."""
    made = make_miniature(tmp_path_factory.mktemp("blind"))
    labels = sorted((made.root / "target" / "gtFine").rglob("*.png"))
    assert len(labels) == 17  # of the target and of the evaluation set, which is the target's too
    for label in labels:
        label.unlink()
        label.mkdir()
    settings = made.configuration()
    source_only = made.train("pretrain", "pretrain", settings)
    warm = made.train("warmup", "warmup", settings, start=source_only)
    evidence = made.evidence("labels", settings, warm)
    given = {"start": warm, "anchors": evidence.with_name("anchors.h5"), "labels": made.labels(settings, evidence)}
    made.train("stage", "cag/stage1", settings, **given)
    return made


@pytest.mark.parametrize("name", ["pretrain", "warmup", "stage"])
def test_networks_are_the_same_without_target_labels(mini: Miniature, blind: Miniature, name: str) -> None:
    assert blind.weights(name).read_bytes() == mini.weights(name).read_bytes()


def test_anchors_are_the_same_without_target_labels(mini: Miniature, blind: Miniature) -> None:
    with (
        h5py.File(mini.folder / "labels" / "anchors.h5") as expected,
        h5py.File(blind.folder / "labels" / "anchors.h5") as found,
    ):
        assert set(found) == set(expected) and len(expected) > 2
        assert all(np.array_equal(found[name][()], expected[name][()], equal_nan=True) for name in expected)


def test_evidence_and_pseudo_labels_are_the_same_without_target_labels(mini: Miniature, blind: Miniature) -> None:
    folder = mini.folder / "labels"
    files = [folder / "evidence.json", *label_files(folder / "labels.json")]
    assert len(files) == 3
    for file in files:
        assert read_json(blind.folder / file.relative_to(mini.folder))["digest"] == read_json(file)["digest"]


def test_a_verb_that_opens_target_labels_would_fail(mini: Miniature, blind: Miniature, tmp_path: Path) -> None:
    opened = r"gtFine_labelIds\.png: this file cannot be read \(Is a directory\)"
    with pytest.raises(UserError, match=opened):
        train_model(
            blind.configuration(), 0, "oracle", [blind.manifest], tmp_path / "c.safetensors", tmp_path / "state"
        )
    folder = mini.folder / "labels"
    labels = [blind.folder / file.relative_to(mini.folder) for file in label_files(folder / "labels.json")]
    with pytest.raises(UserError, match=opened):
        evidence = blind.folder / "labels" / "evidence.json"
        diagnose(blind.configuration(), blind.manifest, evidence, labels, tmp_path / "labels.json")


def test_many_frames_without_labels_are_told_in_one_line() -> None:
    frames = [Frame(str(number), Path(f"{number}.png"), None) for number in range(500)]
    frames.append(Frame("500", Path("500.png"), Path("500.png")))
    with pytest.raises(UserError, match=r"^0\.png, 1\.png, 2\.png and 497 more: .*, found 500 of 501 without; [^\n]*$"):
        require_labels(frames)


# The workflow without them


def without(directory: Path, target: dict[str, Any], **keys: Any) -> Workflow:
    """The miniature workflow with other keys of the target and of the experiment."""
    content = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    content["target"] |= target
    path = directory / "other.yaml"
    path.write_text(yaml.safe_dump(merge(content, keys)), encoding="utf-8")
    return Workflow(directory, path)


def trained(jobs: list[Job]) -> set[str]:
    """The models that a plan trains."""
    return {Path(job.output[0]).parent.relative_to("seed0").as_posix() for job in jobs if job.rule == "train"}


MODELS = {"pretrain", "warmup", "control", "cag/stage1", "cag/stage2"}
"""All but the oracle."""


def test_the_plan_of_an_unlabelled_target_has_no_oracle(tmp_path: Path) -> None:
    tables = {"table4": ["pretrain", "warmup", "cag", "oracle"], "sweep": ["cag/stage1", "oracle"]}
    workflow = without(tmp_path, {"labels": None}, tables=tables)
    for targets, expected in (
        ((), MODELS),
        (("runs",), MODELS),
        (("table4", "sweep", "figure2", "submission"), MODELS),
    ):
        jobs = workflow.plan(*targets)
        assert not [job for job in jobs if "oracle" in " ".join((*job.input, *job.output))]
        assert trained(jobs) == expected
        assert {job.rule for job in jobs} >= {"check", "labels", "diagnose"}
    assert "seed0/control/evaluation.json" in workflow.planned()
    assert "reports/cag/report.html" in workflow.planned()
    target = "results/smoke/seed0/oracle/checkpoint.safetensors"
    done = workflow.run("--dry-run", target)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in said
    assert f"other.yaml: runs must have the model of {target}, found cag/stage1, cag/stage2, control and 2 more" in said


@pytest.mark.parametrize(
    "bounds", [[], *(pytest.param([bound], marks=pytest.mark.slow) for bound in ("control", "oracle"))]
)
def test_the_plan_has_the_bounds_that_are_wanted(tmp_path: Path, bounds: list[str]) -> None:
    """What is left out of the YAML is made by no target; what no report lists only where it is asked for."""
    left_out = {bound: None for bound in ("control", "oracle") if bound not in bounds}
    jobs = without(tmp_path, {}, runs=left_out).plan()
    assert trained(jobs) & {"control", "oracle"} == set(bounds)
    assert any(job.rule == "diagnose" for job in jobs)
    listed = without(tmp_path, {}, reports={"cag": ["pretrain", "warmup", "cag", *bounds]})
    assert trained(listed.plan()) & {"control", "oracle"} == set(bounds)
    assert trained(listed.plan("runs")) == MODELS | {"oracle"}
    asked = listed.plan("results/smoke/seed0/oracle/checkpoint.safetensors")
    assert trained(asked) == {"oracle"}


@pytest.mark.slow
def test_one_command_makes_everything_else_and_says_what_is_left_out(tmp_path: Path) -> None:
    short = {"cag": {"stages": 1, "iterations": 5}}
    tables = {"tables": {"table1": ["pretrain", "warmup", "cag"], "table2": ["cag"]}}
    workflow = without(tmp_path, {"labels": None}, runs=short, compute={"parts": 1}, **tables)
    done = workflow.run()
    assert done.returncode == 0, done.stdout + done.stderr
    told = "oracle and the accuracy of pseudo-labels (the target has no labels)"
    assert f"caguda: left out: {told}" in done.stderr
    rows = list(csv.DictReader((workflow.results / "reports/cag/table.csv").open(encoding="utf-8")))
    assert {row["row"] for row in rows} == {"pretrain", "AdaBN", "warmup", "control", "stage 1"}
    table = (workflow.results / "reports/cag/table.md").read_text(encoding="utf-8")
    assert f"Left out: {told}." in " ".join(table.split()) and "target labels and is a reference" not in " ".join(
        table.split()
    )
    report = (workflow.results / "reports/cag/report.html").read_text(encoding="utf-8")
    assert f"Left out: {told}." in report and "Distance to" not in report
    assert all((workflow.results / f"reports/cag/{name}.png").stat().st_size for name in ("figure", "curves"))
    (diagnosed,) = workflow.results.rglob("anchor-*+probability-*.json")
    told_of_labels = read_json(diagnosed)
    assert (told_of_labels["accuracy"], told_of_labels["images_with_truth"], told_of_labels["images"]) == (None, 0, 24)
    assert 0 < told_of_labels["share"]["either"] <= 1
    assert not list(workflow.results.rglob("oracle"))
    assert workflow.planned() == set()


@pytest.mark.slow
def test_labels_that_are_not_there_end_the_call_at_the_check(tmp_path: Path) -> None:
    workflow = without(tmp_path, {})
    done = workflow.run("results/smoke/generated.json")
    assert done.returncode == 0, done.stdout + done.stderr
    for label in (tmp_path / "results/smoke/data/target/gtFine/train").rglob("*.png"):
        label.unlink()
    workflow = without(tmp_path, {}, street=None)  # generated frames would be made again
    assert workflow.run().returncode != 0
    (told,) = [
        line for line in (workflow.results / "log/check.txt").read_text().splitlines() if "caguda: error" in line
    ]
    assert "none of the 24 frames has a label" in told and "set target.labels: null" in told
    assert not (workflow.results / "seed0").exists() or not list((workflow.results / "seed0").rglob("*.safetensors"))
