"""The runs of a YAML as a graph: which models there are, where each starts, and what a run takes from others."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from miniature import values
from run_trees import ADVERSARIAL, CAG, SUPERVISED, TREE, Runs, experiment, keys, refused

from caguda import registry
from caguda.config_run import Imported, Method
from caguda.config_types import Fraction
from caguda.configfile import parse_configuration
from caguda.errors import UserError
from caguda.pseudo_labels import Evidence, Rule
from caguda.recorded_settings import differing_settings, settings_of_run
from caguda.resolved import print_configuration
from caguda.runs import (
    adaptation_number,
    deciding_settings,
    imported_files,
    labelling_name,
    method_of,
    model_before,
    model_of_anchors,
    models,
    models_before,
    models_listed,
    reports,
    rules_by_folder,
    rules_of,
    run_of,
    stage_number,
    trained_models,
)
from caguda.version import METHOD_VERSION

# The graph


def test_a_run_has_one_model_or_one_for_each_stage() -> None:
    made = experiment(TREE)
    chain = ["chain/stage1", "chain/stage2", "chain/stage3"]
    assert models(made) == ["later", "source", *chain, "second/stage1", "second/stage2", "control", "brought", "third"]
    assert trained_models(made) == [model for model in models(made) if model != "brought"]
    assert imported_files(made) == {"brought": "w.safetensors"}
    assert [stage_number(model) for model in chain] == [1, 2, 3] and stage_number("control") == 1


@pytest.mark.parametrize(
    ("model", "before", "stage"),
    [
        ("source", [], 1),
        ("chain/stage1", ["source"], 1),
        ("chain/stage3", ["chain/stage2", "chain/stage1", "source"], 3),
        ("later", ["chain/stage3", "chain/stage2", "chain/stage1", "source"], 4),
        ("second/stage1", ["chain/stage2", "chain/stage1", "source"], 3),
        ("second/stage2", ["second/stage1", "chain/stage2", "chain/stage1", "source"], 4),
        ("control", ["second/stage2", "second/stage1", "chain/stage2", "chain/stage1", "source"], 5),
        ("brought", [], 1),
        ("third", ["brought"], 1),
    ],
)
def test_a_model_starts_from_the_stage_before_or_the_last_model_of_its_start(
    model: str, before: list[str], stage: int
) -> None:
    made = experiment(TREE)
    assert list(models_before(made, model)) == before
    assert model_before(made, model) == (before[0] if before else None)
    assert adaptation_number(made, model) == stage


def test_a_list_of_runs_stands_for_all_their_models() -> None:
    made = experiment(TREE | {"gone": None})
    listed = ["second", "gone", "chain/stage2", "source", "chain"]
    stages = ["second/stage1", "second/stage2", "chain/stage2", "source", "chain/stage1", "chain/stage3"]
    assert models_listed(made, listed) == stages
    assert reports(made) == {"runs": models(made)}
    told = experiment(TREE | {"gone": None}, reports={"a": listed, "b": ["gone"], "c": ["gone", "later"]})
    assert reports(told) == {"a": stages, "c": ["later"]}


def test_what_is_no_model_is_told_with_the_models() -> None:
    made = experiment(TREE | {"gone": None})
    for model in ("none", "chain", "chain/stage4", "chain/stage0", "source/stage1", "gone", "chain/stage1/x", ""):
        with pytest.raises(
            UserError, match=r": the configuration has no such model, only later, source, chain/stage1 and"
        ):
            run_of(made, model)
    assert isinstance(run_of(made, "chain/stage2"), Method) and isinstance(run_of(made, "brought"), Imported)
    with pytest.raises(
        UserError, match=r"^brought: this must be a model that is trained, found one that is brought from"
    ):
        method_of(made, "brought")


def test_runs_on_target_labels_are_made_where_the_target_has_labels() -> None:
    labelled = experiment({"source": SUPERVISED, "oracle": {**SUPERVISED, "frames": "target"}, "gone": None})
    without = labelled.model_copy(update={"target": labelled.target.model_copy(update={"labels": None})})
    assert (models(labelled), models(without)) == (["source", "oracle"], ["source"])
    assert list(without.active_runs) == ["source"] and without.active_run("oracle") is None
    assert models(without.model_copy(update={"target": labelled.target})) == models(labelled)


def test_the_settings_that_decide_a_model_are_its_own() -> None:
    made = experiment(TREE)
    told = [deciding_settings(made, model) for model in ("chain/stage1", "chain/stage3", "brought")]
    assert [each["name"] for each in told] == ["chain/stage1", "chain/stage3", "brought"]
    assert {**told[0], "name": ""} == {**told[1], "name": ""}
    assert told[2] == {"name": "brought", "method": "imported"}
    texts = {"title": "another", "note": "of it", "stages": 9}
    assert deciding_settings(experiment(TREE | {"chain": TREE["chain"] | texts}), "chain/stage1") == told[0]
    assert json.loads(json.dumps(told)) == told and told[0].keys() >= {
        "method",
        "iterations",
        "pseudo_labels",
        "weights",
    }
    assert not told[0].keys() & {"title", "note", "stages"}


LATER_KEYS: dict[str, Any] = {"optimiser": {"warmup_iterations": 2, "head_factor": 10.0}}
"""Values of keys that are left out of records where they have their default."""


def test_later_keys_are_not_recorded_where_they_have_their_default() -> None:
    """Finished artifacts know none of them, and stay valid."""
    made = experiment({"source": SUPERVISED})
    told = deciding_settings(made, "source")
    assert list(told["optimiser"]) == [
        "name",
        "learning_rate",
        "momentum",
        "weight_decay",
        "poly_power",
        "poly_iterations",
    ]
    assert made.runs["source"].optimiser.warmup_iterations == 0 and made.runs["source"].optimiser.head_factor == 1
    said = experiment({"source": {**SUPERVISED, "optimiser": {"warmup_iterations": 0, "head_factor": 1}}})
    assert deciding_settings(said, "source") == told and said == made
    assert "warmup_iterations" not in json.dumps(made.model_dump(mode="json"))


@pytest.mark.parametrize(("section", "key"), [(section, key) for section in LATER_KEYS for key in LATER_KEYS[section]])
def test_a_later_key_with_another_value_is_recorded_and_compared(section: str, key: str) -> None:
    value = LATER_KEYS[section][key]
    plain, other = experiment({"source": SUPERVISED}), experiment({"source": {**SUPERVISED, section: {key: value}}})
    assert deciding_settings(other, "source")[section][key] == value
    default = getattr(getattr(plain.runs["source"], section), key)
    for recorded, current, words in (
        (plain, other, f"{default}, not {value}"),
        (other, plain, f"{value}, not {default}"),
    ):
        made = {"settings": settings_of_run(recorded, "source"), "method_version": METHOD_VERSION}
        assert differing_settings(current, made) == [f"runs.source.{section}.{key} {words}"]
        assert differing_settings(recorded, made) == []


def test_a_warm_up_is_shorter_than_its_training() -> None:
    warm = {"iterations": 5, "optimiser": {"warmup_iterations": 5}}
    said = refused({"source": SUPERVISED | warm})
    assert said == "runs.source.optimiser.warmup_iterations: must be less than the training's 5 iterations, found 5"


def test_evidence_has_the_anchors_of_its_model_or_of_the_one_before_its_chain() -> None:
    """`second` continues `chain`."""
    made = experiment(TREE, anchors={"every_stage": False})
    found = {model: model_of_anchors(made, model) for model in models(made)}
    assert found == {
        "source": "source", "chain/stage1": "source", "chain/stage2": "source", "chain/stage3": "source", "later": "later",
        "second/stage1": "source", "second/stage2": "source", "control": "control", "brought": "brought",
        "third": "third",
    }  # fmt: skip
    of_second = {found[str(model_before(made, f"second/stage{k}"))] for k in (1, 2)}
    assert of_second == {"source"}, "all stages of a run train with the anchors of its first stage"
    every = experiment(TREE)
    assert {model: model_of_anchors(every, model) for model in models(every)} == {m: m for m in models(every)}


# Rules of pseudo-labels


class Growing(Rule):
    """A rule that lets a tenth more through in every stage."""

    name: ClassVar[str] = "growing"
    reads: ClassVar[tuple[str, ...]] = ("confidence",)
    share: Fraction

    def of_stage(self, stage: int) -> "Growing":
        return Growing(share=round(self.share + 0.1 * (stage - 1), 6))

    def labels(self, evidence: Evidence, anchor_distance: float, prepared: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def _growing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in registry.FOLDERS:
        registry.registered(kind)
    monkeypatch.setattr(registry, "_REGISTERED", {kind: dict(found) for kind, found in registry._REGISTERED.items()})
    registry.register("rule", "growing")(Growing)
    yield


@pytest.mark.usefixtures("_growing")
def test_a_rule_is_that_of_the_stage() -> None:
    own = {"method": "self_training", "start": "source", "stages": 3, "pseudo_labels": {"growing": {"share": 0.2}}}
    made = experiment({"source": SUPERVISED, "self": own, "more": {"like": "self", "start": "self", "stages": None}})
    shares = {model: rules_of(made, model)["growing"].share for model in models(made)[1:]}
    assert shares == {"self/stage1": 0.2, "self/stage2": 0.3, "self/stage3": 0.4, "more": 0.2}
    assert [deciding_settings(made, f"self/stage{k}")["pseudo_labels"] for k in (1, 3)] == [
        {"growing": {"share": share}} for share in (0.2, 0.4)
    ]
    assert [labelling_name(made, model) for model in models(made)] == [
        "", "growing-0.2", "growing-0.3", "growing-0.4", "growing-0.2"
    ]  # fmt: skip
    assert rules_by_folder(made) == {f"growing-{share}": Growing(share=share) for share in (0.2, 0.3, 0.4)}


def test_the_labels_of_a_run_are_called_by_its_rules() -> None:
    made = experiment(TREE | {"other": {"like": "chain", "pseudo_labels": {"probability": {"p0": 0.75}}}})
    assert (
        labelling_name(made, "chain/stage2")
        == labelling_name(made, "second/stage1")
        == "anchor-0.05-absolute+probability-0.5"
    )
    assert labelling_name(made, "other/stage1") == "anchor-0.05-absolute+probability-0.75"
    assert [labelling_name(made, model) for model in ("source", "brought", "third")] == [""] * 3
    reversed_rules = {"probability": {"p0": 0.5}, "anchor": {"margin": 0.05, "unit": "absolute"}}
    reordered = experiment({"source": SUPERVISED, "other": {**CAG, "start": "source", "pseudo_labels": reversed_rules}})
    assert list(rules_of(reordered, "other")) == ["probability", "anchor"]
    assert labelling_name(reordered, "other") == labelling_name(made, "chain/stage1"), "the order of rules is free"
    assert list(rules_by_folder(made)) == ["anchor-0.05-absolute", "probability-0.5", "probability-0.75"]
    assert rules_of(made, "brought") == {}


# What a run takes from others


def test_a_run_has_the_keys_of_the_run_that_it_is_like_and_of_training() -> None:
    first = {**CAG, "start": "source", "stages": 3, "title": "T", "note": "N", "iterations": 4}
    made = experiment({
        "third": {"like": "second", "weights": {"distance": 0}, "stages": None},
        "second": {"like": "first", "batch_size": 9, "optimiser": {"learning_rate": 0.5}},
        "first": first, "source": SUPERVISED,
        "renewed": {"like": "first", "method": "cag_every_iteration"},
    })  # fmt: skip
    run, second, third, renewed = (made.runs[name] for name in ("first", "second", "third", "renewed"))
    assert (run.title, run.note, second.title, third.note) == ("T", "N", None, None)
    optimiser = run.optimiser.model_copy(update={"learning_rate": 0.5})
    assert second == run.model_copy(update={"title": None, "note": None, "batch_size": 9, "optimiser": optimiser})
    weights = run.weights.model_copy(update={"distance": 0})
    assert third == second.model_copy(update={"weights": weights, "stages": None})
    assert type(renewed).__name__ == "CagEveryIteration" and renewed.weights == run.weights
    assert (run.iterations, run.batch_size, made.runs["source"].iterations) == (4, 2, 6)
    assert experiment({"a": {**SUPERVISED, "like": None}}).runs == experiment({"a": SUPERVISED}).runs


def test_the_optimiser_of_another_kind_has_nothing_of_that_of_training() -> None:
    other = {"name": "adamw", "learning_rate": 1}
    made = experiment({"source": {**SUPERVISED, "optimiser": other}, "plain": SUPERVISED})
    assert made.runs["source"].optimiser.weight_decay == 1e-4 and made.runs["plain"].optimiser.weight_decay == 0


def test_a_run_that_is_brought_takes_nothing_from_training() -> None:
    training = {"iterations", "batch_size", "optimiser", "batch_norm"}
    assert not experiment(TREE).runs["brought"].model_dump().keys() & training


# Any experiment


def _run(draw: st.DrawFn, name: str, stages: dict[str, int | None]) -> dict[str, Any]:
    """A run that starts from one of those with `stages`, or from fresh weights; it is put among them."""
    start = draw(st.none() | st.sampled_from(sorted(stages))) if stages else None
    kind = draw(st.sampled_from(["supervised", "adversarial"] + (["cag"] * 3 if start else ["imported"])))
    if kind == "imported":
        stages[name] = None
        return {"method": kind, "file": f"{name}.safetensors"}
    count = draw(st.none() | st.integers(1, 3)) if start else None
    if start and (last := stages[start]):
        start = draw(st.sampled_from([start, *(f"{start}/stage{k}" for k in range(1, last + 1))]))
    made = {"supervised": SUPERVISED, "adversarial": ADVERSARIAL, "cag": CAG}[kind] | {"start": start, "stages": count}
    extras = {"title": st.just("a title"), "reduction": st.just("sum"), "target_augmentation": st.just({"flip": True}),
              "optimiser": st.just({"name": "adamw", "learning_rate": 1, "head_factor": 10}), "iterations": st.integers(1, 9)}  # fmt: skip
    stages[name] = count
    return made | {key: draw(value) for key, value in extras.items() if draw(st.booleans())}


@st.composite
def graphs(draw: st.DrawFn) -> Runs:
    """Runs that may be, in any order of the YAML: each starts from, or is like, one of those that were drawn before it."""
    stages: dict[str, int | None] = {}
    runs: Runs = {}
    for name in draw(st.lists(st.sampled_from(["a", "b", "c-d", "e_f", "1", "stage1"]), min_size=1, unique=True)):
        other = draw(st.none() | st.sampled_from(sorted(runs))) if runs else None
        if other is None:
            runs[name] = _run(draw, name, stages)
        else:
            runs[name] = {"like": other, "note": f"like {other}"}
            stages[name] = stages[other]
    order = draw(st.permutations(sorted(runs)))
    return {name: runs[name] for name in order} | ({"gone": None} if draw(st.booleans()) else {})


def own_keys(runs: Runs, name: str) -> dict[str, Any]:
    """A run's keys with those of the runs that it is like, as far as they are not nested."""
    own = runs[name] or {}
    return (own_keys(runs, own["like"]) if "like" in own else {}) | own


