"""A rule of pseudo-labels: what every one must give, those of the package beside the equations, and one that is added."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from documentation import FENCED, read
from miniature import Miniature
from numpy.typing import NDArray
from pydantic import ValidationError

from caguda import registry
from caguda.artifacts.evidence import EVIDENCE
from caguda.artifacts.labels import label_faults
from caguda.artifacts.vouched import vouched_store
from caguda.classes import IGNORE
from caguda.equations.labels import by_anchor, by_probability, pseudo_labels
from caguda.pseudo_labels import LONGEST, Rule, rule_from
from caguda.stages.labels import _prepare

TESTS = Path(__file__).parent
FILE = TESTS / "agreement_rule.py"
FILES = [FILE, TESTS / "class_balanced_rule.py"]
PAGE = read(TESTS.parent / "docs" / "rules.md")
C, H, W = 5, 6, 9
DISTANCE = 1.75
SETTINGS: dict[str, dict[str, Any]] = {
    "anchor": {"margin": 0.4, "unit": "mean_anchor_distance"},
    "probability": {"p0": 0.5},
    "agreement": {"p0": 0.5},
    "class_balanced": {"portion": 0.3, "growth": 0.1, "most": 0.4},
    "class_quantile": {"share": 0.4, "cap": 0.8},
    "class_balanced_sampled": {"portion": 0.3, "growth": 0.1},
}
RULES = ["anchor", "class_balanced", "class_quantile", "probability"]
each_rule = pytest.mark.parametrize("name", SETTINGS)


@contextmanager
def plugin() -> Iterator[None]:
    """The rules of the package and those of the files; afterwards those of the package alone."""
    before = dict(registry.registered("rule"))
    registry.load_plugins(FILES)
    try:
        yield
    finally:
        for name in registry.registered("rule").keys() - before.keys():
            del sys.modules[registry.registered("rule")[name].__module__]
        registry._REGISTERED["rule"] = before


@pytest.fixture
def loaded() -> Iterator[None]:
    with plugin():
        yield


def rule(name: str, **changes: Any) -> Rule:
    return rule_from({"name": name, **SETTINGS[name], **changes})


def some_evidence(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Evidence of a random image, which nobody may write to."""
    random = np.random.default_rng(seed)
    maps: dict[str, NDArray[Any]] = {
        "nearest_anchor": random.integers(0, C, (H, W)).astype(np.uint8),
        "margin": random.exponential(1.0, (H, W)).astype(np.float32),
        "predicted": random.integers(0, C, (H, W)).astype(np.uint8),
        "confidence": random.random((H, W)).astype(np.float32),
    }
    maps["margin"][0, 0] = np.inf
    for values in maps.values():
        values.flags.writeable = False
    return maps


