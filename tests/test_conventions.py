"""The workflow as Snakemake's own tools see it: lint, formatting, the report, and its use by another workflow."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from workflow_runs import ROOT, SMOKE, Workflow

RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
EVERY_RULE = ("test={layout: cityscapes, root: target, split: val}", "cache=true")


def test_lint_finds_nothing(tmp_path: Path) -> None:
    done = Workflow(tmp_path).run("--lint", "--config", *EVERY_RULE)
    assert done.returncode == 0 and "Lints for" not in done.stdout + done.stderr, done.stderr


def test_the_rules_are_formatted() -> None:
    if importlib.util.find_spec("snakefmt") is None:
        pytest.skip("snakefmt is not installed (make check has it)")
    done = subprocess.run([sys.executable, "-m", "snakefmt", "--check", "workflow"], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_every_rule_says_where_its_log_is_what_it_takes_and_what_makes_it_stale() -> None:
    text = "".join(path.read_text() for path in RULES)
    bodies = dict(re.findall(r"^ *rule (\w+):\n((?: +.*\n|\n)+)", text, re.MULTILINE))
    assert len(bodies) > 15
    wanted = ["log:", "benchmark:", "conda:", "threads:", "resources:", "runtime=", "mem_mb=", "METHOD_VERSION"]
    missing = {rule: [word for word in wanted if word not in body] for rule, body in bodies.items()}
    assert {rule: words for rule, words in missing.items() if words} == {}


def test_every_shell_command_quotes_what_it_is_given() -> None:
    commands = [
        text for path in RULES for text in re.findall(r"^ +shell:\n((?: +\".*\"\n)+)", path.read_text(), re.MULTILINE)
    ]
    assert len(commands) == sum(path.read_text().count("shell:") for path in RULES) > 15
    given = [field for command in commands for field in re.findall(r"\{[^}]*\}", command)]
    assert len(given) > 50
    assert [field for field in given if not field.endswith(":q}")] == []


def test_the_report_has_every_result_with_its_caption(finished: Workflow, tmp_path: Path) -> None:
    archive = tmp_path / "report.zip"
    done = finished.run("--report", str(archive))
    assert done.returncode == 0, done.stdout + done.stderr
    with ZipFile(archive) as content:
        (page,) = (name for name in content.namelist() if name.endswith("report.html") and name.count("/") == 1)
        assert page == "report/report.html"
        said = "".join(content.read(name).decode() for name in content.namelist() if name.endswith((".js", ".html")))
        stored = {Path(name).name for name in content.namelist()}
    assert {"table.csv", "figure.png", "curves.png"} <= stored
    for words in ("Report cag", "scores of every model", "loss curves", "is an upper bound"):
        assert words in said, words


def test_a_summary_has_a_row_for_every_artifact(finished: Workflow, tmp_path: Path) -> None:
    done = finished.run("--summary")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    status = rows[0].index("status")
    artifacts = {name for job in Workflow(tmp_path).plan() for name in job.output}
    assert {row[0].replace("results/smoke/", ""): row[status] for row in rows[1:]} == dict.fromkeys(artifacts, "ok")


def test_the_graphs_have_a_node_for_every_rule_and_job(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path)
    for kind, jobs in (("--rulegraph", {job.rule for job in workflow.plan()}), ("--dag", workflow.plan())):
        done = workflow.run("demo", kind)
        nodes = re.findall(r"^\s*\d+\[label", done.stdout, re.MULTILINE)
        assert "digraph" in done.stdout and len(nodes) >= len(jobs) > 10


CONDA = """#!/bin/bash
case "$1 $2" in
    "info --json") echo '{{"conda_prefix": "{folder}", "platform": "linux-64"}}' ;;
    "config --get") echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
    "--version ") echo conda 24.9.2 ;;
    "env create") mkdir -p "${{@: -1}}/bin" && cp {folder}/python "${{@: -1}}/bin" ;;
esac
"""
PYTHON = """#!/bin/bash
echo "$PYTHONPATH" > {folder}/called
exec {executable} "$@"
"""


def test_a_rule_can_run_in_an_environment_of_conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for conda, whose environments have a Python that takes down that it was called."""
    scripts = {"bin/conda": CONDA, "python": PYTHON, "bin/activate": 'export PATH="$1/bin:$PATH"\n'}
    (tmp_path / "bin").mkdir()
    for name, text in scripts.items():
        (tmp_path / name).write_text(text.format(folder=tmp_path, executable=sys.executable))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    done = Workflow(tmp_path).run("results/smoke/generated.json", "--sdm", "conda")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "called").read_text() == f"{ROOT}\n"


@pytest.mark.slow
def test_another_workflow_uses_it_as_a_module(tmp_path: Path) -> None:
    """The example of docs/snakemake.md."""
    page = (ROOT / "docs" / "snakemake.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    for word, meant in (("/path/to/caguda", str(ROOT)), ("EXPERIMENT", "smoke"), ("REPORT", "cag")):
        example = example.replace(word, meant)
    (tmp_path / "Snakefile").write_text(example)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "experiment.yaml").write_text(SMOKE.read_text())
    parent, alone = Workflow(tmp_path, snakefile=tmp_path / "Snakefile"), Workflow(tmp_path)
    imported = {(job.rule, job.output) for job in parent.plan("caguda_all")}
    assert imported == {
        (f"caguda_{job.rule}", tuple(f"adaptation/{name}".replace("adaptation/data/", "data/") for name in job.output))
        for job in alone.plan()
    }
    assert "summary.txt" in parent.planned()
    manifest = "adaptation/results/smoke/manifest.json"
    done = parent.run(manifest)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = (tmp_path / manifest).parent
    assert json.loads((folder / "config.json").read_text())["experiment"] == "smoke"
    assert (folder / "lock").exists() and not (tmp_path / "results" / "smoke" / "lock").exists()
    assert parent.planned(manifest) == set()
