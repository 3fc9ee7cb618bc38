"""Methods and rules of one file each, most of them outside the package, trained briefly through the real workflow."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from golden_methods import golden, network_of_dacs
from PIL import Image
from torch import nn
from workflow_runs import SMOKE, Workflow

from caguda import registry
from caguda.artifacts.atomic import read_json
from caguda.artifacts.labels import LABELS
from caguda.artifacts.state import load_state
from caguda.artifacts.vouched import vouched_store
from caguda.files import sha256
from caguda.networks.layers.network import Outputs

TESTS = Path(__file__).parent
FILES = [TESTS / name for name in ("advent_method.py", "class_balanced_rule.py", "mean_teacher_method.py")]
LONGEST = 40
RUNS: dict[str, Any] = {
    "warmup": None,
    "cag": None,
    "control": None,
    "oracle": None,
    "advent": {
        "method": "own_advent", "start": "pretrain", "iterations": 6, "weight": 1.0e-3,
        "discriminator": {"learning_rate": 1.0e-3, "width": 4},
    },
    "cbst": {
        "method": "self_training", "start": "pretrain", "stages": 2, "iterations": 6,
        "pseudo_labels": {"class_balanced_sampled": {"portion": 0.2}},
    },
    "teacher": {"method": "mean_teacher", "start": "pretrain", "iterations": 6, "p0": 0.2},
    "dacs": {"method": "dacs", "start": "pretrain", "iterations": 6, "threshold": 0.3},
    "proda": {"method": "proda", "start": "pretrain", "iterations": 6},
}  # fmt: skip
REPORTS = {"others": ["pretrain", "advent", "teacher", "dacs", "proda", "cbst"]}


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plugins that a test loads are unknown to the next one."""
    modules = set(sys.modules)
    for kind in registry.FOLDERS:
        registry.registered(kind)
    monkeypatch.setattr(
        registry, "_REGISTERED", {kind: dict(classes) for kind, classes in registry._REGISTERED.items()}
    )
    monkeypatch.setattr(registry, "_LOADED", {})
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("caguda_plugin_"):
            del sys.modules[name]


