"""Runs the workflow in a folder of its own, and reads the plan of a dry run."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parent.parent
SMOKE = ROOT / "tests" / "smoke.yaml"
BLOCK = re.compile(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """One job of a plan: its rule, and its files relative to the experiment's folder."""

    rule: str
    input: tuple[str, ...]
    output: tuple[str, ...]


@dataclass(frozen=True)
class Workflow:
    """The workflow, or one that uses it, at work in `directory` with the configuration file `configfile`."""

    directory: Path
    configfile: Path = SMOKE
    snakefile: Path = ROOT / "workflow" / "Snakefile"

    @property
    def results(self) -> Path:
        """The folder of the experiment."""
        name: str = yaml.safe_load(self.configfile.read_text(encoding="utf-8"))["experiment"]
        return self.directory / "results" / name

    def command(self, *arguments: str) -> list[str]:
        """Snakemake as a person calls it, on two cores."""
        fixed = ["--snakefile", str(self.snakefile), "--directory", str(self.directory)]
        return [sys.executable, "-m", "snakemake", *fixed, "--configfile", str(self.configfile), "--cores", "2",
                *arguments]  # fmt: skip

    def run(self, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A finished call; `path` comes first among the folders that Python imports from."""
        return subprocess.run(
            self.command(*arguments), check=False, cwd=self.directory, env=environment(path), text=True,
            capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def plan(self, *arguments: str, path: Path | None = None) -> list[Job]:
        """The jobs that a call would run, without the target rule; none if there is nothing to be done."""
        done = self.run("--dry-run", *arguments, path=path)
        assert done.returncode == 0, done.stdout + done.stderr
        jobs = [self._job(*match.groups()) for match in BLOCK.finditer(done.stdout + done.stderr)]
        return [job for job in jobs if job.output]

    def planned(self, *arguments: str, path: Path | None = None) -> set[str]:
        """The first output of each job that a call would run."""
        return {job.output[0] for job in self.plan(*arguments, path=path)}

    def kill_when(self, ready: Callable[[], bool], *arguments: str) -> None:
        """Start a call, and SIGKILL it and all its jobs as soon as `ready`."""
        call = Call(self, arguments)
        try:
            while not ready():
                assert call.process.poll() is None, (
                    f"the call ended before it could be killed:\n{call.printed.read_text()}"
                )
                time.sleep(0.005)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(call.process.pid, signal.SIGKILL)
            call.process.wait()

    def copy(self, directory: Path) -> "Workflow":
        """The same state in another folder, to be changed at will."""
        shutil.copytree(self.directory, directory, dirs_exist_ok=True, symlinks=True)
        return Workflow(directory, self.configfile)

    def _job(self, rule: str, body: str) -> Job:
        fields = dict(re.findall(r"^    (input|output): (.*)$", body, re.MULTILINE))
        files = {
            key: tuple(fields.get(key, "").replace("results/smoke/", "").split(", ")) for key in ("input", "output")
        }
        return Job(rule, files["input"], tuple(filter(None, files["output"])))


def environment(path: Path | None = None) -> dict[str, str]:
    """The environment of a call: this checkout is what Python imports, one thread for each process."""
    folders = [str(folder) for folder in (path, os.environ.get("PYTHONPATH"), ROOT) if folder]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}


@dataclass
class Call:
    """A call of Snakemake at work, in a session of its own."""

    workflow: Workflow
    arguments: Sequence[str] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        with self.printed.open("w") as file:
            self.process = subprocess.Popen(
                self.workflow.command(*self.arguments), cwd=self.workflow.directory, env=environment(),
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def printed(self) -> Path:
        """What the call has printed."""
        return self.workflow.directory / "printed.txt"

    def below(self) -> list[psutil.Process]:
        """The processes that this call has started, and those have, as far as they still live."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return [process for process in found if process.pid != self.process.pid]


def verb_of(process: psutil.Process) -> str | None:
    """The verb that a process is; None for anything else."""
    try:
        words = process.cmdline()
        return words[words.index("caguda") + 1] if words[:2] == ["python", "-m"] and "caguda" in words else None
    except (psutil.Error, IndexError):
        return None
