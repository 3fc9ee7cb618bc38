"""The workflow: what it runs, what it runs again after a change, and how it comes back after a SIGKILL."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from workflow_runs import ROOT, SMOKE, Workflow, environment

from caguda.workflow import tell_of_earlier_layout

TABLE = {"reports/cag/table.csv", "reports/cag/report.html"}
REPORT = {*TABLE, "reports/cag/figure.png", "reports/cag/curves.png"}
CONTROL = {"seed0/control/checkpoint.safetensors", "seed0/control/evaluation.json"}
ORACLE = {"seed0/oracle/checkpoint.safetensors", "seed0/oracle/evaluation.json"}
WARMUP = {"seed0/warmup/checkpoint.safetensors", "seed0/warmup/evaluation.json"}
PRETRAIN = {"seed0/pretrain/checkpoint.safetensors", "seed0/pretrain/evaluation.json"}
DATA = {"generated.json", "manifest.json"}


ANCHOR, PROBABILITY = "anchor-0.15-mean_anchor_distance", "probability-0.5"
RULES = (ANCHOR, PROBABILITY)


def given(stage: int) -> str:
    """The folder of the model before a stage, beside which all that it trains on lies; all runs that start from one model share it."""
    return "seed0/warmup" if stage == 1 else f"seed0/cag/stage{stage - 1}"


def training(stage: int) -> set[str]:
    """What the training of a stage makes, and what is told about it."""
    return {f"seed0/cag/stage{stage}/{name}" for name in ("checkpoint.safetensors", "evaluation.json")}


def parts(path: str, count: int = 2) -> set[str]:
    """What the parts of an artifact leave."""
    return {path.format(f"{part}-of-{count}") for part in range(1, count + 1)}


def anchors(stage: int) -> set[str]:
    """The anchors of a stage."""
    folder = f"{given(stage)}/evidence"
    return {f"{folder}/anchors.h5"} | parts(f"{folder}/parts/anchors.{{}}.h5")


def evidence(stage: int) -> set[str]:
    """The evidence store that a stage's pseudo-labels are made of."""
    folder = f"{given(stage)}/evidence"
    return {f"{folder}/evidence.created.json", f"{folder}/evidence.json"} | parts(f"{folder}/parts/evidence.{{}}.json")


def told(stage: int, rules: tuple[str, str] = RULES) -> str:
    """What is told of the pseudo-labels of both rules together."""
    return f"{given(stage)}/labels/{'+'.join(rules)}.json"


def labels(stage: int, *made: str, rules: tuple[str, str] = RULES) -> set[str]:
    """The label stores of a stage by some of its rules, of both if none is named, and what is told of both."""
    return {f"{given(stage)}/labels/{rule}/labels.json" for rule in made or rules} | {told(stage, rules)}


def passes(stage: int) -> set[str]:
    """What passes of the frozen network over both domains leave."""
    return anchors(stage) | evidence(stage)


def stage(stage: int, rules: tuple[str, str] = RULES) -> set[str]:
    """All of a stage."""
    return passes(stage) | labels(stage, rules=rules) | training(stage)


def relabelled(made: str, rules: tuple[str, str]) -> set[str]:
    """What another threshold makes again: labels by that rule, the training, and what follows, but none of the passes before."""
    return labels(1, made, rules=rules) | training(1) | stage(2, rules) | REPORT


def labelled(rule: str) -> str:
    """The words behind `--config` that give the run cag another threshold."""
    return f"runs={{cag: {{pseudo_labels: {{{rule}}}}}}}"


def words(change: str) -> list[str]:
    """The changes behind `--config`, each one word."""
    return re.split(r" (?=reports=|tables=)", change)


EVALUATIONS = {
    f"seed0/{run}/evaluation.json" for run in ("pretrain", "warmup", "control", "oracle", "cag/stage1", "cag/stage2")
}
EVERYTHING = DATA | PRETRAIN | WARMUP | CONTROL | ORACLE | stage(1) | stage(2) | REPORT


