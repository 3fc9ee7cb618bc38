"""What a careless or hostile call would lose, wait for, crash on, or take for what it is not."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniature import Miniature, edit_store, values
from PIL import Image
from workflow_runs import Workflow

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.ownership import is_ours
from caguda.cli import main
from caguda.configfile import parse_configuration
from caguda.errors import UserError
from caguda.stages.anchors import construct_anchors
from caguda.stages.check import check
from caguda.stages.evaluate import diagnose, evaluate
from caguda.stages.generate import generate
from caguda.stages.inspect import inspect
from caguda.stages.labels import create_store, write_part
from caguda.stages.verified_labels import verify_labels
from caguda.stages.view import view
from caguda.stages.vouched import label_store
from caguda.workflow import set_aside

Said = pytest.CaptureFixture[str]


def called(capsys: Said, *words: object) -> str:
    """What a call that is refused says, in one line."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("caguda: error: ") and said.count("\n") == 1, said
    return said


# --- labels


def labels_of(own: Miniature) -> tuple[Path, tuple[Path, Path, Path]]:
    return own.folder / "labels", (own.manifest, own.weights("warmup"), own.folder / "labels" / "anchors.h5")


def test_images_that_somebody_else_wrote_into_a_store_are_written_again(own: Miniature) -> None:
    folder, inputs = labels_of(own)
    expected = read_json(folder / "labels.json")["digest"]
    store = folder / "labels.zarr"
    for name in ("anchor_label", "nearest_anchor", "active"):
        shutil.copy(store / name / "c.5.0.0", store / name / "c.1.0.0")  # whole, and of this store
    write_part(own.configuration(), *inputs, store, 1, 1, folder / "1.json")
    verify_labels(store, [folder / "1.json"], folder / "labels.json")
    assert read_json(folder / "labels.json")["digest"] == expected


def test_the_journal_of_another_model_vouches_for_nothing(own: Miniature, capsys: Said) -> None:
    """Chunks and their journal from a store of the same frames by another network."""
    folder, inputs = labels_of(own)
    own.label("other", own.configuration(), own.weights("pretrain"))
    store, other = folder / "labels.zarr", own.folder / "other" / "labels.zarr"
    for file in other.glob("*/c.*.0.0"):
        shutil.copy(file, store / file.relative_to(other))
    for file in other.parent.glob("labels.zarr.*.journal"):
        shutil.copy(file, folder / file.name)
    capsys.readouterr()
    write_part(own.configuration(), *inputs, store, 1, 1, folder / "1.json")
    assert "0 of them from an earlier call" in capsys.readouterr().out
    store_of = own.folder / "labels" / "labels.json"
    before = read_json(store_of)["digest"]
    verify_labels(store, [folder / "1.json"], store_of)
    assert read_json(store_of)["digest"] == before


def test_a_torn_line_of_the_journal_is_an_image_more_to_write(own: Miniature, capsys: Said) -> None:
    folder, inputs = labels_of(own)
    (journal,) = folder.glob("labels.zarr.*.journal")
    journal.write_text(journal.read_text().rstrip("\n")[:-20])
    write_part(own.configuration(), *inputs, folder / "labels.zarr", 1, 1, folder / "1.json")
    assert "0 of them from an earlier call" in capsys.readouterr().out  # one batch has all eight


def test_a_store_that_says_other_thresholds_than_its_parts_is_refused(own: Miniature) -> None:
    folder, _ = labels_of(own)
    edit_store(folder / "labels.zarr", lambda text: text.replace('"margin": 0.05', '"margin": 0.5'))
    with pytest.raises(UserError, match="must say the thresholds and inputs that .*1.json was written with"):
        verify_labels(folder / "labels.zarr", [folder / "1.json"], folder / "labels.json")


