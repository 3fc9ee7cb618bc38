"""A layout of one's own from a plugin, the example of docs/plugins.md, and who runs the code of a plugin."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from documentation import block
from frame_trees import configuration, make_root, problems
from miniature import Miniature, values
from PIL import Image
from workflow_runs import SMOKE, Workflow, environment

from caguda import registry
from caguda.artifacts.atomic import read_json, write_json
from caguda.classes import CITYSCAPES_19, class_table
from caguda.cli import main
from caguda.config_frames import Domain
from caguda.configfile import load_configuration, parse_configuration
from caguda.datasets.io import read_label
from caguda.errors import UserError
from caguda.files import sha256
from caguda.stages.check import check
from caguda.street import write_street

EXAMPLE = block("plugins.md", "python")
BESIDE = """
from caguda.datasets.layout import Layout
from caguda.registry import register

@register("layout", "beside")
class Beside(Layout):
    def image_id(self, path):
        return None if path.stem.endswith("_L") else super().image_id(path)

    def label_path(self, domain, root, image):
        return image.with_name(f"{image.stem}_L.png")
"""
SOURCE = {"layout": "drives", "root": "drives"}


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plugins that a test loads are unknown to the next one."""
    for kind in registry.FOLDERS:
        registry.registered(kind)
    modules = set(sys.modules)
    known = {kind: dict(classes) for kind, classes in registry._REGISTERED.items()}
    monkeypatch.setattr(registry, "_REGISTERED", known)
    monkeypatch.setattr(registry, "_LOADED", {})
    yield
    for name in set(sys.modules) - modules:
        if name.startswith("caguda_plugin_"):
            del sys.modules[name]


def painted(gta: Path, drives: Path) -> None:
    """Frames in GTA5's layout once more as the example has them, in two drives; ids stay in the same order."""
    palette = CITYSCAPES_19.palette()
    for number, image in enumerate(sorted((gta / "images").iterdir())):
        drive = drives / ("a" if number < 2 else "b")
        for name in ("camera", "painted"):
            (drive / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, drive / "camera" / image.name)
        label = read_label(gta / "labels" / image.name, CITYSCAPES_19).numpy()
        Image.fromarray(palette[label]).save(drive / "painted" / image.name)


