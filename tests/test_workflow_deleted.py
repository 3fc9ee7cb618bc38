"""What is deleted comes back with all that depends on it, and nothing else does."""

from pathlib import Path

import pytest
from test_workflow import (
    CONTROL,
    DATA,
    EVERYTHING,
    ORACLE,
    PRETRAIN,
    REPORT,
    TABLE,
    given,
    labels,
    parts,
    stage,
    training,
)
from workflow_runs import Workflow

LAST_STORE = {f"seed0/{given(2)}/{name}" for name in ("labels.json", "label_accuracy.json")}
AFTER_LABELS = training(2) | REPORT
AFTER_ANCHORS = labels(2) | training(2) | REPORT
DELETED = {
    "seed0/pretrain/checkpoint.json": EVERYTHING - DATA - ORACLE,
    "seed0/warmup/checkpoint.safetensors": EVERYTHING - DATA - ORACLE - PRETRAIN,
    "seed0/cag/stage2/anchors.h5": {"seed0/cag/stage2/anchors.h5"} | AFTER_ANCHORS,
    "seed0/cag/stage2/parts/anchors.1-of-2.h5": {
        *("seed0/cag/stage2/parts/anchors.1-of-2.h5", "seed0/cag/stage2/anchors.h5"), *AFTER_ANCHORS
    },
    "seed0/cag/stage2/parts": stage(2) | REPORT,
    "seed0/cag/stage2/parts/labels.2-of-2.json": {"seed0/cag/stage2/parts/labels.2-of-2.json"} | LAST_STORE | AFTER_LABELS,
    "seed0/cag/stage2/labels.created.json": AFTER_ANCHORS,
    "seed0/cag/stage2/labels.zarr": AFTER_ANCHORS,
    "seed0/cag/stage2/labels.json": LAST_STORE | AFTER_LABELS,
    "seed0/cag/stage2/label_accuracy.json": {"seed0/cag/stage2/label_accuracy.json", "cag/report.html"},
    "seed0/cag/stage2/checkpoint.json": training(2) | REPORT,
    "seed0/control/checkpoint.safetensors": CONTROL | TABLE,
    "seed0/oracle/evaluation.json": {"seed0/oracle/evaluation.json"} | TABLE,
    "cag/table.md": TABLE,
    "cag/figure.png": {"cag/figure.png", "cag/report.html"},
    "cag/curves.png": {"cag/curves.png", "cag/report.html"},
    "cag/report.html": {"cag/report.html"},
    "generated.json": EVERYTHING,
    "manifest.json": EVERYTHING - {"generated.json"},
    "config.json": set(),
    "seed0/pretrain/state": set(),
    "check": set(),
}  # fmt: skip


SOME = (
    "seed0/warmup/checkpoint.safetensors",
    "seed0/cag/stage2/labels.zarr",
    "cag/report.html",
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
    folder = workflow.results / "seed0" / given(2)
    (folder / "anchors.h5").unlink()
    three: set[str] = set()
    if done == 1:
        (folder / "parts" / "anchors.2-of-2.h5").unlink()
        three = parts(f"seed0/{given(2)}/parts/anchors.{{}}.h5", 3)
    expected = {f"seed0/{given(2)}/anchors.h5"} | three | labels(2) | training(2) | REPORT
    assert workflow.planned("--config", "compute={parts: 3}") == expected
