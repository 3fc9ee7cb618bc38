"""The paper's tables as targets: what they plan on the paper's configurations, and a pass through all in miniature."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_runs import ROOT, SMOKE, Workflow

from caguda.configfile import read_merged
from caguda.merging import merge
from caguda.registry import registered_in_package

CONFIG = ROOT / "config"
PAPER, SYNTHIA = (CONFIG / f"{name}_cityscapes_paper.yaml" for name in ("gta5", "synthia"))
ABLATIONS, SWEEP = CONFIG / "ablations.yaml", CONFIG / "sweep.yaml"
ROWS = {"tables": {"table3": ["source_only", "warm-up", "cag"]}}


def merged(values: Mapping[str, Any], *added: Path, **changes: object) -> dict[str, Any]:
    """What an experiment says with some files above it, as after --configfile, and some keys."""
    for upper in (*(read_merged(file).values for file in added), changes):
        values = merge(values, upper)
    return dict(values)


def paper(directory: Path, configfile: Path, *added: Path, **changes: object) -> Workflow:
    """A configuration of the paper over empty folders where its data sets would be: a plan opens no frame."""
    content = merged(read_merged(configfile).values, *added, data_root=str(directory / "data"), **changes)
    for name in ("source", "target", "evaluation"):
        (directory / "data" / content[name]["root"]).mkdir(parents=True, exist_ok=True)
    path = directory / "paper.yaml"
    path.write_text(yaml.safe_dump(content))
    return Workflow(directory, path)


def test_the_plan_of_all_tables_has_every_shared_artifact_once(tmp_path: Path) -> None:
    workflow = paper(tmp_path, PAPER, ABLATIONS, seeds=[0, 1], **ROWS)
    jobs = workflow.plan("table1", "table2", "table3", "table4")
    outputs = [output for job in jobs for output in job.output]
    assert len(outputs) == len(set(outputs))
    stages, ablations, seeds = 4, 8, 2
    assert Counter(job.rule for job in jobs if job.rule in {"train", "evaluate", "paper_table", "submission_zip"}) == {
        "train": seeds * (2 + stages + ablations),
        "evaluate": seeds * (2 + stages + ablations),
        "paper_table": 4,
        "submission_zip": seeds,
    }
    trained = [job.output[0].partition("/seed0/")[2] for job in jobs if job.rule == "train"]
    assert not {f"{run}/checkpoint.safetensors" for run in ("control", "oracle")}.intersection(trained)
    models = seeds * (stages + 1)
    rules = Counter(job.rule for job in jobs)
    assert rules["evidence"] == models, "beside the model before each stage, and beside that without warm-up"
    assert rules["labels"] == 2 * models and rules["diagnose"] == models
    trainings = [job for job in jobs if job.rule == "train"]
    shared = [job for job in trainings if any("seed0/warm-up/labels/" in name for name in job.input)]
    assert len(shared) == 1 + ablations - 2, "not without a warm-up, and not with labels of every iteration"
    (renewed,) = [job for job in trainings if "seed0/every-iteration/" in job.output[0]]
    given = [name.partition("/seed0/")[2] for name in renewed.input if "/seed0/" in name]
    assert given == ["warm-up/checkpoint.safetensors", "warm-up/evidence/anchors.h5"]
    (without,) = [job for job in trainings if "seed0/no-warm-up/" in job.output[0]]
    assert any("seed0/source_only/checkpoint" in name for name in without.input)
    for rule in ("anchor-2.5-absolute", "probability-0.95"):
        assert any(f"seed0/source_only/labels/{rule}/labels.json" in name for name in without.input)


def test_the_plan_of_a_sweep_makes_labels_for_every_threshold_from_one_set_of_evidence(tmp_path: Path) -> None:
    workflow = paper(tmp_path, PAPER, CONFIG / "sweep_paper.yaml", seeds=[0, 1])
    jobs = workflow.plan("sweep", "figure2")
    rules = Counter(job.rule for job in jobs)
    assert rules["evidence_store"] == rules["evidence"] == rules["anchors"] == 2 * 3
    assert rules["labels"] == 2 * (5 + 6 + 2 * 2), (
        "5 margins and 6 P0 of the warm-up, and 2 rules of each model after it"
    )
    assert rules["diagnose"] == 2 * (9 + 3) and rules["train"] == 2 * (9 + 3 + 4)
    (labels,) = [job for job in jobs if job.rule == "labels" and "seed1/warm-up/labels/anchor-1.25-" in job.output[0]]
    given = [name.partition("/seed1/")[2] for name in labels.input]
    assert given == ["warm-up/evidence/evidence.json", "warm-up/evidence/evidence.zarr/zarr.json"]
    (command,) = [
        line for line in workflow.run("--dry-run", labels.output[0]).stdout.splitlines() if "caguda labels" in line
    ]
    assert "--rule anchor-1.25-absolute" in command
    (stage,) = [job for job in jobs if job.rule == "train" and "seed1/margin-half/" in job.output[0]]
    own = ["checkpoint.safetensors", "evidence/anchors.h5", "labels/anchor-1.25-absolute/labels.json",
           "labels/probability-0.95/labels.json"]  # fmt: skip
    assert [name.partition("/seed1/warm-up/")[2] for name in stage.input if "/seed1/" in name] == own
    assert rules["sweep_table"] == rules["label_charts"] == rules["label_frames"] == 1


def test_table_1_takes_what_its_rows_come_from_and_nothing_else(tmp_path: Path) -> None:
    jobs = paper(tmp_path, PAPER).plan("table1")
    trained = [job.output[0].partition("/seed0/")[2] for job in jobs if job.rule in {"train", "figure"}]
    models = ("source_only", "warm-up", *(f"cag/stage{k}" for k in (1, 2, 3)))
    assert sorted(trained) == sorted(f"{model}/checkpoint.safetensors" for model in models)


@pytest.mark.parametrize(("table", "added"), [("table4", "ablations"), ("sweep", "sweep"), ("table3", "")])
def test_a_table_that_is_not_listed_is_asked_for_in_one_line(tmp_path: Path, table: str, added: str) -> None:
    done = paper(tmp_path, PAPER).run("--dry-run", table)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in said
    hint = f"config/{added}.yaml" if added else "a YAML that does"
    assert (
        f"caguda: tables.{table}: the runs of this table must be listed, found no such key; list them, or add {hint}"
        in said
    )


def test_a_table_of_19_categories_is_refused_for_an_experiment_with_16(tmp_path: Path) -> None:
    workflow = paper(tmp_path, SYNTHIA)
    assert any(job.rule == "paper_table" for job in workflow.plan("table3"))
    done = workflow.run("--dry-run", "table1")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in said
    assert "paper.yaml: classes must be cityscapes19 for table1" in said


METHODS = {"street": "table1", "gta5_cityscapes": "table1", "synthia_cityscapes": "table3"}
"""The YAMLs of the compared systems, with a table of the paper of each."""


@pytest.mark.parametrize("name", METHODS)
def test_the_compared_systems_are_planned_once_each_from_one_start(tmp_path: Path, name: str) -> None:
    path = CONFIG / f"{name}_methods.yaml"
    workflow = paper(tmp_path, path, seeds=[0, 1])
    jobs = workflow.plan("methods", METHODS[name])
    runs = read_merged(path).values["runs"]
    compared = {*registered_in_package("method")} - {
        "supervised",
        "adversarial",
        "cag",
        "cag_every_iteration",
        "self_training",
    }
    assert {run.get("method") for run in runs.values()} >= compared, "a YAML of compared systems has each method"
    trained = Counter(job.output[0].partition("/seed0/")[2] for job in jobs if job.rule == "train")
    assert all(count == 1 for model, count in trained.items() if model)
    rules = Counter(job.rule for job in jobs)
    assert rules["methods_page"] == rules["methods_figure"] == rules["paper_table"] == 1
    assert rules["train"] == rules["evaluate"] and rules["train"] % 2 == 0
    stores = [job.output[0].partition("/seed0/")[2] for job in jobs if job.rule == "evidence"]
    assert stores.count("warm-up/evidence/evidence.json") == 1, "cag, cbst and bdl share the evidence of the warm-up"


def smoke(directory: Path) -> Workflow:
    """The miniature with the runs of all tables, its first runs called as those of the paper's configurations."""
    own = yaml.safe_load(
        SMOKE.read_text(encoding="utf-8").replace("pretrain", "source_only").replace("warmup", "warm-up")
    )
    configured = {"p0-50": None}  # P0 is 0.5
    path = directory / "smoke.yaml"
    path.write_text(yaml.safe_dump(merged(own, ABLATIONS, SWEEP, runs=configured, **ROWS), sort_keys=False))
    return Workflow(directory, path)


