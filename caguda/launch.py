"""The processes of a verb: they end with their workflow, and those that share a training start and end together.

No torch.
"""

import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

GRACE = 5.0  # seconds in which the other processes may report when one has failed


@dataclass(frozen=True)
class Outcome:
    """The end of a verb: its exit code, its message for stderr, and whether that is a fault of the program."""

    code: int
    message: str = ""
    fault: bool = False


Work = Callable[[], Outcome]


def launch(processes: int, work: Work) -> Outcome:
    """The outcome of `work` in as many new processes, which connect by `parallel`.

    SIGTERM and SIGINT are passed on to all of them. When one fails the others are ended, and the outcome is the cause: an
    error that a process reports, else the signal that killed one, else a fault of the program. The processes end with this
    one, even on SIGKILL.
    """
    context, received, started = get_context("spawn"), list[int](), list[SpawnProcess]()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        _signal(started, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    receivers: dict[Connection, SpawnProcess] = {}
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for rank in range(processes):
                receiver, sender = context.Pipe(duplex=False)
                group = (rank, processes, listener.getsockname()[1], listener if rank == 0 else None)
                process = context.Process(target=_take_part, args=(group, sender, work))
                process.start()
                sender.close()
                started.append(process)
                receivers[receiver] = process
        for number in received:  # before all processes had started
            _signal(started, number)
        reports, killed = _outcomes(receivers)
    finally:
        _signal(started, signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)
    return _cause(reports, [process for process in started if process not in killed], received)


def _signal(processes: list[SpawnProcess], number: int) -> None:
    for process in processes:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)


def _outcomes(receivers: dict[Connection, SpawnProcess]) -> tuple[list[Outcome], list[SpawnProcess]]:
    """The reports of all processes, after all have ended, and the processes killed because another one failed."""
    reports: list[Outcome] = []
    killed: list[SpawnProcess] = []
    deadline: float | None = None
    while receivers:
        for receiver in wait(list(receivers), None if deadline is None else max(0.0, deadline - time.monotonic())):
            assert isinstance(receiver, Connection)
            try:
                reports.append(receiver.recv())
            except EOFError:
                process = receivers.pop(receiver)
                process.join()
                if process.exitcode:
                    deadline = deadline or time.monotonic() + GRACE
        if any(report.code for report in reports):
            deadline = deadline or time.monotonic() + GRACE
        if deadline is not None and time.monotonic() >= deadline:
            killed = list(receivers.values())
            _signal(killed, signal.SIGKILL)
            for process in killed:
                process.join()
            break
    return reports, killed


def _cause(reports: list[Outcome], ended: list[SpawnProcess], received: list[int]) -> Outcome:
    """The outcome that caused the others, from the reports and the exit codes of processes that ended by themselves."""
    failed = [report for report in reports if report.code]
    if errors := [report for report in failed if not report.fault]:
        return errors[0]
    if deaths := [-process.exitcode for process in ended if process.exitcode is not None and process.exitcode < 0]:
        if received:
            return Outcome(128 + received[0])
        name = signal.Signals(deaths[0]).name
        return Outcome(
            128 + deaths[0],
            f"caguda: error: one of the processes that share this training was ended by {name}, SIGKILL often for want of "
            "memory; the same command goes on from the last saved state",
        )
    return failed[0] if failed else Outcome(max(process.exitcode or 0 for process in ended))


def _take_part(group: tuple[int, int, int, socket.socket | None], sender: Connection, work: Work) -> None:
    """Run one of the processes: connect to the others, work, and report the outcome. `group` is for `parallel.join`."""
    signal.signal(signal.SIGINT, _interrupt_once)
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # otherwise libraries print many lines when another process ends
    try:
        from caguda.stages import parallel  # imports torch, which the launcher does not need

        parallel.join(*group)
        outcome = work()
    except SystemExit as end:
        outcome = Outcome(end.code if isinstance(end.code, int) else 1)
    except KeyboardInterrupt:
        outcome = Outcome(128 + signal.SIGINT, "caguda: interrupted")
    except BaseException:  # noqa: BLE001  the launcher prints it
        outcome = Outcome(1, traceback.format_exc().rstrip(), fault=True)
    sender.send(outcome)
    sys.exit(outcome.code)


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """Obey the first SIGINT alone: Ctrl-C reaches a process twice, from the terminal and from the launcher."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_the_launcher() -> None:
    launcher = parent_process()
    assert launcher is not None
    launcher.join()
    os._exit(1)


def end_with(workflow: str | None) -> None:
    """Send SIGTERM to this process when the Snakemake that started it ends; `workflow` is the process id of Snakemake.

    Otherwise a verb would work on after a SIGKILL of Snakemake, beside the verbs of the next call. An id that is no
    ancestor of this process came with the environment from elsewhere and is ignored. Linux only.
    """
    if workflow is None or not workflow.isdecimal() or not hasattr(os, "pidfd_open"):
        return
    try:
        pidfd = os.pidfd_open(int(workflow))
    except ProcessLookupError:
        print(
            f"caguda: error: the workflow that this verb is of has ended, process {workflow}; give its command again, or "
            "`unset CAGUDA_WORKFLOW` to call a verb by hand",
            file=sys.stderr,
        )
        sys.exit(128 + signal.SIGTERM)
    except (OSError, OverflowError):  # an old kernel, or no process id
        return
    if int(workflow) not in _ancestors():
        os.close(pidfd)
        return

    def terminate_after() -> None:
        select.select([pidfd], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate_after, daemon=True).start()


def _ancestors() -> Iterator[int]:
    """The ids of the parent process, its parent, and so on."""
    process = os.getpid()
    with suppress(OSError):  # the process has ended meanwhile, or belongs to another user
        while process > 1:
            yield (process := int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]))
