"""The workflow: what it runs, what it runs again after a change, and how it comes back after a SIGKILL."""

import fcntl
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from workflow_runs import ROOT, SMOKE, Workflow, environment

TABLE = {"cag/table.csv", "cag/report.html"}
REPORT = {*TABLE, "cag/figure.png", "cag/curves.png"}
CONTROL = {"seed0/control/checkpoint.safetensors", "seed0/control/evaluation.json"}
ORACLE = {"seed0/oracle/checkpoint.safetensors", "seed0/oracle/evaluation.json"}
WARMUP = {"seed0/warmup/checkpoint.safetensors", "seed0/warmup/evaluation.json"}
PRETRAIN = {"seed0/pretrain/checkpoint.safetensors", "seed0/pretrain/evaluation.json"}
DATA = {"generated.json", "manifest.json"}


def given(stage: int) -> str:
    """The folder of what a stage trains on: that of the first is shared by all recipes."""
    return "stage1" if stage == 1 else f"cag/stage{stage}"


def training(stage: int) -> set[str]:
    """What the training of a stage makes, and what is told about it."""
    return {f"seed0/cag/stage{stage}/{name}" for name in ("checkpoint.safetensors", "evaluation.json")}


def parts(path: str, count: int = 2) -> set[str]:
    """What the parts of an artifact leave."""
    return {path.format(f"{part}-of-{count}") for part in range(1, count + 1)}


def labels(stage: int) -> set[str]:
    """The label store of a stage, and what is told about it."""
    names = ("labels.created.json", "labels.json", "label_accuracy.json")
    return {f"seed0/{given(stage)}/{name}" for name in names} | parts(f"seed0/{given(stage)}/parts/labels.{{}}.json")


def anchors(stage: int) -> set[str]:
    """The anchors of a stage."""
    return {f"seed0/{given(stage)}/anchors.h5"} | parts(f"seed0/{given(stage)}/parts/anchors.{{}}.h5")


def stage(stage: int) -> set[str]:
    """All of a stage."""
    return anchors(stage) | labels(stage) | training(stage)


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


def test_nothing_but_evaluation_and_report_reads_the_bounds_or_the_target_truth(tmp_path: Path) -> None:
    for job in Workflow(tmp_path).plan():
        read = " ".join(job.input)
        if "oracle/" in read or "control/" in read:
            assert job.rule in {"evaluate", "table", "report"}
        if "label_accuracy" in read or "evaluation.json" in read:
            assert job.rule in {"table", "report"}


def test_what_is_finished_is_not_done_again(finished: Workflow) -> None:
    assert finished.planned() == set()
    machine = "{save_every: 3, workers: 2, threads: 2, inference_batch_size: 8, parts: 3}"
    assert finished.planned("--config", f"compute={machine}") == set()


