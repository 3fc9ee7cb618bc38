"""Results without `.snakemake`: what is made again follows from what the artifacts say of themselves."""

import os
import shutil
from pathlib import Path

import pytest
from test_workflow import (
    ANCHOR,
    CHANGES,
    CONTROL,
    EVERYTHING,
    MARGIN_02,
    ORACLE,
    PRETRAIN,
    RELABELLED,
    REPORT,
    anchors,
    evidence,
    given,
    labels,
    told,
    training,
    words,
)
from workflow_runs import Workflow

LAST = "results/smoke/seed0/cag/stage2/evaluation.json"
FIRST = "results/smoke/seed0/cag/stage1/evaluation.json"


@pytest.fixture(scope="module")
def travelled(finished: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Finished results as another person gets them: without what Snakemake remembers."""
    copy = finished.copy(tmp_path_factory.mktemp("travelled"))
    shutil.rmtree(copy.directory / ".snakemake")
    return copy


def test_unchanged_results_are_not_made_again(travelled: Workflow) -> None:
    """But for what does not say of what it is made, and takes seconds."""
    assert travelled.planned() == REPORT
    assert travelled.planned("--config", "compute={save_every: 3, workers: 2, threads: 2}") == REPORT
    assert travelled.planned(LAST) == set()


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_a_change_runs_what_depends_on_it(travelled: Workflow, change: str, expected: set[str]) -> None:
    silent = REPORT | ({name.replace("cag/", "t/") for name in REPORT} if "reports={t" in change else set())
    assert travelled.planned("--config", *words(change)) == expected | silent


@pytest.mark.parametrize(
    ("deleted", "target", "expected"),
    [
        ("manifest.json", FIRST, EVERYTHING - {"generated.json"} - ORACLE - CONTROL),
        ("seed0/warmup/checkpoint.safetensors", FIRST, {"seed0/warmup/checkpoint.safetensors"} | anchors(1)),
        ("seed0/pretrain/checkpoint.json", FIRST, {"seed0/pretrain/checkpoint.safetensors"} | anchors(1)),
        (f"{given(1)}/evidence/anchors.h5", FIRST, {f"{given(1)}/evidence/anchors.h5"} | evidence(1) | labels(1)),
        (f"{given(1)}/evidence/evidence.zarr", FIRST, evidence(1) | labels(1)),
        (f"{given(1)}/labels/{ANCHOR}/labels.zarr", FIRST, labels(1, ANCHOR)),
        ("seed0/cag/stage1/checkpoint.safetensors", LAST, training(1) - {"seed0/cag/stage1/evaluation.json"}),
    ],
)
@pytest.mark.parametrize("remembers", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_target_by_name_has_its_deleted_ancestor_made_again(
    finished: Workflow,
    travelled: Workflow,
    tmp_path: Path,
    deleted: str,
    target: str,
    expected: set[str],
    remembers: bool,
) -> None:
    workflow = (finished if remembers else travelled).copy(tmp_path)
    (workflow.results / deleted).rename(tmp_path / "aside")
    planned = workflow.planned(target)
    needed = {name for name in expected if "evaluation" not in name and "cag/" not in name} - {told(1)}
    assert needed - {"reports/cag/report.html"} <= planned
    assert {name.removeprefix("results/smoke/") for name in [target]} <= planned
    assert not any(name.startswith(("seed0/oracle", "seed0/control", "reports/")) for name in planned)


def test_a_target_by_name_runs_nothing_that_it_does_not_need(travelled: Workflow) -> None:
    """Other thresholds make labels again, and no warm-up; another warm-up makes no source only again."""
    assert travelled.planned("results/smoke/seed0/warmup/evaluation.json", "--config", MARGIN_02) == set()
    assert (
        travelled.planned("results/smoke/seed0/pretrain/evaluation.json", "--config", "runs={warmup: {iterations: 30}}")
        == set()
    )
    assert travelled.planned(FIRST, "--config", "runs={pretrain: {iterations: 30}}") >= {
        "seed0/pretrain/checkpoint.safetensors", "seed0/warmup/checkpoint.safetensors", *training(1)
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("remembers", [True, False])
def test_moved_frames_make_nothing_again(
    finished: Workflow, travelled: Workflow, tmp_path: Path, remembers: bool
) -> None:
    workflow = (finished if remembers else travelled).copy(tmp_path / "copy")
    (workflow.results / "data").rename(tmp_path / "frames")
    moved = ("--config", f"data_root={tmp_path / 'frames'}")
    assert workflow.planned(*moved) == (set() if remembers else REPORT)
    (workflow.results / "seed0/cag/stage2/evaluation.json").unlink()
    done = workflow.run(*moved)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("remembers", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize("target", [(), (LAST,)])
def test_a_frame_that_was_added_changed_or_removed_is_checked_again(
    finished: Workflow, travelled: Workflow, tmp_path: Path, remembers: bool, target: tuple[str, ...]
) -> None:
    workflow = (finished if remembers else travelled).copy(tmp_path)
    image, other = sorted((workflow.results / "data/target").rglob("*_leftImg8bit.png"))[:2]
    before = image.read_bytes()
    image.write_bytes(other.read_bytes())
    after = {"manifest.json", *(PRETRAIN - {"seed0/pretrain/evaluation.json"})}
    assert after <= workflow.planned(*target)
    image.write_bytes(before)
    assert workflow.planned(*target) == (set() if remembers or target else REPORT), "the same content"
    image.unlink()
    assert {"generated.json"} <= workflow.planned(*target)


def test_parts_of_batches_of_another_size_are_made_again_where_they_are_needed(
    travelled: Workflow, tmp_path: Path
) -> None:
    workflow, smaller = travelled.copy(tmp_path), ("--config", "compute={inference_batch_size: 2}")
    assert workflow.planned(*smaller) == REPORT
    folder = workflow.results / given(2) / "evidence"
    for name in ("anchors.h5", "parts/anchors.2-of-2.h5", "evidence.json", "parts/evidence.2-of-2.json"):
        (folder / name).unlink()
    made = {f"{given(2)}/evidence/parts/{name}" for name in ("anchors.1-of-2.h5", "evidence.1-of-2.json")}
    assert made <= workflow.planned(*smaller)


def test_a_linked_folder_and_a_lock_of_something_else(travelled: Workflow, tmp_path: Path) -> None:
    workflow = travelled.copy(tmp_path / "copy")
    (workflow.results / "seed0").rename(tmp_path / "disk")
    (workflow.results / "seed0").symlink_to(tmp_path / "disk")
    assert workflow.planned("--config", MARGIN_02) == RELABELLED
    (workflow.results / "lock").unlink()
    os.mkfifo(workflow.results / "lock")
    done = workflow.run("results/smoke/reports/cag/table.csv")
    assert done.returncode == 1 and "the lock must be a file or nothing" in done.stderr


def test_what_lies_beside_generated_frames_makes_nothing_again(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    (workflow.results / "data" / "notes").mkdir()
    shutil.copy(workflow.results / "reports" / "cag" / "figure.png", workflow.results / "data" / "notes")
    assert workflow.planned() == set()
