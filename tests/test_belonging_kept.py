"""What a careless or hostile call would lose, wait for, crash on, or take for what it is not."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
from miniature import Miniature, edit_store, label_files, values
from PIL import Image
from test_trust import change_chunks, exchange, in_shards
from workflow_runs import Workflow

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.chain import provenance_of
from caguda.artifacts.evidence import EVIDENCE
from caguda.artifacts.labels import LABELS, create_label_store
from caguda.artifacts.maps import open_store
from caguda.artifacts.ownership import is_ours
from caguda.artifacts.vouched import store_at
from caguda.classes import CITYSCAPES_19
from caguda.cli import main
from caguda.config import Configuration
from caguda.config_network import NetworkSettings
from caguda.configfile import parse_configuration
from caguda.errors import UserError
from caguda.recorded_settings import differing_settings, settings_of_run
from caguda.stages.anchors import construct_anchors
from caguda.stages.check import check
from caguda.stages.diagnose import diagnose
from caguda.stages.evaluate import evaluate
from caguda.stages.evidence import write_part
from caguda.stages.evidence_store import create_evidence, verify_evidence
from caguda.stages.generate import generate
from caguda.stages.inspect import inspect
from caguda.stages.labels import make_labels
from caguda.stages.parts import prediction_settings
from caguda.stages.view import view
from caguda.staleness import _FOLDERS_NOT_EXAMINED, _may_hold_artifacts, stale_artifacts
from caguda.version import METHOD_VERSION
from caguda.workflow import set_aside

Said = pytest.CaptureFixture[str]


def called(capsys: Said, *words: object) -> str:
    """What a call that is refused says, in one line."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("caguda: error: ") and said.count("\n") == 1, said
    return said


# --- evidence and labels


def evidence_of(own: Miniature) -> tuple[Path, tuple[Path, Path, Path]]:
    return own.folder / "labels", (own.manifest, own.weights("warmup"), own.folder / "labels" / "anchors.h5")


def digest_of(vouching: Path) -> str:
    digest: str = read_json(vouching)["digest"]
    return digest


def with_configuration(own: Miniature) -> None:
    """Leaves the config.json of the experiment as the workflow does: evidence alone is looked at under its thresholds."""
    write_json(own.folder / "config.json", own.configuration().model_dump(mode="json"))


def test_images_that_somebody_else_wrote_into_a_store_are_written_again(own: Miniature) -> None:
    folder, inputs = evidence_of(own)
    expected = digest_of(folder / "evidence.json")
    store = folder / "evidence.zarr"
    for name in EVIDENCE.dtypes:
        change_chunks(store, name, {1: 5})  # whole, and of this store
    write_part(own.configuration(), *inputs, store, 1, 1, folder / "1.json")
    verify_evidence(store, [folder / "1.json"], folder / "evidence.json")
    assert digest_of(folder / "evidence.json") == expected


WRITTEN: dict[str, tuple[Callable[[Path, Path], object], int]] = {
    "shards exchanged inside the store": (
        lambda store, other: [exchange(store / name / "c.0.0.0", store / name / "c.1.0.0") for name in EVIDENCE.dtypes], 0,
    ),
    "a shard of another model": (
        lambda store, other: [shutil.copy(other / name / "c.1.0.0", store / name / "c.1.0.0") for name in EVIDENCE.dtypes], 1,
    ),
    "one array of a shard of another model": (
        lambda store, other: shutil.copy(other / "margin/c.1.0.0", store / "margin/c.1.0.0"), 1,
    ),
    "a shard that is gone": (lambda store, other: (store / "predicted/c.0.0.0").unlink(), 1),
    "half a shard": (lambda store, other: os.truncate(store / "predicted/c.0.0.0", 20), 1),
    "nothing": (lambda store, other: None, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_shards_are_kept_only_as_their_part_wrote_them(own: Miniature, name: str, capsys: Said) -> None:
    spoil, kept = WRITTEN[name]
    vouching, other = in_shards(own, "two"), in_shards(own, "other", "pretrain")
    expected, store = digest_of(vouching), vouching.with_suffix(".zarr")
    spoil(store, other.with_suffix(".zarr"))
    _, (manifest, weights, _) = evidence_of(own)
    inputs = (manifest, weights, vouching.with_name("anchors.h5"), store)
    settings, again = own.configuration(compute__inference_batch_size=4), vouching.with_name("again.json")
    capsys.readouterr()
    write_part(settings, *inputs, 1, 1, again)
    assert f"{kept} of 2 shards from an earlier call" in capsys.readouterr().out
    verify_evidence(store, [again], vouching)
    assert digest_of(vouching) == expected


def test_the_journal_of_another_model_vouches_for_nothing(own: Miniature, capsys: Said) -> None:
    """Shards and their journal from a store of the same frames by another network."""
    folder, inputs = evidence_of(own)
    own.evidence("other", own.configuration(), own.weights("pretrain"))
    store, other = folder / "evidence.zarr", own.folder / "other" / "evidence.zarr"
    for file in other.glob("*/c.*.0.0"):
        shutil.copy(file, store / file.relative_to(other))
    for file in other.parent.glob("evidence.zarr.*.journal"):
        shutil.copy(file, folder / file.name)
    capsys.readouterr()
    write_part(own.configuration(), *inputs, store, 1, 1, folder / "1.json")
    assert "0 of 1 shards from an earlier call" in capsys.readouterr().out
    before = digest_of(folder / "evidence.json")
    verify_evidence(store, [folder / "1.json"], folder / "evidence.json")
    assert digest_of(folder / "evidence.json") == before


def test_a_torn_line_of_the_journal_is_a_shard_more_to_write(own: Miniature, capsys: Said) -> None:
    folder, inputs = evidence_of(own)
    (journal,) = folder.glob("evidence.zarr.*.journal")
    journal.write_text(journal.read_text().rstrip("\n")[:-20])
    write_part(own.configuration(), *inputs, folder / "evidence.zarr", 1, 1, folder / "1.json")
    assert "0 of 1 shards from an earlier call" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "other"), [('"anchor_distance": ', '"anchor_distance": 2'), ('"content": "', '"content": "0')]
)
def test_a_store_that_says_other_than_its_parts_is_refused(own: Miniature, said: str, other: str) -> None:
    """Another distance between anchors would be another threshold of the labels; another content, another model or frames."""
    folder, _ = evidence_of(own)
    edit_store(folder / "evidence.zarr", EVIDENCE, lambda text: text.replace(said, other))
    with pytest.raises(
        UserError, match="must say the settings, inputs and anchor_distance that .*1.json was written with"
    ):
        verify_evidence(folder / "evidence.zarr", [folder / "1.json"], folder / "evidence.json")


