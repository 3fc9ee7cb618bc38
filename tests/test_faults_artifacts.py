"""Artifacts that are truncated or deleted: who notices, and that the same command makes them again."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from comparison import differences
from test_workflow import ANCHOR, given, told
from workflow_runs import Workflow

READ = [
    "manifest.json",
    "seed0/pretrain/checkpoint.safetensors",
    "seed0/pretrain/checkpoint.json",
    f"{given(1)}/evidence/anchors.h5",
    f"{given(1)}/evidence/evidence.json",
    f"{given(1)}/labels/{ANCHOR}/labels.json",
    told(1),
    "seed0/warmup/evaluation.json",
    "reports/cag/table.csv",
    "reports/cag/figure.png",
    "reports/cag/curves.png",
]
UNREAD = [
    "generated.json",
    f"{given(1)}/evidence/evidence.created.json",
    f"{given(1)}/evidence/parts/evidence.1-of-2.json",
    "reports/cag/report.html",
]


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def complaints(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith("caguda: error: ")]


def remade(workflow: Workflow, finished: Workflow, aside: Sequence[str] = ()) -> None:
    """The same command makes what was deleted, and what it ends with is what there was, but for files that it has put aside."""
    done = workflow.run()
    assert done.returncode == 0, done.stderr
    assert differences(finished, workflow) == [*aside] and workflow.planned() == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_a_truncated_artifact_is_refused_by_name_and_made_again_when_deleted(
    finished: Workflow, tmp_path: Path, name: str
) -> None:
    workflow = finished.copy(tmp_path)
    truncate(workflow.results / name)
    refused = workflow.run()
    said = complaints(refused.stderr)
    assert refused.returncode == 1 and said and "Traceback" not in refused.stderr, refused.stderr
    assert all(name in line for line in said), said
    (workflow.results / name).unlink()
    weights = name.replace(
        ".json", ".safetensors"
    )  # without the JSON beside them they may be anybody's, so they are kept
    remade(workflow, finished, [f"{weights}.aside"] if name.endswith("checkpoint.json") else [])


@pytest.mark.slow
def test_what_nobody_reads_is_made_again_when_it_is_deleted(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    for name in UNREAD:
        (workflow.results / name).unlink()
    remade(workflow, finished)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("store", "array", "wanted"),
    [
        (f"labels/{ANCHOR}/labels.zarr", "label", "seed0/cag/stage1/checkpoint.safetensors"),
        ("evidence/evidence.zarr", "margin", f"{given(1)}/labels/{ANCHOR}/labels.json"),
    ],
    ids=["labels", "evidence"],
)
def test_of_a_store_with_a_shard_missing_nothing_is_made(
    finished: Workflow, tmp_path: Path, store: str, array: str, wanted: str
) -> None:
    """No training of labels, no labels of evidence."""
    workflow = finished.copy(tmp_path)
    folder = workflow.results / given(1) / store
    (folder / array / "c.3.0.0").unlink()
    (workflow.results / wanted).unlink()
    refused = workflow.run()
    (said,) = set(complaints(refused.stderr))
    assert refused.returncode == 1 and store in said and "move this folder away" in said, refused.stderr
    assert not (workflow.results / wanted).exists()
    shutil.rmtree(folder)
    remade(workflow, finished)


@pytest.mark.slow
def test_a_clock_that_was_an_hour_ahead_is_told_and_touch_puts_it_right(finished: Workflow, tmp_path: Path) -> None:
    """Whatever is made now would be older than what it is made from: Snakemake says so and keeps no such file."""
    workflow = finished.copy(tmp_path)
    for path in workflow.results.rglob("*"):
        moment = path.stat().st_mtime + 3600
        os.utime(path, (moment, moment))
    (workflow.results / told(1)).unlink()
    refused = workflow.run()
    assert refused.returncode == 1 and "could indicate a clock skew problem" in refused.stderr
    subprocess.run("find results -exec touch -d 2020-01-01 {} +", shell=True, cwd=tmp_path, check=True)
    remade(workflow, finished)
