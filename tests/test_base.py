"""A YAML that names another one as its base: how both are merged, by the verbs and by the workflow, and what is refused."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_runs import ROOT, SMOKE, Workflow

from caguda.configfile import load_configuration, read_merged
from caguda.errors import UserError
from caguda.runs import imported_files
from caguda.workflow import merged_by_parent, merged_files

DEMO = ROOT / "config" / "demo.yaml"


def derived(path: Path, base: object, **values: Any) -> Path:
    """A YAML with a base."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"base": str(base) if isinstance(base, Path) else base} | values), encoding="utf-8")
    return path


def test_an_empty_deriving_file_is_its_base(tmp_path: Path) -> None:
    assert load_configuration(derived(tmp_path / "empty.yaml", DEMO)) == load_configuration(DEMO)


def test_a_key_replaces_that_of_the_base_at_any_depth(tmp_path: Path) -> None:
    path = derived(
        tmp_path / "own.yaml", DEMO, seeds=[3, 4], street=None,
        runs={"cag": {"optimiser": {"learning_rate": 1e-4}}, "plain": {"like": "cag", "weights": {"distance": 0}}},
    )  # fmt: skip
    before, after = load_configuration(DEMO), load_configuration(path)
    assert after.seeds == (3, 4) and after.street is None and list(after.runs) == [*before.runs, "plain"]
    optimiser = before.runs["cag"].optimiser.model_copy(update={"learning_rate": 1e-4})
    assert after.runs["cag"] == before.runs["cag"].model_copy(update={"optimiser": optimiser})
    weights = before.runs["cag"].weights.model_copy(update={"distance": 0})
    assert after.runs["plain"] == after.runs["cag"].model_copy(update={"weights": weights})
    assert {name: after.runs[name] for name in before.runs.keys() - {"cag"}}.items() <= before.runs.items()
    same = set(before.model_fields_set) - {"seeds", "street", "runs"}
    assert all(getattr(after, key) == getattr(before, key) for key in same)


def test_a_run_of_the_base_is_left_out_or_of_another_method(tmp_path: Path) -> None:
    other = {"method": "adversarial", "iterations": 9, "weight": 0, "discriminator": {"learning_rate": 1}}
    path = derived(tmp_path / "own.yaml", DEMO, runs={"oracle": None, "control": other, "cag": {"stages": 4}})
    made = load_configuration(path)
    assert list(made.active_runs) == ["source_only", "warm-up", "cag", "control"] and made.runs["oracle"] is None
    assert made.left_out == ("oracle (runs.oracle is null)",)
    assert made.runs["control"].start is None and made.runs["control"].title is None
    assert made.runs["cag"].stages == 4
    left = {name: None for name in made.runs}
    assert complaint(derived(path, DEMO, runs=left)).startswith(
        "reports: at least one run must be made, found only runs"
    )
    said = complaint(derived(path, DEMO, runs={"cag": {"stages": 2}}))
    assert said == f"tables.table1.2: must be a model that is made, found cag/stage3 where cag has 2 stages (in {DEMO})"
    said = complaint(derived(path, DEMO, runs={"warm-up": None}))
    assert (
        said
        == f"runs.cag.start: must be a run that is made, found warm-up, which is left out; name another (in {DEMO})"
    )


def test_another_network_and_layout_have_nothing_of_the_base(tmp_path: Path) -> None:
    path = derived(
        tmp_path / "own.yaml", DEMO, network={"name": "deeplab_v2", "weights": "none"}, target={"layout": "folder"}
    )
    made = load_configuration(path)
    assert made.network.name == "deeplab_v2" and (made.target.root, made.target.split) == (".", None)


def test_a_base_is_relative_to_the_file_that_says_it_and_no_other_path_is(tmp_path: Path) -> None:
    values = yaml.safe_load(SMOKE.read_text(encoding="utf-8")) | {"data_root": "frames"}
    values["runs"]["warmup"] = {"method": "imported", "file": "models/w.safetensors"}
    values["source"] |= {"list": "some.txt"}
    values["network"] = {"name": "deeplab_v2", "weights": "w.pt"}
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "root.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    derived(tmp_path / "middle.yaml", "deep/root.yaml", seeds=[5])
    made = load_configuration(derived(tmp_path / "other" / "top.yaml", "../middle.yaml", experiment="top"))
    assert (made.experiment, made.seeds, made.data_root) == ("top", (5,), "frames")
    assert imported_files(made) == {"warmup": "models/w.safetensors"}
    assert made.source.list == "some.txt" and made.network.weights == "w.pt"


