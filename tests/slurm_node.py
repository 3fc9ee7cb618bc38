"""A Slurm cluster of one node on this machine, from Debian's packages, on ports and in folders of its own."""

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
MinJobAge=600
KillWait=10
GresTypes=gpu
StateSaveLocation={folder}/slurmctld
SlurmdSpoolDir={folder}/slurmd
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=65536 Gres=gpu:4
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
GPUS = "".join(f"NodeName={{host}} Name=gpu File=/dev/{name}\n" for name in ("null", "zero", "full", "random"))
APT = ("apt-get", "--yes", "--option=DPkg::Lock::Timeout=120")
ETC = Path("/etc/slurm")  # the one place where a job step that is started from a job looks


@contextmanager
def slurm_node(folder: Path) -> Iterator[None]:
    """Slurm is installed and runs inside the block: a node that claims 8 cores and 4 GPUs, and no accounting.

    Afterwards the machine is as it was. Skips where Slurm cannot be had.
    """
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("Slurm: snakemake-executor-plugin-slurm is not installed; pip install -e '.[slurm]'")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("Slurm: needs root, and Debian's packages")
    if (ETC / "slurm.conf").exists():
        pytest.skip(f"Slurm: {ETC}/slurm.conf is there already, a Slurm that is left alone")
    munge = {name: folder / f"munge.{name}" for name in ("socket", "key-file", "pid-file", "log-file", "seed-file")}
    with _installed("munge", "slurm-client", "slurmctld", "slurmd"), _configured(folder), ExitStack() as daemons:
        munge["key-file"].write_bytes(os.urandom(1024))
        munge["key-file"].chmod(0o600)
        daemons.enter_context(
            _running(folder, "munged", "--force", "--foreground", *(f"--{k}={v}" for k, v in munge.items()))
        )
        wait_until(munge["socket"].exists, 30)
        daemons.enter_context(_running(folder, "slurmctld", "-D"))
        daemons.enter_context(_running(folder, "slurmd", "-D"))
        wait_until(lambda: "idle" in output("sinfo", "--noheader", "--format=%t"), 60)
        yield
        output("scancel", "--user=root")
        wait_until(lambda: not output("squeue", "--noheader"), 60)


def output(*command: str) -> str:
    """What a command prints on stdout."""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def wait_until(ready: Callable[[], bool], seconds: float) -> None:
    """Returns as soon as `ready`; an error after so many seconds."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"not ready after {seconds} s"
        time.sleep(0.05)


@contextmanager
def _installed(*packages: str) -> Iterator[None]:
    """These packages are there inside the block. With Slurm's client and no Slurm every later Snakemake starts slowly."""
    before = _packages()
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "capture_output": True, "text": True}
    for command in (["update"], ["install", "--no-install-recommends", *packages]):
        done = subprocess.run([*APT, *command], check=False, **quiet)
        if done.returncode:
            pytest.skip(f"Slurm: Debian's packages cannot be had ({done.stderr.strip().splitlines()[-1]})")
    try:
        yield
    finally:
        subprocess.run([*APT, "purge", *(_packages() - before)], check=True, **quiet)


def _packages() -> set[str]:
    return set(output("dpkg-query", "--show", "--showformat=${Package}\n").splitlines())


@contextmanager
def _configured(folder: Path) -> Iterator[None]:
    """Slurm's configuration is where Slurm looks for it inside the block."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("", 0))
        other.bind(("", 0))
        ports = [one.getsockname()[1], other.getsockname()[1]]
    for name in ("slurmctld", "slurmd"):
        (folder / name).mkdir()
    files = {ETC / "slurm.conf": CONFIGURATION, ETC / "gres.conf": GPUS}
    try:
        for path, text in files.items():
            path.write_text(text.format(host=platform.node(), folder=folder, ports=ports))
        yield
    finally:
        for path in files:
            path.unlink(missing_ok=True)


@contextmanager
def _running(folder: Path, *command: str) -> Iterator[None]:
    """A daemon that ends with the block."""
    with (folder / f"{command[0]}.txt").open("w") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            daemon.terminate()
            daemon.wait(60)
