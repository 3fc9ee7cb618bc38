"""The processes of a verb: ended with their workflow, and started, watched and ended together where several share a training.

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

GRACE = 5.0  # seconds in which the others may say what they have to say when one has failed


@dataclass(frozen=True)
class Outcome:
    """How a verb ended: its exit code, what it has to say on stderr, and whether that is a fault of the program."""

    code: int
    said: str = ""
    fault: bool = False


Work = Callable[[], Outcome]


def launch(processes: int, work: Work) -> Outcome:
    """What `work` ends with in as many new processes, which find each other by `parallel`.

    SIGTERM and SIGINT are handed on to all of them. When one fails the others are ended, and the cause is what is
    told: an error that a process reports, else the signal that killed one, else a fault of the program. Processes end
    with this one, SIGKILL included.
    """
    context, received, started = get_context("spawn"), list[int](), list[SpawnProcess]()

    def hand_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        _signal(started, number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    ends: dict[Connection, SpawnProcess] = {}
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for rank in range(processes):
                receiver, sender = context.Pipe(duplex=False)
                place = (rank, processes, listener.getsockname()[1], listener if rank == 0 else None)
                process = context.Process(target=_take_part, args=(place, sender, work))
                process.start()
                sender.close()
                started.append(process)
                ends[receiver] = process
        for number in received:  # which may have come before all were there
            _signal(started, number)
        reports, killed = _outcomes(ends)
    finally:
        _signal(started, signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)
    return _cause(reports, [process for process in started if process not in killed], received)


def _signal(processes: list[SpawnProcess], number: int) -> None:
    for process in processes:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)


def _outcomes(ends: dict[Connection, SpawnProcess]) -> tuple[list[Outcome], list[SpawnProcess]]:
    """What the processes have reported, and those that were ended as another one had failed; all have ended."""
    reports: list[Outcome] = []
    killed: list[SpawnProcess] = []
    deadline: float | None = None
    while ends:
        for receiver in wait(list(ends), None if deadline is None else max(0.0, deadline - time.monotonic())):
            assert isinstance(receiver, Connection)
            try:
                reports.append(receiver.recv())
            except EOFError:
                process = ends.pop(receiver)
                process.join()
                if process.exitcode:
                    deadline = deadline or time.monotonic() + GRACE
        if any(report.code for report in reports):
            deadline = deadline or time.monotonic() + GRACE
        if deadline is not None and time.monotonic() >= deadline:
            killed = list(ends.values())
            _signal(killed, signal.SIGKILL)
            for process in killed:
                process.join()
            break
    return reports, killed


def _cause(reports: list[Outcome], ended: list[SpawnProcess], received: list[int]) -> Outcome:
    """Of all that was reported, and of exit codes, what the others have followed from."""
    failed = [report for report in reports if report.code]
    if told := [report for report in failed if not report.fault]:
        return told[0]
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


def _take_part(place: tuple[int, int, int, socket.socket | None], report: Connection, work: Work) -> None:
    """One of the processes: it meets the others, works, and reports how that ended."""
    signal.signal(signal.SIGINT, _interrupt_once)
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # libraries would tell at length that another process has ended
    try:
        from caguda.stages import parallel  # torch, which the launcher does without

        parallel.join(*place)
        outcome = work()
    except SystemExit as end:
        outcome = Outcome(end.code if isinstance(end.code, int) else 1)
    except KeyboardInterrupt:
        outcome = Outcome(128 + signal.SIGINT, "caguda: interrupted")
    except BaseException:  # noqa: BLE001  the launcher tells it
        outcome = Outcome(1, traceback.format_exc().rstrip(), fault=True)
    report.send(outcome)
    sys.exit(outcome.code)


def _interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """Ctrl-C reaches a process twice, from the terminal and from the launcher."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_the_launcher() -> None:
    launcher = parent_process()
    assert launcher is not None
    launcher.join()
    os._exit(1)


def end_with(workflow: str | None) -> None:
    """From now on SIGTERM reaches this process when `workflow` has ended, the Snakemake that a rule started it from.

    A verb would otherwise work on after a SIGKILL of Snakemake, unseen, beside those of the next call. A number that is
    none of a process above this one has come with the environment from elsewhere and means nothing. Linux only.
    """
    if workflow is None or not workflow.isdecimal() or not hasattr(os, "pidfd_open"):
        return
    try:
        opened = os.pidfd_open(int(workflow))
    except ProcessLookupError:
        print(
            f"caguda: error: the workflow that this verb is of has ended, process {workflow}; give its command again, or "
            "`unset CAGUDA_WORKFLOW` to call a verb by hand",
            file=sys.stderr,
        )
        sys.exit(128 + signal.SIGTERM)
    except (OSError, OverflowError):  # a kernel without it, or no number of a process
        return
    if int(workflow) not in _above():
        os.close(opened)
        return

    def wait() -> None:
        select.select([opened], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _above() -> Iterator[int]:
    """The process that started this one, the one that started that, and so on."""
    process = os.getpid()
    with suppress(OSError):  # it has ended meanwhile, or belongs to somebody else
        while process > 1:
            yield (process := int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]))
