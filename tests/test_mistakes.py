"""What a person mistypes at the workflow is said in one line, and folders of any name are worked in."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from workflow_runs import ROOT, SMOKE, Workflow

MISTAKEN = {
    "a tab": ("experiment:\tsmoke\n\tseeds: [0]\n", "Config file is not valid JSON or YAML"),
    "nothing": ("", "Config file must be given as JSON or YAML with keys at top level"),
    "a key twice": (SMOKE.read_text() + "seeds: [1]\n", "mistaken.yaml: seeds: this key occurs twice in one section"),
}


def refused(done: subprocess.CompletedProcess[str], words: str) -> None:
    """The call has ended with one line that has these words, and with no traceback."""
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in said, said
    assert len([line for line in said.splitlines() if words in line]) == 1, said


@pytest.mark.parametrize("kind", MISTAKEN)
def test_a_file_that_is_no_configuration(tmp_path: Path, kind: str) -> None:
    text, words = MISTAKEN[kind]
    path = tmp_path / "mistaken.yaml"
    path.write_text(text)
    refused(Workflow(tmp_path).run("--dry-run", "--configfile", str(path)), words)


def test_a_target_that_nothing_makes(tmp_path: Path) -> None:
    refused(Workflow(tmp_path).run("tabel1", "--dry-run"), "No rule to produce tabel1 ")


@pytest.mark.parametrize("place", ["", "./"])
@pytest.mark.parametrize("model", ["cag/stage2", "nosuch", "cag", "warmup/stage1"])
def test_a_model_that_the_configuration_has_not(tmp_path: Path, place: str, model: str) -> None:
    values = yaml.safe_load(SMOKE.read_text())
    values["runs"]["cag"]["stages"] = 1
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(values | {"tables": {}}))
    workflow, target = Workflow(tmp_path, path), f"{place}results/smoke/seed0/{model}/evaluation.json"
    words = (
        f"caguda: one.yaml: runs must have the model of {target}, found cag/stage1, control, oracle and 2 more; add it, or ask for "
        "another"
    )
    refused(workflow.run(target, "--dry-run"), words)


def test_labels_of_a_rule_that_no_run_has(tmp_path: Path) -> None:
    words = (
        "caguda: smoke.yaml: the labels must be of a run, found probability-0.8, where runs have "
        "anchor-0.15-mean_anchor_distance, probability-0.5; give a run such pseudo_labels, or ask for others"
    )
    workflow = Workflow(tmp_path, shutil.copy(SMOKE, tmp_path / "smoke.yaml"))
    refused(workflow.run("results/smoke/seed0/warmup/labels/probability-0.8/labels.json", "--dry-run"), words)


@pytest.mark.parametrize("targets", [(), ("all",), ("runs",)])
def test_runs_that_no_report_lists_are_named_where_they_are_not_made(tmp_path: Path, targets: tuple[str, ...]) -> None:
    more = "runs={more: {method: supervised, iterations: 1}}"
    done = Workflow(tmp_path).run(*targets, "--dry-run", "--config", more)
    line = "in no report, so not made by this target: more; ask for the target runs, or list them in reports\n"
    assert done.returncode == 0 and (line in done.stderr) == (targets != ("runs",)), done.stderr


@pytest.mark.parametrize("table", ["1", "4"])
def test_a_table_whose_runs_are_not_listed(tmp_path: Path, table: str) -> None:
    values = yaml.safe_load(SMOKE.read_text())
    path = tmp_path / "none.yaml"
    path.write_text(yaml.safe_dump(values | {"tables": {}}))
    added = "config/ablations.yaml" if table == "4" else "a YAML that does"
    words = f"tables.table{table}: the runs of this table must be listed, found no such key; list them, or add {added} to --configfile"
    for target in (f"table{table}", f"results/smoke/tables/table{table}.csv"):
        refused(Workflow(tmp_path, path).run(target, "--dry-run"), words)


ODD = ["$(touch x)", "`touch x`", 'a"b', "a'b", "  two  spaces ", "a;b&c|d>e", "*?[a]", "-rf", "#ä\\n%s"]


def project(folder: Path) -> Path:
    """A copy of the program and its workflow."""
    for name in ("caguda", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_project_works_in_folders_of_any_name(tmp_path: Path) -> None:
    """All of them in one another, around the program, its workflow and the results, which may have braces as well."""
    folder = project(tmp_path.joinpath(*ODD))
    place = folder / "{x}" / "{{x}}"
    place.mkdir(parents=True)
    shutil.copy(SMOKE, place / "own '$(touch x)' {x}.yaml")
    workflow = Workflow(place, place / "own '$(touch x)' {x}.yaml", folder / "workflow" / "Snakefile")
    done = workflow.run("results/smoke/manifest.json", path=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (place / "results" / "smoke" / "manifest.json").is_file()
    assert not list(tmp_path.rglob("x"))


def test_a_project_in_a_folder_with_braces_is_refused(tmp_path: Path) -> None:
    """Snakemake would fill in what they hold, in the path of a rule's environment."""
    folder = project(tmp_path / "{x}")
    done = Workflow(tmp_path, snakefile=folder / "workflow" / "Snakefile").run(path=folder)
    refused(done, "rules: the project must lie in a folder without { and } in its path; move it or rename the folder")
