"""A plan of runs with anchors from elsewhere, against the jobs that Snakemake plans for the same runs."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from workflow_runs import SMOKE, Job, Workflow

from caguda.cli import main
from caguda.config import Configuration
from caguda.costs.models import passes_of, plan_of
from caguda.costs.plan import read_experiment
from caguda.costs.rates import NoRate
from caguda.costs.text import lines_of

FIRST, SECOND = "brought/a.h5", "brought/b.h5"
RULES = {"anchor": {"margin": 0.1, "unit": "absolute"}, "probability": {"p0": 0.5}}
WEIGHTS = {"distance": 0.3, "anchor_cross_entropy": 0.7, "probability_cross_entropy": 0.7}
GIVEN = {"like": "cag", "anchors": FIRST}
BESIDE_OWN = {"given": GIVEN, "given2": {"like": "cag", "anchors": SECOND, "stages": None}}
CASES = {
    "beside own anchors": BESIDE_OWN,
    "in place of own anchors": {"cag": {"anchors": FIRST}},
    "one file for two runs": {"given": GIVEN, "again": GIVEN | {"pseudo_labels": {"probability": {"p0": 0.9}}}},
    "one method that reads anchors alone, and one that reads labels alone": {
        "cag": {
            "method": "cag_every_iteration", "start": "warmup", "stages": 2, "anchors": FIRST,
            "pseudo_labels": RULES, "weights": WEIGHTS,
        },
        "self": {"method": "self_training", "start": "warmup", "pseudo_labels": {"probability": {"p0": 0.9}}},
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_with_both_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (FIRST, SECOND):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(file, encoding="utf-8")


def with_runs(**runs: object) -> Configuration:
    """The small experiment with other runs, which `more.yaml` holds."""
    Path("more.yaml").write_text(yaml.safe_dump({"runs": runs}), encoding="utf-8")
    return read_experiment([SMOKE, Path("more.yaml")])


def beside(jobs: list[Job], rule: str) -> Counter[str]:
    """The number of a rule's jobs for each model, from their outputs `seed0/MODEL/...`."""
    outputs = [job.output[0] for job in jobs if job.rule == rule]
    return Counter(
        re.sub(r"^seed0/(.+?)/(anchors-[0-9a-f]{8}/)?(evidence|labels)/.*$", r"\1", path) for path in outputs
    )


@pytest.mark.parametrize("runs", CASES.values(), ids=CASES)
def test_passes_and_labels_are_those_that_snakemake_plans(runs: dict[str, object], tmp_path: Path) -> None:
    made = plan_of(with_runs(**runs), [], NoRate(), Path("nowhere"), passes_of(read_experiment([SMOKE])))
    jobs = Workflow(tmp_path).plan("runs", "--configfile", str(SMOKE), "more.yaml")
    passes = {cost.model: [work.name for work in cost.passes] for cost in made.models}
    assert {cost.model for cost in made.models} == {
        job.output[0].removeprefix("seed0/").rpartition("/")[0] for job in jobs if job.rule == "train"
    }
    evidence = {model: sum(name.startswith("evidence") for name in names) for model, names in passes.items()}
    assert Counter(evidence) == beside(jobs, "evidence")
    assert Counter({model: names.count("anchors") for model, names in passes.items()}) == beside(jobs, "anchors")
    label_bytes = 24 * 12 * 24 * 2
    disks = {cost.model: [cost.disk, *cost.disk_by_given_anchors.values()] for cost in made.models}
    labels = {model: sum(disk.get("labels", 0) for disk in found) // label_bytes for model, found in disks.items()}
    assert Counter(labels) == beside(jobs, "labels")
    for model, found in disks.items():
        assert sum("evidence" in disk for disk in found) == evidence[model]
    for model, names in passes.items():
        assert ("source statistics" in names) == ("anchors" in names and model == "warmup")


def test_evidence_is_told_apart_by_the_file_of_its_anchors(capsys: pytest.CaptureFixture[str]) -> None:
    with_runs(**BESIDE_OWN)
    for file in (FIRST, SECOND):
        Path(file).unlink()  # a plan needs neither
    assert main(["plan", str(SMOKE), "more.yaml", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    costs = {cost["model"]: cost for cost in content["models"]}
    names = [work["name"] for work in costs["warmup"]["passes"]]
    assert [name for name in names if name.startswith("evidence")] == [
        "evidence", f"evidence by {FIRST}", f"evidence by {SECOND}",
    ]  # fmt: skip
    given = costs["warmup"]["bytes_by_given_anchors"]
    own = {name: costs["warmup"]["bytes"][name] for name in ("evidence", "labels")}
    assert given == {FIRST: own, SECOND: own} and min(own.values()) > 0
    assert "evidence" not in costs["given/stage1"]["bytes"] and costs["cag/stage1"]["bytes"]["evidence"] > 0
    every = [*(cost["bytes"] for cost in costs.values())]
    every += [disk for cost in costs.values() for disk in cost["bytes_by_given_anchors"].values()]
    shared = sum(content["shared_bytes"].values())
    assert content["totals"]["bytes"] == shared + sum(sum(disk.values()) for disk in every)


def test_the_table_of_disk_has_a_row_for_each_file_of_anchors() -> None:
    configuration = with_runs(**BESIDE_OWN)
    made = plan_of(configuration, ["runs"], NoRate(), Path("nowhere"), passes_of(configuration))
    lines = lines_of(made, "x")
    rows = lines[next(index for index, line in enumerate(lines) if line.startswith("disk, GB")) :]
    titles = [re.split(r"  +", row)[0] for row in rows[1 : rows.index("")]]
    warmup = titles.index("warmup")
    assert titles[warmup : warmup + 3] == ["warmup", f"warmup by {FIRST}", f"warmup by {SECOND}"]
    assert f"given/stage1 by {FIRST}" in titles and f"given/stage1 by {SECOND}" not in titles
