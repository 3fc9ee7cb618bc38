"""The verb `plan`: every recipe without data, its numbers against the formulas, the files on disk, and a user's mistakes."""

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from frame_trees import HEIGHT, WIDTH, make_root, make_tree
from hypothesis import given
from hypothesis import strategies as st
from miniature import Miniature, values
from workflow_runs import ROOT, SMOKE

from caguda import registry
from caguda.artifacts.anchors import load_anchors
from caguda.artifacts.evidence import EVIDENCE
from caguda.artifacts.labels import LABELS
from caguda.artifacts.maps import open_store
from caguda.classes import class_table
from caguda.cli import main
from caguda.config import Configuration
from caguda.config_run import Method
from caguda.configfile import parse_configuration
from caguda.costs import measured
from caguda.costs.arithmetic import NetworkPasses
from caguda.costs.formulas import EVIDENCE_BYTES, LABEL_BYTES, Plan, Work, seconds_of, sum_of_hours, views
from caguda.costs.frames import frame_sets
from caguda.costs.models import passes_of, plan_of
from caguda.costs.plan import read_experiment
from caguda.costs.rates import NoRate
from caguda.costs.selection import EVALUATED, PREDICTED, select
from caguda.costs.text import digits, lines_of
from caguda.datasets.layout import layout_of
from caguda.runs import models, run_of

CONFIG = ROOT / "config"
ALONE = sorted(path for path in CONFIG.glob("*.yaml") if "experiment:" in path.read_text(encoding="utf-8"))
ABOVE = sorted(path for path in CONFIG.glob("*.yaml") if path not in ALONE)


