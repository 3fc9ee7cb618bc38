"""Runs that name a file of anchors from elsewhere: what is converted, what is refused, and what is made with it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deeplab_reference as reference
import numpy as np
import pytest
import torch
import yaml
from miniature import Miniature
from test_convert import authors_anchors, released
from test_workflow import ANCHOR, PROBABILITY, REPORT
from workflow_runs import SMOKE, Workflow
from zarr import open_group

from caguda.artifacts.anchors import Anchors, load_anchors, save_anchors
from caguda.artifacts.atomic import read_json
from caguda.artifacts.checks import misplacement
from caguda.artifacts.given_anchors import folder_around, folder_of
from caguda.artifacts.hdf5 import texts_of
from caguda.artifacts.provenance import content_digest
from caguda.cli import main
from caguda.errors import UserError
from caguda.recorded_settings import differing_settings, settings_of_run
from caguda.stages.convert import convert_anchors
from caguda.stages.evidence_store import anchors_of_model

GIVEN = {"runs__cag__anchors": "mine.h5"}


def own_anchors(mini: Miniature) -> Path:
    return mini.folder / "labels" / "anchors.h5"


def moved_on(file: Path, output: Path, times: int = 1) -> Path:
    """The anchors of a file, each as that of the category `times` places on."""
    anchors, attributes = load_anchors(file)
    vectors, counts, spread = (
        np.roll(values, times, axis=0) for values in (anchors.vectors, anchors.pixel_count, anchors.spread)
    )
    save_anchors(output, Anchors(vectors, counts, spread, np.roll(anchors.pairwise, times, axis=(0, 1))), attributes)
    return output


def test_an_anchors_file_of_another_experiment_stays_the_same(mini: Miniature, elsewhere: Miniature) -> None:
    output = elsewhere.folder / "new.h5"
    convert_anchors(elsewhere.configuration(), own_anchors(mini), output)
    assert content_digest(output) == content_digest(own_anchors(mini))
    provenance = load_anchors(output)[1]["provenance"]
    assert (provenance["made_by"], provenance["settings"].keys()) == ("convert-anchors", {"network", "classes"})
    theirs = load_anchors(own_anchors(mini))[1]["provenance"]
    assert provenance["imported"] == {"path": str(own_anchors(mini)), "provenance": theirs}
    assert [item["content"] for item in provenance["inputs"].values()] == [content_digest(own_anchors(mini))]


def text(mini: Miniature, folder: Path) -> Path:
    (folder / "mine.h5").write_text("no anchors", encoding="utf-8")
    return folder / "mine.h5"


def other_channels(mini: Miniature, folder: Path) -> Path:
    anchors, attributes = load_anchors(own_anchors(mini))
    wide = np.concatenate([anchors.vectors, anchors.vectors], axis=1)
    save_anchors(folder / "mine.h5", Anchors(wide, anchors.pixel_count, anchors.spread, anchors.pairwise), attributes)
    return folder / "mine.h5"


def one_anchor(mini: Miniature, folder: Path) -> Path:
    anchors, attributes = load_anchors(own_anchors(mini))
    alone = np.arange(len(anchors.vectors)) == np.flatnonzero(anchors.present)[0]
    values = (np.where(alone[:, None], anchors.vectors, np.nan), np.where(alone, anchors.pixel_count, 0))
    save_anchors(folder / "mine.h5", Anchors(*values, anchors.spread, anchors.pairwise), attributes)
    return folder / "mine.h5"


def authors_file(mini: Miniature, folder: Path) -> Path:
    torch.save(authors_anchors(), folder / "category_anchors")
    return folder / "category_anchors"


def authors_of_the_categories(mini: Miniature, folder: Path) -> Path:
    torch.save(
        {name: np.append(value, value[:1], axis=0) for name, value in authors_anchors().items()}, folder / "file"
    )
    return folder / "file"


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        (lambda mini, folder: folder / "none.h5", {}, "the file must be readable, found: No such file"),
        (lambda mini, folder: folder / "none", {}, "a file written by torch.save is needed, found none"),
        (text, {}, "the file must be a whole one of this program, found another SHA-256"),
        (
            lambda mini, folder: own_anchors(mini).with_name("anchors.1-of-1.h5"),
            {},
            "found no array anchors of its own",
        ),
        (
            lambda mini, folder: own_anchors(mini),
            {"classes": 19},
            "configured categories, 19 of them, found those of 20 other",
        ),
        (
            lambda mini, folder: own_anchors(mini),
            {"network__feature_channels": 9},
            "the 9 channels of .*, found 8; check",
        ),
        (
            other_channels,
            {},
            "must have the 8 channels of the network's features, found 16; check the keys network and runs",
        ),
        (one_anchor, {}, "two finite anchors or more are needed, found 1"),
        (authors_file, {}, r"of 20 categories are needed, found arrays of shapes \[\(19, 256\), \(19,\)\]"),
        (authors_of_the_categories, {}, "must have the 8 channels of the network's features, found 256"),
    ],
)
def test_other_files_are_refused(
    mini: Miniature, elsewhere: Miniature, file: Callable[..., Path], changes: dict[str, Any], said: str
) -> None:
    path, output = file(mini, elsewhere.folder), elsewhere.folder / "new.h5"
    if "classes" in changes:
        changes = {"classes": mini.configuration().model_dump(mode="json")["classes"][: changes["classes"]]}
    with pytest.raises(UserError, match=f"^{path}: .*{said}") as refused:
        convert_anchors(elsewhere.configuration(**changes), path, output)
    assert "\n" not in str(refused.value) and not output.exists()


def test_without_the_key_the_settings_of_a_run_are_as_before(mini: Miniature) -> None:
    """And with it they tell that there are anchors, whatever their path, so that both kinds of models are told apart."""
    own, given, moved = (
        settings_of_run(mini.configuration(**changes), "cag/stage1")
        for changes in ({}, GIVEN, {"runs__cag__anchors": "elsewhere/mine.h5"})
    )
    assert "anchors" not in own["run"] and given == moved == own | {"run": own["run"] | {"anchors": "from elsewhere"}}
    recorded = read_json(mini.weights("stage").with_suffix(".json"))["provenance"]
    assert recorded["settings"] == own and differing_settings(mini.configuration(), recorded) == []
    assert differing_settings(mini.configuration(**GIVEN), recorded) == ["runs.cag.anchors None, not from elsewhere"]
    assert differing_settings(mini.configuration(), recorded | {"settings": given}) == [
        "runs.cag.anchors from elsewhere, not None"
    ]


def test_a_training_takes_the_anchors_of_its_run_alone(mini: Miniature, elsewhere: Miniature) -> None:
    mine = moved_on(own_anchors(mini), elsewhere.folder / "mine.h5")
    given = elsewhere.configuration(runs__cag__anchors=str(mine), runs__cag__iterations=1)
    converted, other = elsewhere.folder / "anchors.h5", elsewhere.folder / "other.h5"
    convert_anchors(given, mine, converted)
    convert_anchors(given, own_anchors(mini), other)
    anchors_of_model(converted, elsewhere.manifest, mini.weights("warmup"), given)
    labels = [
        mini.folder / "labels" / rule / "labels.json"
        for rule in ("anchor-0.05-mean_anchor_distance", "probability-0.3")
    ]
    inputs: dict[str, Any] = {"start": mini.weights("warmup"), "labels": labels}
    for settings, anchors, said in (
        (given, own_anchors(mini), f"must be converted from {mine}, the key anchors of cag/stage1, found others"),
        (given, other, f"must be converted from {mine}, the key anchors of cag/stage1, found others"),
        (
            elsewhere.configuration(),
            converted,
            "anchors of a model must be given for cag/stage1, found some from elsewhere",
        ),
        (given, converted, f"must be made with the anchors, {converted}, found labels of another"),
    ):
        with pytest.raises(UserError, match=said) as refused:
            elsewhere.train("stage", "cag/stage1", settings, anchors=anchors, **inputs)
        assert "\n" not in str(refused.value)
    assert not elsewhere.weights("stage").exists()


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("results/street/anchors-0123abcd/anchors.h5", "anchors-0123abcd"),
        ("results/street/seed0/warm-up/anchors-0123abcd/evidence/evidence.json", "anchors-0123abcd"),
        ("results/street/seed0/cag/stage1/anchors-0123abcd/labels/probability-0.3/labels.json", "anchors-0123abcd"),
        ("results/street/seed0/warm-up/evidence/anchors.h5", ""),
        ("results/street/seed0/anchors-0123abcd/evidence/evidence.json", ""),
        ("results/anchors-0123abcd/seed0/warm-up/evidence/evidence.json", ""),
        ("results/anchors-0123abcd/manifest.json", ""),
        ("results/street/seed0/warm-up/anchors-0123abc/evidence/evidence.json", ""),
    ],
)
def test_the_folder_of_anchors_is_told_by_a_path(path: str, folder: str) -> None:
    assert folder_around(Path(path)) == folder


OWN, FIRST, SECOND = "", "anchors-00000001", "anchors-00000002"


@pytest.mark.parametrize("made_with", [OWN, FIRST, SECOND])
@pytest.mark.parametrize("lies_in", [OWN, FIRST, SECOND])
def test_evidence_and_labels_lie_in_the_folder_of_their_anchors(tmp_path: Path, made_with: str, lies_in: str) -> None:
    model = tmp_path / "seed0" / "warmup"
    anchors = tmp_path / made_with / "anchors.h5" if made_with else model / "evidence" / "anchors.h5"
    evidence = model / lies_in / "evidence" / "evidence.json"
    labels = model / lies_in / "labels" / "probability-0.3" / "labels.json"
    for verb, path, inputs in (
        ("evidence", evidence, [tmp_path / "manifest.json", model / "checkpoint.safetensors", anchors]),
        ("labels", labels, [model / made_with / "evidence" / "evidence.json"]),
    ):
        recorded = {str(file): {"from_here": os.path.relpath(file, path.parent)} for file in inputs}
        fault = misplacement(path, {"made_by": verb, "seed": 0, "settings": {}, "inputs": recorded})
        named = [name or "the anchors of a model" for name in (lies_in, made_with)]
        expected = f"the folder is of {named[0]}, found a file made with {named[1]}; put it back"
        assert fault == ("" if made_with == lies_in else expected)


def test_converted_anchors_lie_in_the_folder_of_their_content(mini: Miniature, elsewhere: Miniature) -> None:
    right = elsewhere.folder / folder_of(own_anchors(mini)) / "anchors.h5"
    for output, found in (
        (right, ""),
        (elsewhere.folder / FIRST / "anchors.h5", f"found a file of {right.parent.name}"),
    ):
        convert_anchors(elsewhere.configuration(), own_anchors(mini), output)
        fault = misplacement(output, load_anchors(output)[1]["provenance"])
        assert found in fault and bool(found) == bool(fault)


def with_runs(path: Path, **runs: object) -> tuple[str, ...]:
    """What gives the workflow other runs: a YAML above its own, which is written to `path`."""
    path.write_text(yaml.safe_dump({"runs": runs, "compute": {"parts": 1}}), encoding="utf-8")
    return ("--configfile", str(SMOKE), str(path))


def made_for(model: str, start: str, folder: str) -> set[str]:
    """What is made for a stage with anchors from elsewhere, except for the converted anchors."""
    beside = f"seed0/{start}/{folder}"
    return {
        *(f"{beside}/evidence/{name}.json" for name in ("evidence.created", "parts/evidence.1-of-1", "evidence")),
        *(f"{beside}/labels/{rule}/labels.json" for rule in (ANCHOR, PROBABILITY)),
        f"{beside}/labels/{ANCHOR}+{PROBABILITY}.json",
        f"seed0/{model}/checkpoint.safetensors",
        f"seed0/{model}/evaluation.json",
    }


def chain(run: str, folder: str) -> set[str]:
    """What is made for a chain of two stages with anchors from elsewhere."""
    stages = made_for(f"{run}/stage1", "warmup", folder) | made_for(f"{run}/stage2", f"{run}/stage1", folder)
    return {f"{folder}/anchors.h5"} | stages


def test_the_plan_has_a_folder_of_its_own_for_given_anchors(finished: Workflow, tmp_path: Path) -> None:
    """Every stage of the chain uses them, and nothing that is made with a model's own anchors is made again."""
    mine = moved_on(finished.results / "seed0/warmup/evidence/anchors.h5", tmp_path / "mine.h5")
    folder = folder_of(mine)
    start = with_runs(tmp_path / "cag.yaml", cag={"anchors": str(mine)})
    assert finished.planned(*start) == chain("cag", folder) | REPORT
    jobs = finished.plan(*start)
    assert not [job for job in jobs if job.rule in {"anchor_part", "anchors"}]
    users = [job for job in jobs if job.rule in {"evidence_store", "evidence_part", "train"}]
    assert len(users) == 6 and all(f"{folder}/anchors.h5" in job.input for job in users)
    beside = with_runs(tmp_path / "mine.yaml", mine={"like": "cag", "anchors": str(mine)})
    made = finished.planned("runs", *beside)
    assert made == chain("mine", folder), "and cag, which starts from the same model, keeps what it has"


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"like": "cag", "anchors": "none.h5"}, "runs.mine.anchors: the anchors file none.h5 does not exist; put it there"),
        ({"like": "cag", "anchors": "results/smoke/check/mine.h5"}, "runs.mine.anchors: must be a file that this experiment does not make"),
        ({"like": "control", "anchors": "none.h5"}, "runs.mine.anchors: supervised uses none, leave the key out"),
        ({"like": "cag", "anchors": "$NOT_SET/a"}, "runs.mine.anchors: $NOT_SET/a names an environment variable that is"),
        ({"like": "cag", "anchors": ""}, "runs.mine.anchors: "),
        ({"like": "cag", "anchors": {"pixels": "all"}}, "runs.mine.anchors: must be text"),
    ],
)  # fmt: skip
def test_a_wrong_key_ends_the_call_with_one_line(tmp_path: Path, run: dict[str, Any], said: str) -> None:
    workflow = Workflow(tmp_path)
    (workflow.results / "check").mkdir(parents=True)
    (workflow.results / "check/mine.h5").touch()
    done = workflow.run("--dry-run", *with_runs(tmp_path / "mine.yaml", mine=run))
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("caguda: ")]
    assert done.returncode != 0 and said in line and "Traceback" not in done.stderr