def test_the_workflows_json_may_be_a_base(tmp_path: Path) -> None:
    from caguda.artifacts.atomic import write_json

    write_json(tmp_path / "config.json", load_configuration(DEMO).model_dump(mode="json"))
    path = derived(tmp_path / "own.yaml", "config.json", seeds=[9])
    assert load_configuration(path) == load_configuration(DEMO).model_copy(update={"seeds": (9,)})
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("0.95", "0.96"))
    assert "must be as the workflow wrote it" in complaint(path)
    (tmp_path / "config.json").unlink()
    write_json(tmp_path / "config.json", {"base": str(DEMO)})
    assert "config.json: base: a file with the key sha256_of_all_above must be complete" in complaint(path)


def complaint(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_configuration(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: "), text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("base", [None, "", 3, ["demo.yaml"], {"a": 1}, True])
def test_a_base_is_the_name_of_one_file(tmp_path: Path, base: object) -> None:
    assert complaint(derived(tmp_path / "own.yaml", base)).startswith(
        f"base: must be the path of one YAML, found {base!r}; "
    )


TWICE = "seeds: [0]\nseeds: [1]\n"
BOMB = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]",
                  *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 7))])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the configuration is empty"),
        ("- 1\n", "must hold keys and values, found a list"),
        ("words\n", "must hold keys and values, found a str"),
        ("a: [1", "this is not YAML"),
        ("a: \xe9".encode("latin-1"), "must be text in UTF-8"),
        (TWICE, "seeds: this key occurs twice"),
        (BOMB, "at most 100000 values"),
        ("[" * 5000 + "]" * 5000, "nested so deep"),
        (None, "found: No such file or directory; correct the name"),
    ],
)
def test_a_base_that_cannot_be_one(tmp_path: Path, text: str | bytes | None, words: str) -> None:
    base = tmp_path / "base.yaml"
    if text is not None:
        base.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = complaint(derived(tmp_path / "own.yaml", "base.yaml"))
    assert said.startswith(f"base: {base}: ") and words in said


def test_a_folder_or_a_pipe_is_no_base(tmp_path: Path) -> None:
    assert "Is a directory" in complaint(derived(tmp_path / "own.yaml", "."))
    os.mkfifo(tmp_path / "pipe")
    assert "found a pipe" in complaint(derived(tmp_path / "own.yaml", "pipe"))


def test_a_circle_is_refused(tmp_path: Path) -> None:
    own = derived(tmp_path / "own.yaml", "own.yaml")
    assert f"found the circle {own} -> {own}; " in complaint(own)
    (tmp_path / "link.yaml").symlink_to("own.yaml")
    derived(own, "second.yaml")
    derived(tmp_path / "second.yaml", "link.yaml")
    assert "found the circle " in complaint(own)
    assert "found the circle " in complaint(derived(tmp_path / "third.yaml", "own.yaml"))


def test_two_files_may_have_one_base(tmp_path: Path) -> None:
    files = [derived(tmp_path / f"{name}.yaml", DEMO, experiment=name) for name in ("one", "two")]
    assert merged_files(files, {}).values["experiment"] == "two"