def labels_of(rule: Rule, maps: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """The labels of an image by a rule that knows no other image."""
    prepared = rule.prepare([maps], C)
    return rule.labels(maps, DISTANCE, json.loads(json.dumps(prepared)))


def test_these_are_all_rules(loaded: None) -> None:
    assert set(SETTINGS) == set(registry.registered("rule"))


@each_rule
def test_a_label_is_a_category_where_active_and_255_elsewhere(loaded: None, name: str) -> None:
    label = labels_of(rule(name), some_evidence())
    active = (label != IGNORE).astype(np.uint8)
    assert label.dtype == np.uint8 and label.shape == (H, W) and 0 < active.mean() < 1
    assert label_faults({"active": active, "label": label}, C) == []


@each_rule
def test_labels_are_of_what_the_rule_reads_alone(loaded: None, name: str) -> None:
    maps, found = some_evidence(), rule(name)
    assert set(found.reads) <= set(EVIDENCE.dtypes)
    label = labels_of(found, maps)
    for other in (maps, some_evidence(1)):
        given = other | {read: maps[read] for read in found.reads}
        np.testing.assert_array_equal(labels_of(found, given), label)
    np.testing.assert_array_equal(labels_of(found, {read: maps[read] for read in found.reads}), label)
    for missing in found.reads:
        with pytest.raises(KeyError, match=missing):
            labels_of(found, {read: maps[read] for read in found.reads if read != missing})


@each_rule
def test_the_settings_survive_the_json_of_a_store(loaded: None, name: str) -> None:
    found = rule(name)
    again = rule_from(json.loads(json.dumps(found.described())))
    assert type(again) is type(found) and again == found and again.folder == found.folder
    assert found.described() == {"name": name, **SETTINGS[name]}


@each_rule
def test_the_folder_is_one_of_the_rule_and_its_values(loaded: None, name: str) -> None:
    found = rule(name)
    assert found.folder.startswith(f"{name}-") and Path(found.folder).name == found.folder
    key, value = next((key, value) for key, value in SETTINGS[name].items() if isinstance(value, float))
    assert rule(name, **{key: value / 2}).folder != found.folder


@each_rule
def test_the_rule_of_a_stage_is_a_whole_rule(loaded: None, name: str) -> None:
    found = rule(name)
    assert found.of_stage(1) == found
    later = found.of_stage(3)
    again = rule_from(later.described())
    assert type(later) is type(found) and again == later and again.folder == later.folder
    assert (later == found) is ("growth" not in SETTINGS[name])


def test_the_folders_of_the_documentation() -> None:
    assert rule("anchor", margin=0.15).folder == "anchor-0.15-mean_anchor_distance"
    assert rule("anchor", margin=2.5, unit="absolute").folder == "anchor-2.5-absolute"
    assert rule("probability", p0=0.95).folder == "probability-0.95"


def test_a_folder_with_a_long_name_or_other_letters_has_a_digest() -> None:
    class Named(Rule):
        name: ClassVar[str] = "named"
        text: str

    for text in ("x" * LONGEST, "a/b", "../x", "ein zwei"):
        folder = Named(text=text).folder
        assert folder.startswith("named-") and len(folder) == len("named-") + 12 and "/" not in folder
    assert Named(text="a/b").folder != Named(text="../x").folder
    assert Named(text="x" * (LONGEST - len("named-"))).folder == "named-" + "x" * (LONGEST - len("named-"))


# The rules of the package


@pytest.mark.parametrize(("margin", "unit"), [(0.4, "absolute"), (0.2, "mean_anchor_distance"), (0.0, "absolute")])
def test_labels_by_anchors_are_those_of_the_equations(margin: float, unit: str) -> None:
    generator = torch.Generator().manual_seed(0)
    features, anchors = torch.randn(1, 8, H, W, generator=generator), torch.randn(C, 8, generator=generator)
    present = torch.tensor([True, True, False, True, True])
    threshold = margin * (DISTANCE if unit == "mean_anchor_distance" else 1.0)
    found = by_anchor(features, anchors, present, threshold)
    maps = {"nearest_anchor": found.nearest[0].numpy(), "margin": found.margin[0].numpy()}
    label = labels_of(rule("anchor", margin=margin, unit=unit), maps)
    np.testing.assert_array_equal(label, pseudo_labels(found.nearest, found.active)[0].numpy())
    assert (label != 2).all() and (label != IGNORE).any()


@pytest.mark.parametrize("p0", [0.0, 0.3, 0.5, 1.0])
def test_labels_by_probability_are_those_of_the_equations(p0: float) -> None:
    found = by_probability(torch.randn(1, C, H, W, generator=torch.Generator().manual_seed(0)), p0)
    maps = {"predicted": found.predicted[0].numpy(), "confidence": found.confidence[0].numpy()}
    label = labels_of(rule("probability", p0=p0), maps)
    np.testing.assert_array_equal(label, pseudo_labels(found.predicted, found.active)[0].numpy())


@pytest.mark.parametrize(
    ("name", "key", "values"), [("anchor", "margin", "margin"), ("probability", "p0", "confidence")]
)
def test_what_equals_the_threshold_in_float32_is_not_active(name: str, key: str, values: str) -> None:
    threshold = 0.3  # which float32 does not have
    maps = {array: np.zeros((1, 3), EVIDENCE.dtypes[array]) for array in EVIDENCE.dtypes}
    at = np.float32(threshold)
    maps[values][:] = [np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(1))]
    found = rule(name, **{key: threshold}, **({"unit": "absolute"} if name == "anchor" else {}))
    assert labels_of(found, maps).tolist() == [[IGNORE, IGNORE, 0]]


