"""One training on two processes: the same losses and weights as one process on the joint batch, killed or not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from miniature import Miniature, as_if_made_with, label_files, values

from caguda.artifacts.checkpoint import load_checkpoint
from caguda.artifacts.labels import LABELS
from caguda.artifacts.state import load_state, lock
from caguda.artifacts.vouched import vouched_store
from caguda.classes import IGNORE
from caguda.configfile import load_configuration
from caguda.errors import UserError
from caguda.stages.runtime import configure_torch

ROOT = Path(__file__).parents[1]
DACS = {"method": "dacs", "start": "pretrain", "threshold": 0.3}
PRODA = {"method": "proda", "start": "pretrain"}
MIC = DACS | {"method": "mic", "block": 8, "feature_weight": 1.0, "source_sampling": {"least_pixels": 20}}
FROZEN = {
    "training__batch_norm": "frozen", "runs__pretrain__iterations": 6, "runs__dacs": DACS, "runs__proda": PRODA, "runs__mic": MIC,
}  # fmt: skip
BEFORE = {"warmup": "pretrain", "cag/stage1": "warmup", **dict.fromkeys(("dacs", "proda", "mic"), "pretrain")}


def folder_of(model: str, started: int) -> str:
    """The folder of a model that `started` processes train."""
    return f"{model.replace('/', '-')}-{started}"


def command(mini: Miniature, made: Miniature, model: str, started: int, **changes: Any) -> list[str]:
    """The call that trains a model on `started` processes, with the artifacts that `made` has."""
    name = folder_of(model, started)
    config = mini.folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(values(mini.root, **(FROZEN | changes))), encoding="utf-8")
    settings = load_configuration(config)
    inputs: list[object] = []
    if before := BEFORE.get(model):
        inputs = ["--start", as_if_made_with(settings, made.weights(before), mini.folder / before)]
    if model == "cag/stage1":
        labelling = mini.label("labels", settings, mini.weights("warmup"))
        inputs += ["--anchors", labelling.with_name("anchors.h5"), "--labels", *label_files(labelling)]
    fixed = ["--config", config, "--seed", "0", "--model", model, "--manifest", mini.manifest]
    outputs = ["--output", mini.weights(name), "--state", mini.folder / name / "state"]
    return [sys.executable, "-m", "caguda", "train", *map(str, [*fixed, *inputs, *outputs])]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=False, capture_output=True, text=True, env=environment(), timeout=300)


def trained(mini: Miniature, made: Miniature, model: str, started: int, **changes: Any) -> tuple[Any, Any]:
    """The history of the losses and the weights of a training."""
    done = run(command(mini, made, model, started, compute__processes=started, **changes))
    assert done.returncode == 0, done.stdout + done.stderr
    weights, description = load_checkpoint(mini.weights(folder_of(model, started)))
    assert done.stdout.count(f"iterations in {description['metrics']['seconds']:.0f} s") == 1, "only one speaks"
    return description["metrics"]["history"], weights


@pytest.mark.parametrize(
    ("model", "reduction"),
    [
        ("cag/stage1", "sum"),
        *(
            pytest.param(model, "mean", marks=pytest.mark.slow)
            for model in ("pretrain", "warmup", "cag/stage1", "dacs", "proda", "mic")
        ),
    ],
)
def test_two_processes_train_as_one(mini: Miniature, elsewhere: Miniature, model: str, reduction: str) -> None:
    changes: dict[str, Any] = {"training__reduction": reduction}
    if reduction == "sum":  # thousands of times a mean
        changes["runs__cag__optimiser"] = {"name": "sgd", "learning_rate": 1e-7}
    alone, weights = trained(elsewhere, mini, model, 1, **changes)
    together, joint = trained(elsewhere, mini, model, 2, **changes)
    assert len(alone) == len(together) == 6
    for first, second in zip(alone, together, strict=True):
        assert first == pytest.approx(second, rel=2e-5)
    for name, value in weights.items():
        torch.testing.assert_close(joint[name], value, rtol=1e-4, atol=1e-6)
    before, _ = load_checkpoint(mini.weights(BEFORE.get(model, "pretrain")))
    moved = max(float((before[name] - value).abs().max()) for name, value in weights.items())
    assert moved > 1e-5, "or nothing was trained"


def test_the_halves_of_a_batch_have_labels_of_different_number(mini: Miniature) -> None:
    """Else the test above could not tell a mean over the whole batch from a mean of two means."""
    for file in label_files(mini.folder / "labels" / "labels.json"):
        store = vouched_store(file, LABELS)
        counts = {int((store.read(index, "label") != IGNORE).sum()) for index in range(store.count)}
        assert len(counts) > 4


def interrupted(words: list[str], ready: Path, number: int) -> int:
    """The exit code of a call whose whole group got a signal once a file was there."""
    process = subprocess.Popen(
        words, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not ready.exists():
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.002)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    return process.wait(120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "number"),
    [("cag/stage1", signal.SIGKILL), ("cag/stage1", signal.SIGTERM), ("dacs", signal.SIGKILL)],
)
def test_a_killed_training_of_two_goes_on_to_the_same_weights(
    mini: Miniature, elsewhere: Miniature, tmp_path: Path, model: str, number: signal.Signals
) -> None:
    run_of_model = model.partition("/")[0]
    changes = {"compute__processes": 2, "compute__save_every": 1, f"runs__{run_of_model}__iterations": 60}
    folder = folder_of(model, 2)
    words = command(elsewhere, mini, model, 2, **changes)
    other = replace(elsewhere, folder=tmp_path / "other")
    other.folder.mkdir()
    shutil.copy(elsewhere.manifest, other.manifest)
    undisturbed = run(command(other, mini, model, 2, **changes))
    assert undisturbed.returncode == 0, undisturbed.stderr
    state = elsewhere.folder / folder / "state" / "state.pt"
    assert interrupted(words, state, number) != 0
    saved = load_state(state)
    assert saved is not None and 0 < saved["progress"]["iteration"] < 60
    done = run(words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("continues after iteration") == 1
    assert elsewhere.weights(folder).read_bytes() == other.weights(folder).read_bytes()
    description = json.loads(elsewhere.weights(folder).with_suffix(".json").read_text())
    assert description["metrics"]["attempts"] == 2


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines on stderr."""
    return done.stderr.splitlines()


def test_what_cannot_be_shared_is_refused_in_one_line(mini: Miniature, elsewhere: Miniature) -> None:
    done = run(command(elsewhere, mini, "pretrain", 2, compute__processes=2, training__batch_norm="train"))
    assert done.returncode == 2 and len(told(done)) == 1, done.stderr
    assert told(done)[0].startswith("caguda: error: ") and "batch_norm: train over several processes" in told(done)[0]
    assert not elsewhere.weights("pretrain-2").exists()


@pytest.mark.slow
def test_a_second_trainer_of_two_is_turned_away(mini: Miniature, elsewhere: Miniature) -> None:
    words = command(elsewhere, mini, "pretrain", 2, compute__processes=2)
    with lock(elsewhere.folder / "pretrain-2" / "state"):
        done = run(words)
    assert done.returncode == 75 and len(told(done)) == 1, done.stderr
    assert "one trainer at a time may work here" in done.stderr


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("caguda.stages.runtime.rank", lambda: 1)
    with pytest.raises(UserError, match=r"compute\.processes: each process needs a GPU of its own, found 1"):
        configure_torch(1)