def loaded(kind: registry.Kind, name: str) -> type[Any]:
    registry.load_plugins(FILES)
    return registry.registered_class(kind, name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_is_one_short_file(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_adversary_of_advent_sees_weighted_self_information() -> None:
    arrays = golden("advent")
    logits = torch.from_numpy(arrays["target_logits"])
    seen = loaded("method", "own_advent").discriminator_input(None, Outputs(logits, logits))
    torch.testing.assert_close(seen, torch.from_numpy(arrays["self_information"]))


def test_the_thresholds_of_cbst_are_those_of_its_code() -> None:
    arrays = golden("cbst")
    assert arrays["downsampling"] == 4
    confidence, predicted = arrays["probability"].max(1), arrays["probability"].argmax(1).astype(np.uint8)
    images = [{"predicted": label, "confidence": sure} for label, sure in zip(predicted, confidence, strict=True)]
    rule = loaded("rule", "class_balanced_sampled")(portion=float(arrays["portion"]))
    found = rule.prepare(iter(images), arrays["probability"].shape[1])
    np.testing.assert_array_equal(np.float32(found), arrays["threshold_kc"])
    certain = arrays["pseudo_label"] == predicted  # of the predicted category, which is all that evidence has
    for image, label, same in zip(images, arrays["pseudo_label"], certain, strict=True):
        given = rule.labels(image, 1.0, found)
        np.testing.assert_array_equal(given[same], label[same])
        assert set(np.unique(given[~same & (label == 255)])) <= {255}


def test_a_teacher_is_the_moving_average_of_the_parameters() -> None:
    arrays = golden("dacs")

    class Told:
        network: nn.Module
        parts: dict[str, nn.Module]
        iteration: int

    method = loaded("method", "mean_teacher")
    for iteration in (0, 5, 500):
        told = Told()
        told.network, told.extra_modules, told.iteration = (
            network_of_dacs(arrays, "student"),
            {"teacher": network_of_dacs(arrays, "teacher_before")},
            iteration,
        )
        method.after_update(method.model_construct(decay=0.99), told)
        expected = network_of_dacs(arrays, f"teacher_after_iteration{iteration}")
        for kept, weight in zip(told.extra_modules["teacher"].parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(kept, weight)


# The workflow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, finished: Workflow) -> Workflow:
    """The finished smoke experiment, to which runs of methods and of a rule from outside the package are added."""
    folder = finished.copy(tmp_path_factory.mktemp("methods")).directory
    content = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    content |= {
        "plugins": [str(file) for file in FILES],
        "reports": REPORTS,
        "tables": {},
        "compute": content["compute"] | {"parts": 1},
    }
    content["runs"] |= RUNS
    (folder / "smoke.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    workflow = Workflow(folder, folder / "smoke.yaml")
    start = workflow.results / "seed0" / "pretrain" / "checkpoint.safetensors"
    made = start.stat().st_mtime_ns
    done = workflow.run("all", "methods")
    assert done.returncode == 0, done.stdout + done.stderr
    assert start.stat().st_mtime_ns == made, "what added runs start from is not trained again"
    return workflow


def test_every_run_is_trained_and_evaluated_and_nothing_is_left_to_do(trained: Workflow) -> None:
    models = ("pretrain", "advent", "teacher", "dacs", "proda", "cbst/stage1", "cbst/stage2")
    found = {
        path.parent.relative_to(trained.results / "seed0").as_posix()
        for path in trained.results.rglob("evaluation.json")
    }
    assert found >= set(models)
    assert trained.planned("all", "methods") == set()
    page = (trained.results / "reports" / "others" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("advent", "teacher", "dacs", "class_balanced_sampled", "stage 2"))


def test_the_page_of_all_runs_has_those_of_plugins(trained: Workflow) -> None:
    folder = trained.results / "methods"
    assert sorted(path.name for path in folder.iterdir()) == [
        "frames.png", "methods.html", "pairs.csv", "table.csv", "table.md",
    ]  # fmt: skip
    page = (folder / "methods.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr class="(?:adapted|reference)"><td>([^<]+)<small>', page)
    assert [row for row in rows if row != "AdaBN"] == ["pretrain", "advent", "cbst stage 2", "dacs", "proda", "teacher"]
    table = (folder / "table.md").read_text(encoding="utf-8").partition("## Trainings")[2].partition("## Rows")[0]
    costs = {line.split(" | ")[0].removeprefix("| ").strip(): line.split(" | ")[1:] for line in table.splitlines()}
    for name, iterations in {"pretrain": 60, "teacher": 60 + 6, "cbst stage 2": 60 + 2 * 6}.items():
        assert costs[name][0].strip() == str(iterations) and float(costs[name][2]) > 0
    with Image.open(folder / "frames.png") as picture:
        assert picture.height > picture.width, "a block for each run, below each other"


def test_what_a_plugin_decides_is_recorded(trained: Workflow) -> None:
    made = {
        name: read_json(trained.results / "seed0" / name / "checkpoint.json")["provenance"]["settings"]
        for name in ("pretrain", "advent", "teacher", "cbst/stage1")
    }
    assert "plugins" not in made["pretrain"] and "plugins" not in made["cbst/stage1"]
    assert made["advent"]["plugins"] == {FILES[0].name: sha256(FILES[0])}
    assert made["teacher"]["plugins"] == {FILES[2].name: sha256(FILES[2])}
    labels = next((trained.results / "seed0" / "pretrain" / "labels").glob("class_balanced_sampled-0.2-*/labels.json"))
    assert read_json(labels)["provenance"]["settings"]["plugins"] == {FILES[1].name: sha256(FILES[1])}


def test_the_losses_are_those_of_the_method(trained: Workflow) -> None:
    terms = {
        name: set(read_json(trained.results / "seed0" / name / "checkpoint.json")["metrics"]["history"][-1])
        - {"iteration"}
        for name in ("advent", "teacher", "dacs", "cbst/stage1")
    }
    assert terms["advent"] == {"source_cross_entropy", "adversarial", "discriminator"}
    assert terms["teacher"] == {"source_cross_entropy", "teacher_cross_entropy"}
    assert terms["dacs"] == {"source_cross_entropy", "mixed_cross_entropy"}
    assert terms["cbst/stage1"] == {"source_cross_entropy", "class_balanced_sampled_cross_entropy"}


@pytest.mark.parametrize("run", ["teacher", "dacs"])
def test_a_teacher_is_part_of_the_state_and_differs_from_the_network(trained: Workflow, run: str) -> None:
    state = load_state(trained.results / "seed0" / run / "state" / "state.pt")
    assert (
        state is not None
        and set(state["modules"]) == {"network", "teacher"}
        and set(state["optimisers"]) == {"network"}
    )
    network, teacher = (state["modules"][name] for name in ("network", "teacher"))
    moved = [key for key in network if network[key].is_floating_point() and not torch.equal(network[key], teacher[key])]
    assert network.keys() == teacher.keys() and len(moved) > 5


def test_a_rule_grows_with_the_stages_and_its_thresholds_are_told(trained: Workflow) -> None:
    seed = trained.results / "seed0"
    stages = [
        next(path.glob("labels/class_balanced_sampled-*/labels.json"))
        for path in (seed / "pretrain", seed / "cbst" / "stage1")
    ]
    told = [read_json(path) for path in stages]
    assert [each["rule"]["portion"] for each in told] == [0.2, 0.25]
    assert all(len(each["prepared"]) == 19 and 0 < min(each["prepared"]) for each in told)
    shares = []
    for path in stages:
        store = vouched_store(path, LABELS)
        shares.append(float(np.mean([store.read(index, "active") for index in range(store.count)])))
    assert 0.1 < shares[0] < 0.25 and shares[0] < shares[1] < 0.3


def test_another_content_of_a_plugin_makes_its_runs_stale_alone(trained: Workflow, tmp_path: Path) -> None:
    changed = tmp_path / FILES[0].name
    changed.write_text(FILES[0].read_text(encoding="utf-8") + "\n# another\n", encoding="utf-8")
    content = yaml.safe_load(trained.configfile.read_text(encoding="utf-8"))
    content["plugins"][0] = str(changed)
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    copy = Workflow(trained.directory, tmp_path / "smoke.yaml")
    planned = {job.output[0] for job in copy.plan() if job.rule == "train"}
    assert planned == {"seed0/advent/checkpoint.safetensors"}
