"""Methods and rules of plugins that break their contract: one line says what is wrong with which of them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from workflow_runs import SMOKE

from caguda import registry
from caguda.cli import main
from caguda.config_rules import PseudoLabels, rule_classes
from caguda.errors import UserError
from caguda.pseudo_labels import Rule
from caguda.stages.labels import _label_maps, _prepare
from caguda.stages.training import _objectives

HEAD = """
from typing import ClassVar, Literal
from caguda.config_run import Method
from caguda.pseudo_labels import Rule
from caguda.registry import register
"""
METHOD = """
@register("method", "own")
class Own(Method):
    method: Literal["own"]
"""
READS = (
    "    @property\n    def reads(self):\n        return {}\n    def step(self, session, batch):\n        yield None\n"
)


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in registry.FOLDERS:
        registry.registered(kind)
    before = {kind: dict(classes) for kind, classes in registry._REGISTERED.items()}
    monkeypatch.setattr(registry, "_REGISTERED", before)
    monkeypatch.setattr(registry, "_LOADED", {})
    yield
    sys.modules.pop("caguda_plugin_own", None)


def said(tmp_path: Path, plugin: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that `caguda config` ends with for an experiment with a run of the plugin's method."""
    (tmp_path / "own.py").write_text(HEAD + plugin, encoding="utf-8")
    run = {"method": "own", "iterations": 1, "batch_size": 1, "batch_norm": "train"}
    content = {"base": str(SMOKE), "plugins": ["own.py"], "runs": {"own": run}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["config", str(tmp_path / "own.yaml")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "Traceback" not in printed.err
    return printed.err


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (METHOD, "the method own must define reads, found Own without it"),
        (METHOD + READS.partition("    def step")[0], "the method own must define step, found Own without it"),
        (METHOD + READS.format("{}"), "must map source or target to images, truth, pseudo-labels, found {}"),
        (METHOD + READS.format("['source']"), "found ['source']"),
        (METHOD + READS.format("{'moon': 'images'}"), "found {'moon': 'images'}"),
        (METHOD + READS.format("{'source': 'label'}"), "found {'source': 'label'}"),
        (METHOD + READS.format("{}['x']"), "found KeyError: 'x'"),
        (METHOD + READS.format("{}").replace("    @property\n", ""), "found <bound method"),
        ('register("ruler", "q")', "the kind must be one of network, layout, rule, method, found 'ruler'"),
        ('register("rule", "../q")', "the name of a rule must be of letters, digits, _ and -, found '../q'"),
        ('register("method", "")', "the name of a method must be of letters, digits, _ and -, found ''"),
        ('register("layout", 5)', "the name of a layout must be text, found 5"),
        ('register("method", "imported")', "the method imported is in caguda already; choose another name"),
        ('@register("method", "own")\ndef own(): pass', "the method own must be a class, found <function own"),
        (METHOD + METHOD, "the method own is in caguda_plugin_own already; choose another name"),
        (METHOD + "    a: frozenset[str]", "a of the method own must not be a set, write tuple[...] instead"),
        (METHOD + "    a: dict[str, set[int] | None] = {}", "a of the method own must not be a set"),
        (f"class Part(Method):\n    b: set[int]\n{METHOD}    a: Part", "a of the method own must not be a set"),
    ],
)
def test_a_wrong_class_is_refused_when_the_yaml_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plugin: str, words: str
) -> None:
    assert words in said(tmp_path, plugin, capsys)


@pytest.mark.parametrize("reads", [("logits",), "predicted", ["predicted"]])
def test_a_rule_reads_arrays_of_the_evidence(reads: Any) -> None:
    members = {"__module__": __name__, "name": "own", "reads": reads, "labels": lambda *_: None}
    members["__annotations__"] = {"reads": "ClassVar[Any]", "name": "ClassVar[str]"}
    registry.register("rule", "own")(type("Own", (Rule,), members))
    with pytest.raises(
        UserError, match="`reads` of the rule own must be a tuple of names among nearest_anchor, margin"
    ):
        rule_classes()


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (lambda: None, "NoneType"),
        (lambda: iter(()), "none"),
        (lambda: iter([0.5]), "0.5"),
        (lambda: iter([torch.zeros(())]), "tensor"),
        (lambda: iter([(torch.zeros(2), {"loss": torch.zeros(())})]), "tensor"),
        (lambda: iter([(torch.zeros(()), {})]), "tensor"),
        (lambda: iter([(torch.zeros(()), {"loss": 0.5})]), "tensor"),
    ],
)
def test_a_step_yields_losses_with_their_terms(step: Any, found: str) -> None:
    setup: Any = SimpleNamespace(name="own", step=lambda batch, iteration: step())
    with pytest.raises(
        UserError, match=f"own: the step of a method must yield pairs of a loss and .*, found .*{found}"
    ):
        list(_objectives(setup, {}, 0))


def test_the_name_of_a_labelling_fits_a_file() -> None:
    names = [letter * 48 for letter in "abcdef"]
    for name in names:
        members = {"__module__": __name__, "__qualname__": name, "name": name, "reads": ("margin",)}
        members |= {"labels": lambda *_: None, "__annotations__": {"reads": "ClassVar[Any]", "name": "ClassVar[str]"}}
        registry.register("rule", name)(type(name, (Rule,), members))
    rules: TypeAdapter[dict[str, Rule]] = TypeAdapter(PseudoLabels)
    assert list(rules.validate_python({name: {} for name in names[:4]})) == names[:4]
    with pytest.raises(ValidationError, match=r"whose folders joined by \+ have at most 200 letters"):
        rules.validate_python({name: {} for name in names})


class _Unread(Rule):
    name = "unread"
    reads = ("predicted",)

    def prepare(self, images: Any, categories: int) -> Any:
        return [float(image["confidence"].max()) for image in images]

    def labels(self, evidence: Any, anchor_distance: float, prepared: Any) -> Any:
        evidence["predicted"][:] = 0
        return evidence["predicted"]


def test_a_rule_names_all_arrays_that_it_uses_and_changes_none() -> None:
    store: Any = SimpleNamespace(
        count=1, categories=("a", "b"), shape=(2, 3), attributes={"anchor_distance": 1.0},
        read=lambda index, name: np.ones((2, 3), np.uint8),
    )  # fmt: skip
    with pytest.raises(UserError, match="`reads` must name every array that it uses, found none of confidence; add it"):
        _prepare(store, _Unread())
    with pytest.raises(ValueError, match="read-only"):
        _label_maps(store, _Unread(), [0], None)


def test_labels_of_different_settings_lie_in_different_folders() -> None:
    def rule(rule_name: str, *values: Any) -> Rule:
        fields = {f"key{place}": type(value) for place, value in enumerate(values)}
        members = {"__module__": __name__, "name": rule_name, "__annotations__": {"name": "ClassVar[str]", **fields}}
        return type("Own", (Rule,), members)(**{f"key{place}": value for place, value in enumerate(values)})

    rules = [
        rule("q", "x-y", "z"),
        rule("q", "x", "y-z"),
        rule("q-1", 2),
        rule("q", 1, 2),
        rule("q", "v1.0"),
        rule("q", "v1"),
    ]
    folders = [each.folder for each in rules]
    assert len(set(folders)) == len(folders), folders
    assert rule("q", 2.0, 0.5).folder == "q-2-0.5"
