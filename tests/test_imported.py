"""Runs whose model is brought from elsewhere: what is imported, what is refused, and what runs from there."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from miniature import Miniature
from safetensors.torch import load_file, save_file
from test_workflow import CONTROL, REPORT, WARMUP, stage
from workflow_runs import SMOKE, Workflow

from caguda.artifacts.checkpoint import load_checkpoint
from caguda.errors import UserError
from caguda.stages.convert import import_checkpoint
from caguda.stages.evaluate import evaluate

MINE = {"runs__mine": {"method": "imported", "file": "mine.safetensors"}}


def brought(elsewhere: Miniature, initial: Path) -> dict[str, Any]:
    """The description of an imported checkpoint, whose weights are those that were brought."""
    output = elsewhere.folder / "imported" / "checkpoint.safetensors"
    import_checkpoint(elsewhere.configuration(**MINE), "mine", 5, initial, output)
    assert output.read_bytes() == initial.read_bytes()
    return load_checkpoint(output)[1]


def test_what_made_a_checkpoint_is_kept(mini: Miniature, elsewhere: Miniature) -> None:
    theirs = load_checkpoint(mini.weights("warmup"))[1]
    found = brought(elsewhere, mini.weights("warmup"))
    assert {key: found[key] for key in ("architecture", "classes", "target_statistics")} == {
        key: theirs[key] for key in ("architecture", "classes", "target_statistics")
    }
    made_by = found["provenance"]
    assert (made_by["made_by"], made_by["seed"]) == ("import", 5)
    assert made_by["settings"]["run"] == {"name": "mine", "method": "imported"}
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
    first, classes = next(iter(weights)), elsewhere.configuration().model_dump(mode="json")["classes"]
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
            import_checkpoint(elsewhere.configuration(**MINE, **changes), "mine", 0, path, output)
        assert "\n" not in str(refused.value)
    assert not output.exists()


@pytest.mark.parametrize("run", ["warmup", "cag/stage1", "cag", "nosuch", "mine/stage1"])
def test_only_a_run_that_is_imported_is(mini: Miniature, elsewhere: Miniature, run: str) -> None:
    output = elsewhere.folder / "imported.safetensors"
    for changes, there in ((MINE, "mine"), ({}, "none")):
        with pytest.raises(
            UserError, match=f"^--model {run}: must be a run whose method is imported, found {there} in the"
        ):
            import_checkpoint(elsewhere.configuration(**changes), run, 0, mini.weights("warmup"), output)
    assert not output.exists()


def test_what_is_brought_for_one_run_is_no_model_of_another(mini: Miniature, elsewhere: Miniature) -> None:
    """It has the place of a training: what starts from it takes no other model, and none takes it but what starts from it."""
    settings = elsewhere.configuration(**MINE, runs__other=MINE["runs__mine"], runs__control__start="mine")
    for run in ("mine", "other"):
        import_checkpoint(settings, run, 0, mini.weights("warmup"), elsewhere.weights(run))
    elsewhere.train("control", "control", settings, start=elsewhere.weights("mine"))
    for initial, found in ((elsewhere.weights("other"), "other"), (mini.weights("warmup"), "warmup")):
        with pytest.raises(UserError, match=f"must be the model of mine, found that of {found}"):
            elsewhere.train("again", "control", settings, start=initial)
    with pytest.raises(UserError, match="must be the model of warmup, found that of mine"):
        elsewhere.train("again", "control", elsewhere.configuration(**MINE), start=elsewhere.weights("mine"))
    with pytest.raises(UserError, match="found run mine, which the configuration does not have"):
        elsewhere.train("again", "control", elsewhere.configuration(), start=elsewhere.weights("mine"))
    trained = elsewhere.configuration(runs__mine={"like": "warmup"})
    with pytest.raises(
        UserError, match=r"settings of the configuration, found runs\.mine\.method imported, not adversarial"
    ):
        evaluate(trained, elsewhere.manifest, elsewhere.weights("mine"), elsewhere.folder / "evaluation.json")
    assert not elsewhere.weights("again").exists()


def test_a_brought_model_lies_in_the_folder_of_its_run(mini: Miniature, elsewhere: Miniature) -> None:
    settings = elsewhere.configuration(**MINE)
    for place in ("seed0/mine", "seed0/warmup", "seed1/mine", "seed0"):
        import_checkpoint(settings, "mine", 0, mini.weights("warmup"), elsewhere.weights(place))
    evaluate(settings, elsewhere.manifest, elsewhere.weights("seed0/mine"), elsewhere.folder / "evaluation.json")
    for place, found in (
        ("seed0/warmup", "the folder is of warmup, found a file of mine"),
        ("seed1/mine", "the folder is of seed 1, found a file of seed 0"),
        ("seed0", "the folder is of no run, found a file of mine"),
    ):
        with pytest.raises(UserError, match=found):
            evaluate(settings, elsewhere.manifest, elsewhere.weights(place), elsewhere.folder / "e.json")


IMPORTED = {"seed0/warmup/checkpoint.safetensors", "seed0/warmup/evaluation.json"}
AFTER = stage(1) | stage(2) | CONTROL | REPORT
ORACLE = {"like": "control", "start": None, "frames": "target", "iterations": 60, "batch_size": 4,
          "optimiser": {"learning_rate": 3.0e-3}, "batch_norm": "train"}  # fmt: skip
"""The keys of the oracle, which is like the source-only model, where that is not trained."""


def with_runs(path: Path, **runs: object) -> tuple[str, ...]:
    """What gives the workflow other runs: a YAML above its own, which is written to `path`."""
    path.write_text(yaml.safe_dump({"runs": runs}), encoding="utf-8")
    return ("--configfile", str(SMOKE), str(path))


def imported(path: Path) -> dict[str, str]:
    return {"method": "imported", "file": str(path)}


@pytest.mark.slow
def test_an_experiment_begins_with_a_brought_warm_up(finished: Workflow, tmp_path: Path) -> None:
    """Frames, oracle and the numbers of stages are those of the whole run, whose warm-up it is."""
    mine, workflow = tmp_path / "mine" / "model.safetensors", finished.copy(tmp_path / "run")
    mine.parent.mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copy(finished.results / "seed0" / f"warmup/checkpoint{suffix}", mine.with_suffix(suffix))
    for name in ("seed0/pretrain", "seed0/warmup", "seed0/control", "seed0/cag", "reports/cag"):
        shutil.rmtree(workflow.results / name)
    start = with_runs(tmp_path / "start.yaml", pretrain=None, oracle=ORACLE, warmup=imported(mine))
    assert workflow.planned(*start) == IMPORTED | AFTER
    done = workflow.run(*start)
    assert done.returncode == 0, done.stdout + done.stderr
    assert workflow.planned(*start) == set() and not (workflow.results / "seed0" / "pretrain").exists()
    last = Path("seed0/cag/stage2/checkpoint.safetensors")
    assert (workflow.results / last).read_bytes() == (finished.results / last).read_bytes()
    tables = [list(csv.DictReader((flow.results / "reports/cag/table.csv").open())) for flow in (workflow, finished)]
    rows = [[(row["row"], row["statistics"], row["mIoU"]) for row in table] for table in tables]
    assert rows[0] == [row for row in rows[1] if row[0] not in ("pretrain", "AdaBN")]
    assert [row["gain"] for row in tables[0] if (row["row"], row["statistics"]) == ("warmup", "as trained")] == ["0.0"]
    text = (workflow.results / "reports/cag/table.md").read_text().replace("\n", " ")
    assert f"Not trained here: the model of warmup is {mine}." in text and "over warmup as trained" in text
    assert "Left out: pretrain (runs.pretrain is null)." in text
    report = (workflow.results / "reports/cag/report.html").read_text()
    assert "After warmup, the network" in report and "Warmup to stage 2" in report and "no adaptation" not in report
    assert str(mine) in report and "brought from elsewhere" in report

    described = json.loads((workflow.results / "seed0/warmup/checkpoint.json").read_text())["provenance"]["imported"]
    assert described["path"] == str(mine)
    made = described["provenance"]
    assert (made["made_by"], made["settings"]["run"]["name"]) == ("train", "warmup")
    mine.with_suffix(".json").unlink()
    assert workflow.planned(*start) == IMPORTED | AFTER, "nothing says any more who made it"
    mine.unlink()
    refused = workflow.run("--dry-run", *start)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("caguda: ")]
    assert refused.returncode != 0 and f"runs.warmup.file: the checkpoint {mine} does not exist" in line


def test_several_imported_runs_are_planned_with_one_look_at_the_results(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.safetensors" for name in ("one", "two")}
    for file in files.values():
        file.write_text("a plan opens no weights")
    words = with_runs(tmp_path / "two.yaml", **{name: imported(file) for name, file in files.items()})
    done = Workflow(tmp_path).run("--dry-run", *words, "--config", "reports={cag: [pretrain, one, two]}")
    assert done.returncode == 0 and done.stdout.count("rule import_checkpoint:") == 2, done.stdout + done.stderr
    assert done.stderr.count("in no report, so not made by this target: ") == 1, done.stderr


@pytest.mark.parametrize("name", ["m{x}.safetensors", "m{seed}.safetensors"])
def test_braces_in_the_path_of_an_imported_file_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a plan opens no weights")
    done = Workflow(tmp_path).run("--dry-run", *with_runs(tmp_path / "mine.yaml", mine=imported(tmp_path / name)))
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("caguda: ")]
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert f"runs.mine.file: the path must be without {{ and }}, found {tmp_path / name}; rename the file" in line


def test_tables_and_pictures_do_without_a_run_that_is_left_out(finished: Workflow, tmp_path: Path) -> None:
    """And a run that would start from one says so."""
    for name in ("checkpoint.safetensors", "checkpoint.json"):
        shutil.copy(finished.results / "seed0" / "warmup" / name, tmp_path)
    brought = imported(tmp_path / "checkpoint.safetensors")
    start = with_runs(tmp_path / "start.yaml", pretrain=None, oracle=ORACLE, warmup=brought)
    for target in ("table1", "figure2"):
        planned = finished.planned(target, *start)
        assert planned and not [path for path in planned if "pretrain" in path]
    refused = finished.run("--dry-run", *with_runs(tmp_path / "none.yaml", pretrain=None, oracle=ORACLE))
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("caguda: ")]
    assert refused.returncode != 0 and "Traceback" not in refused.stderr
    assert "runs.warmup.start: must be a run that is made, found pretrain, which is left out; name another" in line


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
    target = "seed0/pretrain/checkpoint.safetensors"
    start = with_runs(tmp_path / "mine.yaml", oracle=ORACLE, pretrain=imported(mine))
    from_other = with_runs(tmp_path / "other.yaml", oracle=ORACLE, pretrain=imported(other))
    assert workflow.run(f"results/smoke/{target}", *start).returncode == 0
    later = {"seed0/pretrain/evaluation.json"} | WARMUP | AFTER
    assert workflow.planned(*start) == later
    assert workflow.planned(*from_other) == later | {target}
    remembered = workflow.directory / ".snakemake"
    remembered.rename(tmp_path / "aside")  # the same from what the checkpoint says
    assert workflow.planned(*start) == later
    assert workflow.planned(*from_other) == later, "the same weights"
    assert workflow.planned() == later | {target}, "to be trained"
    save_file({name: value * 5 for name, value in weights.items()}, mine)
    os.utime(mine, (1, 1))
    assert workflow.planned(*start) == later | {target}, "other weights, as old as may be"
    save_file({name: value * 2 for name, value in weights.items()}, mine)
    shutil.rmtree(remembered, ignore_errors=True)
    (tmp_path / "aside").rename(remembered)
    save_file({name: value * 3 for name, value in weights.items()}, mine)
    assert workflow.planned(*start) == later | {target}
