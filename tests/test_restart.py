"""Chains whose stages begin with the same weights again: the key `restart`."""

from pathlib import Path

import pytest
from miniature import Miniature, label_files
from workflow_runs import SMOKE, Workflow

from caguda.artifacts.atomic import read_json
from caguda.config import Configuration
from caguda.errors import UserError
from caguda.runs import model_before, model_of_first_weights, models_before


def restarted(mini: Miniature) -> Configuration:
    return mini.configuration(runs__cag__restart=True, runs__cag__stages=2)


def test_labels_come_from_the_stage_before_and_weights_from_the_start(mini: Miniature) -> None:
    configuration = restarted(mini)
    assert model_before(configuration, "cag/stage2") == "cag/stage1"
    assert [model_of_first_weights(configuration, f"cag/stage{k}") for k in (1, 2)] == ["warmup", "warmup"]
    assert list(models_before(configuration, "cag/stage2"))[:2] == ["cag/stage1", "warmup"]
    assert model_of_first_weights(mini.configuration(), "cag/stage2") == "cag/stage1"


@pytest.mark.parametrize("run", ["warmup", "pretrain"])
def test_a_run_that_no_stage_labels_for_cannot_restart(mini: Miniature, run: str) -> None:
    with pytest.raises(UserError, match=f"runs.{run}.restart: must be false unless the run has stages"):
        mini.configuration(**{f"runs__{run}__restart": True})


def test_a_stage_starts_again_and_reads_the_labels_of_the_stage_before(mini: Miniature) -> None:
    configuration = restarted(mini)
    first = mini.stage("restart1", configuration, mini.weights("warmup"), mini.folder / "labels" / "labels.json")
    told = mini.label("restart1_labels", configuration, first)
    inputs = {"anchors": told.with_name("anchors.h5"), "labels": label_files(told)}
    second = mini.train("restart2", "cag/stage2", configuration, start=mini.weights("warmup"), **inputs)
    recorded = read_json(second.with_suffix(".json"))["provenance"]["inputs"]
    checkpoints = [Path(name).parent.name for name in recorded if name.endswith(".safetensors")]
    assert checkpoints == ["warmup"] and len(recorded) == 1 + 1 + 1 + 2
    with pytest.raises(UserError, match="this must be the model of warmup, found that of cag/stage1"):
        mini.train("wrong_start", "cag/stage2", configuration, start=first, **inputs)
    by_warmup = mini.folder / "labels" / "labels.json"
    other = {"anchors": by_warmup.with_name("anchors.h5"), "labels": label_files(by_warmup)}
    with pytest.raises(
        UserError, match="the labels must be made with the model of cag/stage1 and seed 0, found those of warmup"
    ):
        mini.train("wrong_labels", "cag/stage2", configuration, start=mini.weights("warmup"), **other)


def test_the_workflow_plans_it(tmp_path: Path) -> None:
    text = SMOKE.read_text(encoding="utf-8").replace("    stages: 2\n", "    stages: 2\n    restart: true\n", 1)
    (tmp_path / "smoke.yaml").write_text(text, encoding="utf-8")
    jobs = Workflow(tmp_path, tmp_path / "smoke.yaml").plan()
    (job,) = [job for job in jobs if job.rule == "train" and "cag/stage2/" in job.output[0]]
    given = [name.removeprefix("seed0/") for name in job.input]
    assert "warmup/checkpoint.safetensors" in given and "cag/stage1/checkpoint.safetensors" not in given
    assert [name for name in given if name.endswith("labels.json")] and all(
        name.startswith("cag/stage1/labels/") for name in given if name.endswith("labels.json")
    )
