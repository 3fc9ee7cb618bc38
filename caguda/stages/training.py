"""The one training loop: methods differ only in their step."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, AdamW, Optimizer
from tqdm import tqdm

from caguda.artifacts.checkpoint import not_finite
from caguda.artifacts.state import count_attempt, load_state, lock, save_state
from caguda.config_run import Optimiser, Training
from caguda.datasets.loader import Sample
from caguda.equations.schedule import poly
from caguda.errors import UserError
from caguda.networks.layers.network import ParameterGroup, SegmentationNetwork
from caguda.stages.parallel import all_reduce_max, all_reduce_sum, broadcast, print_once, rank, size

Batch = tuple[Sample, ...]
Step = Callable[[Batch, int], Iterator[tuple[Tensor, Mapping[str, Tensor]]]]
REPORTS = 25
PATIENCE = 30  # seconds that a batch may take to come once a signal has


@dataclass(frozen=True)
class Job:
    """What is trained: modules, their optimisers, batches from an iteration on, and the step that is taken on each in an iteration.

    A step yields objectives, each with the loss terms to report; each is differentiated before the next is asked for,
    so that what one needed in memory is free for the next. Gradients add up. Modules without an optimiser are kept and
    saved. `of` says which model it is: its saved state is that of no other.
    """

    name: str
    modules: Mapping[str, nn.Module]
    optimisers: Mapping[str, Optimizer]
    batches: Callable[[int], Iterator[Batch]]
    step: Step
    training: Training
    scaler: GradScaler
    of: str = ""
    after_update: Callable[[], None] = lambda: None


@dataclass
class Progress:
    """How far a training has come, and the mean of every loss term in each finished window of iterations."""

    iteration: int
    seconds: float
    attempts: int
    sums: dict[str, float]
    history: list[dict[str, float]]


def build_optimiser(module: nn.Module, settings: Optimiser, rate: float) -> Optimizer:
    """The optimiser of the module's trainable weights; `rate` is the learning rate at the start of the poly schedule.

    That of each of a network's groups is its factor times the rate, from the first iteration to the last.
    """
    groups = [
        {"params": [weight for weight in group.weights if weight.requires_grad], "initial_lr": rate * group.factor}
        for group in _groups_of(module)
    ]
    if settings.name == "sgd":
        return SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True)
    return AdamW(groups, lr=rate, weight_decay=settings.weight_decay)


def _groups_of(module: nn.Module) -> list[ParameterGroup]:
    """A network's own parameter groups, which must have all its weights; of another module one group."""
    if not isinstance(module, SegmentationNetwork):
        return [ParameterGroup(1.0, list(module.parameters()))]
    groups = module.parameter_groups()
    grouped = {weight for group in groups for weight in group.weights}
    if missing := [name for name, weight in module.named_parameters() if weight not in grouped]:
        raise ValueError(f"parameter_groups must have every weight of the network, found none with {missing[0]}")
    return groups


