"""Whatever belongs to another run, report, stage or experiment, or is of another kind, is refused by every verb that is given it."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import pytest
from miniature import Miniature, label_files, make_miniature
from workflow_runs import Workflow

from caguda.artifacts.anchors import Anchors, load_anchors, save_anchors
from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.outputs import WRITES
from caguda.artifacts.state import load_state, save_state
from caguda.cli import main
from caguda.errors import UserError
from caguda.stages.labels import make_labels
from caguda.verbs import VERBS

RUNS = ["pretrain", "warmup", "control", "oracle", "cag/stage1", "cag/stage2"]
SEED = Path("results/smoke/seed0")
LABELLED = ["warmup", "cag/stage1"]  # the models beside which lie the labels of both stages
RULES = ["anchor-0.15-mean_anchor_distance", "probability-0.5"]


def labels_of(model: str) -> list[Path | str]:
    """The JSONs of the labels by both rules beside a model."""
    return [SEED / model / "labels" / rule / "labels.json" for rule in RULES]


def told_of(model: str) -> Path:
    """What `diagnose` tells of them."""
    return SEED / model / "labels" / f"{'+'.join(RULES)}.json"


def words_of(options: Mapping[str, object]) -> list[str]:
    """The words of a call, by the flags of its options without dashes."""
    found = []
    for name, values in options.items():
        found += [f"--{name}", *map(str, values if isinstance(values, list) else [values])]
    return found


def options_of(verb: str) -> list[str]:
    """The flags of a verb's options without dashes."""
    return [option.flag.removeprefix("--") for option in VERBS[verb].options]


@dataclass
class Results:
    """The finished workflow as the current folder, and verbs as a person calls them there; what they write lies elsewhere."""

    new: Path
    capsys: pytest.CaptureFixture[str]

    def sound(self, verb: str) -> dict[str, list[Path | str]]:
        """The options of a verb as the workflow gives them."""
        evaluations = [SEED / run / "evaluation.json" for run in RUNS]
        models = [SEED / run / "checkpoint.json" for run in RUNS]
        cag = Path("results/smoke/reports/cag")
        options: dict[str, list[Path | str]] = {
            "config": ["results/smoke/config.json"], "report": ["cag"], "seed": ["0"], "set": ["evaluation"],
            "manifest": ["results/smoke/manifest.json"], "evaluations": [*evaluations],
            "checkpoints": [*models], "evidence": [SEED / "cag/stage1/evidence/evidence.json"],
            "labels": labels_of("cag/stage1"),
            "figure": [cag / "figure.png"], "curves": [cag / "curves.png"], "table": [cag / "table.csv"],
            "output-csv": [self.new / "table.csv"], "output-md": [self.new / "table.md"], "output": [self.new / f"output{WRITES[verb][0]}"],
            "number": ["1"],
        }  # fmt: skip
        if verb == "figure":
            runs = ("pretrain", "warmup", "cag/stage2")
            options |= {"checkpoints": [SEED / run / "checkpoint.safetensors" for run in runs]}
        if verb in ("class-chart", "paper-table"):
            options["evaluations"] = [evaluations[0], *evaluations[1:2] * (verb == "paper-table"), evaluations[5]]
        if verb == "report":
            options["label-reports"] = [told_of(model) for model in LABELLED]
        if verb == "curves":
            options["checkpoints"] = [*models[:2], *models[4:]]
        return {option: options[option] for option in options_of(verb) if option in options}

    def call(self, verb: str, /, **changed: list[Path | str]) -> tuple[int, str]:
        """The exit code of a call with some options changed, and what it says."""
        options = self.sound(verb) | {name.replace("_", "-"): values for name, values in changed.items()}
        self.capsys.readouterr()
        return main([verb, *words_of(options)]), self.capsys.readouterr().err

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


@pytest.mark.parametrize("verb", ["table", "figure", "curves", "report", "class-chart", "paper-table"])
def test_sound_calls_work(results: Results, verb: str) -> None:
    assert results.call(verb) == (0, "")


def test_a_table_is_of_a_report_of_the_configuration(results: Results) -> None:
    for verb in ("table", "report", "figure", "curves"):
        results.refused(verb, "--report nosuch", "only cag", report=["nosuch"])


