"""What a verb inherits from where it is called: variables of clusters and launchers, folders for temporary files."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from miniature import Miniature, label_files, values
from workflow_runs import environment

from caguda.artifacts.labels import LABELS
from caguda.artifacts.vouched import vouched_store
from caguda.cli import main
from caguda.config_run import DomainName
from caguda.datasets import workers
from caguda.datasets.loader import LabelMaps
from caguda.errors import UserError
from caguda.recorded_settings import settings_of_run
from caguda.runs import method_of
from caguda.stages.runtime import configure_torch
from caguda.stages.train import training_fingerprint
from caguda.stages.training_frames import _PseudoLabels, open_frames

INHERITED = {
    "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "7", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "x", "ROLE_RANK": "1",
    "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "junk", "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "1", "SLURM_JOB_ID": "12", "PMI_RANK": "1", "PMI_SIZE": "2", "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1", "CUDA_VISIBLE_DEVICES": "", "CAGUDA_WORKFLOW": "junk", "CAGUDA_RANK": "1",
    "PYTHONSTARTUP": "/nowhere/startup.py", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9",
    "GLOO_SOCKET_IFNAME": "nothing0", "CUBLAS_WORKSPACE_CONFIG": "junk", "OMP_NUM_THREADS": "3",
}  # fmt: skip


def pretraining(mini: Miniature, folder: Path, **changes: object) -> list[str]:
    """The words of a call that trains `pretrain` and writes to a folder."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(values(mini.root, **changes)), encoding="utf-8")
    outputs = ["--output", folder / "checkpoint.safetensors", "--state", folder / "state"]
    fixed = ["--config", config, "--seed", 0, "--model", "pretrain", "--manifest", mini.manifest]
    return ["train", *map(str, [*fixed, *outputs])]


def call(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """A finished call in a process of its own, with more environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "caguda", *words], check=False, capture_output=True, text=True,
        env=environment() | variables, timeout=240,
    )  # fmt: skip


def weights(folder: Path) -> bytes:
    return (folder / "checkpoint.safetensors").read_bytes()


def test_variables_of_clusters_and_launchers_mean_nothing(
    mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in INHERITED.items():
        monkeypatch.setenv(name, value)
    assert main(pretraining(mini, tmp_path)) == 0
    assert weights(tmp_path) == mini.weights("pretrain").read_bytes()


@pytest.mark.slow
def test_variables_of_clusters_mean_nothing_to_processes_that_share_a_training(mini: Miniature, tmp_path: Path) -> None:
    words = pretraining(
        mini, tmp_path, compute__processes=2, runs__pretrain__batch_norm="frozen", runs__pretrain__iterations=2
    )
    done = call(words, **INHERITED)
    assert done.returncode == 0 and done.stderr == "", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["long", "missing", "relative"])
def test_any_folder_for_temporary_files_will_do(mini: Miniature, tmp_path: Path, kind: str) -> None:
    folder = {"long": tmp_path / ("t" * 120), "missing": tmp_path / "missing", "relative": Path("here")}[kind]
    if kind == "long":
        folder.mkdir()
    done = call(pretraining(mini, tmp_path, compute__workers=2), TMPDIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path) == mini.weights("pretrain").read_bytes()
    assert not folder.exists() or list(folder.iterdir()) == []


def test_frames_are_checked_with_a_long_folder_for_temporary_files(mini: Miniature, tmp_path: Path) -> None:
    folder = tmp_path / ("t" * 120)
    folder.mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values(mini.root)), encoding="utf-8")
    done = call(["check", "--config", str(config), "--output", str(tmp_path / "manifest.json")], TMPDIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "manifest.json").exists()


def test_no_folder_for_temporary_files_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.tempfile, "tempdir", str(tmp_path / ("t" * 120)))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(
        UserError, match=r"^TMPDIR: must be a writable folder with a path of at most 70 bytes, found .+$"
    ):
        workers.fork_server([])


def test_a_stage_is_the_same_with_workers(mini: Miniature, elsewhere: Miniature) -> None:
    configuration = mini.configuration(compute__workers=2)
    made = elsewhere.stage("stage", configuration, mini.weights("warmup"), mini.folder / "labels" / "labels.json")
    assert made.read_bytes() == mini.weights("stage").read_bytes()


@pytest.mark.parametrize("domain", ["source", "target"])
def test_frames_for_training_can_be_sent_to_another_process(mini: Miniature, domain: DomainName) -> None:
    configuration = mini.configuration()
    method = method_of(configuration, "cag/stage1")
    opened = open_frames(configuration, mini.manifest, (), method)
    maps: LabelMaps = opened.truth("source")
    if domain == "target":
        stores = [vouched_store(file, LABELS) for file in label_files(mini.folder / "labels" / "labels.json")]
        maps = _PseudoLabels({store.attributes["rule"]["name"]: store for store in stores})
    frames = opened.training(domain, method, "stage 1", 0, maps)
    before = frames[3]  # files may be open by now
    after = pickle.loads(pickle.dumps(frames))[3]
    assert before.keys() == after.keys() and len(before) == (2 if domain == "source" else 3)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("tf32", [True, False])
def test_products_are_rounded_to_tf32_where_the_configuration_says_so_alone(elsewhere: Miniature, tf32: bool) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not tf32
    try:
        elsewhere.train("one", "pretrain", elsewhere.configuration(compute__tf32=tf32, runs__pretrain__iterations=1))
        assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is tf32
    finally:
        configure_torch(1)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32, "the default"


def test_tf32_is_off_unless_asked_for_and_decides_weights(mini: Miniature) -> None:
    def found(**changes: bool) -> str:
        configuration = mini.configuration(**changes)
        frames = open_frames(configuration, mini.manifest, (), method_of(configuration, "pretrain"))
        return training_fingerprint(frames, 0, settings_of_run(configuration, "pretrain"), ())

    assert not mini.configuration().compute.tf32
    assert found() != found(compute__tf32=True)