CHANGES = [
    ("labels={margin: 0.2}", labels(1) | training(1) | stage(2) | REPORT),
    ("labels={p0: 0.6}", labels(1) | training(1) | stage(2) | REPORT),
    ("stages={iterations: 30}", training(1) | stage(2) | CONTROL | REPORT),
    ("recipes={cag: {distance: 0.5}}", training(1) | stage(2) | REPORT),
    ("stages={count: 3}", stage(3) | CONTROL | REPORT),
    ("stages={count: 1}", CONTROL | REPORT),
    (
        "recipes={t: {distance: 0, anchor_cross_entropy: 1, probability_cross_entropy: 0}}",
        {name.replace("cag/", "t/") for name in training(1) | stage(2) | REPORT},
    ),
    ("losses={distance: squared_l2}", training(1) | stage(2) | REPORT),
    ("losses={reduction: sum}", EVERYTHING - DATA),
    ("compute={precision: bfloat16}", EVERYTHING - DATA),
    ("anchors={pixels: correct}", stage(1) | stage(2) | REPORT),
    ("anchors={every_stage: false}", labels(2) | training(2) | REPORT),
    ("inference={flip: true}", EVALUATIONS | TABLE | {"cag/figure.png"}),
    ("warmup={iterations: 30}", WARMUP | stage(1) | stage(2) | CONTROL | REPORT),
    ("pretrain={iterations: 30}", EVERYTHING - DATA),
    ("street={strength: 0.6}", EVERYTHING),
    ("source={skip: ['00001']}", EVERYTHING - {"generated.json"}),
    ("seeds=[0,1]", TABLE | {name.replace("seed0", "seed1") for name in EVERYTHING - DATA - REPORT}),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_a_change_runs_what_depends_on_it(finished: Workflow, change: str, expected: set[str]) -> None:
    assert finished.planned("--config", change) == expected


def test_a_rule_takes_a_core_for_every_thread_and_worker(tmp_path: Path) -> None:
    target = "results/smoke/seed0/pretrain/checkpoint.safetensors"
    cores = ("--cores", "16", "--config", "compute={threads: 2, workers: 3}")
    done = Workflow(tmp_path).run("--dry-run", target, *cores)
    assert re.search(r"^rule pretrain:\n(    .*\n)*    threads: 5\n", done.stdout + done.stderr, re.MULTILINE), (
        done.stderr
    )


def test_a_rule_starts_as_many_trainers_as_configured(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    settings = ("compute={processes: 2}", "pretrain={batch_norm: frozen, iterations: 5}")
    done = workflow.run("results/smoke/seed0/pretrain/checkpoint.safetensors", "--config", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (workflow.results / "seed0" / "pretrain" / "log" / "pretrain.txt").read_text()
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


def remade(workflow: Workflow, stage: int) -> list[str]:
    """What to ask for after a label store was deleted: its group file, and the JSON of what is in it."""
    folder = (workflow.results / "seed0" / given(stage)).relative_to(workflow.directory)
    return [str(folder / "labels.zarr" / "zarr.json"), str(folder / "labels.json")]


@pytest.mark.slow
def test_a_label_store_that_was_deleted_comes_back_the_same(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    path = workflow.results / "seed0" / "cag" / "stage2" / "labels.json"
    before = json.loads(path.read_text())
    shutil.rmtree(path.parent / "labels.zarr")
    done = workflow.run(*remade(workflow, 2))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(path.read_text())["digest"] == before["digest"]
    assert workflow.planned() == {"seed0/cag/stage2/label_accuracy.json"} | training(2) | REPORT


def test_what_fails_is_told_and_nothing_old_passes_for_new(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    change = ("--config", "stages={optimiser: {learning_rate: 1.0e+30}}")
    failed = workflow.run(*change)
    assert failed.returncode != 0
    assert "caguda: error: " in failed.stderr and "must be finite" in failed.stderr, failed.stderr
    assert training(1) | stage(2) | REPORT <= workflow.planned(*change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sedes": [1]}, ["sedes", "unknown key"]),
        ({"experiment": None}, ["experiment", "required"]),
        ({"labels": {"margin": "wide"}}, ["labels"]),
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
    (log,) = [path for path in (folder / "log").iterdir() if path.stem in {run, "adapt"}]
    assert "continues after iteration" in log.read_text()
    assert checkpoint.read_bytes() == before


@pytest.mark.slow
def test_a_killed_labelling_ends_with_the_same_labels(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path)
    path = workflow.results / "seed0" / "stage1" / "labels.json"
    before = json.loads(path.read_text())
    store = path.parent / "labels.zarr"
    shutil.rmtree(store)
    workflow.kill_when(lambda: any(store.glob("predicted/c.*")), *remade(workflow, 1))
    done = workflow.run(*remade(workflow, 1))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(path.read_text())["digest"] == before["digest"]


def test_a_rerun_completes_the_missing_part_alone(finished: Workflow, tmp_path: Path) -> None:
    """As a part leaves it that was killed: without its JSON, some images not written, one of them half."""
    workflow = finished.copy(tmp_path)
    stage = workflow.results / "seed0" / "cag" / "stage2"
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in stage.glob("labels.zarr/*/c.*")}
    mine = [path for path in before if path.parent.name != "image_id" and int(path.name.split(".")[1]) >= 12]
    for path in [*mine[::2], stage / "labels.json", stage / "parts" / "labels.2-of-2.json"]:
        path.unlink()
    (stage / "labels.zarr" / "active" / f"{mine[0].name}.01234567.partial").write_bytes(b"half")
    done = workflow.run(str((stage / "labels.json").relative_to(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in stage.glob("labels.zarr/*/c.*")}
    assert {path: content for path, (_, content) in after.items()} == {path: b for path, (_, b) in before.items()}
    assert {path for path in before if after[path][0] != before[path][0]} == set(mine)
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


def test_a_submission_from_nothing_takes_the_whole_chain_and_no_evaluation(tmp_path: Path) -> None:
    planned = Workflow(tmp_path).planned("submission")
    assert planned == DATA | {
        *(f"seed0/{run}/checkpoint.safetensors" for run in ("pretrain", "warmup", "cag/stage1", "cag/stage2")),
        *(anchors(1) | anchors(2) | labels(1) | labels(2)),
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
    **{run: f"seed0/{run}/log/{run}.txt" for run in ("pretrain", "warmup", "control", "oracle")},
    "anchor_part": "seed0/stage1/log/anchor_part.1-of-2.txt",
    **{rule: f"seed0/stage1/log/{rule}.txt" for rule in ("anchors", "label_store", "labels", "diagnose")},
    "adapt": "seed0/cag/stage1/log/adapt.txt",
    "label_part": "seed0/stage1/log/label_part.1-of-2.txt",
    "evaluate": "seed0/cag/stage1/log/evaluate.txt",
    **{rule: f"cag/log/{rule}.txt" for rule in ("table", "figure", "curves", "report")},
}


@pytest.mark.slow
def test_kills_in_every_kind_of_job_change_nothing(finished: Workflow, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path)
    for rule, log in SOME_LOG.items():
        since = time.time()
        workflow.kill_when(lambda log=log, since=since: is_written(workflow.results / log, since), "--forcerun", rule)
    done = workflow.run()
    assert done.returncode == 0, done.stdout + done.stderr
    for path in sorted(finished.results.rglob("*")):
        other = workflow.results / path.relative_to(finished.results)
        if path.suffix == ".safetensors":
            assert other.read_bytes() == path.read_bytes(), path
        elif path.name == "labels.json":
            assert json.loads(other.read_text())["digest"] == json.loads(path.read_text())["digest"], path
        elif path.name == "evaluation.json":
            assert json.loads(other.read_text())["as_trained"] == json.loads(path.read_text())["as_trained"], path


def is_written(path: Path, since: float) -> bool:
    """Whether a file was opened for writing after a moment."""
    return path.exists() and path.stat().st_mtime > since