@pytest.mark.parametrize("verb", ["table", "report", "class-chart", "curves", "figure"])
def test_a_file_that_is_named_twice_is_refused(results: Results, verb: str) -> None:
    option = next(option for option in options_of(verb) if option.startswith(("evaluations", "checkpoints")))
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
    "evaluations": [told_of("warmup")],
    "label-reports": [
        SEED / "warmup/evaluation.json", SEED / "warmup/evidence/evidence.json", *labels_of("warmup"),
    ],
    "checkpoints": [SEED / "warmup/evaluation.json"],
    "figure": [Path("results/smoke/reports/cag/curves.png")],
    "curves": [Path("results/smoke/reports/cag/figure.png")],
}  # fmt: skip


@pytest.mark.parametrize("option", WRONG_KINDS)
def test_a_report_takes_no_file_of_another_kind(results: Results, option: str) -> None:
    files = results.sound("report")[option]
    for wrong in WRONG_KINDS[option]:
        results.refused("report", str(wrong), **{option: [*files[:-1], wrong]})
    results.refused("report", "config.json", **{option: [*files[:-1], Path("results/smoke/config.json")]})


@pytest.mark.parametrize("option", ["checkpoints", "label-reports", "evaluations"])
def test_a_report_takes_all_files_and_no_others(results: Results, option: str) -> None:
    files = results.sound("report")[option]
    results.refused("report", **{option: files[:-1]})
    results.refused("report", **{option: files[1:]})


def with_reports(results: Results, **reports: list[str]) -> list[Path | str]:
    """The configuration of the workflow with other reports."""
    path = results.new / "config.json"
    write_json(path, read_json(Path("results/smoke/config.json")) | {"reports": reports})
    return [path]


def test_a_report_takes_no_picture_of_other_models(results: Results) -> None:
    picture = results.new / "other.png"
    drawn = {"checkpoints": [SEED / run / "checkpoint.json" for run in ("pretrain", "control")]}
    assert results.call("curves", output=[picture], **drawn)[0] == 0
    results.refused(
        "report", "other.png: the curves must be of all models of the report", "none of warmup", curves=[picture]
    )
    files = results.sound("report")
    few = {option: [file for file in files[option] if "control" not in str(file)] for option in ("checkpoints",)}
    results.refused("report", "checkpoint that was evaluated must be given", **few)
    config = with_reports(results, few=["pretrain", "warmup", "cag", "oracle"])
    without = {option: [file for file in files[option] if "control" not in str(file)] for option in ("evaluations",)}
    of_few = {"config": config, "report": ["few"], **without}
    table = results.new / "table.csv"
    assert results.call("table", **of_few)[0] == 0
    results.refused("report", "other.png: the picture must show", curves=[picture], table=[table], **few, **of_few)
    assert results.call("report", table=[table], **few, **of_few)[0] == 0


def test_a_report_takes_no_picture_of_another_report(results: Results) -> None:
    """Nor one whose models are among its own."""
    config = with_reports(
        results, cag=["pretrain", "warmup", "control", "cag", "oracle"], first=["pretrain", "warmup", "cag/stage1"]
    )
    of_first = {"config": config, "report": ["first"], "output": [results.new / "first.png"]}
    runs = ("pretrain", "warmup", "cag/stage1")
    models = {"checkpoints": [SEED / run / "checkpoint.safetensors" for run in runs]}
    labels = {"evidence": [SEED / "warmup/evidence/evidence.json"], "labels": labels_of("warmup")}
    assert results.call("figure", **of_first, **models, **labels) == (0, "")
    results.refused("report", "first.png: the figure must be of pretrain, warmup, cag/stage2, found one of cag/stage1, ",
                    config=config, figure=[results.new / "first.png"])  # fmt: skip
    drawn = {"checkpoints": [SEED / run / "checkpoint.json" for run in runs]}
    (results.new / "first.png").unlink()
    assert results.call("curves", **of_first, **drawn) == (0, "")
    results.refused("report", "first.png: ", "none of cag/stage2", config=config, curves=[results.new / "first.png"])


def test_a_table_is_of_the_models_of_its_report(results: Results) -> None:
    """Not of one that another report has, nor without one of its own."""
    config = with_reports(results, few=["pretrain", "warmup", "cag/stage1"])
    files = results.sound("table")["evaluations"]
    of_few = [files[RUNS.index(run)] for run in ("pretrain", "warmup", "cag/stage1")]
    few: dict[str, list[Path | str]] = {"config": config, "report": ["few"]}
    for other in ("control", "cag/stage2"):
        file = files[RUNS.index(other)]
        results.refused("table", str(file), "the model must be one of pretrain, warmup, cag/stage1", f"found '{other}'",
                        evaluations=[*of_few, file], **few)  # fmt: skip
    results.refused("table", "cag/stage1: an evaluation of every seed (0) must be given", evaluations=of_few[:2], **few)
    results.refused("table", "cag/stage2: an evaluation of every seed (0) must be given", evaluations=files[:5])
    assert results.call("table", evaluations=of_few, **few) == (0, "")