def test_a_fresh_plan_has_one_job_for_every_artifact(tmp_path: Path) -> None:
    jobs = Workflow(tmp_path).plan()
    assert sorted(job.output[0] for job in jobs) == sorted(EVERYTHING)


def test_demo_is_the_default_and_adds_a_target_of_its_name(tmp_path: Path) -> None:
    fresh = Workflow(tmp_path, ROOT / "config" / "demo.yaml")
    assert fresh.planned("demo") == fresh.planned("all") == fresh.planned()


def test_the_plan_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch was imported')\n")
    done = Workflow(tmp_path).run("--dry-run", path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_but_evaluation_and_report_reads_control_oracle_or_scores(tmp_path: Path) -> None:
    for job in Workflow(tmp_path).plan():
        read = " ".join(job.input)
        if "oracle/" in read or "control/" in read:
            assert job.rule in {"evaluate", "table", "report_page"}
        if told(1) in job.input or told(2) in job.input or "evaluation.json" in read:
            assert job.rule in {"table", "report_page"}


def test_labels_and_what_is_told_of_them_need_no_network(tmp_path: Path) -> None:
    jobs = [job for job in Workflow(tmp_path).plan() if job.rule in {"labels", "diagnose"}]
    assert len(jobs) == 2 * 3
    assert not any(name.endswith((".safetensors", ".h5")) for job in jobs for name in job.input)


def test_a_report_of_two_models_with_the_same_labels_takes_each_label_report_once(tmp_path: Path) -> None:
    """The twin has the rules in another order: its labels, and what is told of them, are the same."""
    content = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    rules = dict(reversed(content["runs"]["cag"]["pseudo_labels"].items()))
    content["runs"]["twin"] = {**content["runs"]["cag"], "stages": 1, "pseudo_labels": rules}
    content["reports"] = {"cag": ["pretrain", "cag", "twin"]}
    path = tmp_path / "twins.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    done = Workflow(tmp_path, path).run("--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    (command,) = [line for line in done.stdout.splitlines() if "caguda report " in line]
    named = command.partition("--label-reports ")[2].partition(" --checkpoints")[0].split()
    assert named == [f"results/smoke/{told(stage)}" for stage in (1, 2)]


def test_what_is_finished_is_not_done_again(finished: Workflow) -> None:
    assert finished.planned() == set()
    machine = "{save_every: 3, workers: 2, threads: 2, inference_batch_size: 8, parts: 3}"
    assert finished.planned("--config", f"compute={machine}") == set()


OTHER_MARGIN, OTHER_UNIT, OTHER_P0 = "anchor-0.2-mean_anchor_distance", "anchor-0.15-absolute", "probability-0.6"
MARGIN_02 = labelled("anchor: {margin: 0.2}")
RELABELLED = relabelled(OTHER_MARGIN, (OTHER_MARGIN, PROBABILITY))
"""What another margin, 0.2, makes again."""
ANOTHER = "{like: cag, weights: {distance: 0, anchor_cross_entropy: 1, probability_cross_entropy: 0}}"
CHANGES = [
    (MARGIN_02, RELABELLED),
    (labelled("anchor: {unit: absolute}"), relabelled(OTHER_UNIT, (OTHER_UNIT, PROBABILITY))),
    (labelled("probability: {p0: 0.6}"), relabelled(OTHER_P0, (ANCHOR, OTHER_P0))),
    ("runs={cag: {iterations: 30}}", training(1) | stage(2) | REPORT),
    ("runs={control: {iterations: 60}}", CONTROL | TABLE),
    ("runs={oracle: {iterations: 30}}", ORACLE | TABLE),
    ("training={iterations: 30}", WARMUP | stage(1) | stage(2) | CONTROL | REPORT),
    ("runs={cag: {weights: {distance: 0.5}}}", training(1) | stage(2) | REPORT),
    ("runs={cag: {stages: 3}}", stage(3) | REPORT),
    ("runs={cag: {stages: 1}} tables={table1: [cag/stage1], table2: [cag]}", REPORT),
    (
        f"runs={{t: {ANOTHER}}} reports={{t: [pretrain, warmup, control, t, oracle]}}",
        {name.replace("cag/", "t/") for name in training(1) | stage(2) | REPORT},
    ),
    ("runs={unlisted: {like: cag, weights: {distance: 0}}}", set()),
    ("runs={cag: {title: adapted, note: by anchors}}", REPORT),
    ("reports={cag: [pretrain, warmup, cag, oracle]}", REPORT),
    ("runs={cag: {distance: {norm: squared_l2}}}", training(1) | stage(2) | REPORT),
    ("training={reduction: sum}", EVERYTHING - DATA),
    ("compute={precision: bfloat16}", EVERYTHING - DATA),
    ("anchors={pixels: correct}", stage(1) | stage(2) | REPORT),
    ("anchors={every_stage: false}", evidence(2) | labels(2) | training(2) | REPORT),
    ("inference={flip: true}", EVALUATIONS | TABLE | {"reports/cag/figure.png"}),
    ("runs={warmup: {iterations: 30}}", WARMUP | stage(1) | stage(2) | CONTROL | REPORT),
    ("runs={pretrain: {iterations: 30}}", EVERYTHING - DATA),
    ("street={strength: 0.6}", EVERYTHING),
    ("source={skip: ['00001']}", EVERYTHING - {"generated.json"}),
    ("seeds=[0,1]", TABLE | {name.replace("seed0", "seed1") for name in EVERYTHING - DATA - REPORT}),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_a_change_runs_what_depends_on_it(finished: Workflow, change: str, expected: set[str]) -> None:
    assert finished.planned("--config", *words(change)) == expected


WITH_SWEEP = ("--configfile", str(SMOKE), str(ROOT / "config" / "sweep.yaml"))


def test_a_sweep_and_ablations_repeat_no_pass(finished: Workflow, tmp_path: Path) -> None:
    """Other thresholds need none at all; Table 4 those of the two models that nothing was labelled by: source only, and stage 2.

    One run of the sweep has the probability that smoke.yaml has, and is trained on its labels.
    """
    swept = Counter(job.rule for job in finished.plan("sweep", *WITH_SWEEP))
    assert swept == {"labels": 8, "diagnose": 8, "train": 9, "evaluate": 9, "sweep_table": 1}
    text = (ROOT / "config" / "ablations.yaml").read_text(encoding="utf-8")
    other = tmp_path / "ablations.yaml"
    other.write_text(text.replace("source_only", "pretrain").replace("warm-up", "warmup"), encoding="utf-8")
    jobs = finished.plan("table4", "--configfile", str(SMOKE), str(other))
    a_pass = {"anchor_part": 2, "anchors": 1, "evidence_store": 1, "evidence_part": 2, "evidence": 1}
    assert Counter(job.rule for job in jobs) == {rule: 2 * count for rule, count in a_pass.items()} | {
        "labels": 2 * 2, "diagnose": 2, "train": 8 + 1, "evaluate": 8 + 1, "paper_table": 1
    }  # fmt: skip
    passed = {job.output[0].partition("/evidence/")[0] for job in jobs if job.rule in a_pass}
    assert passed == {"seed0/pretrain", "seed0/cag/stage2"}


@pytest.mark.slow
def test_a_threshold_that_labels_were_made_with_before_is_trained_on_again(finished: Workflow, tmp_path: Path) -> None:
    """As after a sweep: the labels are there, older than the training, and Snakemake need not remember what it was made of."""
    workflow = finished.copy(tmp_path)
    swept = ("anchor-0.3-mean_anchor_distance", PROBABILITY)
    made = workflow.results / given(1) / "labels" / swept[0] / "labels.json"
    done = workflow.run(str(made.relative_to(tmp_path)), *WITH_SWEEP)
    assert done.returncode == 0, done.stdout + done.stderr
    moment = (workflow.results / given(1) / "evidence" / "evidence.json").stat().st_mtime
    for path in made.parent.rglob("*"):
        os.utime(path, (moment, moment))
    expected = {told(1, swept)} | training(1) | stage(2, swept) | REPORT
    assert workflow.planned("--config", labelled("anchor: {margin: 0.3}")) == expected
    shutil.rmtree(workflow.directory / ".snakemake")
    assert workflow.planned("--config", labelled("anchor: {margin: 0.3}")) == expected


def test_a_rule_takes_a_core_for_every_thread_and_worker(tmp_path: Path) -> None:
    target = "results/smoke/seed0/pretrain/checkpoint.safetensors"
    cores = ("--cores", "16", "--config", "compute={threads: 2, workers: 3}")
    done = Workflow(tmp_path).run("--dry-run", target, *cores)
    assert re.search(r"^rule train:\n(    .*\n)*    threads: 5\n", done.stdout + done.stderr, re.MULTILINE), done.stderr


@pytest.mark.slow
def test_two_trainers_of_a_rule_write_one_log(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    settings = ("compute={processes: 2}", "runs={pretrain: {batch_norm: frozen, iterations: 5}}")
    done = workflow.run("results/smoke/seed0/pretrain/checkpoint.safetensors", "--config", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (workflow.results / "seed0" / "pretrain" / "log" / "train.txt").read_text()
    assert log.count("5 iterations in") == 1


def test_a_new_method_version_runs_everything_and_a_comment_nothing(finished: Workflow, tmp_path: Path) -> None:
    package = tmp_path / "caguda"
    shutil.copytree(ROOT / "caguda", package, ignore=shutil.ignore_patterns("__pycache__"))
    losses, version = package / "equations" / "losses.py", package / "version.py"
    losses.write_text(losses.read_text() + "# another comment\n")
    assert finished.planned(path=tmp_path) == set()
    version.write_text(version.read_text() + 'METHOD_VERSION = "another"\n')
    assert finished.planned(path=tmp_path) == EVERYTHING


def test_a_second_call_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    workflow = Workflow(tmp_path)
    workflow.results.mkdir(parents=True)
    with (workflow.results / "lock").open("w") as first:
        fcntl.lockf(first, fcntl.LOCK_EX)
        done = workflow.run()
    assert done.returncode != 0 and "one call at a time may work here" in done.stdout + done.stderr
    assert [path.name for path in workflow.results.iterdir()] == ["lock"]


def test_what_is_of_an_earlier_version_is_told_and_a_run_of_such_a_name_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = ("seed0/stage1/labels.json", "seed1/cag/stage1/labels.json", "cag/report.html", "seed0/pretrain/state.pt")
    for name in (*earlier, "reports/cag/report.html", "seed0/cag/stage1/labels/a+b.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    tell_of_earlier_layout(tmp_path, ["source_only", "cag"])
    said = capsys.readouterr().err
    assert said.startswith(f"caguda: {tmp_path}/cag/report.html, {tmp_path}/seed0/pretrain, ")
    assert " and 1 more: results of an earlier version" in said and said.count("\n") == 1
    for name in earlier[:3]:
        (tmp_path / name).unlink()
    tell_of_earlier_layout(tmp_path, ["pretrain", "cag"])
    assert capsys.readouterr().err == ""


def vouching(workflow: Workflow, stage: int, kind: str) -> Path:
    """The JSON beside a store that a stage's training comes from: the evidence, or the labels of a rule."""
    folder = workflow.results / given(stage)
    return folder / "evidence" / "evidence.json" if kind == "evidence" else folder / "labels" / kind / "labels.json"


def remade(workflow: Workflow, path: Path) -> list[str]:
    """What to ask for after the store beside a JSON was deleted: its group file, and the JSON of what is in it."""
    return [str(file.relative_to(workflow.directory)) for file in (path.with_suffix(".zarr") / "zarr.json", path)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "then"), [("evidence", labels(2)), (ANCHOR, {told(2)}), (PROBABILITY, {told(2)})], ids=["evidence", *RULES]
)
def test_a_store_that_was_deleted_comes_back_the_same(
    finished: Workflow, tmp_path: Path, kind: str, then: set[str]
) -> None:
    workflow = finished.copy(tmp_path)
    path = vouching(workflow, 2, kind)
    before = json.loads(path.read_text())
    shutil.rmtree(path.with_suffix(".zarr"))
    done = workflow.run(*remade(workflow, path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(path.read_text())["digest"] == before["digest"]
    assert workflow.planned() == then | training(2) | REPORT


def test_what_fails_is_told_and_nothing_old_passes_for_new(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    change = ("--config", "runs={cag: {optimiser: {learning_rate: 1.0e+30}}}")
    failed = workflow.run(*change)
    assert failed.returncode != 0
    assert "caguda: error: " in failed.stderr and "must be finite" in failed.stderr, failed.stderr
    assert training(1) | stage(2) | REPORT <= workflow.planned(*change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sedes": [1]}, ["sedes", "unknown key"]),
        ({"experiment": None}, ["experiment", "required"]),
        ({"labels": {"margin": 0.1}}, ["labels", "keys of an earlier version"]),
        (
            {"runs": {"pretrain": {"method": "supervised", "iterations": "many"}}, "reports": None, "tables": None},
            ["runs.pretrain.iterations", "'many'"],
        ),
        ({"street": None, "data_root": "/does/not/exist"}, ["data_root", "source.root", "/does/not/exist/source"]),
        ({"data_root": "$CAGUDA_NOT_SET/data"}, ["data_root", "CAGUDA_NOT_SET"]),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line(
    tmp_path: Path, change: dict[str, object], words: list[str]
) -> None:
    values = yaml.safe_load(SMOKE.read_text()) | change
    path = tmp_path / "mistaken.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    done = Workflow(tmp_path, path).run("--dry-run")
    assert done.returncode != 0
    complaint = [line for line in done.stderr.splitlines() if line.startswith("caguda: ")]
    assert len(complaint) == 1 and "Traceback" not in done.stderr
    assert all(word in complaint[0] for word in ["mistaken.yaml", *words]), complaint


OTHER_TRAINERS = [pytest.param(run, marks=pytest.mark.slow) for run in ("pretrain", "warmup", "control", "oracle")]


@pytest.mark.parametrize("run", ["cag/stage1", *OTHER_TRAINERS])
def test_a_killed_training_goes_on_to_the_same_weights(finished: Workflow, tmp_path: Path, run: str) -> None:
    workflow = finished.copy(tmp_path)
    folder = workflow.results / "seed0" / run
    checkpoint = folder / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    checkpoint.unlink()
    shutil.rmtree(folder / "state")
    target = str(checkpoint.relative_to(tmp_path))
    workflow.kill_when((folder / "state" / "state.pt").exists, target)
    assert not checkpoint.exists()
    done = workflow.run(target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "continues after iteration" in (folder / "log" / "train.txt").read_text()
    assert checkpoint.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "written"), [("evidence", "predicted/c.*"), (ANCHOR, "label/c.*")])
def test_a_killed_writer_of_a_store_ends_with_the_same_maps(
    finished: Workflow, tmp_path: Path, kind: str, written: str
) -> None:
    workflow = finished.copy(tmp_path)
    path = vouching(workflow, 1, kind)
    before = json.loads(path.read_text())
    store = path.with_suffix(".zarr")
    shutil.rmtree(store)
    workflow.kill_when(lambda: any(store.glob(written)), *remade(workflow, path))
    done = workflow.run(*remade(workflow, path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(path.read_text())["digest"] == before["digest"]


def shards(store: Path) -> dict[Path, tuple[int, bytes]]:
    """When every shard of a store was written, and what is in it; a shard is a file of each array."""
    files = [path for path in store.glob("*/c.*") if path.parent.name != "image_id"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_rerun_completes_the_missing_part_alone(finished: Workflow, tmp_path: Path) -> None:
    """As a part leaves it that was killed: without its JSON, one shard half written, one not at all. What its journal has stays."""
    workflow = finished.copy(tmp_path)
    folder = workflow.results / given(2) / "evidence"
    store = folder / "evidence.zarr"
    before = shards(store)
    assert {path.name for path in before} == {f"c.{number}.0.0" for number in range(6)}
    lost = {path for path in before if path.name in ("c.3.0.0", "c.5.0.0")}
    assert len(lost) == 2 * 4
    kept_of_a_lost_one = store / "margin" / "c.3.0.0"
    for path in [*lost - {kept_of_a_lost_one}, folder / "evidence.json", folder / "parts" / "evidence.2-of-2.json"]:
        path.unlink()
    (store / "margin" / "c.5.0.0.01234567.partial").write_bytes(b"half")
    done = workflow.run(str((folder / "evidence.json").relative_to(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    after = shards(store)
    assert {path: content for path, (_, content) in after.items()} == {path: b for path, (_, b) in before.items()}
    assert {path for path in before if after[path][0] != before[path][0]} == lost
    assert verified(workflow) == (0, [])


@pytest.mark.slow
def test_labels_that_were_half_written_are_made_whole(finished: Workflow, tmp_path: Path) -> None:
    """As the verb leaves them that was killed: without their JSON, some shards not written, one of them half."""
    workflow = finished.copy(tmp_path)
    path = vouching(workflow, 2, PROBABILITY)
    store = path.with_suffix(".zarr")
    before = shards(store)
    lost = [file for file in before if file.name in ("c.4.0.0", "c.5.0.0")]
    for file in [*lost, path]:
        file.unlink()
    lost[0].with_name(f"{lost[0].name}.01234567.partial").write_bytes(b"half")
    done = workflow.run(str(path.relative_to(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {file: content for file, (_, content) in shards(store).items()} == {
        file: b for file, (_, b) in before.items()
    }
    assert verified(workflow) == (0, [])


def verified(workflow: Workflow) -> tuple[int, list[str]]:
    """The exit code of `verify` on all results, and the faults that it names."""
    done = subprocess.run(
        [sys.executable, "-m", "caguda", "verify", "results"], cwd=workflow.directory, env=environment(), check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, [line for line in done.stdout.splitlines() if line.startswith("fault: ")]


TEST = ("--config", "test={layout: cityscapes, root: target, split: val}")
LAST = "seed0/cag/stage2"


def test_a_submission_needs_no_more_training(finished: Workflow) -> None:
    made = {f"{LAST}/predictions/evaluation.json", f"{LAST}/submission.zip"}
    assert finished.planned("submission") == made | parts(f"{LAST}/predictions/parts/evaluation.{{}}.json")
    of_test = {"manifest.test.json", f"{LAST}/predictions/test.json", f"{LAST}/submission.zip"}
    of_test |= parts(f"{LAST}/predictions/parts/test.{{}}.json")
    assert finished.planned("submission", *TEST) == of_test
    assert finished.planned(*TEST) == set(), "a test set that is added later trains nothing again"


def test_predictions_of_the_training_images_need_no_more_training(finished: Workflow) -> None:
    folder = f"{LAST}/predictions"
    made = {f"{folder}/{name}.json" for name in ("source", "target")}
    jobs = parts(f"{folder}/parts/source.{{}}.json") | parts(f"{folder}/parts/target.{{}}.json")
    assert finished.planned("predictions") == made | jobs


def test_a_submission_from_nothing_takes_the_whole_chain_and_no_evaluation(tmp_path: Path) -> None:
    planned = Workflow(tmp_path).planned("submission")
    assert planned == DATA | {
        *(f"seed0/{run}/checkpoint.safetensors" for run in ("pretrain", "warmup", "cag/stage1", "cag/stage2")),
        *(passes(1) | passes(2) | labels(1) | labels(2)),
        *parts(f"{LAST}/predictions/parts/evaluation.{{}}.json"),
        f"{LAST}/predictions/evaluation.json",
        f"{LAST}/submission.zip",
    }


@pytest.mark.slow
def test_a_submission_runs_to_its_end_and_comes_out_the_same(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    archive = workflow.results / LAST / "submission.zip"
    done = workflow.run("submission", *TEST)
    assert done.returncode == 0, done.stdout + done.stderr
    with ZipFile(archive) as content:
        names = content.namelist()
    assert names == [f"dornbach_{number:06}_000019.png" for number in range(8)]
    assert workflow.planned("submission", *TEST, "compute={parts: 1}") == set()
    assert verified(workflow) == (0, [])
    before = archive.read_bytes()
    folder = archive.with_name("predictions")
    shutil.rmtree(folder)
    archive.unlink()
    done = workflow.run("submission", *TEST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert archive.read_bytes() == before
    (folder / "test" / names[3]).unlink()
    archive.unlink()
    done = workflow.run("submission", *TEST)
    assert done.returncode != 0 and f"{names[3]}: missing" in done.stderr and not archive.exists()
    (folder / "test.json").unlink()
    shutil.rmtree(folder / "parts")
    done = workflow.run("submission", *TEST)
    assert done.returncode == 0 and archive.read_bytes() == before, done.stdout + done.stderr


SOME_LOG = {
    "generate": "log/generate.txt",
    "check": "log/check.txt",
    **{
        f"results/smoke/seed0/{model}/checkpoint.safetensors": f"seed0/{model}/log/train.txt"
        for model in ("pretrain", "warmup", "control", "oracle", "cag/stage1")
    },
    "anchor_part": f"{given(1)}/evidence/log/anchor_part.1-of-2.txt",
    **{rule: f"{given(1)}/evidence/log/{rule}.txt" for rule in ("anchors", "evidence_store", "evidence")},
    "labels": f"{given(1)}/labels/{ANCHOR}/log/labels.txt",
    "diagnose": f"{given(1)}/labels/log/{ANCHOR}+{PROBABILITY}.txt",
    "evidence_part": f"{given(1)}/evidence/log/evidence_part.1-of-2.txt",
    "evaluate": "seed0/cag/stage1/log/evaluate.txt",
    **{rule: f"reports/cag/log/{rule}.txt" for rule in ("table", "figure", "curves")},
    "report_page": "reports/cag/log/report.txt",
}


@pytest.mark.slow
def test_kills_in_every_kind_of_job_change_nothing(finished: Workflow, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path)
    for made, log in SOME_LOG.items():
        since = time.time()
        workflow.kill_when(lambda log=log, since=since: is_written(workflow.results / log, since), "--forcerun", made)
    done = workflow.run()
    assert done.returncode == 0, done.stdout + done.stderr
    for path in sorted(finished.results.rglob("*")):
        other = workflow.results / path.relative_to(finished.results)
        if path.suffix == ".safetensors":
            assert other.read_bytes() == path.read_bytes(), path
        elif path.name in ("evidence.json", "labels.json"):
            assert json.loads(other.read_text())["digest"] == json.loads(path.read_text())["digest"], path
        elif path.name == "evaluation.json":
            assert json.loads(other.read_text())["as_trained"] == json.loads(path.read_text())["as_trained"], path


def is_written(path: Path, since: float) -> bool:
    """Whether a file was opened for writing after a moment."""
    return path.exists() and path.stat().st_mtime > since