@pytest.fixture(autouse=True)
def _nothing_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("DATA_ROOT", "CAMVID_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


def documented_above() -> list[list[str]]:
    """The YAMLs of every command in a YAML that is to be added to another one."""
    found = []
    for path in ABOVE:
        commands = re.findall(r"^#.* --configfile (\S+) (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert commands, path
        found += [list(files) for files in commands]
    return found


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What `plan --json` prints."""
    capsys.readouterr()
    assert main(["plan", *words, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


@pytest.mark.parametrize("files", [*([f"config/{path.name}"] for path in ALONE), *documented_above()], ids=" ".join)
def test_every_recipe_is_planned_without_data(
    files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paths = [str(ROOT / file) for file in files]
    content, configuration = planned(capsys, *paths), read_experiment([Path(path) for path in paths])
    assert [cost["model"] for cost in content["models"]] == models(configuration)
    for cost in content["models"]:
        run = run_of(configuration, cost["model"])
        assert isinstance(run, Method)
        training = cost["training"]
        assert training["count"] == run.iterations and training["flops_of_one"] > 1e9
        assert training["frames_of_one"] == run.batch_size * run.accumulate * len(run.reads)
        assert training["hours"] is None and training["frames_per_second"] is None
        assert cost["bytes"]["training state"] > cost["bytes"]["checkpoint"] > 1e6
    assert not [note for note in content["assumptions"] if "needs values" in note]
    assert content["unknown"] == (["source", "target", "evaluation"] if "camvid" in files[0] else [])
    assert all(cost["passes"] for cost in content["models"]) == ("camvid" not in files[0])
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"


@pytest.fixture(scope="module")
def smoke() -> tuple[Configuration, NetworkPasses]:
    configuration = read_experiment([SMOKE])
    return configuration, passes_of(configuration)


def plan_without_frames(smoke: tuple[Configuration, NetworkPasses], *asked: str, **changes: Any) -> Plan:
    configuration, passes = smoke
    return plan_of(configuration.model_copy(update=changes), asked, NoRate(), Path("nowhere"), passes)


def frames_of_passes(plan: Plan) -> dict[str, dict[str, int]]:
    """The number of frames of every pass, by model and name."""
    return {cost.model: {work.name: work.count for work in cost.passes} for cost in plan.models}


EVALUATION = {"evaluation": 8, "AdaBN statistics": 24, "AdaBN evaluation": 8}
FROZEN = {"target statistics": 24, "source statistics": 2 * 24, "anchors": 24, "evidence": 24, **EVALUATION}


def test_the_passes_are_those_of_the_workflow(smoke: tuple[Configuration, NetworkPasses]) -> None:
    """Both parts of the anchors estimate the statistics of the source on all of it, where those of the target are kept."""
    assert frames_of_passes(plan_without_frames(smoke)) == {
        "pretrain": EVALUATION,
        "warmup": FROZEN,
        "cag/stage1": {name: FROZEN[name] for name in FROZEN if "statistics" not in name} | EVALUATION,
        "cag/stage2": EVALUATION,
        "control": EVALUATION,
        "oracle": EVALUATION,
    }


def test_anchors_of_the_first_stage_for_all_stages_are_made_once(smoke: tuple[Configuration, NetworkPasses]) -> None:
    anchors = smoke[0].anchors.model_copy(update={"every_stage": False})
    passes = frames_of_passes(plan_without_frames(smoke, "cag", anchors=anchors))
    assert "anchors" in passes["warmup"] and "anchors" not in passes["cag/stage1"]
    assert "evidence" in passes["warmup"] and "evidence" in passes["cag/stage1"]


def test_a_submission_predicts_and_does_not_evaluate(smoke: tuple[Configuration, NetworkPasses]) -> None:
    plan = plan_without_frames(smoke, "submission")
    passes = frames_of_passes(plan)
    assert passes["cag/stage2"] == {"prediction of evaluation": 8} and "evaluation" not in passes["warmup"]
    assert plan.models[-1].disk["predictions"] == 2 * 8 * 48 * 96
    assert frames_of_passes(plan_without_frames(smoke, "submission", "cag"))["cag/stage2"] == {
        **EVALUATION,
        "prediction of evaluation": 8,
    }


def test_views_multiply_the_cost_of_an_evaluation(smoke: tuple[Configuration, NetworkPasses]) -> None:
    inference = smoke[0].inference.model_copy(update={"scales": (1.0, 0.5), "flip": True})
    one, many = (
        plan_without_frames(smoke, "pretrain", inference=value).models[0] for value in (smoke[0].inference, inference)
    )
    whole, half = smoke[1].of_frame((48, 96)), smoke[1].of_frame((24, 48))
    assert one.passes[0].flops == whole and many.passes[0].flops == 2 * (whole + half)
    assert one.passes[1].flops == many.passes[1].flops == whole


def test_a_model_comes_with_all_that_it_starts_from(smoke: tuple[Configuration, NetworkPasses]) -> None:
    configuration = smoke[0]
    assert select(configuration, ["warmup"]).models == ["pretrain", "warmup"]
    assert select(configuration, ["cag/stage1", "oracle"]).models == ["pretrain", "warmup", "cag/stage1", "oracle"]
    assert select(configuration, ["cag"]).models[-1] == "cag/stage2"
    assert select(configuration, []) == select(configuration, ["runs"])
    assert select(configuration, []).models == models(configuration)
    assert (
        select(configuration, ["table1"]).models
        == select(configuration, ["table2"]).models
        == select(configuration, ["cag"]).models
    )
    assert select(configuration, ["table2"]).evaluated == []
    assert select(configuration, ["table2"]).predicted == {"cag/stage2": ["evaluation"]}
    assert select(configuration, ["submission", "predictions", "table2"]).predicted == {
        "cag/stage2": ["evaluation", "source", "target"]
    }
    reported = configuration.model_copy(update={"reports": {"short": ("warmup",)}})
    assert select(reported, ["all"]).models == select(reported, ["figure2"]).models == ["pretrain", "warmup"]


def test_the_targets_are_those_of_the_workflow() -> None:
    rules = re.findall(r"^rule (\w+):", (ROOT / "workflow" / "Snakefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted([*EVALUATED, *PREDICTED]) == sorted(rules)


def test_seeds_multiply_all_but_what_they_share(smoke: tuple[Configuration, NetworkPasses]) -> None:
    one, three = plan_without_frames(smoke), plan_without_frames(smoke, seeds=(0, 1, 2))
    assert one.models == three.models and one.shared == three.shared == {"generated frames": 56 * 48 * 96 * 4}
    shared = sum(one.shared.values())
    assert three.bytes - shared == 3 * (one.bytes - shared) > 0
    totals = [next(line for line in lines_of(plan, "x") if line.startswith("all ")).split()[1] for plan in (one, three)]
    assert float(totals[1]) == pytest.approx(3 * float(totals[0]), rel=0.01)


def test_packed_caches_are_those_of_the_domains_that_runs_read(smoke: tuple[Configuration, NetworkPasses]) -> None:
    pixels = 24 * 48 * 96
    assert plan_without_frames(smoke, "cag", cache=True, street=smoke[0].street).shared == {
        "packed source": 4 * pixels, "packed target": 3 * pixels, "generated frames": 56 * 48 * 96 * 4,
    }  # fmt: skip
    assert "packed target" not in plan_without_frames(smoke, "pretrain", cache=True).shared


def test_hours_and_frames_a_second_follow_from_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    content = planned(capsys, str(SMOKE), "--tflops", "0.25")
    works = [work for cost in content["models"] for work in (cost["training"], *cost["passes"])]
    for work in works:
        assert work["seconds_of_one"] == pytest.approx(work["flops_of_one"] / 0.25e12)
        assert work["hours"] == pytest.approx(work["count"] * work["seconds_of_one"] / 3600)
        assert work["frames_per_second"] == pytest.approx(work["frames_of_one"] / work["seconds_of_one"])
    totals = content["totals"]
    assert totals["training_hours"] + totals["passes_hours"] == pytest.approx(sum(work["hours"] for work in works))
    assert totals["training_flops"] + totals["passes_flops"] == pytest.approx(sum(work["flops"] for work in works))


@given(st.integers(0, 10**7), st.floats(1, 1e16), st.floats(1e-3, 1e4))
def test_a_device_that_is_twice_as_fast_takes_half_the_hours(count: int, flops: float, tflops: float) -> None:
    slow, fast = (Work("x", count, flops, seconds_of(flops, rate)) for rate in (tflops, 2 * tflops))
    assert slow.hours is not None and fast.hours is not None
    assert slow.hours == pytest.approx(2 * fast.hours) == pytest.approx(count * flops / tflops / 3.6e15)


def test_hours_of_works_are_unknown_if_those_of_one_are() -> None:
    known, unknown = Work("x", 2, 1.0, 1800.0), Work("x", 2, 1.0, None)
    assert sum_of_hours([known, known]) == 2.0 and sum_of_hours([]) == 0.0
    assert sum_of_hours([known, unknown]) is None
    assert views((1.0, 0.5), flip=False) == [1.0, 0.5] and views((1.0,), flip=True) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.00"), (1.234e-9, "1.23e-09"), (0.01234, "0.0123"), (7.0, "7.00"), (12.34, "12.3"), (99.96, "100"), (1234.5, "1,234")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert digits(value) == text


def test_the_tables_have_every_number_of_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    content = planned(capsys, str(SMOKE), "table1", "--tflops", "0.001")
    assert main(["plan", str(SMOKE), "table1", "--tflops", "0.001"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for cost in content["models"]:
        training = cost["training"]
        (row,) = (line.split() for line in lines if line.split()[:2] == [cost["model"], cost["method"]])
        assert row[2:] == [
            str(training["count"]), digits(training["flops_of_one"] / 1e12), digits(training["flops"] / 1e15), digits(training["hours"]),
            str(training["frames_of_one"]), digits(training["frames_per_second"]),
        ]  # fmt: skip
        for work in cost["passes"]:
            assert any(
                line.startswith(cost["model"]) and f" {work['name']} " in line and line.endswith(digits(work["hours"]))
                for line in lines
            )
    assert all(f"- {said}" in lines for said in content["assumptions"])
    assert f"disk: {digits(content['totals']['bytes'] / 1e9)} GB" in lines


def test_the_disk_of_a_plan_is_that_of_the_files(mini: Miniature) -> None:
    """The weights to within the header of a file; stores are compressed, so that their bytes are at most those planned."""
    configuration = mini.configuration()
    made = plan_of(configuration, ["cag/stage1"], NoRate(), Path("nowhere"), passes_of(configuration))
    by_model = {cost.model: cost.disk for cost in made.models}
    for folder, model in {"pretrain": "pretrain", "warmup": "warmup", "stage": "cag/stage1"}.items():
        weights = mini.weights(folder).stat().st_size
        assert 0 <= weights - by_model[model]["checkpoint"] < 10_000
        state = (mini.folder / folder / "state" / "state.pt").stat().st_size
        assert 0 <= state - by_model[model]["training state"] < 150_000
        assert by_model[model]["training state"] > 1.5 * by_model[model]["checkpoint"]
    stored = sum(path.stat().st_size for path in (mini.folder / "labels" / "evidence.zarr").rglob("c.*"))
    assert 0 < stored <= by_model["warmup"]["evidence"]
    assert open_store(mini.folder / "labels" / "evidence.zarr", EVIDENCE).shape == configuration.network.feature_size(
        (32, 64)
    )
    assert by_model["warmup"]["evidence"] == 8 * 8 * 16 * EVIDENCE_BYTES
    assert by_model["warmup"]["labels"] == 2 * 8 * 8 * 16 * LABEL_BYTES
    assert "evidence" not in by_model["pretrain"]
    assert load_anchors(mini.folder / "labels" / "anchors.h5")[0].vectors.shape == (class_table(configuration).count, 8)


def test_the_bytes_of_a_pixel_are_those_of_the_formats() -> None:
    assert sum(np.dtype(dtype).itemsize for dtype in EVIDENCE.dtypes.values()) == EVIDENCE_BYTES
    assert sum(np.dtype(dtype).itemsize for dtype in LABELS.dtypes.values()) == LABEL_BYTES


# The frames


def real_frames(**changes: Any) -> Configuration:
    """GTA5 to Cityscapes below the working folder, with keys of sections as `a__b`."""
    content = values(Path("data"), street=None, classes="cityscapes19", ignore=[255], **changes)
    return parse_configuration(content, Path("experiment.yaml"))


def test_without_folders_the_published_frames_are_taken() -> None:
    sets = frame_sets(real_frames(source__skip=["00001", "00002"]), Path("nowhere"))
    assert (sets["source"].count, sets["source"].size) == (24_966 - 2, (1052, 1914))
    assert (sets["target"].count, sets["target"].size) == (2_975, (1024, 2048))
    assert sets["evaluation"].count == 500 and "as published for cityscapes" in sets["evaluation"].origin
    assert sets["target"].pixels == 2_975 * 1024 * 2048 and "there is no folder data/target" in sets["target"].origin
    synthia = frame_sets(real_frames(source={"layout": "synthia"}), Path("nowhere"))["source"]
    assert (synthia.count, synthia.size) == (9_400, (760, 1280))


def test_every_layout_with_published_frames_has_their_size() -> None:
    domain = real_frames().source
    for name in registry.registered_in_package("layout"):
        layout = layout_of(domain.model_copy(update={"layout": name, "split": "train"}))
        assert (layout.published(domain.model_copy(update={"split": "train"})) is None) == (
            layout.published_size is None
        )


def test_a_list_selects_an_unknown_number_of_published_frames() -> None:
    frames = frame_sets(real_frames(source__list="some.txt"), Path("nowhere"))["source"]
    assert frames.count is None and not frames.is_known


def test_frames_that_exist_are_counted(tmp_path: Path) -> None:
    make_root(tmp_path / "data")
    sets = frame_sets(real_frames(source__root="gta", target__root="city", evaluation__root="city"), Path("nowhere"))
    assert {name: (frames.count, frames.size) for name, frames in sets.items()} == {
        "source": (3, (HEIGHT, WIDTH)), "target": (2, (HEIGHT, WIDTH)), "evaluation": (2, (HEIGHT, WIDTH)),
    }  # fmt: skip
    assert sets["source"].pixels == 3 * HEIGHT * WIDTH and "counted in data/gta" in sets["source"].origin


def test_a_folder_that_cannot_be_listed_gives_way_to_what_was_published(tmp_path: Path) -> None:
    make_tree(tmp_path / "data", "gta5")
    shutil.rmtree(tmp_path / "data" / "gta5" / "images")
    frames = frame_sets(real_frames(source__root="gta5"), Path("nowhere"))["source"]
    assert frames.count == 24_966 and "as published" in frames.origin and "images" in frames.origin


def test_a_manifest_says_how_many_frames_there_are(mini: Miniature) -> None:
    configuration = mini.configuration()
    sets = frame_sets(configuration, mini.folder)
    assert {name: (frames.count, frames.size) for name, frames in sets.items()} == {
        "source": (10, (32, 64)), "target": (8, (32, 64)), "evaluation": (9, (32, 64)),
    }  # fmt: skip
    assert "manifest.json" in sets["source"].origin
    other = configuration.model_copy(update={"classes": "cityscapes19", "ignore": (255,)})
    assert "street" in frame_sets(other, mini.folder)["source"].origin, "a manifest of other classes is made again"


def test_passes_over_frames_of_several_sizes_follow_their_pixels(
    smoke: tuple[Configuration, NetworkPasses], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = frame_sets(smoke[0], Path("nowhere"))
    evaluation = replace(sets["evaluation"], pixels=2 * (sets["evaluation"].pixels or 0))
    monkeypatch.setattr("caguda.costs.models.frame_sets", lambda *_: sets | {"evaluation": evaluation})
    work = plan_without_frames(smoke, "pretrain").models[0].passes[0]
    assert work.flops == 2 * smoke[1].of_frame((48, 96)) and work.count == 8


# Mistakes


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a call is refused with."""
    capsys.readouterr()
    try:
        code: Any = main(["plan", *words])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 2 and printed.out == "" and printed.err.count("\n") == 1, printed
    return printed.err.removeprefix("caguda: error: ").strip()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cg"], r"cg: this must be a model, a run or a target, found none of this name, did you mean cag\?; name one of pretrain, "),
        (["cag/stage3"], "cag/stage3: the configuration has no such model, only pretrain"),
        (["cag/stage01"], "cag/stage01: the configuration has no such model, only pretrain"),
        (["cag/stage1/stage1"], "cag/stage1/stage1: the configuration has no such model, only pretrain"),
        (["pretrain/stage1"], "pretrain/stage1: the configuration has no such model"),
        (["table4"], r"tables\.table4: the runs of this table must be listed, found no such key; list them, or add config/ablations"),
        (["--tflops", "7", "cg"], "cg: this must be a model, a run or a target"),
        (["--tflop", "7", "--fast", "cag"], "unrecognized arguments: --fast"),
        (["--tflops", "0"], "argument --tflops: must be a finite number above 0, found '0'"),
        (["--tflops", "nan"], "argument --tflops: must be a finite number above 0, found 'nan'"),
        (["--tflops", "inf"], "argument --tflops: must be a finite number above 0, found 'inf'"),
        (["--tflops=-3"], "argument --tflops: must be a finite number above 0, found '-3'"),
        (["--tflops", "fast"], "argument --tflops: must be a finite number above 0, found 'fast'"),
        (["--tflops", "1", "--measure"], "--tflops, --measure: one of the two must give the rate, found both; leave one out"),
        (["absent.yaml"], r"absent\.yaml: .*no such file|absent\.yaml"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.match(message, refused(capsys, str(SMOKE), *words))


def test_an_experiment_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys).startswith("the following arguments are required: CONFIG; ")
    with pytest.raises(SystemExit) as end:
        main(["plan", "--help"])
    assert end.value.code == 0 and "CONFIG [MODEL ...]" in capsys.readouterr().out


def test_targets_may_stand_after_options(capsys: pytest.CaptureFixture[str]) -> None:
    usual = planned(capsys, str(SMOKE), "table1", "--tflops", "7")
    assert planned(capsys, str(SMOKE), "--tflops", "7", "table1") == usual
    assert planned(capsys, "--tflops", "7", str(SMOKE), "table1") == usual
    assert len(usual["models"]) < len(planned(capsys, str(SMOKE), "--tflops", "7")["models"])


def test_a_run_that_is_left_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "less.yaml"
    path.write_text(f"base: {SMOKE}\nruns: {{control: null}}\n", encoding="utf-8")
    said = refused(capsys, str(path), "control")
    assert (
        said
        == "control: this must be a run that is made, found one that is left out: control (runs.control is null); name another"
    )


def test_frames_of_unknown_size_need_a_crop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.yaml"
    content = values(tmp_path, street=None, source={"layout": "folder"})
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    said = refused(capsys, str(path), "pretrain")
    assert said.startswith(
        "source: the size of the frames must be known for a run without a crop, found none for runs.pretrain ("
    )
    content["runs"]["pretrain"]["augmentation"]["crop"] = [16, 32]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert planned(capsys, str(path), "pretrain")["unknown"] == ["source"]


def test_an_imported_model_is_not_trained(smoke: tuple[Configuration, NetworkPasses], tmp_path: Path) -> None:
    path = tmp_path / "imported.yaml"
    path.write_text(f"base: {SMOKE}\nruns: {{brought: {{method: imported, file: w.pth}}}}\n", encoding="utf-8")
    configuration = read_experiment([path])
    cost = plan_of(configuration, ["brought"], NoRate(), Path("nowhere"), smoke[1]).models[0]
    assert cost.training is None and cost.disk.keys() == {"checkpoint"} and cost.passes[0].name == "evaluation"
    assert not [line for line in lines_of(Plan((cost,), 1, {}, (), ()), "x") if "iterations" in line]


@pytest.fixture
def _plugins_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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


@pytest.mark.usefixtures("_plugins_are_forgotten")
def test_methods_and_networks_of_plugins_are_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        Path(__file__).with_name(f"{name}.py") for name in ("mean_teacher_method", "advent_method", "depthwise_network")
    ]
    content = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    content |= {
        "plugins": [str(file) for file in files],
        "network": {"name": "depthwise", "width": 8},
        "reports": {},
        "tables": {},
    }
    content["runs"] = {
        "pretrain": content["runs"]["pretrain"],
        "teacher": {"method": "mean_teacher", "start": "pretrain"},
        "advent": {
            "method": "own_advent",
            "start": "pretrain",
            "weight": 0.1,
            "discriminator": {"learning_rate": 0.1, "width": 4},
        },
    }
    path = tmp_path / "plugins.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    made = planned(capsys, str(path))
    flops = {cost["model"]: cost["training"]["flops_of_one"] for cost in made["models"]}
    assert flops["pretrain"] == pytest.approx(
        2 * flops["teacher"] / 2.33, rel=0.2
    )  # 4 images; 2 + 2, and a forward pass
    assert flops["pretrain"] < flops["advent"] < flops["teacher"]
    assert not [note for note in made["assumptions"] if "needs values" in note]


# Measured


def test_a_measured_plan_has_the_seconds_of_its_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FIRST": 1, "LEAST": 1, "SAMPLE": 0.0}.items():
        monkeypatch.setattr(measured, name, value)
    assert main(["plan", str(SMOKE), "--measure", "--json"]) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    trainings = {cost["model"]: cost["training"] for cost in content["models"]}
    for training in trainings.values():
        assert training["seconds_of_one"] > 0
        assert training["hours"] == pytest.approx(training["count"] * training["seconds_of_one"] / 3600)
    assert trainings["cag/stage1"]["seconds_of_one"] == trainings["cag/stage2"]["seconds_of_one"], "measured once"
    assert content["totals"]["passes_hours"] > 0
    assert re.findall(r"measures a step of (\S+)", printed.err) == [
        "pretrain",
        "warmup",
        "cag/stage1",
        "control",
        "oracle",
    ]
    assert printed.err.count("measures a pass") == 1
    assert any("measured on" in said and "random images" in said for said in content["assumptions"])


def test_a_measured_step_is_one_of_the_training_and_leaves_its_weights(
    smoke: tuple[Configuration, NetworkPasses], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batches have the sizes and the labels of a training, and random weights stay as they are, so that they stay finite."""
    seen: list[Any] = []
    update = measured.update_weights
    monkeypatch.setattr(measured, "update_weights", lambda setup: (seen.append(setup), update(setup)))
    machine = measured.Measured(smoke[0])
    method = run_of(smoke[0], "cag/stage1")
    assert isinstance(method, Method)
    batch = next(machine._batches(method, {"source": (48, 96), "target": (48, 96)}))
    assert batch["source"]["image"].shape == (2, 3, 48, 96) and batch["source"].keys() == {"image", "label"}
    assert batch["target"].keys() == {"image", "anchor_label", "probability_label"}
    run = machine._step("cag/stage1", method, {"source": (48, 96), "target": (48, 96)})
    run()
    (setup,) = seen
    before = {name: value.clone() for name, value in setup.modules["network"].named_parameters()}
    run()
    assert len(seen) == 2 and all(
        bool((value == before[name]).all()) for name, value in setup.modules["network"].named_parameters()
    )


@pytest.mark.parametrize(
    ("changes", "measured_steps"),
    [
        ({"target_resolution": "image"}, 2),
        ({"distance": {"norm": "squared_l2"}}, 2),
        ({"distance": {"pixels": "correct"}}, 2),
        ({"weights": {"distance": 0.0}}, 2),
        ({"augmentation": {"flip": False}}, 2),
        ({"accumulate": 3}, 2),
        ({"pseudo_labels": {"anchor": {"margin": 0.3}}}, 1),
        ({"iterations": 7, "stages": 1, "title": "other", "start": "pretrain", "anchors": "a.h5"}, 1),
    ],
    ids=str,
)
def test_steps_of_other_settings_are_measured_apart(
    changes: dict[str, Any], measured_steps: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(yaml.safe_dump({"runs": {"other": {"like": "cag", **changes}}}), encoding="utf-8")
    configuration, titles = read_experiment([SMOKE, path]), []
    monkeypatch.setattr(measured, "_median_seconds", lambda _, title: titles.append(title) or float(len(titles)))
    monkeypatch.setattr(measured.Measured, "_step", lambda *_: None)
    machine = measured.Measured(configuration)
    for model in ("cag/stage1", "other/stage1", "cag/stage2"):
        method = run_of(configuration, model)
        assert isinstance(method, Method)
        machine.seconds_of_step(model, method, {"source": (48, 96), "target": (48, 96)}, 1e9)
    assert titles == ["a step of cag/stage1", "a step of other/stage1"][:measured_steps]


# The table of the documentation


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plan_of_recipes", ROOT / "benchmarks" / "plan.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_documentation_is_what_the_code_computes() -> None:
    """If a recipe was changed: `python benchmarks/plan.py` prints the rows."""
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8").splitlines()
    printed = script().table()
    first = page.index(printed[0])
    assert page[first : first + len(printed)] == printed


def test_the_table_has_every_recipe() -> None:
    recipes = script().RECIPES
    assert recipes.keys() == {path.stem for path in ALONE} - {"camvid_day_to_dusk"}  # whose frames nobody has published
    assert {name for targets in recipes.values() for above, _ in targets for name in above} == {
        path.stem for path in ABOVE
    }
