"""Damaged and exchanged artifacts: a small campaign of `benchmarks/corruptions.py`, and what the large one found."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from miniature import Miniature, label_files

from caguda.artifacts.atomic import write_json
from caguda.artifacts.checkpoint import load_checkpoint, save_checkpoint
from caguda.configfile import load_configuration
from caguda.errors import UserError
from caguda.paper.charts import write_curves
from caguda.paper.class_charts import write_class_chart
from caguda.runs import rules_of
from caguda.stages.anchors import construct_anchors
from caguda.stages.diagnose import diagnose
from caguda.stages.evaluate import evaluate
from caguda.stages.evidence import write_part
from caguda.stages.evidence_store import create_evidence
from caguda.stages.figure import draw_figure

RULES = "runs__cag__pseudo_labels"
MARGIN, P0 = f"{RULES}__anchor__margin", f"{RULES}__probability__p0"
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "corruptions.py"


def campaign(*arguments: str) -> str:
    """What the script prints; an error if it found a fault."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def test_nothing_is_accepted_in_silence() -> None:
    counts = {"corruptions": "24", "exchanges": "12", "namings": "11"}
    asked = [word for name, count in counts.items() for word in (f"--{name}", count)]
    printed = campaign(*asked, "--others", "frames", "--seed", "1")
    assert [printed.count(f"| all | {count} |") for count in counts.values()] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_nothing_of_very_much_is_accepted_in_silence() -> None:
    campaign("--seed", "1")