def test_a_finished_store_is_kept_or_refused(own: Miniature, tmp_path: Path) -> None:
    folder, inputs = labels_of(own)
    store = folder / "labels.zarr"
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    create_store(own.configuration(), *inputs, store, folder / "labels.created.json")
    with pytest.raises(UserError, match=r"labels\.zarr: a label store must be new, or of these files and settings"):
        create_store(own.configuration(), *inputs, store, folder / "labels.created.json", margin=0.2)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("named", ["labels.json", "labels.zarr"])
def test_labels_are_looked_at_as_they_were_vouched_for(own: Miniature, named: str, tmp_path: Path) -> None:
    folder, _ = labels_of(own)
    chunks = [folder / "labels.zarr" / "anchor_label" / f"c.{index}.0.0" for index in (3, 5)]
    contents = [chunk.read_bytes() for chunk in chunks]
    for chunk, content in zip(chunks, contents[::-1], strict=True):
        chunk.write_bytes(content)
    with pytest.raises(UserError, match="anchor_label is damaged"):
        inspect(folder / named, True, None, (), ())
    with pytest.raises(UserError, match="anchor_label is damaged"):
        view([folder / named], None, None, None, True, tmp_path / "page")


def test_the_json_of_another_store_does_not_vouch_for_labels(own: Miniature, tmp_path: Path) -> None:
    folder, _ = labels_of(own)
    own.label("other", own.configuration(), own.weights("pretrain"))
    shutil.copy(own.folder / "other" / "labels.json", folder / "labels.json")
    for look in (lambda: inspect(folder / "labels.json", True, None, (), ()),
                 lambda: view([folder / "labels.json"], None, None, None, False, tmp_path / "out")):  # fmt: skip
        with pytest.raises(UserError, match=r"must be the one that labels\.json vouches for"):
            look()


def test_a_part_counts_once(own: Miniature) -> None:
    folder, inputs = labels_of(own)
    copy = Path(shutil.copy(folder / "1.json", folder / "copy.json"))
    with pytest.raises(UserError, match="found 8 units of work in two of them"):
        verify_labels(folder / "labels.zarr", [folder / "1.json", copy], folder / "labels.json")
    sums = folder / "anchors.1-of-1.h5"
    copy = Path(shutil.copy(sums, folder / "copy.h5"))
    with pytest.raises(UserError, match="units of work in two of them"):
        construct_anchors(own.configuration(), *inputs[:2], [sums, copy], folder / "new.h5")


def test_labels_of_another_stage_are_not_diagnosed(own: Miniature) -> None:
    """Copied whole to where the inputs that they name do not lie."""
    run = own.folder / "seed0" / "cag"
    warm = run.parent / "warmup"
    shutil.copytree(own.weights("warmup").parent, warm)
    labels = own.label("first", own.configuration(), warm / "checkpoint.safetensors")
    for number in (1, 2):
        shutil.copytree(labels.parent, run / f"stage{number}")
    manifest = shutil.copy(own.manifest, own.folder / "seed0" / "manifest.json")
    for number, expected in ((1, None), (2, "the folder is of stage2, found a file of the model in warmup")):
        given = (
            own.configuration(),
            Path(manifest),
            run / f"stage{number}" / "labels.json",
            own.folder / f"{number}.json",
        )
        if expected is None:
            diagnose(*given)
        else:
            with pytest.raises(UserError, match=expected):
                diagnose(*given)


# --- settings of all that a model was made of


def test_a_model_whose_ancestors_had_other_settings_is_refused(own: Miniature) -> None:
    for change in ({"pretrain__iterations": 13}, {"labels__margin": 0.2}, {"warmup__iterations": 7}):
        with pytest.raises(UserError, match="must be made with the settings of the configuration, found"):
            evaluate(own.configuration(**change), own.manifest, own.weights("stage"), own.folder / "evaluation.json")
    with pytest.raises(UserError, match=r"pretrain\.iterations 12, not 13"):
        diagnose(own.configuration(pretrain__iterations=13), own.manifest, own.folder / "labels/labels.json",
                 own.folder / "accuracy.json")  # fmt: skip