@pytest.mark.slow
def test_a_pass_through_every_table(tmp_path: Path) -> None:
    workflow = smoke(tmp_path)
    targets = ("table1", "table2", "table3", "table4", "sweep", "figure2")
    done = workflow.run(*targets)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {}
    for number in (1, 2, 3, 4):
        path = workflow.results / "tables" / f"table{number}.csv"
        rows[number] = [row["row"] for row in csv.DictReader(path.open(encoding="utf-8"))]
        assert all(path.with_suffix(suffix).stat().st_size for suffix in (".md", ".tex", ".html"))
    assert rows[1] == ["source only", "warm-up", "stage 2"]
    assert rows[3] == ["source only", "warm-up", "stage 1", "stage 2"], "a run stands for all its stages"
    assert len(rows[2]) == 2 and rows[2][1].startswith("seed 0: 8 frames, SHA-256 ")
    assert rows[4][:3] == ["source only", "warm-up", "'+ CE(tP)"] and len(rows[4]) == 13
    swept = list(csv.DictReader((workflow.results / "tables" / "sweep.csv").open(encoding="utf-8")))
    assert len(swept) == 1 + 9 - 1 and float(swept[0]["anchor labels, coverage"]) > 99
    pictures = {path.name for path in (workflow.results / "reports" / "cag" / "labels").rglob("*.png")}
    assert "precision_coverage.png" in pictures and len(pictures) == 5 + 4
    models = {
        path.parents[1].relative_to(workflow.results / "seed0").as_posix()
        for path in workflow.results.rglob("evidence.json")
    }
    assert models == {"source_only", "warm-up", "cag/stage1", "cag/stage2"}
    assert len(list((workflow.results / "seed0/warm-up/labels").glob("*/labels.json"))) == 5 + 5
    assert workflow.planned(*targets) == set()
