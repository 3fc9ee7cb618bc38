"""Runs that cannot be, lists of what is no model, and YAMLs of an earlier version: one line names the fault."""

from pathlib import Path
from typing import Any

import pytest
from miniature import values
from run_trees import ADVERSARIAL, CAG, SUPERVISED, TREE, experiment, keys, refused

from caguda.configfile import parse_configuration
from caguda.errors import UserError
from caguda.run_inheritance import EARLIER_KEYS, with_inherited_keys


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"later": {"like": "chian"}}, "runs.later.like: must be another run of this YAML, found 'chian', did you mean chain?"),
        ({"later": {"like": 3}}, "runs.later.like: must be another run of this YAML, found 3"),
        ({"later": {"like": ["chain"]}}, "runs.later.like: must be another run of this YAML, found ['chain']"),
        ({"later": {"like": None}}, "runs.later.method: this key is required"),
        ({"later": {"like": "gone"}, "gone": None}, "runs.later.like: must be a run with keys, found gone, which is left out; name another"),
        ({"later": {"like": "gone"}, "gone": 3}, "runs.later.like: must be a run with keys, found gone, which is 3; name another"),
        ({"later": {"like": "later"}}, "runs.later.like: no run may be like itself, found the circle later -> later"),
        (
            {"later": {"like": "second"}, "chain": {"like": "later"}},
            "runs.chain.like: no run may be like itself, found the circle later -> second -> chain -> later",
        ),
        ({"other": {"like": "chian"}}, "runs.other.like: must be another run of this YAML, found 'chian', did you mean chain?"),
        ({1: {"like": 1}}, "runs: the name of a run must be text, found 1; write it in quotes"),
        ({"later": {**CAG, "start": "chian"}}, "runs.later.start: must be a run, found chian, did you mean chain?"),
        ({"later": {**CAG, "start": "chian/stage1"}}, "runs.later.start: must be a run, found chian, did you mean chain?"),
        ({"later": {**CAG, "start": "zzz"}}, "runs.later.start: must be a run, found zzz"),
        (
            {"later": {**CAG, "start": "chain/stage4"}},
            "runs.later.start: must be a model that is made, found chain/stage4 where chain has 3 stages",
        ),
        (
            {"later": {**CAG, "start": "source/stage1"}},
            "runs.later.start: must be a model that is made, found source/stage1 where source has no stages",
        ),
        (
            {"later": {**CAG, "start": "brought/stage1"}},
            "runs.later.start: must be a model that is made, found brought/stage1 where brought has no stages",
        ),
        ({"later": {**CAG, "start": "chain/stage0"}}, "runs.later.start: must be a name of letters, digits, _ and - that begins"),
        ({"later": {**CAG, "start": "later"}}, "runs.later.start: no run may start from itself, found the circle later -> later"),
        (
            {"chain": {**CAG, "start": "control", "stages": 3}},
            "runs.later.start: no run may start from itself, found the circle later -> chain -> control -> second -> chain",
        ),
        ({"later": CAG}, "runs.later.start: cag must start from a run, whose model gives anchors and pseudo-labels"),
        ({"later": {**SUPERVISED, "stages": 2}}, "runs.later.start: a run with stages must start from another run"),
        (
            {"later": {**CAG, "start": "source", "pseudo_labels": {}}},
            "runs.later.pseudo_labels: at least one rule must be given",
        ),
        (
            {"later": {**SUPERVISED, "pseudo_labels": CAG["pseudo_labels"]}},
            "runs.later.pseudo_labels: supervised uses none, leave the key out",
        ),
        (
            {"later": {**ADVERSARIAL, "pseudo_labels": CAG["pseudo_labels"]}},
            "runs.later.pseudo_labels: adversarial uses none, leave the key out",
        ),
        ({"later": {**SUPERVISED, "anchors": "a.h5"}}, "runs.later.anchors: supervised uses none, leave the key out"),
        ({"later": {**ADVERSARIAL, "anchors": "a.h5"}}, "runs.later.anchors: adversarial uses none, leave the key out"),
        (
            {"later": {"method": "self_training", "start": "source", "pseudo_labels": CAG["pseudo_labels"], "anchors": "a.h5"}},
            "runs.later.anchors: self_training uses none, leave the key out",
        ),
        ({"source": None}, "runs.chain.start: must be a run that is made, found source, which is left out; name another"),
        ({"later": {"like": "brought", "iterations": 1}}, "runs.later.iterations: unknown key"),
        (
            {"Chain": SUPERVISED},
            "runs: names must differ in more than upper and lower case, since they become names of folders, found chain and Chain; rename",
        ),
        ({"x" * 101: SUPERVISED}, f"runs.{'x' * 101}: must be text of at most 100 characters, found "),
        ({"../x": SUPERVISED}, "runs.../x: must be a name of letters, digits, _ and -"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_is_named(changes: Any, said: str) -> None:
    assert refused(TREE | changes).startswith(said)


def test_reports_of_one_folder_are_refused() -> None:
    said = refused(TREE, reports={"mine": ["source"], "Mine": ["source"]})
    assert (
        said.startswith("reports: names must differ in more than upper and lower case")
        and "found mine and Mine" in said
    )
    experiment(TREE | {"Chain": None}, reports={"mine": ["source"]})


def test_a_run_may_be_like_another_through_very_many() -> None:
    others = {f"like{number}": {"like": f"like{number - 1}" if number else "source"} for number in range(1100)}
    keys = with_inherited_keys({"training": {"iterations": 3}, "runs": {"source": SUPERVISED, **others}})
    assert keys["runs"]["like1099"] == {"method": "supervised", "iterations": 3}


@pytest.mark.parametrize("section", ["reports.mine", "tables.table4"])
@pytest.mark.parametrize(
    ("models", "said"),
    [
        (["source", "chian"], ".1: must be a run, found chian, did you mean chain?"),
        (["chain/stage4"], ".0: must be a model that is made, found chain/stage4 where chain has 3 stages"),
        (["chain", "source", "chain"], ": every run must be named once, found chain twice"),
        ([], ": must be at least 1 of them, found []"),
        (
            ["chain/"],
            ".0: must be a name of letters, digits, _ and - that begins with a letter or digit, or RUN/stageK, found",
        ),
    ],
)
def test_a_list_of_what_is_no_model_is_refused(section: str, models: list[str], said: str) -> None:
    key, name = section.split(".")
    assert refused(TREE, **{key: {name: models}}).startswith(f"{section}{said}")
    experiment(TREE | {"gone": None}, **{key: {name: ["gone", "gone/stage2", "chain/stage3", "chain"]}})


def test_something_must_be_made_and_shown() -> None:
    out = "at least one run must be made, found only runs that are left out: "
    assert refused({"a": None, "b": None}) == f"runs: {out}a, b"
    assert refused(TREE | {"gone": None}, reports={"mine": ["gone"]}) == f"reports: {out}gone"
    assert refused({}) == "runs: must be at least 1 of them, found {}"
    assert refused([]) == "runs: must be keys with values, found []"
    unlabelled = {"layout": "cityscapes", "root": "target", "split": "train", "labels": None}
    assert refused({"a": {**SUPERVISED, "frames": "target"}}, target=unlabelled) == f"runs: {out}a"


@pytest.mark.parametrize(
    ("section", "value", "said"),
    [
        ("training", {"start": "source"}, "training.start: unknown key"),
        ("training", {"iteratoins": 3}, "training.iteratoins: unknown key, did you mean iterations?"),
        ("training", 3, "training: must be keys with values, found 3"),
        ("training", None, "training: must be keys with values, found None"),
        ("training", {1: 2}, "training.1: unknown key"),
    ],
)
def test_training_holds_the_keys_of_a_training_alone(section: str, value: Any, said: str) -> None:
    assert refused(TREE, **{section: value}) == said


def test_one_fault_of_training_is_told_once() -> None:
    training = values(Path("frames"))["training"]
    said = refused(TREE, training=training | {"accumulate": 0})
    assert said == "runs.later.accumulate: must be at least 1, found 0 (in training)"
    chain = TREE["chain"] | {"accumulate": 0}
    assert refused(TREE | {"chain": chain}) == "runs.chain.accumulate: must be at least 1, found 0"


@pytest.mark.parametrize("key", EARLIER_KEYS)
def test_a_yaml_of_an_earlier_version_is_one_line(key: str) -> None:
    old = {"pretrain": {"iterations": 1}, "recipes": {"cag": {"distance": 0}}, "labels": {"margin": 1, "p0": 1}}
    earlier = {name: value for name, value in keys(TREE).items() if name not in ("runs", "training", "reports")}
    for content in (keys(TREE, **{key: old.get(key, {})}), earlier | {key: old.get(key)}):
        with pytest.raises(UserError) as caught:
            parse_configuration(content, Path("own.yaml"))
        assert str(caught.value) == (
            f"own.yaml: {key}: keys of an earlier version, in which stages were sections; write them as entries of runs, as "
            "config/demo.yaml and docs/runs.md show"
        )


def test_all_keys_of_an_earlier_version_are_told_together() -> None:
    found = refused(TREE, **{key: {} for key in EARLIER_KEYS})
    assert found.startswith(
        "pretrain, warmup, labels, losses, stages, recipes, bounds, start_from: keys of an earlier version"
    )
