"""Whatever belongs to another run, recipe, stage or experiment, or is of another kind, is refused by every verb that is given it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import pytest
from miniature import Miniature, make_miniature
from workflow_runs import Workflow

from caguda.artifacts.anchors import Anchors, load_anchors, save_anchors
from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.identity import WRITES
from caguda.artifacts.state import load_state, save_state
from caguda.cli import VERBS, main

RUNS = ["pretrain", "warmup", "control", "oracle", "cag/stage1", "cag/stage2"]
SEED = Path("results/smoke/seed0")
STAGES = ["stage1", "cag/stage2"]  # whose folders hold the labels


@dataclass
class Results:
    """The finished workflow as the current folder, and verbs as a person calls them there; what they write lies elsewhere."""

    new: Path
    capsys: pytest.CaptureFixture[str]

    def sound(self, verb: str) -> dict[str, list[Path | str]]:
        """The options of a verb as the workflow gives them."""
        evaluations = [SEED / run / "evaluation.json" for run in RUNS]
        models = [SEED / run / "checkpoint.json" for run in RUNS]
        labels = [SEED / stage / "labels.json" for stage in STAGES]
        cag = Path("results/smoke/cag")
        options: dict[str, list[Path | str]] = {
            "config": ["results/smoke/config.json"], "recipe": ["cag"], "seed": ["0"], "set": ["evaluation"],
            "manifest": ["results/smoke/manifest.json"], "evaluations": [*evaluations],
            "checkpoints": [*models], "all-labels": [*labels], "labels": [labels[0]],
            "accuracy": [SEED / stage / "label_accuracy.json" for stage in STAGES],
            "figure": [cag / "figure.png"], "curves": [cag / "curves.png"], "table": [cag / "table.csv"],
            "csv": [self.new / "table.csv"], "markdown": [self.new / "table.md"], "output": [self.new / f"output{WRITES[verb][0]}"],
            "checkpoint": [SEED / "warmup/checkpoint.safetensors"], "anchors": [SEED / "stage1/anchors.h5"],
            "store": [SEED / "stage1/labels.zarr"], "number": ["1"],
        }  # fmt: skip
        if verb == "figure":
            runs = ("pretrain", "warmup", "cag/stage2")
            options |= {"checkpoints": [SEED / run / "checkpoint.safetensors" for run in runs], "labels": [labels[1]]}
        if verb in ("class-chart", "paper-table"):
            options["evaluations"] = [evaluations[0], *evaluations[1:2] * (verb == "paper-table"), evaluations[5]]
        if verb == "curves":
            options["checkpoints"] = [*models[:2], *models[4:]]
        return {option: options[option] for option in VERBS[verb][2].split()}

    def call(self, verb: str, /, **changed: list[Path | str]) -> tuple[int, str]:
        """The exit code of a call with some options changed, and what it says."""
        flags = {"csv": "output-csv", "markdown": "output-md", "all-labels": "labels"}
        options = self.sound(verb) | {name.replace("_", "-"): values for name, values in changed.items()}
        words = [word for name, values in options.items() for word in (f"--{flags.get(name, name)}", *map(str, values))]
        self.capsys.readouterr()
        return main([verb, *words]), self.capsys.readouterr().err

    def refused(self, verb: str, /, *words: str, **changed: list[Path | str]) -> None:
        """The call ends with one line that has all the words, and writes nothing."""
        before = {path: path.stat().st_mtime_ns for path in self.new.rglob("*")}
        code, said = self.call(verb, **changed)
        assert code == 2 and said.count("\n") == 1 and said.startswith("caguda: error: "), said
        assert [word for word in words if word not in said] == [], said
        assert {path: path.stat().st_mtime_ns for path in self.new.rglob("*")} == before


@pytest.fixture
def results(
    finished: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Results:
    monkeypatch.chdir(finished.directory)
    return Results(tmp_path, capsys)


@pytest.mark.parametrize("verb", ["table", "figure", "curves", "report", "class-chart"])
def test_sound_calls_work(results: Results, verb: str) -> None:
    assert results.call(verb) == (0, "")


def test_a_table_is_of_a_recipe_of_the_configuration(results: Results) -> None:
    for verb in ("table", "report", "figure"):
        results.refused(verb, "--recipe nosuch", "only cag", recipe=["nosuch"])


@pytest.mark.parametrize("verb", ["table", "report", "class-chart", "curves", "figure"])
def test_a_file_that_is_named_twice_is_refused(results: Results, verb: str) -> None:
    option = "evaluations" if "evaluations" in VERBS[verb][2] else "checkpoints"
    files = results.sound(verb)[option]
    results.refused(verb, str(files[0]), "named once", **{option: [*files, files[0]]})


@pytest.mark.parametrize("verb", ["table", "report", "class-chart"])
def test_an_evaluation_under_another_name_counts_once(results: Results, verb: str) -> None:
    files = results.sound(verb)["evaluations"]
    copy = results.new / "copy.json"
    made = read_json(Path(files[-1]))
    for recorded in made["provenance"]["inputs"].values():
        recorded["from_here"] = str(Path(files[-1]).resolve().parent / recorded["from_here"])
    write_json(copy, made)
    results.refused(verb, evaluations=[*files, copy])


WRONG_KINDS = {
    "evaluations": "results/smoke/seed0/stage1/label_accuracy.json",
    "all-labels": "results/smoke/seed0/warmup/evaluation.json",
    "accuracy": "results/smoke/seed0/stage1/labels.json",
    "checkpoints": "results/smoke/seed0/warmup/evaluation.json",
    "figure": "results/smoke/cag/curves.png",
    "curves": "results/smoke/cag/figure.png",
}


@pytest.mark.parametrize("option", WRONG_KINDS)
def test_a_report_takes_no_file_of_another_kind(results: Results, option: str) -> None:
    files = results.sound("report")[option]
    wrong = Path(WRONG_KINDS[option])
    results.refused("report", str(wrong), **{option: [*files[:-1], wrong]})
    results.refused("report", "config.json", **{option: [*files[:-1], Path("results/smoke/config.json")]})


@pytest.mark.parametrize("option", ["checkpoints", "all-labels", "accuracy", "evaluations"])
def test_a_report_takes_all_files_and_no_others(results: Results, option: str) -> None:
    files = results.sound("report")[option]
    results.refused("report", **{option: files[:-1]})
    results.refused("report", **{option: files[1:]})


def test_a_report_takes_no_picture_of_other_models(results: Results) -> None:
    picture = results.new / "other.png"
    runs = ["pretrain", "control"]
    code, _ = results.call("curves", checkpoints=[SEED / run / "checkpoint.json" for run in runs], output=[picture])
    assert code == 0
    files = results.sound("report")
    few = {option: [file for file in files[option] if "control" not in str(file)] for option in ("checkpoints",)}
    results.refused("report", "checkpoint that was evaluated must be given", **few)
    without = {option: [file for file in files[option] if "control" not in str(file)] for option in ("evaluations",)}
    table = results.new / "table.csv"
    assert results.call("table", **without)[0] == 0
    results.refused("report", "other.png: the picture must show", curves=[picture], table=[table], **few, **without)


def test_a_figure_is_of_the_models_that_its_columns_name(results: Results) -> None:
    models = results.sound("figure")["checkpoints"]
    results.refused("figure", "must have the model of stage 2 of recipe cag", checkpoints=models[:2])
    first = SEED / "cag/stage1/checkpoint.safetensors"
    results.refused("figure", str(first), "found another", checkpoints=[*models[:2], first])
    control = SEED / "control/checkpoint.safetensors"
    results.refused("figure", str(control), "found another", checkpoints=[*models, control])


def test_curves_are_of_models(results: Results) -> None:
    for wrong in (SEED / "warmup/evaluation.json", SEED / "stage1/labels.json", Path("results/smoke/config.json")):
        results.refused("curves", str(wrong), "must be the JSON of a checkpoint", checkpoints=[wrong])


OUTPUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "evaluate": ("labels.json", lambda folder: folder / "labels/labels.json"),
    "diagnose": ("checkpoint.json", lambda folder: folder / "stage/checkpoint.json"),
    "anchor-part": ("anchors.h5", lambda folder: folder / "labels/anchors.h5"),
    "check": ("labels.json", lambda folder: folder / "labels/labels.json"),
}


@pytest.mark.parametrize("verb", OUTPUTS)
def test_no_artifact_of_another_kind_is_replaced(own: Miniature, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, place = OUTPUTS[verb]
    output = place(own.folder)
    given = {"config": own.yaml(), "manifest": own.manifest, "checkpoint": own.weights("warmup"),
             "labels": own.folder / "labels" / ("labels.json" if output.name != "labels.json" else "none.json"),
             "part": 1, "parts": 1, "output": output}  # fmt: skip
    before = output.read_bytes()
    words = [word for option in VERBS[verb][2].split() for word in (f"--{option}", str(given[option]))]
    assert main([verb, *words]) == 2
    said = capsys.readouterr().err
    assert f"{name}: an output must be a new file or one that `{verb}` wrote before" in said and said.count("\n") == 1
    assert output.read_bytes() == before


def test_the_json_beside_weights_is_not_replaced(own: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    model = own.weights("warmup")
    for output in (model.with_suffix(".json"), own.weights("stage").with_suffix(".json")):
        before = output.read_bytes()
        words = ["--config", own.yaml(), "--manifest", own.manifest, "--checkpoint", model, "--output", output]
        assert main(["evaluate", *map(str, words)]) == 2
        assert capsys.readouterr().err.count("\n") == 1 and output.read_bytes() == before


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    """An experiment with the same settings and other frames."""
    made = make_miniature(tmp_path_factory.mktemp("stranger"), seed=5)
    made.chain()
    return made


def given(mini: Miniature, verb: str, output: Path) -> dict[str, object]:
    """The sound options of a verb on the artifacts of a miniature."""
    labels = mini.folder / "labels"
    sound = {
        "config": mini.yaml(), "manifest": mini.manifest, "checkpoint": mini.weights("warmup"), "seed": 0,
        "initial": mini.weights({"warmup": "pretrain"}.get(verb, "warmup")), "anchors": labels / "anchors.h5",
        "labels": labels / "labels.json", "store": labels / "labels.zarr", "recipe": "cag", "stage": 1, "part": 1,
        "parts": 1, "set": "evaluation", "folder": output / "predictions", "state": output / "state",
        "output": output / f"output{WRITES[verb][0]}",
    }  # fmt: skip
    return {option: sound[option] for option in VERBS[verb][2].split() if option in sound}


def refused(verb: str, options: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    """What the call says in its one line."""
    capsys.readouterr()
    assert main([verb, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("caguda: error: "), said
    return said


STRANGE = {
    "warmup": ["initial"],
    "control": ["initial"],
    "adapt": ["initial", "anchors", "labels"],
    "anchor-part": ["checkpoint"],
    "label-store": ["checkpoint", "anchors"],
    "label-part": ["checkpoint", "anchors", "store"],
    "evaluate": ["checkpoint"],
    "diagnose": ["labels"],
    "predict-part": ["checkpoint"],
}


@pytest.mark.parametrize(
    ("verb", "option"), [(verb, option) for verb, options in STRANGE.items() for option in options]
)
def test_an_artifact_of_other_frames_is_refused(
    mini: Miniature, stranger: Miniature, verb: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, theirs = given(mini, verb, tmp_path), given(stranger, verb, tmp_path)
    if verb in ("label-store", "label-part") and option != "store":
        options["store"] = tmp_path / "labels.zarr" if verb == "label-store" else options["store"]
    said = refused(verb, options | {option: theirs[option]}, capsys)
    assert str(theirs[option]) in said or "labels.json" in said or "labels.zarr" in said
    assert not Path(str(options["output"])).exists()


def test_a_whole_chain_of_other_frames_is_refused(
    mini: Miniature, stranger: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All artifacts of another experiment agree with each other; the manifest does not."""
    for verb in STRANGE:
        theirs = given(stranger, verb, tmp_path) | {"config": mini.yaml(), "manifest": mini.manifest}
        if verb == "label-store":
            theirs["store"] = tmp_path / "labels.zarr"
        said = refused(verb, theirs, capsys)
        assert "frames of" in said and "manifest.json" in said or "as it was when it was checked" in said, said