def test_a_table_of_the_paper_is_of_the_runs_that_it_lists(results: Results) -> None:
    files = results.sound("paper-table")["evaluations"]
    for other in ("control", "oracle", "cag/stage1"):
        file = SEED / other / "evaluation.json"
        for given in ([*files, file], [*files[:2], file]):
            results.refused(
                "paper-table",
                str(file),
                f"must be one of pretrain, warmup, cag/stage2, found '{other}'",
                evaluations=given,
            )
    results.refused(
        "paper-table", "warmup: an evaluation of every seed (0) must be given", evaluations=[files[0], files[2]]
    )
    results.refused(
        "paper-table", "tables.table4: the runs of this table must be listed, found no such key", number=["4"]
    )


def test_gains_are_of_one_model_over_another(results: Results) -> None:
    files = results.sound("table")["evaluations"]
    for given in (files[:1], files[:3]):
        results.refused("class-chart", "the evaluations must be of two models", evaluations=given)


def test_curves_are_of_models_of_their_report(results: Results) -> None:
    config = with_reports(results, few=["pretrain", "warmup", "cag/stage1"])
    control = SEED / "control/checkpoint.json"
    results.refused("curves", str(control), "must be of models of the report few, found control", config=config, report=["few"],
                    checkpoints=[SEED / "pretrain/checkpoint.json", control])  # fmt: skip


def test_a_report_takes_what_is_told_of_all_labels_of_a_model(results: Results) -> None:
    """Not of those by one of its rules alone."""
    one = [results.new / "one.json"]
    told: dict[str, list[Path | str]] = {"evidence": [SEED / "warmup/evidence/evidence.json"], "output": [*one]}
    assert results.call("diagnose", **told | {"labels": labels_of("warmup")[:1]}) == (0, "")
    summaries = results.sound("report")["label-reports"]
    results.refused("report", "the statistics of the labels that a model was trained on must be given once",
                    label_reports=[*one, *summaries[1:]])  # fmt: skip
    results.refused("report", "one.json: labels must be those that a model was trained on",
                    label_reports=[*one, *summaries])  # fmt: skip


def test_a_sweep_takes_what_is_told_of_all_labels_of_a_model(results: Results) -> None:
    one, told = [results.new / "one.json"], results.sound("report")["label-reports"]
    of_one: dict[str, list[Path | str]] = {"evidence": [SEED / "warmup/evidence/evidence.json"], "output": [*one]}
    assert results.call("diagnose", **of_one | {"labels": labels_of("warmup")[:1]}) == (0, "")
    config, made = results.new / "config.json", read_json(Path("results/smoke/config.json"))
    write_json(config, made | {"tables": {"sweep": ["cag/stage1"]}})
    sound: dict[str, list[Path | str]] = {"config": [config], "evaluations": [SEED / "cag/stage1/evaluation.json"]}
    for label_reports in ([*one], [*one, told[0]], [*told]):
        results.refused("sweep", **sound, label_reports=label_reports)
    assert results.call("sweep", **sound, label_reports=[told[0]], output=[results.new / "sweep.csv"])[0] == 0


def test_a_figure_is_of_the_models_that_its_columns_name(results: Results) -> None:
    models = results.sound("figure")["checkpoints"]
    results.refused("figure", "must have the model of cag/stage2", checkpoints=models[:2])
    results.refused("figure", "must have the model of warmup", checkpoints=[models[0], models[2]])
    first = SEED / "cag/stage1/checkpoint.safetensors"
    results.refused("figure", str(first), "found another", checkpoints=[*models[:2], first])
    control = SEED / "control/checkpoint.safetensors"
    results.refused("figure", str(control), "found another", checkpoints=[*models, control])