def put(source: Path, place: Path) -> None:
    """The weights and the description of one model in the place of those of another."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(source.with_suffix(suffix), place.with_suffix(suffix))


def test_a_configuration_that_was_changed_under_its_seal_is_refused(mini: Miniature, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_json(path, mini.configuration().model_dump(mode="json"))
    assert rules_of(load_configuration(path), "cag/stage1")["anchor"].margin == 0.05
    path.write_text(path.read_text().replace('"margin": 0.05', '"margin": 0.15'))
    with pytest.raises(UserError, match=r"config\.json: the configuration must be as the workflow wrote it"):
        load_configuration(path)
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "sha256_of" not in line)[:-3] + "}")
    assert rules_of(load_configuration(path), "cag/stage1")["anchor"].margin == 0.15, "without a seal it is a person's"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("zarr.json", '"anchor_distance": ', '"anchor_distance": 1'),
        ("predicted/zarr.json", "#804080", "#804081"),
        ("zarr.json", "road", "rood"),
    ],
)
def test_the_metadata_of_a_store_is_as_it_was_made_before_any_evidence_is_written(
    mini: Miniature, tmp_path: Path, name: str, before: str, after: str
) -> None:
    given = (mini.manifest, mini.weights("warmup"), mini.folder / "labels" / "anchors.h5", tmp_path / "evidence.zarr")
    create_evidence(mini.configuration(), *given, tmp_path / "created.json")
    file = tmp_path / "evidence.zarr" / name
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after, 1))
    with pytest.raises(UserError, match=r"evidence\.zarr: .* do not have the digest that they were written with"):
        write_part(mini.configuration(), *given, 1, 1, tmp_path / "part.json")


def test_a_damaged_manifest_is_named_and_not_the_parts_that_are_not_of_it(own: Miniature) -> None:
    own.manifest.write_bytes(own.manifest.read_bytes()[:-9])
    given = (own.configuration(), own.manifest, own.weights("warmup"), [own.folder / "labels" / "anchors.1-of-1.h5"])
    with pytest.raises(UserError, match=r"^[^ ]*manifest\.json: "):
        construct_anchors(*given, own.folder / "new.h5")


def test_a_model_that_is_not_of_the_files_beside_it_is_not_evaluated(own: Miniature) -> None:
    put(own.weights("stage"), own.weights("pretrain"))
    evaluate(own.configuration(), own.manifest, own.weights("stage"), own.folder / "a.json")
    with pytest.raises(
        UserError, match=r"warmup/checkpoint\.safetensors: this must be made of the files that are there now"
    ):
        evaluate(own.configuration(), own.manifest, own.weights("warmup"), own.folder / "b.json")
    for suffix in (".safetensors", ".json"):
        own.weights("pretrain").with_suffix(suffix).unlink()
    evaluate(own.configuration(), own.manifest, own.weights("warmup"), own.folder / "b.json")


def test_labels_of_another_model_or_other_thresholds_are_not_diagnosed(own: Miniature) -> None:
    evidence, output = own.folder / "labels" / "evidence.json", own.folder / "told.json"
    labels, settings = label_files(own.folder / "labels" / "labels.json"), own.configuration()
    with pytest.raises(UserError, match=r"rule\.margin 0\.05, not 0\.2"):
        diagnose(own.configuration(**{MARGIN: 0.2}), own.manifest, evidence, labels, output)
    with pytest.raises(UserError, match=r"rule\.p0 0\.3, not 0\.7"):
        diagnose(own.configuration(**{P0: 0.7}), own.manifest, evidence, labels, output)
    own.label("other", settings, own.weights("pretrain"))
    come(own, "other", evidence)
    with pytest.raises(UserError, match=r"labels\.json: the labels must be made of .*, found those of other evidence"):
        diagnose(settings, own.manifest, evidence, labels, output)
    for file in labels:
        come(own, "other", file)
    with pytest.raises(UserError, match="this must be made of the files that are there now"):
        diagnose(settings, own.manifest, evidence, labels, output)
    assert not output.exists()


def come(own: Miniature, other: str, vouching: Path) -> None:
    """A store and its JSON from the folder `other` come into the place of those of the same name in `labels`."""
    source = own.folder / other / vouching.relative_to(own.folder / "labels")
    shutil.rmtree(vouching.with_suffix(".zarr"))
    shutil.copytree(source.with_suffix(".zarr"), vouching.with_suffix(".zarr"))
    shutil.copy(source, vouching)


def test_labels_of_another_rule_in_the_place_of_those_of_a_rule_are_refused(own: Miniature) -> None:
    """Every threshold of a sweep has a folder beside the evidence: which labels lie in it is what they say."""
    labelling, settings = own.folder / "labels" / "labels.json", own.configuration()
    evidence, labels = labelling.with_name("evidence.json"), label_files(labelling)
    anchor, probability = labels
    own.labels(own.configuration(**{MARGIN: 0.1}), evidence)
    swept = labelling.with_name("anchor-0.1-mean_anchor_distance")
    for source, message in (
        (swept, r"anchor-0\.05.*labels\.json: .*rule\.margin 0\.1, not 0\.05"),
        (
            probability.parent,
            r"labels\.json: labels of different rules must be given|rule\.name probability, not anchor",
        ),
    ):
        shutil.rmtree(anchor.parent)
        shutil.copytree(source, anchor.parent)
        with pytest.raises(UserError, match=message):
            diagnose(settings, own.manifest, evidence, labels, own.folder / "told.json")
        with pytest.raises(UserError, match=message):
            own.stage("again", settings, own.weights("warmup"), labelling)


def test_pictures_of_other_models_and_evaluations_are_not_drawn(own: Miniature) -> None:
    models = [own.weights(name) for name in ("pretrain", "warmup")]
    evaluations = [model.with_name("evaluation.json") for model in models]
    for model, evaluation in zip(models, evaluations, strict=True):
        evaluate(own.configuration(), own.manifest, model, evaluation)
    write_class_chart(own.configuration(), evaluations, own.folder / "classes.png")
    with pytest.raises(UserError, match="the evaluations must be of two models, found pretrain; name those of two"):
        write_class_chart(own.configuration(), evaluations[:1], own.folder / "classes.png")
    with pytest.raises(UserError, match=r"an evaluation of every seed \(0, 1\) must be given, missing seed 1"):
        write_class_chart(own.configuration(seeds=[0, 1]), evaluations, own.folder / "classes.png")
    put(own.weights("stage"), own.weights("pretrain"))
    with pytest.raises(
        UserError, match=r"must be there unchanged, found .*pretrain/checkpoint\.safetensors changed since"
    ):
        write_class_chart(own.configuration(), evaluations, own.folder / "classes.png")
    with pytest.raises(
        UserError, match=r"must be there unchanged, found .*pretrain/checkpoint\.safetensors changed since"
    ):
        write_curves(
            own.configuration(), "cag", [own.weights("warmup").with_suffix(".json")], own.folder / "curves.png"
        )


def test_the_figure_is_drawn_with_the_labels_of_its_last_stage_alone(own: Miniature) -> None:
    models = [own.weights(name) for name in ("pretrain", "warmup", "stage")]
    given = (own.configuration(runs__cag__stages=1), own.manifest, "cag", 0, models, own.folder / "figure.png")
    evidence, labels = own.folder / "labels" / "evidence.json", label_files(own.folder / "labels" / "labels.json")
    draw_figure(*given, evidence, labels)
    other = own.label("other", own.configuration(), own.weights("pretrain"))
    with pytest.raises(UserError, match=r"labels\.json: the labels must be made of .*other/evidence\.json"):
        draw_figure(*given, other.with_name("evidence.json"), labels)
    for found in (label_files(other), [labels[0], label_files(other)[1]]):
        with pytest.raises(
            UserError, match=r"other/.*/labels\.json: the labels must be those that .*stage/checkpoint.safeten"
        ):
            draw_figure(*given, other.with_name("evidence.json"), found)


def test_a_checkpoint_whose_writer_was_killed_between_its_two_files_is_written_again(own: Miniature) -> None:
    model, (weights, description) = own.weights("warmup"), load_checkpoint(own.weights("warmup"))
    code = (
        "import os, signal, sys; from pathlib import Path; from caguda.artifacts.checkpoint import *\n"
        "path = Path(sys.argv[1]); weights, description = load_checkpoint(path)\n"
        "replace = os.replace\n"
        "def publish(part, name):\n"
        "    replace(part, name) if name.suffix == '.json' else os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.replace = publish\n"
        "save_checkpoint(path, {name: 2 * weight for name, weight in weights.items()}, description)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(model)], check=False).returncode == -signal.SIGKILL
    with pytest.raises(UserError):
        load_checkpoint(model)
    save_checkpoint(model, weights, description)
    assert load_checkpoint(model)[1] == description