@pytest.mark.parametrize(
    ("place", "key", "value", "said"),
    [
        ("base", "anchors", {"man": 1}, "anchors.man: unknown key, did you mean mean? (in {base})"),
        ("own", "anchors", {"man": 1}, "anchors.man: unknown key, did you mean mean?"),
        (
            "base",
            "runs",
            {"cag": {"iterations": "many"}},
            "runs.cag.iterations: must be a whole number, found 'many' (in {base})",
        ),
        ("own", "runs", {"cag": {"iterations": 0}}, "runs.cag.iterations: must be at least 1, found 0"),
        (
            "base",
            "training",
            {"batch_size": 0},
            "runs.source_only.batch_size: must be at least 1, found 0 (in {base}: training)",
        ),
        (
            "own",
            "training",
            {"batch_size": 0},
            "runs.source_only.batch_size: must be at least 1, found 0 (in training)",
        ),
        (
            "base",
            "runs",
            {"1": {"like": "cag", "iterations": "x"}},
            "runs.1.iterations: must be a whole number, found 'x' (in {base})",
        ),
        ("base", "classes", [{"id": "x"}], "classes.0.id: must be a whole number, found 'x' (in {base}); "),
        ("own", "base2", 3, "base2: unknown key"),
        ("own", "network", {"name": "deeplab_v2", "width": 3}, "network.width: unknown key"),
    ],
)
def test_a_fault_names_the_file_that_it_is_in(tmp_path: Path, place: str, key: str, value: Any, said: str) -> None:
    files = {"base": tmp_path / "base.yaml", "own": tmp_path / "own.yaml"}
    derived(files["base"], DEMO, **({key: value} if place == "base" else {}))
    derived(files["own"], "base.yaml", **({key: value} if place == "own" else {}))
    expected = said.format(**files)
    found = complaint(files["own"])
    assert found.startswith(expected) if expected.endswith("; ") else found == expected


def nested(tmp_path: Path) -> tuple[Path, Path]:
    """Two files with a base each; every key says in which of the four files, or --config, it was last set."""
    smoke = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "a.yaml").write_text(yaml.safe_dump(smoke | {"seeds": [1]}))
    twos = {"pretrain": {"iterations": 2}, "warmup": {"iterations": 2}, "cag": {"stages": 2}}
    derived(first, "bases/a.yaml", seeds=[2], runs=twos)
    (tmp_path / "bases" / "b.yaml").write_text("runs: {pretrain: {iterations: 3}, warmup: {iterations: 3}}\n")
    derived(second, "bases/b.yaml", runs={"pretrain": {"iterations": 4}, "cag": {"stages": 4}})
    return first, second