def train(job: Job, directory: Path, fingerprint: str, save_every: int) -> Progress:
    """The progress of a finished training; the job's modules hold the trained weights.

    The whole state is saved in `directory` every `save_every` iterations and on SIGTERM or SIGINT, and one with the
    same `fingerprint` is continued from: data and random numbers are functions of the iteration, so that an
    interrupted training ends with the weights of an undisturbed one. A loss that is not finite raises UserError before
    it reaches the weights, and weights that are not finite before they reach the state. Raises LockHeld when another
    process trains here, SystemExit(128 + n) after signal n. Of several processes the first locks, saves and speaks.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state, end = directory / "state.pt", job.training.iterations
    with lock(directory) if rank() == 0 else nullcontext(), _Signals() as signals:
        progress = _restore(job, state, fingerprint)
        if rank() == 0:
            progress.attempts = count_attempt(directory / "attempts.txt", fingerprint)
        batches = job.batches(progress.iteration)
        positions = range(progress.iteration, end)
        silent = rank() > 0 or not sys.stderr.isatty()
        for iteration in tqdm(positions, job.name, end, initial=progress.iteration, disable=silent):
            started = time.monotonic()
            torch.manual_seed(iteration * size() + rank())
            _set_rates(job, iteration)
            _record(job, progress, _gradients(job, partial(signals.wait_for, batches), iteration))
            _update(job)
            job.after_update()
            progress.iteration = iteration + 1
            progress.seconds += time.monotonic() - started
            stop = all_reduce_max(signals.received[0] if signals.received else 0)
            if stop or progress.iteration % save_every == 0 or progress.iteration == end:
                _refuse_broken_weights(job, progress)
                if rank() == 0:
                    save_state(state, _state(job, progress, fingerprint))
            if stop:
                all_reduce_max(0)  # none ends before the first has saved
                print_once(f"{job.name}: stopped by signal {stop} after iteration {progress.iteration}; state saved")
                raise SystemExit(128 + stop)
    return progress


def _set_rates(job: Job, iteration: int) -> None:
    settings = job.training.optimiser
    factor = poly(iteration, settings.poly_iterations or job.training.iterations, settings.poly_power)
    for optimiser in job.optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor


def _gradients(job: Job, next_batch: Callable[[], Batch], iteration: int) -> dict[str, float]:
    """The loss terms, means over the batches of one update and over all processes; fills the gradients likewise."""
    sums: dict[str, Tensor] = {}
    for _ in range(job.training.accumulate):
        for objective, terms in job.step(next_batch(), iteration):
            job.scaler.scale(objective / job.training.accumulate).backward()
            for name, value in terms.items():
                sums[name] = value.detach() + sums.get(name, 0.0)
    means = all_reduce_sum(torch.stack(list(sums.values()))) / (size() * job.training.accumulate)
    return dict(zip(sums, means.tolist(), strict=True))


def _update(job: Job) -> None:
    for optimiser in job.optimisers.values():
        job.scaler.step(optimiser)
        optimiser.zero_grad(set_to_none=True)
    job.scaler.update()


def _record(job: Job, progress: Progress, terms: Mapping[str, float]) -> None:
    broken = [name for name, value in terms.items() if not math.isfinite(value)]
    if broken:
        values = ", ".join(f"{name} = {value:g}" for name, value in terms.items())
        raise UserError(
            f"{job.name}: every loss term must be finite, but at iteration {progress.iteration} {', '.join(broken)} "
            f"is not ({values}); the weights before it are kept: lower the learning rate and start again"
        )
    for name, value in terms.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value
    end, done = job.training.iterations, progress.iteration + 1
    if done % max(end // REPORTS, 1) and done != end:
        return
    since = done - int(progress.history[-1]["iteration"] if progress.history else 0)
    means = {name: value / since for name, value in progress.sums.items()}
    progress.history.append({"iteration": done, **means})
    progress.sums = {}
    if rank() == 0:
        tqdm.write(f"{job.name} {done}/{end}  " + "  ".join(f"{n} {v:.4g}" for n, v in means.items()))


def _refuse_broken_weights(job: Job, progress: Progress) -> None:
    """A finite loss may have a gradient that is not; a state that holds its result could never be resumed from."""
    for module in job.modules.values():
        if name := not_finite(module.state_dict()):
            raise UserError(
                f"{job.name}: every weight must be finite, but after iteration {progress.iteration} {name} is not; "
                "the state saved before it is kept: lower the learning rate and start again"
            )


def _state(job: Job, progress: Progress, fingerprint: str) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "of": job.of,
        "modules": {name: module.state_dict() for name, module in job.modules.items()},
        "optimisers": {name: optimiser.state_dict() for name, optimiser in job.optimisers.items()},
        "scaler": job.scaler.state_dict(),
        "progress": vars(progress),
    }


def _restore(job: Job, path: Path, fingerprint: str) -> Progress:
    """How far the first process's state has come, which all go on from; UserError if they have not read the same inputs."""
    state, first = broadcast((load_state(path), fingerprint) if rank() == 0 else (None, ""))
    if all_reduce_max(int(first != fingerprint)):
        raise UserError(
            f"{job.name}: all processes of a training must read the same inputs, found different ones: files were changed "
            "while they were read; give the same command again"
        )
    if state is not None and (found := state.get("of", job.of)) != job.of:
        raise UserError(
            f"{path}: the training state must be of {job.of}, found that of {found}; name a folder of its own for the state"
        )
    if state is None or state["fingerprint"] != fingerprint:
        if state is not None:
            print_once(f"{job.name}: {path} was made with other settings or inputs; starting afresh")
        return Progress(0, 0.0, 0, {}, [])
    _refuse_unfit(job, state, path)
    for name, module in job.modules.items():
        module.load_state_dict(state["modules"][name])
    for name, optimiser in job.optimisers.items():
        optimiser.load_state_dict(state["optimisers"][name])
    job.scaler.load_state_dict(state["scaler"])
    progress = Progress(**state["progress"])
    print_once(f"{job.name}: continues after iteration {progress.iteration} of {job.training.iterations}")
    return progress


def _refuse_unfit(job: Job, state: Mapping[str, Any], path: Path) -> None:
    """UserError unless a state has all that this training resumes from, and an iteration within it."""
    keys = {
        "modules": job.modules.keys(),
        "optimisers": job.optimisers.keys(),
        "scaler": (),
        "progress": ("iteration",),
    }
    missing = [key for key, names in keys.items() if not {*names} <= {*state.get(key, {})} or key not in state]
    if missing:
        raise UserError(f"{path}: a training state must have {', '.join(keys)}, found none or a part of {missing[0]}; "
                        "name another folder for the state")  # fmt: skip
    if not 0 <= (done := state["progress"]["iteration"]) <= job.training.iterations:
        raise UserError(f"{path}: a training state must be of iteration 0 to {job.training.iterations}, found {done}; "
                        "name another folder for the state")  # fmt: skip


class _Signals:
    """A context in which SIGTERM and SIGINT are noted, to be acted on between two iterations."""

    def __enter__(self) -> Self:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})  # a starter may have blocked them
        self.received: list[int] = []
        self._waits = False
        handlers = {signal.SIGTERM: self._note, signal.SIGINT: self._note, signal.SIGALRM: self._give_up}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def wait_for(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; SystemExit(128 + n) if it has not come some time after signal n, as it may never come."""
        self._waits = True
        if self.received:
            signal.alarm(PATIENCE)
        try:
            return next(batches)
        finally:
            self._waits = False
            signal.alarm(0)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)
        if self._waits:
            signal.alarm(PATIENCE)

    def _give_up(self, _number: int, _frame: FrameType | None) -> None:
        if self._waits:
            stop = self.received[0]
            print(
                f"stopped by signal {stop} while no batch came for {PATIENCE} s; the last saved state is kept",
                flush=True,
            )
            raise SystemExit(128 + stop)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
