"""Values, plugins and pipes that nobody means: one line each, and nothing is read, made or replaced by them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from miniature import Miniature, values
from workflow_runs import environment

from caguda.artifacts.predictions import finished_predictions
from caguda.cli import main
from caguda.config import Configuration
from caguda.configfile import parse_configuration, read_configuration
from caguda.errors import UserError
from caguda.recorded_settings import differing_settings
from caguda.version import METHOD_VERSION

Said = pytest.CaptureFixture[str]


def refused(tmp_path: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        parse_configuration(values(tmp_path, **changes), tmp_path / "odd.yaml")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("runs__pretrain__iterations", True, "must be something else than true or false, found True"),
        ("seeds", [True], "seeds.0: must be something else than true or false, found True"),
        ("inference", {"scales": [0.5, True]}, "scales.1: must be something else than true or false, found True"),
        ("runs__pretrain__augmentation", {"crop": [16, False]}, "crop.1: must be something else than true or false"),
        ("network__blocks", [True, 1, 1, 1], "blocks.0: must be something else than true or false, found True"),
        ("compute__parts", 65, "must be at most 64, found 65"),
        ("data_root", "~nobody-here/x", "~nobody-here/x must begin with the home folder of a known user"),
        ("runs__pretrain__batch_size", "four", "must be a whole number, found 'four'"),
        pytest.param("runs__pretrain__iterations", 16**5000, "found a number of thousands of digits", id="long"),
        ("runs__pretrain__target_statistics", "never", "must be true or false, found 'never'"),
        ("runs__pretrain__augmentation", {"flip": 2}, "must be true or false, found 2"),
        ("runs__pretrain__title", "=1+1", "must not begin as a formula of a spreadsheet does, found '=1+1'"),
        ("runs__pretrain__title", "a\nb", "must be one line without control characters, found 'a\\nb'"),
        ("runs__pretrain__note", "a\x1b[31mb", "must be one line without control characters"),
        ("runs__pretrain__note", "a\0b", "text without control characters"),
        ("runs__control", 3, "must be keys with values, found 3"),
        ("runs__pretrain__method", "supervized", "found 'supervized', did you mean supervised?"),
        ("cache", 3, "must be true or false, found 3"),
        ("experiment", "a" * 101, "must be text of at most 100 characters"),
        ("data_root", "a\0b", "text without control characters"),
        ("plugins", ["a\0b"], "text without control characters"),
        ("source__root", "a\0b", "text without control characters"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_line(tmp_path: Path, key: str, value: Any, said: str) -> None:
    message = refused(tmp_path, **{key: value})
    assert said in message and key.replace("__", ".") in message


def test_a_run_must_not_have_the_name_of_a_seeds_folder(tmp_path: Path) -> None:
    for name in ("seed0", "seed12"):
        said = refused(tmp_path, **{f"runs__{name}": {"like": "pretrain"}})
        assert f"runs: {name} is the name of a seed's folder, choose another name" in said


@pytest.mark.parametrize("name", ["lock", "log", "state", "packed", "check", "data", "labels", "stage1", "seeds"])
def test_a_run_may_have_the_name_of_other_folders(tmp_path: Path, name: str) -> None:
    parse_configuration(values(tmp_path, **{f"runs__{name}": {"like": "pretrain"}}), tmp_path / "odd.yaml")


NO_LAYOUT = "from caguda.registry import register\n@register('layout', 'zz')\nclass A: pass\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import sys; sys.exit(0)", "a plugin must run without an error, found SystemExit in line 1: 0"),
        ("raise GeneratorExit", "found GeneratorExit in line 1: "),
        (
            "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
            "found E in line 3: it cannot say what",
        ),
        ("import sys; sys.modules.pop(__name__); raise ValueError('no')", "found ValueError in line 1: no"),
        (NO_LAYOUT, "layout: zz must be a class that derives from caguda.datasets.layout.Layout, found A"),
    ],
)
def test_a_plugin_that_ends_otherwise_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    """In a process of its own: what a plugin registers stays."""
    (tmp_path / "odd_plugin.py").write_text(content, encoding="utf-8")
    keys = values(tmp_path, plugins=["odd_plugin.py"], source__layout="zz" if content == NO_LAYOUT else "gta5")
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    command = [sys.executable, "-m", "caguda", "check", "--config", "odd.yaml", "--output", "m/manifest.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
    assert not (tmp_path / "m").exists()


def test_what_a_plugin_prints_is_no_part_of_what_a_verb_prints(tmp_path: Path) -> None:
    (tmp_path / "loud_plugin.py").write_text("print('hello')", encoding="utf-8")
    (tmp_path / "loud.yaml").write_text(yaml.safe_dump(values(tmp_path, plugins=["loud_plugin.py"])), encoding="utf-8")
    command = [sys.executable, "-m", "caguda", "config", "loud.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "hello" not in done.stdout and done.stderr == "hello\n"


def test_a_pipe_in_the_place_of_a_record_is_refused_unopened(own: Miniature, capsys: Said) -> None:
    record = own.folder / "check" / "frames.jsonl"
    record.unlink()
    os.mkfifo(record)
    assert main(["check", "--config", str(own.yaml()), "--output", str(own.manifest)]) == 2
    assert f"{record}: a regular file must be here, found a pipe" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_checks_folder_is_one_line(own: Miniature, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "check").write_text("a person's")
    assert main(["check", "--config", str(own.yaml()), "--output", str(tmp_path / "new" / "manifest.json")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "new/check: " in said and (tmp_path / "new" / "check").read_text() == "a person's"


def test_a_name_that_the_file_system_refuses_is_one_line(tmp_path: Path, capsys: Said) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path / ("a" * 300))), encoding="utf-8")
    assert main(["check", "--config", str(path), "--output", str(tmp_path / "manifest.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_the_check_asks_of_frames_is_asked_of_a_configuration_that_was_changed_since(
    elsewhere: Miniature,
) -> None:
    changed = elsewhere.configuration(runs__pretrain__augmentation={"crop": [8, 8]}, runs__pretrain__batch_size=1)
    with pytest.raises(
        UserError, match=r"manifest\.json: .*runs\.pretrain\.augmentation\.crop: must be larger than the network's"
    ):
        elsewhere.train("pretrain", "pretrain", changed)


def test_a_cache_of_the_other_domain_is_not_replaced(elsewhere: Miniature, capsys: Said) -> None:
    words = ["pack", "--config", str(elsewhere.yaml()), "--manifest", str(elsewhere.manifest)]
    output = elsewhere.folder / "source.h5"
    assert main([*words, "--domain", "source", "--output", str(output)]) == 0
    before = output.read_bytes()
    assert main([*words, "--domain", "target", "--output", str(output)]) == 2
    assert "found one that was made of source" in capsys.readouterr().err and output.read_bytes() == before


def test_who_looks_at_artifacts_sees_the_keys_of_a_network_that_only_a_plugin_knows(tmp_path: Path) -> None:
    network = {"name": "nobodys", "width": 8}
    path = tmp_path / "looked_at.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path, network=network)), encoding="utf-8")
    read = read_configuration(path)
    assert read.model_dump(mode="json")["network"] == network | {
        "normalisation": "imagenet",
        "align_corners": False,
    }
    made = {"made_by": "train", "method_version": METHOD_VERSION, "settings": {"network": {"width": 8}}}
    assert differing_settings(read, made) == []
    assert differing_settings(read, made | {"settings": {"network": {"width": 9}}}) == ["network.width 9, not 8"]


def looked_at(tmp_path: Path, **changes: Any) -> Configuration:
    """The experiment as who looks at artifacts reads it, who runs no plugin."""
    path = tmp_path / "looked_at.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path, **changes)), encoding="utf-8")
    return read_configuration(path)


def made_with(**settings: Any) -> dict[str, Any]:
    return {"made_by": "train", "method_version": METHOD_VERSION, "settings": settings}


def test_a_rule_that_only_a_plugin_knows_is_taken_as_it_is_recorded(tmp_path: Path) -> None:
    """Its settings may be others in every stage, as nobody but the rule can say; a rule more or less is seen."""
    run = {"method": "self_training", "start": "pretrain", "stages": 2, "pseudo_labels": {"nobodys": {"portion": 0.2}}}
    found = looked_at(tmp_path, runs__cbst=run)
    told = {"name": "cbst/stage2", "weight": 1.0, "pseudo_labels": {"nobodys": {"portion": 0.25}}}
    assert differing_settings(found, made_with(run=told)) == []
    assert differing_settings(found, made_with(run=told | {"weight": 2.0})) == ["runs.cbst.weight 2.0, not 1.0"]
    for name in ("another", "anchor"):
        (more,) = differing_settings(found, made_with(run=told | {"pseudo_labels": {"nobodys": {}, name: {}}}))
        assert more == f"runs.cbst.pseudo_labels.{name} {{}}, not None"
    (less,) = differing_settings(found, made_with(run=told | {"pseudo_labels": {}}))
    assert less == "runs.cbst.pseudo_labels.nobodys None, not {'portion': 0.2}"
    assert differing_settings(found, made_with(rule={"name": "nobodys", "portion": 0.25})) == []
    anchor = {"name": "anchor", "margin": 0.05, "unit": "mean_anchor_distance"}
    assert differing_settings(found, made_with(rule=anchor)) == []
    assert differing_settings(found, made_with(rule=anchor | {"margin": 0.1})) == ["rule.margin 0.1, not 0.05"]
    (other,) = differing_settings(found, made_with(rule={"name": "another", "portion": 0.25}))
    assert other == "rule {'name': 'another', 'portion': 0.25}, not None"


def test_the_labels_of_a_method_that_only_a_plugin_knows_are_compared(tmp_path: Path) -> None:
    rules = {"anchor": {"margin": 0.4, "unit": "absolute"}, "nobodys": {"portion": 0.2}}
    run = {"method": "nobodys", "start": "warmup", "pseudo_labels": rules, "temperature": 3}
    found = looked_at(tmp_path, runs={"warmup": {"method": "supervised"}, "own": run}, reports={})
    told = {"name": "own", "method": "nobodys", "start": "warmup", "pseudo_labels": rules, "temperature": 3}
    assert differing_settings(found, made_with(run=told)) == []
    assert differing_settings(found, made_with(run=told | {"temperature": 4})) == ["runs.own.temperature 4, not 3"]
    changed = {"anchor": {"margin": 0.5, "unit": "absolute"}, "nobodys": {"portion": 0.3}}
    (line,) = differing_settings(found, made_with(run=told | {"pseudo_labels": changed}))
    assert line == "runs.own.pseudo_labels.anchor.margin 0.5, not 0.4"
    anchor = {"name": "anchor", "margin": 0.4, "unit": "absolute"}
    assert differing_settings(found, made_with(rule=anchor)) == []
    assert differing_settings(found, made_with(rule=anchor | {"margin": 0.5})) == ["rule.margin 0.5, not 0.4"]
    assert differing_settings(found, made_with(rule={"name": "nobodys", "portion": 0.3})) == []


def test_what_an_earlier_version_recorded_is_of_other_settings(tmp_path: Path) -> None:
    found = looked_at(tmp_path)
    for section in ("pretrain", "warmup", "labels", "losses", "stages", "recipe"):
        assert differing_settings(found, made_with(**{section: {}})) == [f"{section}, settings of an earlier version"]
    assert differing_settings(found, made_with(run="warmup")) == ["run warmup of an earlier version"]
    assert differing_settings(found, made_with(run={"name": "nosuch"})) == [
        "run nosuch, which the configuration does not have"
    ]
    assert differing_settings(found, made_with(run={"name": "cag"})) == [
        "run cag, which the configuration does not have"
    ]


def test_a_journal_of_predictions_that_is_a_pipe_is_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "evaluation.1-of-1.journal")
    with pytest.raises(UserError, match=r"1-of-1\.journal: the journal must be a regular file"):
        finished_predictions(tmp_path / "evaluation", {"one": "key"})
