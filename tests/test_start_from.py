"""Experiments that begin with a model from elsewhere: what is imported, what is refused, and what runs from there."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from miniature import Miniature
from safetensors.torch import load_file, save_file
from test_workflow import REPORT, WARMUP, stage
from workflow_runs import Workflow

from caguda.artifacts.checkpoint import load_checkpoint
from caguda.errors import UserError
from caguda.stages.convert import import_checkpoint


def brought(elsewhere: Miniature, initial: Path, **changes: Any) -> dict[str, Any]:
    """The description of an imported checkpoint, whose weights are those that were brought."""
    output = elsewhere.folder / "imported" / "checkpoint.safetensors"
    import_checkpoint(elsewhere.configuration(**changes), "warmup", 5, initial, output)
    assert output.read_bytes() == initial.read_bytes()
    return load_checkpoint(output)[1]


def test_what_made_a_checkpoint_is_kept(mini: Miniature, elsewhere: Miniature) -> None:
    theirs = load_checkpoint(mini.weights("warmup"))[1]
    found = brought(elsewhere, mini.weights("warmup"))
    assert {key: found[key] for key in ("architecture", "classes", "target_statistics")} == {
        key: theirs[key] for key in ("architecture", "classes", "target_statistics")
    }
    made_by = found["provenance"]
    assert (made_by["made_by"], made_by["seed"], made_by["settings"]["run"]) == ("import", 5, "warmup")
    assert made_by["inputs"][str(mini.weights("warmup"))]["sha256"] == theirs["weights_sha256"]
    assert made_by["imported"] == {"path": str(mini.weights("warmup")), "provenance": theirs["provenance"]}


def test_weights_alone_are_enough(mini: Miniature, elsewhere: Miniature) -> None:
    shutil.copy(mini.weights("warmup"), elsewhere.folder / "mine.safetensors")
    found = brought(elsewhere, elsewhere.folder / "mine.safetensors")
    assert found["target_statistics"] is False and found["provenance"]["imported"]["provenance"] is None


def spoilt(weights: dict[str, torch.Tensor], folder: Path) -> Path:
    save_file(weights, folder / "mine.safetensors")
    return folder / "mine.safetensors"


def test_other_models_are_refused(mini: Miniature, elsewhere: Miniature) -> None:
    weights, output = load_file(mini.weights("warmup")), elsewhere.folder / "imported.safetensors"
    settings, first = elsewhere.configuration(), next(iter(weights))
    classes = settings.model_dump(mode="json")["classes"]
    (elsewhere.folder / "text.safetensors").write_text("no weights")
    cases = [
        (mini.weights("warmup"), {"classes": classes[:19]}, "configured categories, 19 of them, found one for 20 other"),
        (mini.weights("warmup"), {"classes": classes[::-1]}, "20 other or otherwise ordered ones"),
        (mini.weights("warmup"), {"network__feature_channels": 9}, "found feature_channels 8 instead of 9"),
        (mini.weights("warmup"), {"network__normalisation": "unit"}, "found normalisation imagenet instead of unit"),
        (spoilt({name: weights[name] for name in weights if name != first}, elsewhere.folder), {}, f"found no {first};"),
        (elsewhere.folder / "mine.safetensors", {"classes": classes[:19]}, "with 19 categories are needed, found "),
        (elsewhere.folder / "text.safetensors", {}, "must be a whole safetensors file"),
        (elsewhere.folder / "none.safetensors", {}, "none.safetensors"),
    ]  # fmt: skip
    for path, changes, words in cases:
        with pytest.raises(UserError, match=f"^{path}: .*{words}") as refused:
            import_checkpoint(elsewhere.configuration(**changes), "warmup", 0, path, output)
        assert "\n" not in str(refused.value)
    assert not output.exists()


IMPORTED = {"seed0/warmup/checkpoint.safetensors", "seed0/warmup/evaluation.json"}
AFTER = stage(1) | stage(2) | {"seed0/control/checkpoint.safetensors", "seed0/control/evaluation.json"} | REPORT


def started_from(path: Path) -> tuple[str, str]:
    return "--config", f"start_from={{warmup: {path}}}"


@pytest.mark.slow
def test_an_experiment_begins_with_a_brought_warm_up(finished: Workflow, tmp_path: Path) -> None:
    """Frames, oracle and the numbers of stages are those of the whole run, whose warm-up it is."""
    mine, workflow = tmp_path / "mine" / "model.safetensors", finished.copy(tmp_path / "run")
    mine.parent.mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copy(finished.results / "seed0" / f"warmup/checkpoint{suffix}", mine.with_suffix(suffix))
    for name in ("seed0/pretrain", "seed0/warmup", "seed0/control", "seed0/cag", "cag"):
        shutil.rmtree(workflow.results / name)
    start = started_from(mine)
    assert workflow.planned(*start) == IMPORTED | AFTER
    done = workflow.run(*start)
    assert done.returncode == 0, done.stdout + done.stderr
    assert workflow.planned(*start) == set() and not (workflow.results / "seed0" / "pretrain").exists()
    last = Path("seed0/cag/stage2/checkpoint.safetensors")
    assert (workflow.results / last).read_bytes() == (finished.results / last).read_bytes()
    tables = [list(csv.DictReader((flow.results / "cag" / "table.csv").open())) for flow in (workflow, finished)]
    rows = [[(row["row"], row["statistics"], row["mIoU"]) for row in table] for table in tables]
    assert rows[0] == [row for row in rows[1] if row[0] not in ("source only", "AdaBN")]
    assert [row["gain"] for row in tables[0] if (row["row"], row["statistics"]) == ("warm-up", "as trained")] == ["0.0"]
    text = (workflow.results / "cag" / "table.md").read_text().replace("\n", " ")
    assert f"Not trained here: the model of warmup is {mine}." in text and "over warm-up as trained" in text
    report = (workflow.results / "cag" / "report.html").read_text()
    assert "Warm-up to stage 2" in report and "Trained on the source alone" not in report and str(mine) in report

    imported = json.loads((workflow.results / "seed0/warmup/checkpoint.json").read_text())["provenance"]["imported"]
    assert imported["path"] == str(mine) and imported["provenance"]["made_by"] == "warmup"
    mine.with_suffix(".json").unlink()
    assert workflow.planned(*start) == IMPORTED | AFTER, "nothing says any more who made it"
    mine.unlink()
    refused = workflow.run("--dry-run", *start)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("caguda: ")]
    assert refused.returncode != 0 and f"start_from.warmup: the checkpoint {mine} does not exist" in line


def test_what_needs_a_source_only_model_says_so(finished: Workflow) -> None:
    start = started_from(finished.results / "seed0" / "warmup" / "checkpoint.safetensors")
    for target in ("table1", "figure2"):
        refused = finished.run("--dry-run", target, *start)
        (line,) = [line for line in refused.stderr.splitlines() if line.startswith("caguda: ")]
        assert refused.returncode != 0 and "needs a source-only model" in line and "Traceback" not in refused.stderr


@pytest.mark.slow
def test_a_changed_model_is_imported_again(finished: Workflow, tmp_path: Path) -> None:
    """And one of another name; from a brought source-only model, the warm-up is trained."""
    mine, other, workflow = (
        tmp_path / "mine.safetensors",
        tmp_path / "other.safetensors",
        finished.copy(tmp_path / "run"),
    )
    weights = load_file(finished.results / "seed0/pretrain/checkpoint.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, mine)
    shutil.copy(mine, other)
    target, start = "seed0/pretrain/checkpoint.safetensors", ("--config", f"start_from={{pretrain: {mine}}}")
    assert workflow.run(f"results/smoke/{target}", *start).returncode == 0
    later = {"seed0/pretrain/evaluation.json"} | WARMUP | AFTER
    assert workflow.planned(*start) == later
    assert workflow.planned("--config", f"start_from={{pretrain: {other}}}") == later | {target}
    remembered = workflow.directory / ".snakemake"
    remembered.rename(tmp_path / "aside")  # the same from what the checkpoint says
    assert workflow.planned(*start) == later
    assert workflow.planned("--config", f"start_from={{pretrain: {other}}}") == later, "the same weights"
    assert workflow.planned() == later | {target}, "to be trained"
    save_file({name: value * 5 for name, value in weights.items()}, mine)
    os.utime(mine, (1, 1))
    assert workflow.planned(*start) == later | {target}, "other weights, as old as may be"
    save_file({name: value * 2 for name, value in weights.items()}, mine)
    shutil.rmtree(remembered, ignore_errors=True)
    (tmp_path / "aside").rename(remembered)
    save_file({name: value * 3 for name, value in weights.items()}, mine)
    assert workflow.planned(*start) == later | {target}