def written(folder: Path, text: str = EXAMPLE, name: str = "drives.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


# The layout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """GTA5 and Cityscapes trees, and the former as the example has it, below a folder with a space and an umlaut."""
    root = make_root(tmp_path / "straßen bilder")
    painted(root / "gta", root / "drives")
    return root


def test_the_check_opens_its_frames(root: Path) -> None:
    plugin, output = written(root.parent), root.parent / "manifest.json"
    settings = configuration(root, source=SOURCE, plugins=[str(plugin)])
    check(settings, output)
    manifest = read_json(output)
    frames = manifest["source"]["frames"]
    assert [frame["id"] for frame in frames] == ["a_00001", "a_00002", "b_00003"]
    assert frames[2]["label"] == "drives/b/painted/00003.png".removeprefix("drives/") and manifest["warnings"] == []
    assert manifest["provenance"]["settings"]["plugins"] == {"drives.py": sha256(plugin)}
    check(configuration(root), root.parent / "gta.json")
    gta = read_json(root.parent / "gta.json")
    assert manifest["source"]["pixels"] == gta["source"]["pixels"] and "plugins" not in gta["provenance"]["settings"]
    assert manifest["target"]["digest"] == gta["target"]["digest"]


def test_its_label_values_are_those_of_the_colours(root: Path) -> None:
    settings = configuration(root, source=SOURCE, plugins=[str(written(root.parent))])
    table = class_table(settings, settings.source)
    for number, drive in ((1, "a"), (2, "a"), (3, "b")):
        truth = read_label(root / "gta" / "labels" / f"{number:05}.png", CITYSCAPES_19)
        assert np.array_equal(read_label(root / "drives" / drive / "painted" / f"{number:05}.png", table), truth)


def test_faults_of_its_frames_are_told_by_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [root / "drives" / "b" / "painted" / "00003.png", root / "drives" / "a" / "painted" / "00001.png"]
    Image.new("RGB", (40, 24), (1, 2, 3)).save(labels[0])
    labels[1].write_bytes(labels[1].read_bytes()[:60])
    plugins = [str(written(root.parent))]
    found = problems(root, capsys, source=SOURCE, plugins=plugins)
    assert found[0].startswith(f"source: {labels[1]}: this label is damaged (")
    assert found[1].startswith(f"source: {labels[0]}: label values outside the class table: 254 (960 pixels)")
    shutil.rmtree(root / "drives")
    (root / "drives" / "c" / "camera").mkdir(parents=True)
    assert (
        "layout drives needs them in c/camera/*.jpg or *.png"
        in problems(root, capsys, source=SOURCE, plugins=plugins)[0]
    )


def test_what_lies_beside_its_frames_is_named(root: Path) -> None:
    extra = root / "drives" / "b" / "painted" / "00001.png"
    Image.new("RGB", (40, 24)).save(extra)
    check(configuration(root, source=SOURCE, plugins=[str(written(root.parent))]), root.parent / "manifest.json")
    assert read_json(root.parent / "manifest.json")["warnings"] == [
        f"source: {extra}: this label has no image and is not used"
    ]


def test_labels_may_lie_beside_their_images(root: Path) -> None:
    for name in ("00001", "00002", "00003"):
        (root / "gta" / "labels" / f"{name}.png").rename(root / "gta" / "images" / f"{name}_L.png")
    output, plugin = root.parent / "manifest.json", written(root.parent, BESIDE, "beside.py")
    settings = configuration(root, source={"layout": "beside", "root": "gta"}, plugins=[str(plugin)])
    check(settings, output)
    assert read_json(output)["warnings"] == []
    (root / "gta" / "images" / "00002.png").unlink()
    (root / "gta" / "images" / "notes.txt").touch()
    check(settings, output)
    told = read_json(output)["warnings"]
    assert [line.partition("images: ")[2][:9] or line.rpartition("/")[2][:11] for line in told] == [
        "1 .txt fi",
        "00002_L.png",
    ]


def test_an_array_of_another_kind_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = written(root.parent, EXAMPLE.replace("dtype=np.uint8", "dtype=np.int64"))
    found = problems(root, capsys, source=SOURCE, plugins=[str(plugin)])
    assert "a layout must decode a label to an array (H, W) of uint8 or uint16, found (24, 40) of int64" in found[0]


def test_a_changed_plugin_opens_its_frames_again_and_changes_their_digest(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A void sky, say, in files that have not changed."""
    changes = (EXAMPLE, EXAMPLE, EXAMPLE.replace("return values", "values[values == 8] = 0\n        return values"))
    digests, roads, said = [], [], []
    for number, text in enumerate(changes):  # in files of other places, since a process has a plugin once
        name = "drives.py" if number < 2 else "others.py"
        plugin = written(root.parent / str(number), text, name)
        if number == 2:
            registry._REGISTERED["layout"].pop("drives")
        check(configuration(root, source=SOURCE, plugins=[str(plugin)]), root.parent / "manifest.json")
        content = read_json(root.parent / "manifest.json")["source"]
        digests.append(content["digest"])
        roads.append(content["pixels"]["sidewalk"])
        said.append("source: 3 of 3 frames are as an earlier check found them" in capsys.readouterr().out)
    assert said == [False, True, False]
    assert digests[0] == digests[1] != digests[2] and roads[0] == roads[1] > roads[2] == 0


def test_training_on_it_gives_the_bits_of_the_same_frames_in_another_layout(mini: Miniature, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "target").symlink_to(mini.root / "target")
    painted(mini.root / "source", tmp_path / "data" / "drives")
    changes: dict[str, Any] = {"source": SOURCE, "plugins": [str(written(tmp_path))], "compute": {"workers": 1}}
    own = replace(mini, root=tmp_path / "data", folder=tmp_path)
    settings = own.configuration(**changes)
    check(settings, own.manifest)
    assert read_json(own.manifest)["warnings"] == read_json(mini.manifest)["warnings"]
    assert own.train("pretrain", "pretrain", settings).read_bytes() == mini.weights("pretrain").read_bytes()


# The workflow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The smoke experiment with the example's layout as its source, trained source only, by two processes."""
    folder = tmp_path_factory.mktemp("drives")
    settings = load_configuration(SMOKE)
    assert settings.street is not None
    write_street(folder / "data", settings.street)
    painted(folder / "data" / "source", folder / "data" / "drives")
    content = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    del content["street"]
    content |= {"source": SOURCE, "data_root": "data", "plugins": ["../plugins/drives.py"]}
    content["runs"]["pretrain"] |= {"iterations": 6}
    content["training"] |= {"batch_norm": "frozen"}
    content["compute"] |= {"processes": 2, "workers": 1}
    written(folder / "plugins")
    written(folder / "yaml", yaml.safe_dump(content), "smoke.yaml")
    workflow = Workflow(folder, folder / "yaml" / "smoke.yaml")
    done = workflow.run(CHECKPOINT)
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow


CHECKPOINT = "results/smoke/seed0/pretrain/checkpoint.safetensors"
MADE = {"manifest.json", CHECKPOINT.removeprefix("results/smoke/")}


def test_the_workflow_trains_on_it(trained: Workflow) -> None:
    manifest = read_json(trained.results / "manifest.json")
    assert len(manifest["source"]["frames"]) == 24 and manifest["source"]["layout"] == "drives"
    described = read_json(trained.directory / CHECKPOINT.replace("safetensors", "json"))
    assert described["metrics"]["history"][-1]["iteration"] == 6
    assert read_json(trained.results / "config.json")["plugins"] == [str(trained.directory / "plugins" / "drives.py")]
    assert trained.planned(CHECKPOINT) == set()
    assert CHECKPOINT.removeprefix("results/smoke/") in trained.planned("--forceall")


def test_a_plugin_may_be_moved_but_not_changed(trained: Workflow, tmp_path: Path) -> None:
    copy = trained.copy(tmp_path / "copy")
    own = Workflow(copy.directory, copy.directory / "yaml" / "smoke.yaml")
    assert own.planned(CHECKPOINT) == set(), "the plugin beside the copied YAML"
    (own.directory / "plugins" / "drives.py").rename(own.directory / "drives.py")
    there = ("--config", "plugins=[drives.py]")
    assert own.planned(CHECKPOINT, *there) == set(), "relative to where the workflow works"
    written(own.directory, EXAMPLE + "# a comment\n")
    assert own.planned(CHECKPOINT, *there) == MADE
    shutil.rmtree(own.directory / ".snakemake")
    assert own.planned(CHECKPOINT, *there) == MADE
    written(own.directory)
    assert own.planned(CHECKPOINT, *there) == set()


def test_planning_with_it_needs_no_torch(trained: Workflow, tmp_path: Path) -> None:
    written(tmp_path, "raise RuntimeError('torch was imported')\n", "torch.py")
    done = trained.run("--dry-run", path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fault_of_a_plugin_is_one_line_of_the_workflow(trained: Workflow) -> None:
    done = trained.run("--dry-run", "--config", "plugins=[none.py]")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("caguda: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    assert f"smoke.yaml + --config: plugins: {trained.directory / 'none.py'}: the file must be readable" in lines[0]


# What is wrong with a plugin


def message(folder: Path, **keys: Any) -> str:
    """What is said of an experiment's YAML in a folder, without its name."""
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values(folder, **keys)), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_configuration(path)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    assert message(tmp_path, plugins=["a/none.py"]) == (
        f"plugins: {tmp_path / 'a' / 'none.py'}: the file must be readable, found: No such file or directory; "
        "correct the path"
    )
    assert "is not set; set it" in message(tmp_path, plugins=["${NO_SUCH_FOLDER}/none.py"])
    assert message(tmp_path, plugins="drives.py") == "plugins: must be a list, found 'drives.py'"
    assert message(tmp_path, plugins=[3]) == "plugins.0: must be text, found 3; put it in quotes"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import io\n\nraise KeyError('a\\nb')\n", "found KeyError in line 3: 'a\\nb'"),
        ("import a_module_that_nobody_has\n", "found ModuleNotFoundError in line 1: No module named"),
        ("def f(:\n", "found SyntaxError: invalid syntax (wrong.py, line 1)"),
        (EXAMPLE.replace('"drives"', '"gta5"'), "the layout gta5 is in caguda.datasets.layouts.gta5 already; choose"),
        (
            EXAMPLE.replace('"layout", "drives"', '"layuot", "drives"'),
            "found ValueError in line 15: the kind must be one of network, layout, rule, method, found 'layuot'",
        ),
    ],
)
def test_a_plugin_that_fails_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    written(tmp_path, text, "wrong.py")
    found = message(tmp_path, plugins=["wrong.py"])
    assert found.startswith(f"plugins: {tmp_path / 'wrong.py'}: a plugin must run without an error, found ")
    assert said in found


def test_a_plugin_that_failed_leaves_no_name(tmp_path: Path) -> None:
    written(tmp_path, EXAMPLE + "\nraise ValueError('too late')\n")
    assert "in line 39: too late" in message(tmp_path, plugins=["drives.py"])
    assert "must be one of cityscapes, folder, gta5, synthia, found 'drives'" in message(tmp_path, source=SOURCE)
    written(tmp_path)
    parse_configuration(values(tmp_path, plugins=["drives.py"], source=SOURCE), tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("rule", "from caguda.pseudo_labels import Rule\nclass Own(Rule):\n    name = 'other'\n",
         'the rule own must be a Rule with name: ClassVar[str] = "own", found Own without it; add it'),
        ("rule", "class Own:\n    name = 'own'\n", 'the rule own must be a Rule with name: ClassVar[str] = "own", found'),
        ("method", "from caguda.config_run import Method\nclass Own(Method):\n    pass\n",
         'the method own must be a Method with the field method: Literal["own"], found Own without it; add it'),
        ("network", "from caguda.config_network import NetworkSettings\nclass Own(NetworkSettings):\n    pass\n",
         'the network own must be a NetworkSettings with the field name: Literal["own"], found Own without it; add it'),
        ("network", ("from typing import Literal\nfrom caguda.config_network import NetworkSettings\n"
         "class Own(NetworkSettings):\n    name: Literal['own']\n"),
         "the network own must define feature_stride, found Own without it; add it"),
    ],
)  # fmt: skip
def test_a_class_must_have_the_name_that_it_is_registered_by(tmp_path: Path, kind: str, text: str, said: str) -> None:
    path = written(tmp_path, f"{text}from caguda.registry import register\nregister('{kind}', 'own')(Own)\n", "own.py")
    with pytest.raises(UserError) as caught:
        parse_configuration(values(tmp_path, plugins=[str(path)]), tmp_path / "own.yaml")
    assert str(caught.value).startswith(f"caguda_plugin_own: {said}")