def test_thresholds_are_of_all_images_which_are_read_twice() -> None:
    images = [some_evidence(seed) for seed in range(3)]
    store: Any = SimpleNamespace(
        count=3, categories=tuple("abcde"), read=lambda index, name: images[index][name].copy()
    )
    predicted, confidence = (np.stack([image[name] for image in images]) for name in ("predicted", "confidence"))
    balanced, quantile = rule("class_balanced"), rule("class_quantile")
    by_portion, by_share = _prepare(store, balanced), _prepare(store, quantile)
    for category in range(C):
        surest = np.sort(confidence[predicted == category])
        count = len(surest)
        assert by_portion[category] == surest[::-1][int(count * 0.3) - 1]
        assert by_share[category] == min(surest[round(count * 0.4)], np.float32(0.8))
    for found, prepared in ((balanced, by_portion), (quantile, by_share)):
        label = np.stack([found.labels(image, DISTANCE, prepared) for image in images])
        reached = confidence >= np.float32(prepared)[predicted]
        np.testing.assert_array_equal(label, np.where(reached, predicted, IGNORE))
        assert 0.2 < reached.mean() < 0.7


def test_the_portion_grows_with_the_stages_up_to_most() -> None:
    grown = [rule("class_balanced", portion=0.2, growth=0.1, most=0.45).of_stage(stage) for stage in range(1, 6)]
    assert [each.described()["portion"] for each in grown] == [0.2, 0.3, 0.4, 0.45, 0.45]
    assert grown[1].folder == "class_balanced-0.3-0.1-0.45"
    alone = rule_from({"name": "class_balanced", "portion": 0.2})
    assert alone.of_stage(7) == alone
    with pytest.raises(ValidationError, match=r"portion: must be at most `most`, 0\.4, found 0\.5"):
        rule("class_balanced", portion=0.5)


def test_the_package_knows_its_rules_without_torch() -> None:
    program = (
        "import sys; from caguda.registry import registered\nprint(list(registered('rule')), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=TESTS.parent)
    assert done.stdout == f"{RULES} False\n"


# A rule that is added


def test_the_documentation_shows_the_file_and_it_is_short() -> None:
    text = read(FILE)
    assert f"```python\n{text}```\n" in PAGE and len(text.splitlines()) <= 25


def test_only_a_loaded_rule_is_known() -> None:
    with plugin():
        assert "agreement" in registry.registered("rule")
    assert list(registry.registered("rule")) == RULES


def test_it_labels_where_both_agree(loaded: None) -> None:
    maps = some_evidence()
    label = labels_of(rule("agreement"), maps)
    sure = labels_of(rule("probability"), maps)
    np.testing.assert_array_equal(label, np.where(maps["nearest_anchor"] == maps["predicted"], sure, IGNORE))


def test_it_is_tried_on_evidence_as_the_documentation_says(
    mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: None
) -> None:
    example, program = (text for language, text in FENCED.findall(PAGE) if language == "python")
    evidence = tmp_path / "results/street/seed0/warm-up/evidence"
    evidence.parent.mkdir(parents=True)
    evidence.symlink_to(mini.folder / "labels")
    (tmp_path / "agreement_rule.py").write_text(example, encoding="utf-8")
    (tmp_path / "try.py").write_text(program, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent))
    done = subprocess.run([sys.executable, "try.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    store, found = vouched_store(mini.folder / "labels" / "evidence.json", EVIDENCE), rule("agreement")
    labels = [found.labels(store.read_all(i), store.attributes["anchor_distance"], None) for i in range(store.count)]
    assert done.stdout == f"agreement-0.5: {np.mean(np.stack(labels) != IGNORE):.1%} of the pixels are active\n"