def test_a_manifest_of_other_settings_is_refused(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The raw values of two classes exchanged: no name differs."""
    classes = mini.configuration().model_dump(mode="json")["classes"]
    classes[0]["id"], classes[1]["id"] = classes[1]["id"], classes[0]["id"]
    other = replace(mini, folder=tmp_path).yaml(classes=classes)
    for verb in ("pretrain", *STRANGE):
        options = given(mini, verb, tmp_path) | {"config": other}
        if verb == "label-store":
            options["store"] = tmp_path / "labels.zarr"
        assert f"{mini.manifest}: this must be made with the settings" in refused(verb, options, capsys)


MODELS = [
    ("warmup", {"initial": "warmup"}, "must be the model of pretrain, found that of warmup"),
    ("warmup", {"initial": "stage"}, "must be the model of pretrain, found that of stage 1 of recipe cag"),
    ("control", {"initial": "pretrain"}, "must be the model of warmup, found that of pretrain"),
    ("control", {"initial": "stage"}, "must be the model of warmup, found that of stage 1 of recipe cag"),
    ("adapt", {"initial": "pretrain"}, "must be the model of warmup, found that of pretrain"),
    ("adapt", {"initial": "stage"}, "must be the model of warmup, found that of stage 1 of recipe cag"),
    ("adapt", {"stage": 2}, "must be the model of stage 1 of recipe cag, found that of warmup"),
    ("adapt", {"stage": 2, "recipe": "nothing", "initial": "stage"}, "must be the model of stage 1 of recipe nothing"),
    ("adapt", {"stage": 99}, "the stages of recipe cag must be 1 to 3"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "changes", "message"), MODELS)
def test_a_training_starts_from_the_model_before_it(
    mini: Miniature, verb: str, changes: dict[str, object], message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    named = {name: mini.weights(str(value)) if name == "initial" else value for name, value in changes.items()}
    assert message in refused(verb, given(mini, verb, tmp_path) | named, capsys)


def test_the_state_of_another_training_stays(own: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    """Another seed, another run, and the same one with other settings, whose state is its own to replace."""
    state = own.folder / "pretrain/state/state.pt"
    before = state.read_bytes()
    options = given(own, "pretrain", own.folder / "new") | {"state": state.parent}
    assert "found that of pretrain of seed 0 in miniature" in refused("pretrain", options | {"seed": 1}, capsys)
    options = given(own, "warmup", own.folder / "new") | {"state": state.parent}
    assert "must be of warmup of seed 0 in miniature, found that of pretrain" in refused("warmup", options, capsys)
    assert state.read_bytes() == before
    old = load_state(state)
    assert old is not None and old.pop("of") == "pretrain of seed 0 in miniature"
    save_state(state, old)  # of a version before
    options = given(own, "pretrain", own.folder / "new") | {"state": state.parent}
    assert main(["pretrain", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]) == 0


def test_anchors_of_another_width_make_no_labels(own: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as the authors', which say nothing of their network."""
    anchors, attributes = load_anchors(own.folder / "labels" / "anchors.h5")
    doubled = Anchors(anchors.vectors.repeat(2, axis=1), anchors.pixel_count, anchors.spread, anchors.pairwise)
    attributes["provenance"] |= {"made_by": "convert-anchors", "inputs": {}, "settings": {}}
    save_anchors(own.folder / "theirs.h5", doubled, attributes)
    with h5py.File(own.folder / "theirs.h5") as file:
        assert file["anchors"].shape[1] == 16
    options = given(own, "label-store", own.folder / "new") | {"anchors": own.folder / "theirs.h5"}
    options["store"] = own.folder / "new.zarr"
    assert "must have the 8 channels of the network's features, found 16" in refused("label-store", options, capsys)
    assert not (own.folder / "new.zarr").exists()


def test_a_part_of_something_else_is_refused(own: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = shutil.copy(own.folder / "labels" / "labels.json", own.folder / "part.json")
    options: dict[str, object] = {"store": own.folder / "labels/labels.zarr", "part-files": wrong,
                                  "output": own.folder / "labels/again.json"}  # fmt: skip
    assert "must be what `label-part` left, found the JSON of a label store" in refused("labels", options, capsys)