def last_set(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values that the files of `nested` set."""
    runs = values["runs"]
    return (runs["warmup"]["iterations"], runs["pretrain"]["iterations"], runs["cag"]["stages"])


def test_files_are_merged_in_their_order_each_above_its_base(tmp_path: Path) -> None:
    first, second = nested(tmp_path)
    values = merged_files([first, second], {"runs": {"cag": {"stages": "5"}}}).values
    assert values["seeds"] == [2]
    assert last_set(values) == (3, 4, "5")
    written_out = tmp_path / "whole.yaml"
    written_out.write_text(yaml.safe_dump(dict(read_merged(second).values)))
    assert merged_files([first, written_out], {}).values == merged_files([first, second], {}).values
    without = merged_files([first, second], {"street": None, "runs": {"oracle": "null"}}).values
    assert without["street"] is None and without["runs"] == values["runs"] | {
        "oracle": None,
        "cag": without["runs"]["cag"],
    }
    with pytest.raises(UserError, match=r"--config: base: only a file has a base"):
        merged_files([first], {"base": "demo.yaml"})


def shown_config(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a Snakefile sees as `config` once it has included the workflow."""
    snakefile = folder / "Snakefile"
    snakefile.write_text(f'include: "{ROOT}/workflow/Snakefile"\nimport json\nprint("SEEN " + json.dumps(config))\n')
    workflow = Workflow(folder, snakefile=snakefile)
    done = workflow.run("--dry-run", "results/smoke/manifest.json", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    (seen,) = re.findall(r"^SEEN (.*)$", done.stdout, re.MULTILINE)
    return dict(json.loads(seen))


def test_the_workflow_sees_the_merged_values(tmp_path: Path) -> None:
    first, second = nested(tmp_path)
    config = shown_config(
        tmp_path,
        "--configfile",
        str(first),
        str(second),
        "--config",
        "runs={cag: {stages: 5}}",
        "network={name: deeplab_v2}",
    )
    assert "base" not in config and config["seeds"] == [2] and config["network"] == {"name": "deeplab_v2"}
    assert last_set(config) == (3, 4, "5")
    smoke = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    assert config["street"] == smoke["street"] and shown_config(tmp_path, "--configfile", str(SMOKE)) == smoke


@pytest.mark.slow
def test_a_derived_experiment_is_planned_and_run_like_one_that_is_written_out(
    finished: Workflow, tmp_path: Path
) -> None:
    workflow = finished.copy(tmp_path)
    empty = ("--configfile", str(derived(tmp_path / "bases" / "empty.yaml", SMOKE)))
    assert workflow.planned(*empty) == set()
    margin = {"cag": {"pseudo_labels": {"anchor": {"margin": 0.2}}}}
    other = derived(tmp_path / "bases" / "other.yaml", "empty.yaml", runs=margin)
    said = [f"runs={{cag: {{pseudo_labels: {{anchor: {{margin: {value}}}}}}}}}" for value in (0.2, 0.15)]
    assert workflow.planned("--configfile", str(other)) == finished.planned("--config", said[0]) != set()
    assert workflow.planned("--configfile", str(other), "--config", said[1]) == set()
    manifest = workflow.results / "manifest.json"
    manifest.unlink()
    done = workflow.run("results/smoke/manifest.json", "--configfile", str(other))
    assert done.returncode == 0 and manifest.is_file(), done.stdout + done.stderr
    written = json.loads((workflow.results / "config.json").read_text())
    assert written["runs"]["cag"]["pseudo_labels"]["anchor"]["margin"] == 0.2 and "base" not in written


@pytest.mark.parametrize(
    ("base", "arguments", "words"),
    [
        ("none.yaml", (), "own.yaml: base: {folder}/none.yaml: the file must be readable, found: No such file"),
        ("own.yaml", (), "own.yaml: base: no file may be below itself, found the circle"),
        (["a.yaml"], (), "own.yaml: base: must be the path of one YAML, found ['a.yaml']"),
        (str(SMOKE), ("--config", "base=x.yaml"), "--config: base: only a file has a base"),
        (str(SMOKE), ("--config", "anchors={man: 1}"), "own.yaml + --config: anchors.man: unknown key, did you mean mean? (in --config)"),
    ],
)  # fmt: skip
def test_a_wrong_base_ends_the_workflow_with_one_line(
    tmp_path: Path, base: object, arguments: tuple[str, ...], words: str
) -> None:
    path = derived(tmp_path / "own.yaml", base)
    done = Workflow(tmp_path, path).run("--dry-run", *arguments)
    said = [line for line in done.stderr.splitlines() if line.startswith("caguda: ")]
    assert done.returncode != 0 and len(said) == 1 and "Traceback" not in done.stdout + done.stderr, done.stderr
    assert words.format(folder=tmp_path) in said[0]
    assert [path.name for path in tmp_path.iterdir() if path.name != ".snakemake"] == ["own.yaml"]


@pytest.mark.parametrize("section", ["config", 'config["mine"]'])
def test_a_module_has_the_base_beside_its_parents_file(tmp_path: Path, section: str) -> None:
    values = {"base": "bases/smoke.yaml", "seeds": [7]}
    (tmp_path / "config" / "bases").mkdir(parents=True)
    (tmp_path / "config" / "bases" / "smoke.yaml").write_text(SMOKE.read_text(encoding="utf-8"))
    path = tmp_path / "config" / "experiment.yaml"
    path.write_text(yaml.safe_dump(values if section == "config" else {"mine": values, "something": 1}))
    (tmp_path / "Snakefile").write_text(
        'configfile: "config/experiment.yaml"\nbefore = str(config)\n'
        f'module caguda:\n    snakefile: "{ROOT}/workflow/Snakefile"\n    config: {section}\n'
        "use rule * from caguda as caguda_*\nassert str(config) == before\n"
    )
    planned = Workflow(tmp_path, path, tmp_path / "Snakefile").planned("caguda_all")
    assert "seed7/pretrain/checkpoint.safetensors" in planned


def test_a_module_whose_parent_has_files_in_several_folders_says_where_the_base_is(tmp_path: Path) -> None:
    files = [tmp_path / name / "some.yaml" for name in ("a", "b")]
    for file in files:
        derived(file, "x.yaml")
    with pytest.raises(UserError, match=r"^config: base: must be an absolute path .* found smoke\.yaml"):
        merged_by_parent({"base": "smoke.yaml"}, files)
    assert merged_by_parent({"base": str(SMOKE)}, files).values["experiment"] == "smoke"
    assert merged_by_parent({"base": os.path.relpath(SMOKE)}, []).values["experiment"] == "smoke"
    assert merged_by_parent({"seeds": [1]}, []).values == {"seeds": [1]}