def test_a_figure_is_of_the_labels_that_its_last_model_was_trained_on(results: Results) -> None:
    """And of the evidence that these were made of: here the evidence and labels beside another model are of other ones."""
    evidence, labels = [SEED / "warmup/evidence/evidence.json"], labels_of("warmup")
    others: dict[str, list[Path | str]] = {"evidence": [*evidence], "labels": labels}
    results.refused("figure", str(labels[0]), "labels must be those that", **others)
    results.refused("figure", "must be made of", "found those of other evidence", evidence=[*evidence])
    both = [labels_of("cag/stage1")[0], labels[1]]
    results.refused("figure", str(both[1]), "labels must be those that", labels=both)
    needed = "--labels: labels by anchor and by probability must be given, found"
    for one, rule in zip(labels_of("cag/stage1"), ("anchor", "probability"), strict=True):
        results.refused("figure", f"{needed} by {rule};", labels=[one])
    for none in ({}, {"evidence": [*evidence]}):
        results.refused("figure", f"{needed} of no rule; name those", **none, labels=[])
    wrong = [labels_of("cag/stage1")[0]]
    results.refused("figure", str(wrong[0]), "must vouch for a whole evidence store", evidence=wrong)
    results.refused("figure", "--evidence: must be given just where labels are", evidence=[])
    config = with_reports(results, first=["pretrain", "warmup"])
    first = {"config": config, "report": ["first"], "checkpoints": results.sound("figure")["checkpoints"][:2]}
    results.refused("figure", "--labels: labels of no rule must be given, found by anchor and by probability", **first)
    first |= {"labels": []}
    results.refused("figure", "--evidence: must be given just where labels are, found it alone", **first)
    assert results.call("figure", **first | {"evidence": []}) == (0, "")


def test_labels_beside_another_model_are_not_told_of(results: Results) -> None:
    output = [results.new / "told.json"]
    told = {"evidence": [SEED / "warmup/evidence/evidence.json"], "labels": labels_of("warmup"), "output": output}
    assert results.call("diagnose", **told) == (0, "")
    output[0].unlink()
    results.refused("diagnose", "found those of other evidence", **told | {"labels": labels_of("cag/stage1")})
    results.refused(
        "diagnose", "found those of other evidence", **told | {"evidence": results.sound("diagnose")["evidence"]}
    )
    mixed = [labels_of("warmup")[0], labels_of("cag/stage1")[1]]
    results.refused("diagnose", str(mixed[1]), "found those of other evidence", **told | {"labels": mixed})


def test_a_stage_takes_no_labels_beside_another_model(results: Results) -> None:
    """Not those of the model before the one that it starts from, which are of the same run, rules and frames."""
    sound: dict[str, list[Path | str]] = {
        "start": [SEED / "cag/stage1/checkpoint.safetensors"], "anchors": [SEED / "cag/stage1/evidence/anchors.h5"],
        "model": ["cag/stage2"], "state": [results.new / "state"],
    }  # fmt: skip
    for labels in (labels_of("warmup"), [labels_of("cag/stage1")[0], labels_of("warmup")[1]]):
        results.refused("train", "found labels of another", **sound | {"labels": labels})
    other = [SEED / "warmup/evidence/anchors.h5"]
    results.refused("train", str(other[0]), "found labels of another", **sound | {"anchors": other})


def test_curves_are_of_models(results: Results) -> None:
    others = (told_of("warmup"), labels_of("warmup")[0], SEED / "warmup/evidence/evidence.json")
    for wrong in (SEED / "warmup/evaluation.json", *others, Path("results/smoke/config.json")):
        results.refused("curves", str(wrong), "must be the JSON of a checkpoint", checkpoints=[wrong])