def test_two_plugins_have_names_of_their_own(tmp_path: Path) -> None:
    written(tmp_path / "a")
    written(tmp_path / "b", EXAMPLE.replace('"drives"', '"journeys"'))
    found = message(tmp_path, plugins=["a/drives.py", "a/drives.py", "b/drives.py"])
    assert found.startswith(f"plugins: {tmp_path / 'b' / 'drives.py'}: a plugin must have a name of its own")
    written(tmp_path / "b", EXAMPLE + "\n", "again.py")
    assert "the layout drives is in caguda_plugin_drives already" in message(
        tmp_path, plugins=["a/drives.py", "b/again.py"]
    )


def test_an_unknown_layout_is_told_with_the_choices(tmp_path: Path) -> None:
    known = "source.layout: must be one of cityscapes, folder, gta5, synthia, found "
    assert (
        message(tmp_path, source={"layout": "gta"})
        == f"{known}'gta', did you mean gta5?; the key plugins brings others"
    )
    written(tmp_path)
    brought = (
        "source.layout: must be one of cityscapes, drives, folder, gta5, synthia, found 'drvies', did you mean drives?"
    )
    assert message(tmp_path, source={"layout": "drvies"}, plugins=["drives.py"]).startswith(brought)
    with pytest.raises(ValueError, match="layout: must be one of"):
        Domain(layout="drvies")