def brought_to(workflow: Workflow, file: Path, *targets: str, **keys: object) -> tuple[str, ...]:
    """Words that give the workflow a run on the anchors that the file gets, after the targets of this run are made."""
    mine = moved_on(workflow.results / "seed0/warmup/evidence/anchors.h5", file)
    words = with_runs(file.with_suffix(".yaml"), mine={"like": "cag", "iterations": 2, "anchors": str(mine)} | keys)
    done = workflow.run(*targets, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return words


def assert_trained_on(folder: str, workflow: Workflow, model: str) -> None:
    """A model was trained on the anchors of a folder."""
    trained = read_json(workflow.results / f"seed0/{model}/checkpoint.json")["provenance"]
    assert trained["settings"]["run"]["anchors"] == "from elsewhere"
    assert f"results/smoke/{folder}/anchors.h5" in trained["inputs"]


def test_a_stage_is_trained_on_given_anchors(finished: Workflow, tmp_path: Path) -> None:
    """The evidence is by these anchors, and commands that look at results know it."""
    workflow, target = finished.copy(tmp_path / "run"), "results/smoke/seed0/mine/checkpoint.safetensors"
    words = brought_to(workflow, tmp_path / "mine.h5", target, stages=None)
    folder = folder_of(tmp_path / "mine.h5")
    assert_trained_on(folder, workflow, "mine")
    assert_moved_on(workflow.results / "seed0/warmup", folder)
    assert workflow.planned(target, *words) == set()
    evidence = workflow.results / f"seed0/warmup/{folder}/evidence/evidence.zarr"
    for call in (["inspect", str(evidence)], ["provenance", str(evidence)], ["verify", str(workflow.results)],
                 ["view", str(evidence), "--random", "1", "--output", str(tmp_path / "view")]):  # fmt: skip
        assert main(call) == 0


@pytest.mark.slow
def test_what_other_anchors_make_out_of_date(finished: Workflow, tmp_path: Path) -> None:
    """Another file, another path and no file, as far as Snakemake remembers nothing and the artifacts alone tell."""
    workflow, run = finished.copy(tmp_path / "run"), {"like": "cag", "iterations": 2}
    targets = [f"results/smoke/seed0/mine/stage{stage}/evaluation.json" for stage in (1, 2)]
    words = brought_to(workflow, tmp_path / "mine.h5", *targets)
    for stage in (1, 2):
        assert_trained_on(folder_of(tmp_path / "mine.h5"), workflow, f"mine/stage{stage}")
    shutil.rmtree(workflow.directory / ".snakemake")
    assert workflow.planned(*targets, *words) == set()
    moved = shutil.copy(tmp_path / "mine.h5", tmp_path / "moved.h5")
    named = with_runs(tmp_path / "moved.yaml", mine=run | {"anchors": str(moved)})
    assert workflow.planned(*targets, *named) == set()
    other = moved_on(tmp_path / "mine.h5", tmp_path / "other.h5")
    named = with_runs(tmp_path / "other.yaml", mine=run | {"anchors": str(other)})
    assert workflow.planned("runs", *named) == chain("mine", folder_of(other))
    made = workflow.planned("runs", *with_runs(tmp_path / "none.yaml", mine=run))
    trained = {f"seed0/mine/stage{stage}/checkpoint.safetensors" for stage in (1, 2)}
    assert made > trained and {path for path in made if not path.startswith("seed0/mine/")} == set()
    content = workflow.results / folder_of(other)
    convert = ["convert-anchors", "--config", str(workflow.results / "config.json"), "--input", str(other)]
    assert main([*convert, "--output", str(content / "anchors.h5")]) == 0
    (content / "anchors.h5").replace(workflow.results / folder_of(moved) / "anchors.h5")
    assert f"{folder_of(moved)}/anchors.h5" in workflow.planned(*targets, *words), (
        "other anchors in the folder of these"
    )


def assert_moved_on(model: Path, folder: str) -> None:
    """The evidence by anchors moved on by one category is the model's own evidence with all categories moved on."""
    own, given = (open_group(model / name / "evidence" / "evidence.zarr", mode="r") for name in ("", folder))
    nearest, moved = (np.asarray(group["nearest_anchor"]).astype(int) for group in (own, given))
    categories = len(own.attrs["categories"])
    assert np.mean(moved == (nearest + 1) % categories) > 0.999, "up to ties"
    np.testing.assert_allclose(np.asarray(given["margin"]), np.asarray(own["margin"]), rtol=1e-3, atol=1e-4)
    for name in ("predicted", "confidence"):
        assert np.array_equal(np.asarray(given[name]), np.asarray(own[name]))


@pytest.mark.slow
def test_the_authors_files_are_brought_through_the_workflow_to_a_stage(tmp_path: Path) -> None:
    """Their checkpoint of 680 arrays and their anchors, both as legacy pickles: the official method starts from these."""
    torch.manual_seed(0)
    for content, name in (
        (released(reference.random_state(reference.RESNET101, 19)), "model.pkl"),
        (authors_anchors(), "category_anchors"),
    ):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=False)
    content = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    official = yaml.safe_load((SMOKE.parents[1] / "config/gta5_cityscapes_official.yaml").read_text(encoding="utf-8"))
    stage = {key: official["runs"]["cag"][key] for key in ("method", "pseudo_labels", "weights", "distance")}
    stage["distance"]["pixels"] = "all"  # random weights predict one category alone
    content |= {
        "network": official["network"] | {"weights": "none"},
        "anchors": official["anchors"],
        "runs": {
            "warm-up": {"method": "imported", "file": "${HERE}/model.safetensors"},
            "cag": stage | {"start": "warm-up", "stages": 1, "iterations": 1, "anchors": "${HERE}/category_anchors",
                            "augmentation": {"crop": [32, 32]}, "optimiser": {"learning_rate": 1e-6}},
        },
        "compute": {"inference_batch_size": 8},
    }  # fmt: skip
    content["street"] |= {"source_frames": 4, "target_frames": 2, "evaluation_frames": 1}
    for key in ("reports", "tables"):
        del content[key]
    configfile = tmp_path / "theirs.yaml"
    configfile.write_text(yaml.safe_dump(content).replace("${HERE}", str(tmp_path)), encoding="utf-8")
    convert = ["convert-checkpoint", "--config", str(configfile), "--input", str(tmp_path / "model.pkl")]
    assert main([*convert, "--output", str(tmp_path / "model.safetensors")]) == 0
    workflow = Workflow(tmp_path, configfile)
    done = workflow.run("results/smoke/seed0/cag/stage1/checkpoint.safetensors")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = folder_of(tmp_path / "category_anchors")
    anchors, attributes = load_anchors(workflow.results / folder / "anchors.h5")
    vectors = authors_anchors()["objective_vectors"].astype(np.float32)
    assert np.array_equal(anchors.vectors[:16], vectors[:16]) and attributes["counted"] == "images"
    store = workflow.results / "seed0/warm-up" / folder / "evidence/evidence.zarr"
    assert open_group(store, mode="r").attrs["anchor_distance"] == pytest.approx(anchors.mean_distance)
    trained = read_json(workflow.results / "seed0/cag/stage1/checkpoint.json")
    assert trained["metrics"]["history"][-1]["source_distance"] > 0
    assert f"results/smoke/{folder}/anchors.h5" in trained["provenance"]["inputs"]
    assert not (workflow.results / "seed0/warm-up/evidence").exists() and not list(
        workflow.results.rglob("parts/anchors*")
    )
    assert "provenance" in texts_of(workflow.results / folder / "anchors.h5")