def test_an_evaluation_of_another_model_is_not_replaced(own: Miniature) -> None:
    output = own.folder / "evaluation.json"
    given = (own.configuration(), own.manifest)
    evaluate(*given, own.weights("warmup"), output)
    evaluate(*given, own.weights("warmup"), output)
    with pytest.raises(
        UserError, match="must be new or replace the evaluation of the same model, found one of warm-up"
    ):
        evaluate(*given, own.weights("pretrain"), output)
    assert read_json(output)["row"] == "warm-up"


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
    store = own.folder / "labels" / "labels.zarr"
    for words in (("view", store, "--output", images), ("inspect", store, "--plot", images)):
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


@pytest.mark.slow
def test_the_workflow_loses_nothing_that_it_did_not_write(finished: Workflow, tmp_path: Path) -> None:
    own = finished.copy(tmp_path)
    table = own.results / "cag" / "table.md"
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
    sound = ("--config", own.yaml(), "--manifest", own.manifest, "--state", own.folder / "s")
    for seed, place in ((9, "seed0/pretrain"), (0, "seed0/warmup"), (0, "seed0/cag/stage1")):
        output = own.folder / place / "checkpoint.safetensors"
        said = called(capsys, "pretrain", "--seed", seed, *sound, "--output", output)
        assert "an output must lie in no folder of another experiment, seed, run or recipe" in said
    imported = ("import", "--config", own.yaml(), "--seed", 0, "--input", own.weights("warmup"), "--output")
    assert "another experiment, seed, run" in called(
        capsys, *imported, own.folder / "seed0/warmup/checkpoint.safetensors", "--run", "pretrain"
    )


def test_a_journal_is_never_a_link_or_a_folder(own: Miniature) -> None:
    folder, inputs = labels_of(own)
    (journal,) = folder.glob("labels.zarr.*.journal")
    theirs = own.folder / "mine.txt"
    theirs.write_text("mine")
    journal.unlink()
    journal.symlink_to(theirs)
    with pytest.raises(UserError, match="the journal must be a regular file"):
        write_part(own.configuration(), *inputs, folder / "labels.zarr", 1, 1, folder / "1.json")
    journal.unlink()
    journal.mkdir()
    with pytest.raises(UserError, match="the journal must be a regular file"):
        write_part(own.configuration(), *inputs, folder / "labels.zarr", 1, 1, folder / "1.json")
    assert theirs.read_text() == "mine"


def test_a_json_vouches_for_the_store_that_it_names_alone(own: Miniature) -> None:
    folder, _ = labels_of(own)
    shutil.copytree(folder / "labels.zarr", folder / "other.zarr")
    shutil.copy(folder / "labels.json", folder / "other.json")  # names labels.zarr
    assert label_store(folder / "other.zarr").path == folder / "other.zarr"


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
        ("diagnose", *sound, "--labels", pipes[".json"]),
    ]
    for words in calls:
        assert "found a pipe, socket or device" in called(capsys, *words)
    for name in ("zarr.json", "image_id/c.0", "anchor_label/zarr.json", "anchor_label/c.3.0.0"):
        path = labels / "labels.zarr" / name
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        for words in (("diagnose", *sound, "--labels", labels / "labels.json"), ("inspect", labels / "labels.zarr"),
                      ("view", labels / "labels.zarr", "--output", own.folder / "out")):  # fmt: skip
            called(capsys, *words)
        if name.endswith("zarr.json"):
            called(capsys, "provenance", labels / "labels.zarr")
        assert main(["verify", str(labels)]) == 3 or main(["verify", str(labels)]) == 1
        path.unlink()
        path.write_bytes(content)


# --- what would end in a traceback