def start_of(runs: Runs, model: str) -> str | None:
    """The model that another one starts from, as the YAML says it."""
    name, _, stage = model.partition("/stage")
    if stage and stage != "1":
        return f"{name}/stage{int(stage) - 1}"
    start: str | None = own_keys(runs, name).get("start")
    count = own_keys(runs, start).get("stages") if start and "/" not in start else None
    return f"{start}/stage{count}" if count else start


@given(graphs())
def test_any_graph_of_runs_has_its_models_and_their_starts(runs: Runs) -> None:
    made = experiment(runs)
    found = models(made)
    wholes = {name: own_keys(runs, name) for name in runs if runs[name] is not None}
    counts = {name: whole.get("stages") for name, whole in wholes.items()}
    assert found == [
        f"{name}/stage{k}" if count else name for name, count in counts.items() for k in range(1, (count or 1) + 1)
    ]
    for model in found:
        lineage = list(models_before(made, model))
        assert model_before(made, model) == start_of(runs, model)
        assert set(lineage) <= set(found) - {model} and len(set(lineage)) == len(lineage)
        before = [each.partition("/")[0] for each in lineage]
        adapted = [name for name in before if wholes[name]["method"] == "cag" or name == model.partition("/")[0]]
        assert adaptation_number(made, model) == 1 + len(adapted)
        assert run_of(made, model).method == wholes[model.partition("/")[0]]["method"]
    assert set(models_listed(made, runs)) == set(found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=graphs())
def test_a_configuration_is_read_back_from_its_own_dump(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = values(tmp_path)["training"] | {"target_augmentation": {"blur": 1}, "accumulate": 2}
    content = keys(runs, training=extra, reports={"all": list(runs)[:1]} if next(iter(runs)) != "gone" else {})
    made = parse_configuration(content, Path("own.yaml"))
    dump = made.model_dump(mode="json")
    again = parse_configuration(json.loads(json.dumps(dump)), Path("config.json"))
    assert again == made and again.model_dump(mode="json") == dump
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    print_configuration([path])
    assert parse_configuration(yaml.safe_load(capsys.readouterr().out), path) == made
