"""The paper's tables as targets: what they plan on the paper's configurations, and a pass through all in miniature."""

import csv
from collections import Counter
from pathlib import Path

import pytest
import yaml
from workflow_runs import ROOT, Workflow

from caguda.configfile import read_merged

PAPER = ROOT / "config" / "gta5_cityscapes_paper.yaml"
SYNTHIA = ROOT / "config" / "synthia_cityscapes_paper.yaml"


def paper(directory: Path, configfile: Path, **changes: object) -> Workflow:
    """A configuration of the paper over empty folders where its data sets would be: a plan opens no frame."""
    content = {**read_merged(configfile).values, **changes, "data_root": str(directory / "data")}
    for name in ("source", "target", "evaluation"):
        (directory / "data" / content[name]["root"]).mkdir(parents=True, exist_ok=True)
    path = directory / "paper.yaml"
    path.write_text(yaml.safe_dump(content))
    return Workflow(directory, path)


def test_the_plan_of_all_tables_has_every_shared_artifact_once(tmp_path: Path) -> None:
    jobs = paper(tmp_path, PAPER, seeds=[0, 1]).plan("table1", "table2", "table3", "table4")
    outputs = [output for job in jobs for output in job.output]
    assert len(outputs) == len(set(outputs))
    stages, ablations, seeds = 4, 8, 2
    assert Counter(
        job.rule for job in jobs if job.rule in {"pretrain", "warmup", "adapt", "evaluate", "paper_table"}
    ) == {
        "pretrain": seeds,
        "warmup": seeds,
        "adapt": seeds * (stages + ablations),
        "evaluate": seeds * (2 + stages + ablations),
        "paper_table": 4,
    }
    models = seeds * (stages + 1)
    rules = Counter(job.rule for job in jobs)
    assert rules["evidence"] == models, "beside the model before each stage, and beside that without warm-up"
    assert rules["labels"] == 2 * models and rules["diagnose"] == models
    shared = [job for job in jobs if job.rule == "adapt" and any("seed0/warmup/labels/" in i for i in job.input)]
    assert len(shared) == 1 + ablations - 1
    (without,) = [job for job in jobs if job.rule == "adapt" and "seed0/ablation-no-warm-up" in job.output[0]]
    assert any("seed0/pretrain/checkpoint" in name for name in without.input)
    for rule in ("anchor-2.5-absolute", "probability-0.95"):
        assert any(f"seed0/pretrain/labels/{rule}/labels.json" in name for name in without.input)


def test_the_plan_of_a_sweep_makes_labels_for_every_threshold_from_one_set_of_evidence(tmp_path: Path) -> None:
    workflow = paper(tmp_path, PAPER, seeds=[0, 1])
    jobs = workflow.plan("sweep", "figure2")
    rules = Counter(job.rule for job in jobs)
    assert rules["evidence_store"] == rules["evidence"] == rules["anchors"] == 2 * 3
    assert rules["labels"] == 2 * (5 + 6 + 2 * 2), (
        "5 margins and 6 P0 of the warm-up, and 2 rules of each model after it"
    )
    assert rules["diagnose"] == 2 * (9 + 3) and rules["adapt"] == 2 * (9 + 3)
    (labels,) = [job for job in jobs if job.rule == "labels" and "seed1/warmup/labels/anchor-1.25-" in job.output[0]]
    given = [name.partition("/seed1/")[2] for name in labels.input]
    assert given == ["warmup/evidence/evidence.json", "warmup/evidence/evidence.zarr/zarr.json"]
    (command,) = [
        line for line in workflow.run("--dry-run", labels.output[0]).stdout.splitlines() if "caguda labels" in line
    ]
    assert "--rule anchor-1.25-absolute" in command
    (stage,) = [job for job in jobs if job.rule == "adapt" and "seed1/sweep-margin-1.25/" in job.output[0]]
    own = ["checkpoint.safetensors", "evidence/anchors.h5", "labels/anchor-1.25-absolute/labels.json",
           "labels/probability-0.95/labels.json"]  # fmt: skip
    assert [name.partition("/seed1/warmup/")[2] for name in stage.input if "/seed1/" in name] == own
    assert rules["sweep_table"] == rules["label_charts"] == rules["label_frames"] == 1


def test_table_1_takes_the_chain_of_the_recipe_and_nothing_else(tmp_path: Path) -> None:
    jobs = paper(tmp_path, PAPER).plan("table1")
    assert Counter(job.rule for job in jobs if job.rule in {"adapt", "control", "oracle", "figure"}) == {"adapt": 3}


def test_a_table_of_19_categories_is_refused_for_an_experiment_with_16(tmp_path: Path) -> None:
    workflow = paper(tmp_path, SYNTHIA)
    assert any(job.rule == "paper_table" for job in workflow.plan("table3"))
    done = workflow.run("--dry-run", "table1")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in said
    assert "paper.yaml: classes must be cityscapes19 for table1" in said


@pytest.mark.slow
def test_a_pass_through_every_table(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path)
    targets = ("table1", "table2", "table3", "table4", "sweep", "figure2")
    done = workflow.run(*targets)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {}
    for number in (1, 2, 3, 4):
        path = workflow.results / "tables" / f"table{number}.csv"
        rows[number] = [row["row"] for row in csv.DictReader(path.open(encoding="utf-8"))]
        assert all(path.with_suffix(suffix).stat().st_size for suffix in (".md", ".tex", ".html"))
    assert rows[1] == rows[3] == ["source only", "warm-up", "stage 2"]
    assert len(rows[2]) == 2 and rows[2][1].startswith("seed 0: 8 frames, SHA-256 ")
    assert rows[4][:3] == ["source only", "warm-up", "+ CE(tP)"] and len(rows[4]) == 13
    swept = list(csv.DictReader((workflow.results / "tables" / "sweep.csv").open(encoding="utf-8")))
    assert len(swept) == 1 + 9 - 1 and float(swept[0]["anchor labels, coverage"]) > 99
    pictures = {path.name for path in (workflow.results / "cag" / "labels").rglob("*.png")}
    assert "precision_coverage.png" in pictures and len(pictures) == 5 + 4
    models = {
        path.parents[1].relative_to(workflow.results / "seed0").as_posix()
        for path in workflow.results.rglob("evidence.json")
    }
    assert models == {"pretrain", "warmup", "cag/stage1", "cag/stage2"}
    assert len(list((workflow.results / "seed0/warmup/labels").glob("*/labels.json"))) == 5 + 5
    assert workflow.planned(*targets) == set()