def test_its_keys_are_checked_like_those_of_the_others(tmp_path: Path) -> None:
    written(tmp_path)
    for keys, said in (
        ({"split": "train"}, "source.split: layout drives has no splits"),
        (
            {"images": "a"},
            "source.images, labels: layout drives has folders of its own, leave the keys out (or labels: null",
        ),
    ):
        assert message(tmp_path, plugins=["drives.py"], source=SOURCE | keys).startswith(said)


# Who runs it

LOOKING = {
    "verify": "verify {0}",
    "inspect evidence": "inspect {0}/labels/evidence.zarr --json",
    "inspect labels": "inspect {0}/labels/labels.json --json",
    "provenance": "provenance {0}/labels/labels.json",
    "view evidence": "view {0}/labels/evidence.zarr --output {0}/page --html",
    "view labels": "view {0}/labels/labels.json --output {0}/pictures",
}


def looked_at(own: Miniature, **changes: Any) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each call of LOOKING says, where a config.json names a plugin that leaves a file; `changes` are of its sections."""
    folder = own.folder.parent
    plugin = written(folder, f"open({str(folder / 'ran')!r}, 'w')\n", "harmful.py")
    content = own.configuration().model_dump(mode="json") | {"plugins": [str(plugin)]}
    write_json(own.folder / "config.json", content | {key: content[key] | keys for key, keys in changes.items()})
    calls = {}
    for name, command in LOOKING.items():
        words = [sys.executable, "-m", "caguda", *(word.format(own.folder) for word in command.split())]
        calls[name] = subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
        assert not (folder / "ran").exists(), words
    return calls


def test_looking_at_artifacts_runs_no_plugin(own: Miniature) -> None:
    calls = looked_at(own)
    assert [call.returncode for call in calls.values()] == [0] * len(LOOKING), calls
    for name in ("inspect evidence", "inspect labels"):
        assert json.loads(calls[name].stdout)["images_with_truth"] > 0
    assert main(["check", "--config", str(own.folder / "config.json"), "--output", str(own.manifest)]) == 0
    assert (own.folder.parent / "ran").exists(), "the same plugin is run by what makes an artifact"


@pytest.mark.slow
def test_looking_at_artifacts_of_a_plugins_layout(own: Miniature) -> None:
    """The layout of the target is known to nobody here: its truth is not shown, and nothing else fails."""
    calls = looked_at(own, target={"layout": "unheard_of"})
    assert [call.returncode for name, call in calls.items() if name != "verify"] == [0] * (len(LOOKING) - 1), calls
    for kind in ("evidence", "labels"):
        told = json.loads(calls[f"inspect {kind}"].stdout)
        assert told["images_with_truth"] == 0 and "found target.layout cityscapes, not unheard_of" in told["no_truth"]
        assert "found target.layout cityscapes, not unheard_of" in calls[f"view {kind}"].stdout
    faults = [line for line in calls["verify"].stdout.splitlines() if line.startswith("fault: ")]
    assert faults and all("target.layout cityscapes, not unheard_of" in line for line in faults)


@pytest.mark.slow
def test_looking_at_artifacts_beside_runs_of_a_plugins_method_or_rule(own: Miniature) -> None:
    """Its settings are let through, whatever they are; the runs of other methods are looked at as before."""
    rule = {"unheard_of": {"threshold": 3}}
    runs = {
        "theirs": {"method": "unheard_of", "start": "cag/stage1", "stages": 2, "teacher": {"decay": 0.9}},
        "self": {"method": "self_training", "start": "warmup", "pseudo_labels": rule}
        | {"iterations": 1, "batch_size": 1, "batch_norm": "train", "optimiser": {"name": "sgd", "learning_rate": 1}},
    }
    calls = looked_at(own, runs=runs)
    assert [call.returncode for call in calls.values()] == [0] * len(LOOKING), calls
    assert json.loads(calls["inspect labels"].stdout)["images_with_truth"] > 0