OUTPUTS = {
    "evaluate": ["labels/labels.json", "labels/evidence.json", "labels/probability-0.3/labels.json"],
    "diagnose": ["stage/checkpoint.json", "labels/evidence.json", "labels/probability-0.3/labels.json"],
    "anchor-part": ["labels/anchors.h5"],
    "check": ["labels/labels.json", "labels/evidence.json", "labels/probability-0.3/labels.json"],
    "evidence-store": ["labels/evidence.json", "labels/1.json", "labels/labels.json"],
    "evidence-part": ["labels/evidence.json", "labels/evidence.created.json", "labels/probability-0.3/labels.json"],
    "evidence": ["labels/evidence.created.json", "labels/1.json", "labels/probability-0.3/labels.json"],
    "labels": ["labels/evidence.json", "labels/labels.json", "labels/1.json"],
}


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb, names in OUTPUTS.items() for name in names])
def test_no_artifact_of_another_kind_is_replaced(
    own: Miniature, verb: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output, none = own.folder / name, own.folder / "none.json"
    given = {"config": own.yaml(), "manifest": own.manifest, "checkpoint": own.weights("warmup"), "evidence": none,
             "anchors": own.folder / "none.h5", "labels": none, "store": own.folder / "labels/evidence.zarr",
             "rule": "probability-0.3", "part": 1, "parts": 1, "part-files": none, "output": output}  # fmt: skip
    before = {path: path.read_bytes() for path in own.folder.rglob("*") if path.is_file()}
    said = refused(verb, {option: given[option] for option in options_of(verb)}, capsys)
    assert f"{output}: an output must be a new file or one that `{verb}` wrote before" in said
    assert {path: path.read_bytes() for path in own.folder.rglob("*") if path.is_file()} == before


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


LABELLED_RUNS = ("cag/stage1", "cag/stage2", "nothing/stage2")
NEEDED = {
    "pretrain": [], "oracle": [], "warmup": ["start"], "control": ["start"],
    **{run: ["start", "anchors", "labels"] for run in LABELLED_RUNS},
}  # fmt: skip
"""What a training is given beside frames."""


def given(mini: Miniature, call: str, output: Path) -> dict[str, object]:
    """The sound options of a verb, or of `train RUN`, on the artifacts of a miniature."""
    verb, _, run = call.partition(" ")
    labels = mini.folder / "labels"
    store = labels if verb == "evidence-part" else output
    sound = {
        "config": mini.yaml(), "manifest": mini.manifest, "checkpoint": mini.weights("warmup"), "seed": 0, "model": run,
        "start": mini.weights({"warmup": "pretrain"}.get(run, "warmup")), "anchors": labels / "anchors.h5",
        "labels": label_files(labels / "labels.json"), "evidence": labels / "evidence.json",
        "store": store / ("labels.zarr" if verb == "labels" else "evidence.zarr"), "rule": "probability-0.3",
        "part": 1, "parts": 1, "set": "evaluation", "folder": output / "predictions", "state": output / "state",
        "output": output / f"output{WRITES[verb][0]}",
    }  # fmt: skip
    left = {"start", "anchors", "labels"} - set(NEEDED[run]) if verb == "train" else set()
    return {option: sound[option] for option in options_of(verb) if option in sound.keys() - left}


def refused(verb: str, options: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    """What the call says in its one line."""
    capsys.readouterr()
    assert main([verb.partition(" ")[0], *words_of(options)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("caguda: error: "), said
    return said


STRANGE = {
    "train warmup": ["start"],
    "train control": ["start"],
    "train cag/stage1": ["start", "anchors", "labels"],
    "anchor-part": ["checkpoint"],
    "evidence-store": ["checkpoint", "anchors"],
    "evidence-part": ["checkpoint", "anchors", "store"],
    "evaluate": ["checkpoint"],
    "diagnose": ["evidence", "labels"],
    "predict-part": ["checkpoint"],
}


@pytest.mark.parametrize(
    ("verb", "option"), [(verb, option) for verb, options in STRANGE.items() for option in options]
)
def test_an_artifact_of_other_frames_is_refused(
    mini: Miniature, stranger: Miniature, verb: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, theirs = given(mini, verb, tmp_path), given(stranger, verb, tmp_path)
    said = refused(verb, options | {option: theirs[option]}, capsys)
    file = stranger.folder / "labels" if "labels" in option else theirs[option]
    assert str(file) in said or "labels.json" in said or "evidence.zarr" in said
    assert not Path(str(options["output"])).exists()


def test_labels_of_one_rule_of_other_frames_are_refused(
    mini: Miniature, stranger: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Among sound ones of the other rule."""
    for verb, option in (("train cag/stage1", "labels"), ("diagnose", "labels")):
        options, theirs = given(mini, verb, tmp_path), given(stranger, verb, tmp_path)
        pairs = list(zip(options[option], theirs[option], strict=True))  # type: ignore[call-overload]
        for both in ([pairs[0][0], pairs[1][1]], [pairs[0][1], pairs[1][0]]):
            said = refused(verb, options | {option: both}, capsys)
            assert str(stranger.folder / "labels") in said
        assert not Path(str(options["output"])).exists()


def test_a_whole_chain_of_other_frames_is_refused(
    mini: Miniature, stranger: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All artifacts of another experiment agree with each other; the manifest does not."""
    for verb in STRANGE:
        theirs = given(stranger, verb, tmp_path) | {"config": mini.yaml(), "manifest": mini.manifest}
        said = refused(verb, theirs, capsys)
        assert "frames of" in said and "manifest.json" in said or "as it was when it was checked" in said, said


def test_a_manifest_of_other_settings_is_refused(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The raw values of two classes exchanged: no name differs."""
    classes = mini.configuration().model_dump(mode="json")["classes"]
    classes[0]["id"], classes[1]["id"] = classes[1]["id"], classes[0]["id"]
    other = replace(mini, folder=tmp_path).yaml(classes=classes)
    for verb in ("train pretrain", "train oracle", *STRANGE):
        options = given(mini, verb, tmp_path) | {"config": other}
        assert f"{mini.manifest}: this must be made with the settings" in refused(verb, options, capsys)


MODELS = [
    ("warmup", {"start": "warmup"}, "must be the model of pretrain, found that of warmup"),
    ("warmup", {"start": "stage"}, "must be the model of pretrain, found that of cag/stage1"),
    ("control", {"start": "pretrain"}, "must be the model of warmup, found that of pretrain"),
    ("control", {"start": "stage"}, "must be the model of warmup, found that of cag/stage1"),
    ("cag/stage1", {"start": "pretrain"}, "must be the model of warmup, found that of pretrain"),
    ("cag/stage1", {"start": "stage"}, "must be the model of warmup, found that of cag/stage1"),
    ("cag/stage2", {}, "must be the model of cag/stage1, found that of warmup"),
    ("nothing/stage2", {"start": "stage"}, "must be the model of nothing/stage1, found that of cag/stage1"),
    ("cag/stage1", {"model": "cag/stage99"}, "cag/stage99: the configuration has no such model, only "),
    ("cag/stage1", {"model": "cag/stage0"}, "cag/stage0: the configuration has no such model, only "),
    ("cag/stage1", {"model": "cag"}, "cag: the configuration has no such model, only "),
    ("warmup", {"model": "warmup/stage1"}, "warmup/stage1: the configuration has no such model, only "),
    ("warmup", {"model": "nosuch"}, "nosuch: the configuration has no such model, only "),
    ("warmup", {"seed": 1}, "the model to start from must be of seed 1, found one of seed 0"),
    ("warmup", {"model": "oracle"}, "--start: must not be given for oracle, which is trained by supervised, found some"),
    ("pretrain", {"model": "warmup"}, "--start: must be given for warmup, which is trained by adversarial, found none"),
    ("cag/stage1", {"model": "control"}, "--anchors: must not be given for control, which is trained by supervised, found some"),
    ("warmup", {"model": "cag/stage1"}, "--anchors: must be given for cag/stage1, which is trained by cag, found none"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "changes", "message"), MODELS)
def test_a_training_starts_from_the_model_before_it(
    mini: Miniature, run: str, changes: dict[str, object], message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    named = {name: mini.weights(str(value)) if name == "start" else value for name, value in changes.items()}
    assert message in refused("train", given(mini, f"train {run}", tmp_path) | named, capsys)
    assert not list(tmp_path.glob("*.*"))


def test_labels_are_given_to_those_alone_that_read_them(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = given(mini, "train cag/stage1", tmp_path)
    labels = options.pop("labels")
    said = refused("train", options, capsys)
    assert "--labels: must be given for cag/stage1, which is trained by cag, found none" in said
    own = given(mini, "train control", tmp_path) | {"labels": labels}
    said = refused("train", own, capsys)
    assert "--labels: must not be given for control, which is trained by supervised, found some" in said
    renewed = mini.configuration(runs__renewed={"like": "cag", "method": "cag_every_iteration", "stages": None})
    write_json(tmp_path / "renewed.json", renewed.model_dump(mode="json"))
    own = options | {"config": tmp_path / "renewed.json", "model": "renewed", "labels": labels}
    said = refused("train", own, capsys)
    assert "--labels: must not be given for renewed, which is trained by cag_every_iteration, found some" in said


def test_a_run_that_starts_from_a_chain_starts_from_its_last_stage_or_the_one_named(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for start, before in (("cag", "cag/stage2"), ("nothing/stage1", "nothing/stage1"), ("nothing", "nothing/stage2")):
        changed = mini.configuration(runs__control__start=start)
        write_json(tmp_path / f"{before.replace('/', '')}.json", changed.model_dump(mode="json"))
        options = given(mini, "train control", tmp_path) | {"config": tmp_path / f"{before.replace('/', '')}.json"}
        for initial, found in (("warmup", "warmup"), ("stage", "cag/stage1")):
            said = refused("train", options | {"start": mini.weights(initial)}, capsys)
            assert f"must be the model of {before}, found that of {found}" in said


def test_a_model_that_is_brought_is_not_trained(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = mini.configuration(runs__mine={"method": "imported", "file": "mine.safetensors"})
    write_json(tmp_path / "mine.json", mine.model_dump(mode="json"))
    options = given(mini, "train pretrain", tmp_path) | {"config": tmp_path / "mine.json", "model": "mine"}
    assert "mine: this must be a model that is trained, found one that is brought from elsewhere" in refused(
        "train", options, capsys
    )


def test_the_state_of_another_training_stays(own: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    """Another seed, another run, and the same one with other settings, whose state is its own to replace."""
    state = own.folder / "pretrain/state/state.pt"
    before = state.read_bytes()
    options = given(own, "train pretrain", own.folder / "new") | {"state": state.parent}
    assert "found that of pretrain of seed 0 in miniature" in refused("train", options | {"seed": 1}, capsys)
    options = given(own, "train warmup", own.folder / "new") | {"state": state.parent}
    assert "must be of warmup of seed 0 in miniature, found that of pretrain" in refused("train", options, capsys)
    options = given(own, "train oracle", own.folder / "new") | {"state": state.parent}
    assert "must be of oracle of seed 0 in miniature, found that of pretrain" in refused("train", options, capsys)
    assert state.read_bytes() == before
    old = load_state(state)
    assert old is not None and old.pop("of") == "pretrain of seed 0 in miniature"
    save_state(state, old)  # of a version before
    options = given(own, "train pretrain", own.folder / "new") | {"state": state.parent}
    assert main(["train", *words_of(options)]) == 0


def test_anchors_of_another_width_make_no_evidence(own: Miniature, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as the authors', which say nothing of their network."""
    anchors, attributes = load_anchors(own.folder / "labels" / "anchors.h5")
    doubled = Anchors(anchors.vectors.repeat(2, axis=1), anchors.pixel_count, anchors.spread, anchors.pairwise)
    attributes["provenance"] |= {"made_by": "convert-anchors", "inputs": {}, "settings": {}}
    save_anchors(own.folder / "theirs.h5", doubled, attributes)
    with h5py.File(own.folder / "theirs.h5") as file:
        assert file["anchors"].shape[1] == 16
    options: dict[str, object] = {
        "config": own.yaml(), "manifest": own.manifest, "checkpoint": own.weights("warmup"),
        "anchors": own.folder / "theirs.h5", "store": own.folder / "new.zarr", "output": own.folder / "created.json",
    }  # fmt: skip
    assert main(["evidence-store", *words_of(options)]) == 0
    part = options | {"part": 1, "parts": 1, "output": own.folder / "part.json"}
    assert "must have the 8 channels of the network's features, found 16" in refused("evidence-part", part, capsys)
    assert not (own.folder / "part.json").exists()


def test_a_part_of_something_else_is_refused(
    own: Miniature, stranger: Miniature, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = own.folder / "labels"
    options: dict[str, object] = {"store": labels / "evidence.zarr", "output": labels / "again.json"}
    for name, kind in (("evidence.json", "the JSON of an evidence store"), ("evidence.created.json", "the JSON of an evidence store"),
                       ("probability-0.3/labels.json", "the JSON of a label store"),
                       ("labels.json", "a label report")):  # fmt: skip
        wrong = shutil.copy(labels / name, own.folder / "part.json")
        said = refused("evidence", options | {"part-files": wrong}, capsys)
        assert f"must be what `evidence-part` left, found {kind}" in said
    said = refused("evidence", options | {"part-files": stranger.folder / "labels" / "1.json"}, capsys)
    assert "the store must say the settings, inputs and anchor_distance that" in said
    assert not (labels / "again.json").exists()


# --- what a frozen model says lies beside that model


@pytest.fixture
def seeds(own: Miniature) -> Path:
    """Folders of two seeds with the models of seed 0, and the evidence and labels of its warm-up; results of the workflow's form."""
    for model, place in (("pretrain", "seed0/pretrain"), ("warmup", "seed0/warmup"), ("stage", "seed0/cag/stage1")):
        shutil.copytree(own.folder / model, own.folder / place)
    for empty in ("seed0/nothing/stage1", "seed1/warmup"):
        (own.folder / empty).mkdir(parents=True)
    evidence = own.evidence(
        "seed0/warmup/evidence", own.configuration(), own.folder / "seed0/warmup/checkpoint.safetensors"
    )
    folder = evidence.parents[1] / "labels"
    folder.mkdir()
    for rule in ("anchor-0.05-mean_anchor_distance", "probability-0.3"):
        make_labels(own.configuration(), evidence, rule, folder / rule / "labels.zarr", folder / rule / "labels.json")
    return own.folder


MODELS_BESIDE = ["seed0/pretrain", "seed0/cag/stage1", "seed0/nothing/stage1", "seed1/warmup"]


@pytest.mark.parametrize("beside", MODELS_BESIDE)
@pytest.mark.parametrize("verb", ["anchor-part", "anchors", "evidence-store", "evidence-part", "labels", "diagnose"])
def test_nothing_is_written_beside_another_model(
    own: Miniature, seeds: Path, verb: str, beside: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be refused by every reader, a pass of the network later."""
    model, other = seeds / "seed0/warmup", seeds / beside
    labels = [
        model / "labels" / rule / "labels.json" for rule in ("anchor-0.05-mean_anchor_distance", "probability-0.3")
    ]
    place = {"labels": "labels/probability-0.3/new", "diagnose": "labels/new"}.get(verb, "evidence/new")
    options: dict[str, object] = given(own, verb, seeds) | {"checkpoint": model / "checkpoint.safetensors"}
    options |= {"anchors": model / "evidence/anchors.h5", "evidence": model / "evidence/evidence.json", "labels": labels,
                "part-files": model / "evidence/anchors.1-of-1.h5", "output": other / f"{place}{WRITES[verb][0]}",
                "store": other / f"{place}.zarr"}  # fmt: skip
    options = {option: options[option] for option in options_of(verb)}
    before = sorted(seeds.rglob("*"))
    said = refused(verb, options, capsys)
    assert f"{options['output']}: an output must lie in no folder of another experiment, seed, run or report" in said
    if "store" in options:
        options["output"] = model / "evidence/new.json"
        said = refused(verb, options, capsys)
        assert "an output must lie in no folder of another" in said
    assert sorted(seeds.rglob("*")) == before


def test_evidence_beside_another_model_is_refused(
    own: Miniature, seeds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its own anchors no evidence is made there, and evidence that was copied there is neither labelled nor diagnosed."""
    warm = seeds / "seed0/warmup"
    for beside in MODELS_BESIDE:
        found = f"the folder is of {beside}, found a file of the model in seed0/warmup"
        with pytest.raises(UserError, match=rf"anchors\.h5: {found}"):
            own.evidence(f"{beside}/evidence", own.configuration(), warm / "checkpoint.safetensors")
        shutil.rmtree(seeds / beside / "evidence")
        copy = Path(shutil.copytree(warm / "evidence", seeds / beside / "evidence")) / "evidence.json"
        found = f"{copy}: the folder is of seed 1, found a file of seed 0" if "seed1" in beside else f"{copy}: {found}"
        options = given(own, "labels", copy.parents[1] / "labels") | {"evidence": copy}
        assert found in refused("labels", options, capsys)
        options = given(own, "diagnose", seeds / "new") | {"evidence": copy}
        options["labels"] = sorted((warm / "labels").glob("*/labels.json"))
        assert found in refused("diagnose", options, capsys)
        assert main(["verify", str(copy)]) == 1 and f"fault: {found}" in capsys.readouterr().out
        assert not (copy.parents[1] / "labels").exists() and not (seeds / "new").exists()


def test_labels_beside_another_model_are_refused(
    own: Miniature, seeds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = seeds / "seed0/warmup"
    for beside in MODELS_BESIDE:
        copies = [
            Path(shutil.copytree(folder, seeds / beside / "labels" / folder.name)) / "labels.json"
            for folder in sorted((warm / "labels").iterdir())
        ]
        options = given(own, "train cag/stage1", seeds / "new") | {"start": warm / "checkpoint.safetensors"}
        options |= {"anchors": warm / "evidence/anchors.h5", "labels": copies}
        assert f"{copies[0]}: " in refused("train", options, capsys)
        options = given(own, "diagnose", seeds / "new") | {"evidence": warm / "evidence/evidence.json"}
        assert f"{copies[0]}: " in refused("diagnose", options | {"labels": copies}, capsys)
    assert not (seeds / "new").exists()