WRONG: dict[str, Callable[[Miniature], tuple[object, ...]]] = {
    "a folder as checkpoint": lambda own: ("evaluate", "--checkpoint", "."),
    "no name as checkpoint": lambda own: ("evaluate", "--checkpoint", ""),
    "the JSON as checkpoint": lambda own: ("evaluate", "--checkpoint", own.weights("warmup").with_suffix(".json")),
    "another JSON as checkpoint": lambda own: ("evaluate", "--checkpoint", own.yaml()),
    "a folder to import": lambda own: ("import", "--run", "pretrain", "--seed", 0, "--input", "."),
    "weights of another name": lambda own: ("import", "--run", "pretrain", "--seed", 0, "--input", own.weights("warmup"),
                                            "--output", own.folder / "model.pt"),
    "HDF5 of another name": lambda own: ("pack", "--domain", "source", "--output", own.folder / "pack.json"),
    "a state in a file": lambda own: ("pretrain", "--seed", 0, "--state", own.manifest),
    "a state below a file": lambda own: ("pretrain", "--seed", 0, "--state", own.manifest / "x" / "y"),
    "a state of a long name": lambda own: ("pretrain", "--seed", 0, "--state", own.folder / ("x" * 256)),
    "a store below a file": lambda own: ("label-store", "--checkpoint", own.weights("warmup"), "--anchors",
                                         own.folder / "labels/anchors.h5", "--store", own.manifest / "x.zarr"),
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
    default = {"--config": own.yaml(), "--manifest": own.manifest, "--state": own.folder / "s"}
    if verb == "import":
        del default["--manifest"]
    if verb != "pretrain":
        del default["--state"]
    default["--output"] = own.folder / ("new.safetensors" if verb in ("pretrain", "import") else "new.json")
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
            main(["pretrain", "--seed", "9" * digits, *map(str, words)])
        said = capsys.readouterr().err
        assert ended.value.code == 2 and "--seed: must be " in said and said.count("\n") == 1 and len(said) < 300


def test_misplaced_models_are_faults_for_verify(own: Miniature, capsys: Said) -> None:
    warm = own.folder / "seed1" / "control"
    shutil.copytree(own.weights("warmup").parent, warm)
    assert main(["verify", str(warm)]) != 0
    assert "the folder is of seed 1, found a file of seed 0" in capsys.readouterr().out


def test_a_picture_is_as_it_was_drawn(finished: Workflow, tmp_path: Path) -> None:
    from caguda.paper.pictures import refuse_other_picture

    figure = finished.results / "cag" / "figure.png"
    with Image.open(figure) as picture:
        told = json.loads(picture.text["Description"])
        content = np.array(picture)
    assert refuse_other_picture(figure, "figure", "cag", told["shows"]) == set(told["shows"])
    data = bytearray(figure.read_bytes())
    refused = 0
    for place in range(len(data) // 2, len(data) - 100, (len(data) // 2) // 20):
        data[place] ^= 4
        (tmp_path / "bit.png").write_bytes(data)
        data[place] ^= 4
        with pytest.raises(UserError):
            refuse_other_picture(tmp_path / "bit.png", "figure", "cag", told["shows"])
        refused += 1
    assert refused >= 15 and content.size


def test_an_output_of_other_files_or_another_place_is_not_replaced(own: Miniature, capsys: Said) -> None:
    """By the verb that wrote it too: another stage's accuracy, another experiment's manifest, another recipe's table."""
    own.label("other", own.configuration(), own.weights("pretrain"))
    sound = ("--config", own.yaml(), "--manifest", own.manifest)
    accuracy = own.folder / "labels" / "label_accuracy.json"
    words = ["diagnose", *sound, "--labels", own.folder / "labels/labels.json", "--output", accuracy]
    assert main([str(word) for word in words]) == main([str(word) for word in words]) == 0
    said = called(capsys, "diagnose", *sound, "--labels", own.folder / "other/labels.json", "--output", accuracy)
    assert "found one that was made of labels.json" in said
    write_json(own.folder / "config.json", own.configuration(experiment="theirs").model_dump(mode="json"))
    said = called(capsys, "check", "--config", own.yaml(), "--output", own.manifest)
    assert "an output must lie in no folder of another experiment, seed, run or recipe" in said