def test_finished_evidence_is_kept_or_refused(own: Miniature) -> None:
    folder, inputs = evidence_of(own)
    store = folder / "evidence.zarr"
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    create_evidence(own.configuration(), *inputs, store, folder / "evidence.created.json")
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    theirs = own.anchors(own.folder / "others.h5", own.configuration(), own.weights("pretrain"))
    for settings, *other in (
        (own.configuration(compute__inference_batch_size=4), *inputs),
        (own.configuration(), own.manifest, own.weights("pretrain"), theirs),
    ):
        with pytest.raises(
            UserError, match=r"evidence\.zarr: the evidence store must be new, or of these files and settings"
        ):
            create_evidence(settings, *other, store, folder / "evidence.created.json")
        assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_finished_labels_are_made_again_or_refused(own: Miniature) -> None:
    """Of the same evidence by the same rule they are the same; those of another rule or other evidence stay."""
    folder, _ = evidence_of(own)
    own.evidence("other", own.configuration(), own.weights("pretrain"))
    vouching = label_files(folder / "labels.json")[0]
    store, before = vouching.with_suffix(".zarr"), digest_of(vouching)
    make_labels(own.configuration(), folder / "evidence.json", vouching.parent.name, store, vouching)
    assert digest_of(vouching) == before
    copy = Path(shutil.copytree(vouching.parent, own.folder / "mine"))
    files = {path: path.read_bytes() for path in own.folder.rglob("*") if path.is_file()}
    for evidence, rule in (
        (folder / "evidence.json", "probability-0.3"),
        (own.folder / "other/evidence.json", vouching.parent.name),
    ):
        with pytest.raises(
            UserError, match=r"labels\.zarr: the label store must be new, or of these files and settings"
        ):
            make_labels(own.configuration(), evidence, rule, copy / "labels.zarr", copy / "labels.json")
    with pytest.raises(UserError, match=r"labels\.zarr: the label store must be new, or of these files and settings"):
        make_labels(own.configuration(), own.folder / "other/evidence.json", vouching.parent.name, store, vouching)
    assert {path: path.read_bytes() for path in own.folder.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(("folder", "margin"), [("anchor-0.05-mean_anchor_distance", 0.1), ("mine", 0.07)])
def test_a_label_store_that_says_another_rule_is_refused(own: Miniature, folder: str, margin: float) -> None:
    """Than that of its folder, or in a folder of another name, than those that some model is labelled with."""
    anchor, probability = label_files(own.folder / "labels" / "labels.json")
    given = anchor.parents[1] / folder / "labels.json"
    anchor.parent.rename(given.parent)
    store = given.with_suffix(".zarr")
    edit_store(store, LABELS, lambda text: text.replace('"margin": 0.05', f'"margin": {margin}'))
    write_json(given, read_json(given) | open_store(store, LABELS).attributes)
    with pytest.raises(UserError, match=rf"rule\.margin {margin}, not 0\.05"):
        diagnose(own.configuration(), own.manifest, own.folder / "labels" / "evidence.json", [given, probability],
                 own.folder / "again.json")  # fmt: skip
    assert not (own.folder / "again.json").exists()


@pytest.mark.parametrize(
    ("named", "changed", "array"),
    [
        ("labels.json", "anchor-0.05-mean_anchor_distance/labels.zarr", "label"),
        ("labels.json", "probability-0.3/labels.zarr", "label"),
        ("labels.json", "evidence.zarr", "confidence"),
        ("evidence.json", "evidence.zarr", "margin"),
        ("evidence.zarr", "evidence.zarr", "nearest_anchor"),
    ],
)
def test_labels_are_looked_at_as_they_were_vouched_for(
    own: Miniature, named: str, changed: str, array: str, tmp_path: Path
) -> None:
    with_configuration(own)
    folder, _ = evidence_of(own)
    inspect([folder / named], True, None, (), ())
    change_chunks(folder / changed, array, {3: 5, 5: 3})
    with pytest.raises(UserError, match=f"{array} is damaged"):
        inspect([folder / named], True, None, (), ())
    with pytest.raises(UserError, match=f"{array} is damaged"):
        view([folder / named], None, None, None, True, tmp_path / "page")


@pytest.mark.parametrize(
    "name", ["evidence.json", "anchor-0.05-mean_anchor_distance/labels.json", "probability-0.3/labels.json"]
)
def test_the_json_of_another_store_does_not_vouch_for_labels(own: Miniature, name: str, tmp_path: Path) -> None:
    folder, _ = evidence_of(own)
    own.label("other", own.configuration(), own.weights("pretrain"))
    shutil.copy(own.folder / "other" / name, folder / name)
    for look in (lambda: inspect([folder / "labels.json"], True, None, (), ()),
                 lambda: view([folder / "labels.json"], None, None, None, False, tmp_path / "out")):  # fmt: skip
        with pytest.raises(UserError, match=rf"must be the one that {Path(name).name} vouches for"):
            look()


def test_a_part_counts_once(own: Miniature) -> None:
    folder, inputs = evidence_of(own)
    copy = Path(shutil.copy(folder / "1.json", folder / "copy.json"))
    with pytest.raises(UserError, match="found 8 units of work in two of them"):
        verify_evidence(folder / "evidence.zarr", [folder / "1.json", copy], folder / "evidence.json")
    sums = folder / "anchors.1-of-1.h5"
    copy = Path(shutil.copy(sums, folder / "copy.h5"))
    with pytest.raises(UserError, match="units of work in two of them"):
        construct_anchors(own.configuration(), *inputs[:2], [sums, copy], folder / "new.h5")


@pytest.mark.parametrize("trained", [False, True])
def test_labels_of_another_stage_are_not_diagnosed(own: Miniature, trained: bool) -> None:
    """Copied whole with their evidence to where another model lies, or is yet to be trained."""
    run = own.folder / "seed0" / "cag"
    warm = run.parent / "warmup"
    shutil.copytree(own.weights("warmup").parent, warm)
    if trained:
        shutil.copytree(own.weights("stage").parent, run / "stage1")
    run.mkdir(exist_ok=True)
    (run / "stage1").mkdir(exist_ok=True)
    told = own.label("seed0/warmup/labels", own.configuration(), warm / "checkpoint.safetensors")
    shutil.copytree(told.parent, run / "stage1" / "labels")
    manifest = Path(shutil.copy(own.manifest, own.folder / "seed0" / "manifest.json"))
    of_another = "the folder is of seed0/cag/stage1, found a file of the model in seed0/warmup"
    for model, expected in ((warm, None), (run / "stage1", of_another)):
        evidence = model / "labels" / "evidence.json"
        given = (own.configuration(), manifest, evidence, label_files(evidence.with_name("labels.json")))
        if expected is None:
            diagnose(*given, own.folder / "sound.json")
        else:
            with pytest.raises(UserError, match=expected):
                diagnose(*given, own.folder / "other.json")
    assert not (own.folder / "other.json").exists()


# --- settings of all that a model was made of


def test_a_model_whose_ancestors_had_other_settings_is_refused(own: Miniature) -> None:
    margin = {"runs__cag__pseudo_labels__anchor__margin": 0.2}
    for change in ({"runs__pretrain__iterations": 13}, margin, {"runs__warmup__iterations": 7}):
        with pytest.raises(UserError, match="must be made with the settings of the configuration, found"):
            evaluate(own.configuration(**change), own.manifest, own.weights("stage"), own.folder / "evaluation.json")
    with pytest.raises(UserError, match=r"runs\.pretrain\.iterations 12, not 13"):
        diagnose(own.configuration(runs__pretrain__iterations=13), own.manifest, own.folder / "labels/evidence.json",
                 label_files(own.folder / "labels/labels.json"), own.folder / "again.json")  # fmt: skip
    with pytest.raises(UserError, match=r"runs\.pretrain\.iterations 12, not 13"):
        make_labels(own.configuration(runs__pretrain__iterations=13), own.folder / "labels/evidence.json", "probability-0.3",
                    own.folder / "again.zarr", own.folder / "again.json")  # fmt: skip


def test_an_evaluation_of_another_model_is_not_replaced(own: Miniature) -> None:
    output = own.folder / "evaluation.json"
    given = (own.configuration(), own.manifest)
    evaluate(*given, own.weights("warmup"), output)
    evaluate(*given, own.weights("warmup"), output)
    with pytest.raises(UserError, match="must be new or replace the evaluation of the same model, found one of warmup"):
        evaluate(*given, own.weights("pretrain"), output)
    assert read_json(output)["model"] == "warmup"


def test_an_evaluation_of_an_earlier_version_is_not_replaced(own: Miniature) -> None:
    output = own.folder / "evaluation.json"
    evaluate(own.configuration(), own.manifest, own.weights("warmup"), output)
    before = read_json(output)
    write_json(output, {"row": "warm-up", "recipe": None} | {key: before[key] for key in before if key != "model"})
    with pytest.raises(
        UserError, match="the evaluation of the same model, found one of a model from elsewhere, seed 0"
    ):
        evaluate(own.configuration(), own.manifest, own.weights("warmup"), output)


def test_a_model_that_started_from_another_stage_is_refused(own: Miniature) -> None:
    """The run of its `start` has more stages now; the key itself is the same."""
    named = {"runs__after": {"like": "control", "start": "cag", "iterations": 1}}
    one = own.configuration(**named, runs__cag__stages=1)
    own.train("after", "after", one, start=own.weights("stage"))
    evaluate(one, own.manifest, own.weights("after"), own.folder / "after.json")
    with pytest.raises(UserError, match=r"found runs\.after\.start cag/stage1, not cag/stage2"):
        evaluate(own.configuration(**named), own.manifest, own.weights("after"), own.folder / "again.json")
    named["runs__after"] |= {"start": "cag/stage1"}
    evaluate(own.configuration(**named), own.manifest, own.weights("after"), own.folder / "after.json")


@pytest.mark.parametrize("name", ["log", "state", "check", "stage1", "evidence"])
def test_a_run_of_any_name_is_out_of_date_when_its_settings_change(own: Miniature, name: str) -> None:
    """Also one that is called as folders are in which nothing is looked for."""
    run = {"like": "pretrain", "iterations": 1}
    described = own.train(f"seed0/{name}", name, own.configuration(**{f"runs__{name}": run})).with_suffix(".json")
    evidence = own.evidence(
        f"seed0/{name}/evidence", own.configuration(**{f"runs__{name}": run}), described.with_suffix(".safetensors")
    )
    for changes, expected in (
        ({}, {}),
        ({"anchors__every_stage": False}, {}),
        ({f"runs__{name}": run | {"iterations": 2}}, {described: f"made with runs.{name}.iterations 1, not 2"}),
    ):
        settings = own.configuration(**{"anchors": {}, f"runs__{name}": run} | changes)
        found = stale_artifacts(settings, own.folder)
        assert {path: found[path] for path in (described, evidence) if path in found} == expected


@pytest.mark.parametrize("name", _FOLDERS_NOT_EXAMINED)
def test_labels_of_a_rule_of_any_name_are_looked_at(name: str) -> None:
    """The folder of a rule without settings has the rule's name."""
    experiment = Path("results/street")
    assert _may_hold_artifacts(experiment / "seed0/warm-up/labels" / name)
    assert not _may_hold_artifacts(experiment / name) and not _may_hold_artifacts(experiment / "seed0/warm-up" / name)


# --- frames


def test_scenes_of_another_experiment_are_neither_replaced_nor_checked(tmp_path: Path) -> None:
    small = {"street__source_frames": 2, "street__target_frames": 2, "street__evaluation_frames": 1}
    own, other, changed = (
        parse_configuration(values(tmp_path / "data", **small, **changes), Path("a.yaml"))
        for changes in ({}, {"experiment": "other", "street__seed": 3}, {"street__seed": 3})
    )
    generate(own, tmp_path / "generated.json")
    frames = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.png")}
    with pytest.raises(UserError, match="must be of this experiment's scenes, found those of miniature"):
        generate(other, tmp_path / "other.json")
    with pytest.raises(UserError, match="must be those of the section street, found those of miniature"):
        check(other, tmp_path / "manifest.json")
    assert frames == {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.png")}
    generate(changed, tmp_path / "generated.json")
    with pytest.raises(UserError, match="found those of miniature with other settings"):
        check(own, tmp_path / "manifest.json")
    assert frames != {path: path.read_bytes() for path in (tmp_path / "data").rglob("*.png")}


def test_a_folder_of_frames_is_no_earlier_output_of_view(own: Miniature, capsys: Said) -> None:
    images = own.root / "source" / "images"
    before = {path: path.read_bytes() for path in images.iterdir()}
    told = own.folder / "labels" / "labels.json"
    for words in (("view", told, "--output", images), ("inspect", told, "--plot", images)):
        assert "must be empty, absent, or an earlier output of the same verb" in called(capsys, *words)
    assert {path: path.read_bytes() for path in images.iterdir()} == before


# --- what Snakemake would remove


def test_what_lies_in_the_place_of_an_output_is_set_aside(tmp_path: Path, capsys: Said) -> None:
    ours, foreign, folder = tmp_path / "a.json", tmp_path / "table.md", tmp_path / "frames"
    write_json(ours, {})
    foreign.write_text("mine")
    folder.mkdir()
    (folder / "NOTES.txt").write_text("mine too")
    (folder / ".snakemake_timestamp").touch()
    (folder / "a.png.01234567.partial").touch()
    (tmp_path / "table.md.aside").write_text("an older one")
    set_aside([ours, foreign, folder, tmp_path / "none"])
    assert is_ours(ours) and not foreign.exists() and len(list(folder.iterdir())) == 2
    assert (tmp_path / "table.md.aside").read_text() == "an older one"
    assert (tmp_path / "table.md.aside1").read_text() == "mine"
    assert (tmp_path / "frames.aside.NOTES.txt").read_text() == "mine too"
    assert (
        capsys.readouterr().err.count("not as caguda wrote it, or without the JSON that vouches for it, kept as") == 2
    )


def test_the_group_file_of_a_store_stays_and_one_of_anything_else_is_set_aside(tmp_path: Path) -> None:
    ours, foreign = tmp_path / "labels.zarr", tmp_path / "other.zarr"
    create_label_store(ours, ["a"], (2, 2), 1, CITYSCAPES_19, {})
    shutil.copytree(ours, foreign)
    (foreign / "notes.txt").write_text("mine")
    set_aside([ours / "zarr.json", foreign / "zarr.json"])
    assert (ours / "zarr.json").exists() and not (foreign / "zarr.json").exists()
    assert (foreign / "zarr.json.aside").exists() and (foreign / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_the_workflow_loses_nothing_that_it_did_not_write(finished: Workflow, tmp_path: Path) -> None:
    own = finished.copy(tmp_path)
    table = own.results / "reports" / "cag" / "table.md"
    expected = table.read_text()
    table.write_text("mine")
    table.with_suffix(".csv").unlink()
    done = own.run()
    assert done.returncode == 0, done.stderr
    assert table.read_text() == expected and (table.parent / "table.md.aside").read_text() == "mine"
    assert "vouches for it, kept as table.md.aside" in done.stderr


def test_check_and_check_test_know_their_own_manifests(tmp_path: Path, capsys: Said) -> None:
    root = tmp_path / "data"
    small = {"street__source_frames": 2, "street__target_frames": 2, "street__evaluation_frames": 1}
    test = {"layout": "cityscapes", "root": "target", "split": "val"}
    configuration = parse_configuration(values(root, **small, test=test), Path("a.yaml"))
    generate(configuration, tmp_path / "generated.json")
    write_json(tmp_path / "a.json", configuration.model_dump(mode="json"))
    words = ["--config", str(tmp_path / "a.json"), "--output"]
    for _ in range(2):
        assert (
            main(["check", *words, str(tmp_path / "m.json")])
            == main(["check-test", *words, str(tmp_path / "t.json")])
            == 0
        )
    assert "found one of `check`" in called(capsys, "check-test", *words, tmp_path / "m.json")
    assert "found one of `check-test`" in called(capsys, "check", *words, tmp_path / "t.json")


def test_a_training_writes_into_no_folder_of_another_run(own: Miniature, capsys: Said) -> None:
    """It would be refused by every reader, hours later."""
    sound = ("--config", own.yaml(runs__mine={"method": "imported", "file": "mine.safetensors"}))
    trained = ("train", *sound, "--manifest", own.manifest, "--state", own.folder / "s", "--model")
    for run, seed, place in (
        ("pretrain", 9, "seed0/pretrain"), ("pretrain", 0, "seed0/warmup"), ("pretrain", 0, "seed0/cag/stage1"),
        ("pretrain", 0, "seed0"), ("pretrain", 0, "seed0/pretrain/labels"), ("pretrain", 0, "seed0/pretrain/stage1"),
        ("cag/stage1", 0, "seed0/cag"), ("cag/stage1", 0, "seed0/cag/stage2"), ("cag/stage1", 0, "seed0/nothing/stage1"),
        ("cag/stage1", 0, "seed0/stage1"), ("cag/stage1", 1, "seed0/cag/stage1"),
    ):  # fmt: skip
        output = own.folder / place / "checkpoint.safetensors"
        said = called(capsys, *trained, run, "--seed", seed, "--output", output)
        assert f"{output}: an output must lie in no folder of another experiment, seed, run or report" in said
    imported = ("import", *sound, "--seed", 0, "--input", own.weights("warmup"), "--model", "mine", "--output")
    for place in ("warmup", "mine/stage1", "mine/evidence"):
        said = called(capsys, *imported, own.folder / "seed0" / place / "checkpoint.safetensors")
        assert "another experiment, seed, run" in said


def test_no_model_is_replaced_by_that_of_another_run_or_by_one_that_is_brought(own: Miniature, capsys: Said) -> None:
    """Not in a folder of any name; the model of the same run is, unless it was made of other files or is brought."""
    sound = ("--config", own.yaml(runs__mine={"method": "imported", "file": "mine.safetensors"}))
    trained = ("train", *sound, "--manifest", own.manifest, "--state", own.folder / "s", "--seed", 0, "--model")
    before = {path: path.read_bytes() for path in own.folder.rglob("checkpoint.*")}
    for run, folder, writer in (
        ("oracle", "pretrain", "train --model pretrain"), ("pretrain", "warmup", "train --model warmup"),
        ("nothing/stage1", "stage", "train --model cag/stage1"), ("cag/stage2", "stage", "train --model cag/stage1"),
    ):  # fmt: skip
        said = called(capsys, *trained, run, "--output", own.weights(folder))
        assert f"must be a new file or one that `train --model {run}` wrote before, found one of `{writer}`" in said
    said = called(capsys, *trained, "warmup", "--start", own.weights("stage"), "--output", own.weights("warmup"))
    assert "found one that was made of ../pretrain/checkpoint.safetensors" in said
    imported = ("import", *sound, "--seed", 0, "--input", own.weights("warmup"), "--model", "mine", "--output")
    said = called(capsys, *imported, own.weights("pretrain"))
    assert "one that `import --model mine` wrote before, found one of `train --model pretrain`" in said
    assert {path: path.read_bytes() for path in own.folder.rglob("checkpoint.*")} == before
    mine = own.folder / "mine.safetensors"
    for _ in range(2):
        assert main([str(word) for word in (*imported, mine)]) == 0
    values_of_mine = {"runs__mine": {"like": "pretrain"}}
    words = ("train", "--config", own.yaml(**values_of_mine), *trained[3:], "mine", "--output", mine)
    assert "one that `train --model mine` wrote before, found one of `import --model mine`" in called(capsys, *words)


def test_a_file_of_first_weights_may_be_moved_but_not_changed(own: Miniature) -> None:
    def configured(folder: str, content: str) -> Configuration:
        file = own.folder / folder / "w.pth"
        file.parent.mkdir()
        file.write_text(content)
        return own.configuration(network={"name": "deeplab_v2", "backbone": "resnet50", "weights": str(file)})

    first, moved, other = configured("a", "1"), configured("b", "1"), configured("c", "2")
    made = {"method_version": METHOD_VERSION, "settings": settings_of_run(first, "pretrain")}
    (own.folder / "a" / "w.pth").unlink()
    assert settings_of_run(moved, "pretrain") == made["settings"] and differing_settings(moved, made) == []
    assert settings_of_run(other, "pretrain") != made["settings"]
    assert differing_settings(other, made) == ["another content of network.weights w.pth"]
    assert settings_of_run(other, "warmup") == settings_of_run(moved, "warmup"), "it starts from pretrain"


class MayHaveWeights(NetworkSettings):
    """A network of a plugin whose key `weights` may be absent."""

    name: Literal["small"]
    feature_stride: ClassVar[int] = 4
    weights: str | None = None


@pytest.mark.filterwarnings("ignore:Pydantic serializer")
def test_a_network_of_a_plugin_may_have_no_weights(own: Miniature) -> None:
    made = {"method_version": METHOD_VERSION, "settings": {"network": {"weights": "w.pth"}}}
    configuration = own.configuration().model_copy(update={"network": MayHaveWeights(name="small")})
    assert differing_settings(configuration, made) == ["network.weights w.pth, not None"]
    assert settings_of_run(configuration, "pretrain")["network"]["weights"] is None


def test_what_a_pass_makes_is_out_of_date_when_its_arithmetic_changes(own: Miniature) -> None:
    labels, evaluation = own.folder / "labels", own.folder / "evaluation.json"
    evaluate(own.configuration(), own.manifest, own.weights("pretrain"), evaluation)
    other = own.configuration(compute__tf32=True)
    for path in (labels / "anchors.h5", labels / "anchors.1-of-1.h5", labels / "evidence.json", evaluation):
        assert differing_settings(other, provenance_of(path)) == ["compute.tf32 False, not True"], path
    assert prediction_settings(own.configuration()) != prediction_settings(other)


def test_a_journal_is_never_a_link_or_a_folder(own: Miniature) -> None:
    folder, inputs = evidence_of(own)
    (journal,) = folder.glob("evidence.zarr.*.journal")
    theirs = own.folder / "mine.txt"
    theirs.write_text("mine")
    journal.unlink()
    journal.symlink_to(theirs)
    with pytest.raises(UserError, match="the journal must be a regular file"):
        write_part(own.configuration(), *inputs, folder / "evidence.zarr", 1, 1, folder / "1.json")
    journal.unlink()
    journal.mkdir()
    with pytest.raises(UserError, match="the journal must be a regular file"):
        write_part(own.configuration(), *inputs, folder / "evidence.zarr", 1, 1, folder / "1.json")
    assert theirs.read_text() == "mine"


def test_a_json_vouches_for_the_store_that_it_names_alone(own: Miniature) -> None:
    folder, _ = evidence_of(own)
    shutil.copytree(folder / "evidence.zarr", folder / "other.zarr")
    shutil.copy(folder / "evidence.json", folder / "other.json")  # names evidence.zarr
    other = store_at(folder / "other.zarr", EVIDENCE)
    assert other.path == folder / "other.zarr" and other.chunk_sha256 is None


# --- what would be waited for


@pytest.mark.timeout(120)
def test_no_pipe_is_waited_for(own: Miniature, capsys: Said) -> None:
    labels = own.folder / "labels"
    pipes = {
        suffix: own.folder / f"pipe{suffix}" for suffix in (".json", ".h5", ".safetensors", ".csv", ".png", ".zip")
    }
    for path in pipes.values():
        os.mkfifo(path)
    calls: list[tuple[object, ...]] = [("verify", path) for path in pipes.values()]
    calls += [("provenance", path) for path in pipes.values()]
    sound = ("--config", own.yaml(), "--manifest", own.manifest, "--output", own.folder / "new.json")
    calls += [
        ("evaluate", *sound, "--checkpoint", pipes[".safetensors"]),
        ("diagnose", *sound, "--evidence", labels / "evidence.json", "--labels", pipes[".json"]),
        ("diagnose", *sound, "--evidence", pipes[".json"], "--labels", labels / "labels.json"),
    ]
    for words in calls:
        assert "found a pipe, socket or device" in called(capsys, *words)
    with_configuration(own)
    by_anchor, by_probability = label_files(labels / "labels.json")
    told = ("diagnose", *sound, "--evidence", labels / "evidence.json", "--labels", by_anchor, by_probability)
    evidence = labels / "evidence.zarr"
    for store in (evidence, by_anchor.with_suffix(".zarr"), by_probability.with_suffix(".zarr")):
        array = "margin" if store == evidence else "label"
        looked_at = (labels / "labels.json", evidence) if store == evidence else (labels / "labels.json",)
        for name in ("zarr.json", "image_id/c.0", f"{array}/zarr.json", f"{array}/c.0.0.0"):
            path = store / name
            content = path.read_bytes()
            path.unlink()
            os.mkfifo(path)
            called(capsys, *told)
            for look in looked_at:
                called(capsys, "inspect", look)
                called(capsys, "view", look, "--output", own.folder / "out")
            if name.endswith("zarr.json"):
                called(capsys, "provenance", store)
            assert main(["verify", str(labels)]) == 1
            path.unlink()
            path.write_bytes(content)
    assert main(list(map(str, told))) == 0


# --- what would end in a traceback


WRONG: dict[str, Callable[[Miniature], tuple[object, ...]]] = {
    "a folder as checkpoint": lambda own: ("evaluate", "--checkpoint", "."),
    "no name as checkpoint": lambda own: ("evaluate", "--checkpoint", ""),
    "the JSON as checkpoint": lambda own: ("evaluate", "--checkpoint", own.weights("warmup").with_suffix(".json")),
    "another JSON as checkpoint": lambda own: ("evaluate", "--checkpoint", own.yaml()),
    "a folder to import": lambda own: ("import", "--model", "mine", "--seed", 0, "--input", "."),
    "weights of another name": lambda own: ("import", "--model", "mine", "--seed", 0, "--input", own.weights("warmup"),
                                            "--output", own.folder / "model.pt"),
    "a trained run to import": lambda own: ("import", "--model", "pretrain", "--seed", 0, "--input", own.weights("pretrain")),
    "no run to import": lambda own: ("import", "--model", "nosuch", "--seed", 0, "--input", own.weights("pretrain")),
    "HDF5 of another name": lambda own: ("pack", "--domain", "source", "--output", own.folder / "pack.json"),
    "a state in a file": lambda own: ("train", "--model", "pretrain", "--seed", 0, "--state", own.manifest),
    "a state below a file": lambda own: ("train", "--model", "pretrain", "--seed", 0, "--state", own.manifest / "x" / "y"),
    "a state of a long name": lambda own: ("train", "--model", "pretrain", "--seed", 0, "--state", own.folder / ("x" * 256)),
    "a store below a file": lambda own: ("evidence-store", "--checkpoint", own.weights("warmup"), "--anchors",
                                         own.folder / "labels/anchors.h5", "--store", own.manifest / "x.zarr"),
    "labels below a file": lambda own: ("labels", "--evidence", own.folder / "labels/evidence.json", "--rule", "probability-0.3",
                                        "--store", own.manifest / "x.zarr"),
    "labels of no evidence": lambda own: ("labels", "--evidence", own.manifest, "--rule", "probability-0.3", "--store",
                                          own.folder / "new.zarr"),
    "labels of evidence that is not verified": lambda own: ("labels", "--evidence", own.folder / "labels/evidence.created.json",
                                                            "--rule", "probability-0.3", "--store", own.folder / "new.zarr"),
    "labels of labels": lambda own: ("labels", "--evidence", own.folder / "labels/probability-0.3/labels.json", "--rule",
                                     "probability-0.3", "--store", own.folder / "new.zarr"),
    "a rule that nobody knows": lambda own: ("labels", "--evidence", own.folder / "labels/evidence.json", "--rule", "../new",
                                             "--store", own.folder / "new.zarr"),
    "labels apart from their JSON": lambda own: ("labels", "--evidence", own.folder / "labels/evidence.json", "--rule",
                                                 "probability-0.3", "--store", own.folder / "apart/new.zarr"),
    "a path that is not UTF-8": lambda own: ("evaluate", "--checkpoint", own.folder / os.fsdecode(b"\xff.safetensors")),
    "a manifest of brackets": lambda own: ("evaluate", "--checkpoint", own.weights("warmup"), "--manifest", brackets(own)),
    "predictions of no model": lambda own: ("predict", "--set", "evaluation", "--folder", own.folder / "p", "--part-files",
                                            own.manifest, "--checkpoint", own.yaml()),
}  # fmt: skip


def brackets(own: Miniature) -> Path:
    path = own.folder / "deep.json"
    path.write_text("[" * 200_000)
    return path


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_one_line(own: Miniature, name: str, capsys: Said) -> None:
    verb, *words = WRONG[name](own)
    config = own.yaml(runs__mine={"method": "imported", "file": "mine.safetensors"})
    default = {"--config": config, "--manifest": own.manifest, "--state": own.folder / "s"}
    if verb in ("import", "labels"):
        del default["--manifest"]
    if verb != "train":
        del default["--state"]
    default["--output"] = own.folder / ("new.safetensors" if verb in ("train", "import") else "new.json")
    for flag, value in default.items():
        words += [] if flag in words else [flag, value]
    called(capsys, verb, *words)
    assert not list(own.folder.glob("new.*"))


def test_a_seed_that_no_generator_takes_is_one_line(own: Miniature, capsys: Said) -> None:
    words = (
        "--config",
        own.yaml(),
        "--manifest",
        own.manifest,
        "--state",
        own.folder / "s",
        "--output",
        own.folder / "n.safetensors",
    )
    for digits in (10, 25, 5000):
        with pytest.raises(SystemExit) as ended:
            main(["train", "--model", "pretrain", "--seed", "9" * digits, *map(str, words)])
        said = capsys.readouterr().err
        assert ended.value.code == 2 and "--seed: must be " in said and said.count("\n") == 1 and len(said) < 300


def test_misplaced_models_are_faults_for_verify(own: Miniature, capsys: Said) -> None:
    warm = own.folder / "seed1" / "control"
    shutil.copytree(own.weights("warmup").parent, warm)
    assert main(["verify", str(warm)]) != 0
    assert "the folder is of seed 1, found a file of seed 0" in capsys.readouterr().out


def test_a_picture_is_as_it_was_drawn(finished: Workflow, tmp_path: Path) -> None:
    """A damaged file is refused, or has the same pixels: nobody reads a checksum of compressed pixels."""
    from caguda.paper.pictures import refuse_other_picture

    figure = finished.results / "reports" / "cag" / "figure.png"
    with Image.open(figure) as picture:
        told = json.loads(picture.text["Description"])
        content = np.array(picture)
    assert refuse_other_picture(figure, "figure", told["shows"]) == set(told["shows"])
    data = bytearray(figure.read_bytes())
    refused = 0
    for place in range(len(data) // 2, len(data) - 100, (len(data) // 2) // 20):
        data[place] ^= 4
        (tmp_path / "bit.png").write_bytes(data)
        data[place] ^= 4
        try:
            refuse_other_picture(tmp_path / "bit.png", "figure", told["shows"])
        except UserError:
            refused += 1
        else:
            with Image.open(tmp_path / "bit.png") as picture:
                assert np.array_equal(np.array(picture), content)
    assert refused >= 15


def test_an_output_of_other_files_or_another_place_is_not_replaced(own: Miniature, capsys: Said) -> None:
    """By the verb that wrote it too: what is told of other labels, labels of other evidence, another experiment's manifest."""
    own.label("other", own.configuration(), own.weights("pretrain"))
    sound = ("--config", own.yaml(), "--manifest", own.manifest)
    mine, theirs = own.folder / "labels", own.folder / "other"
    labels, others = (label_files(folder / "labels.json") for folder in (mine, theirs))
    told = ("--output", mine / "told.json")
    words = ["diagnose", *sound, "--evidence", mine / "evidence.json", "--labels", *labels, *told]
    assert main([str(word) for word in words]) == main([str(word) for word in words]) == 0
    said = called(capsys, "diagnose", *sound, "--evidence", theirs / "evidence.json", "--labels", *others, *told)
    assert "found one that was made of evidence.json" in said
    said = called(
        capsys, "diagnose", *sound, "--evidence", mine / "evidence.json", "--labels", labels[0], others[1], *told
    )
    assert "found one that was made of probability-0.3/labels.json" in said
    made = ("--rule", "probability-0.3", "--store", labels[1].with_suffix(".zarr"), "--output", labels[1])
    said = called(capsys, "labels", *sound[:2], "--evidence", theirs / "evidence.json", *made)
    assert "found one that was made of ../evidence.json" in said
    write_json(own.folder / "config.json", own.configuration(experiment="theirs").model_dump(mode="json"))
    said = called(capsys, "check", "--config", own.yaml(), "--output", own.manifest)
    assert "an output must lie in no folder of another experiment, seed, run or report" in said
    said = called(capsys, "labels", *sound[:2], "--evidence", mine / "evidence.json", *made)
    assert "an output must lie in no folder of another experiment, seed, run or report" in said
