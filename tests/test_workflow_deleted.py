"""What is deleted comes back with all that depends on it, and nothing else does."""

from pathlib import Path

import pytest
from test_workflow import (
    ANCHOR,
    CONTROL,
    DATA,
    EVERYTHING,
    ORACLE,
    PRETRAIN,
    PROBABILITY,
    REPORT,
    TABLE,
    evidence,
    given,
    labels,
    parts,
    stage,
    told,
    training,
)
from workflow_runs import Workflow

AFTER_LABELS = training(2) | REPORT
AFTER_EVIDENCE = labels(2) | AFTER_LABELS
AFTER_ANCHORS = evidence(2) | AFTER_EVIDENCE
ANCHORS, STORE = f"{given(2)}/evidence/anchors.h5", f"{given(2)}/evidence/evidence.json"
ANCHOR_PART, STORE_PART = (
    f"{given(2)}/evidence/parts/{name}" for name in ("anchors.1-of-2.h5", "evidence.2-of-2.json")
)
LABELS_1, LABELS_2 = f"{given(1)}/labels/{PROBABILITY}", f"{given(2)}/labels/{ANCHOR}"
DELETED = {
    "seed0/pretrain/checkpoint.json": EVERYTHING - DATA - ORACLE,
    "seed0/warmup/checkpoint.safetensors": EVERYTHING - DATA - ORACLE - PRETRAIN,
    ANCHORS: {ANCHORS} | AFTER_ANCHORS,
    ANCHOR_PART: {ANCHOR_PART, ANCHORS} | AFTER_ANCHORS,
    f"{given(2)}/evidence/parts": stage(2) | REPORT,
    f"{given(2)}/evidence": stage(2) | REPORT,
    STORE_PART: {STORE_PART, STORE} | AFTER_EVIDENCE,
    f"{given(2)}/evidence/evidence.created.json": AFTER_ANCHORS,
    f"{given(2)}/evidence/evidence.zarr": AFTER_ANCHORS,
    STORE: {STORE} | AFTER_EVIDENCE,
    f"{LABELS_1}/labels.zarr": labels(1, PROBABILITY) | training(1) | stage(2) | REPORT,
    f"{LABELS_2}/labels.zarr": labels(2, ANCHOR) | AFTER_LABELS,
    f"{LABELS_2}/labels.json": labels(2, ANCHOR) | AFTER_LABELS,
    f"{given(2)}/labels": AFTER_EVIDENCE,
    told(2): {told(2), "reports/cag/report.html"},
    "seed0/cag/stage2/checkpoint.json": training(2) | REPORT,
    "seed0/control/checkpoint.safetensors": CONTROL | TABLE,
    "seed0/oracle/evaluation.json": {"seed0/oracle/evaluation.json"} | TABLE,
    "reports/cag/table.md": TABLE,
    "reports/cag/figure.png": {"reports/cag/figure.png", "reports/cag/report.html"},
    "reports/cag/curves.png": {"reports/cag/curves.png", "reports/cag/report.html"},
    "reports/cag/report.html": {"reports/cag/report.html"},
    "generated.json": EVERYTHING,
    "manifest.json": EVERYTHING - {"generated.json"},
    "config.json": set(),
    "seed0/pretrain/state": set(),
    "check": set(),
}  # fmt: skip


SOME = (
    "seed0/warmup/checkpoint.safetensors",
    f"{given(2)}/evidence/evidence.zarr",
    f"{LABELS_1}/labels.zarr",
    "reports/cag/report.html",
    "seed0/pretrain/state",
)


@pytest.mark.parametrize("names", [SOME, pytest.param(tuple(DELETED), marks=pytest.mark.slow)], ids=["some", "all"])
def test_whatever_is_deleted_is_made_again_and_what_depends_on_it(
    finished: Workflow, tmp_path: Path, names: tuple[str, ...]
) -> None:
    workflow, aside = finished.copy(tmp_path / "copy"), tmp_path / "aside"
    for name in names:
        (workflow.results / name).rename(aside)
        assert workflow.planned() == DELETED[name], name
        aside.rename(workflow.results / name)
    assert workflow.planned() == set()


@pytest.mark.parametrize("done", [1, 2])
def test_parts_of_another_number_are_kept_where_they_are_whole(finished: Workflow, tmp_path: Path, done: int) -> None:
    """With the anchors gone, all parts there are added again; with one of them gone too, it is three new ones."""
    workflow = finished.copy(tmp_path)
    folder = workflow.results / given(2) / "evidence"
    (folder / "anchors.h5").unlink()
    three: set[str] = set()
    if done == 1:
        (folder / "parts" / "anchors.2-of-2.h5").unlink()
        three = parts(f"{given(2)}/evidence/parts/anchors.{{}}.h5", 3)
    expected = {ANCHORS} | three | AFTER_ANCHORS
    assert workflow.planned("--config", "compute={parts: 3}") == expected
