"""The training loop of all methods: resumable, for one or several processes."""

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
from torch.optim import Optimizer
from tqdm import tqdm

from caguda.artifacts.checkpoint import not_finite
from caguda.artifacts.state import count_attempt, load_state, lock, save_state
from caguda.config_run import Training
from caguda.errors import UserError
from caguda.networks.layers.dropout import seed_of
from caguda.stages.optimisers import set_rates
from caguda.stages.parallel import all_reduce_max, all_reduce_sum, broadcast, print_once, rank, size
from caguda.stages.session import Batch, Objective

Step = Callable[[Batch, int], Iterator[Objective]]
LOSS_WINDOWS = 25  # about as many means of every loss term are recorded
PATIENCE = 30  # seconds that a batch may still take after a signal


@dataclass(frozen=True)
class TrainingSetup:
    """The modules of one training, their optimisers, its batches and losses.

    `batches(i)` yields the batches from iteration i on. `step(batch, iteration)` is a generator of objectives: the
    loop calls backward() on each before it resumes the generator, so that memory of the graph is freed. Gradients add
    up. Modules without an optimiser are saved but not trained. `identity` names the model that a saved state belongs to.
    `seed` decides the random numbers of every step.
    """

    name: str
    modules: Mapping[str, nn.Module]
    optimisers: Mapping[str, Optimizer]
    batches: Callable[[int], Iterator[Batch]]
    step: Step
    settings: Training
    scaler: GradScaler
    identity: str = ""
    seed: int = 0
    after_update: Callable[[], None] = lambda: None


@dataclass
class Progress:
    """The finished iterations of a training, and the mean of every loss term in each finished window of iterations."""

    iteration: int
    seconds: float
    attempts: int
    sums: dict[str, float]
    history: list[dict[str, float]]


def train(setup: TrainingSetup, directory: Path, fingerprint: str, save_every: int) -> Progress:
    """Train the modules of a setup to the end, and return the progress.

    The state is saved in `directory` every `save_every` iterations and on SIGTERM or SIGINT. A state with the same
    `fingerprint` is resumed. The data and random numbers of an iteration do not depend on earlier iterations, so an
    interrupted training ends with the weights of an undisturbed one. UserError if a loss is not finite, before the update
    of the weights, and if weights are not finite, before the state is saved. LockHeld if another process trains here,
    SystemExit(128 + n) after signal n. Of several processes, rank 0 locks, saves and prints.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state, end = directory / "state.pt", setup.settings.iterations
    with lock(directory) if rank() == 0 else nullcontext(), _Signals() as signals:
        progress = _restore(setup, state, fingerprint)
        if rank() == 0:
            progress.attempts = count_attempt(directory / "attempts.txt", fingerprint)
        batches = setup.batches(progress.iteration)
        positions = range(progress.iteration, end)
        silent = rank() > 0 or not sys.stderr.isatty()
        for iteration in tqdm(positions, setup.name, end, initial=progress.iteration, disable=silent):
            started = time.monotonic()
            torch.manual_seed(seed_of(setup.seed, iteration, rank()))
            set_rates(setup.optimisers.values(), setup.settings, iteration)
            _record(setup, progress, compute_gradients(setup, partial(signals.next_batch, batches), iteration))
            update_weights(setup)
            setup.after_update()
            progress.iteration = iteration + 1
            progress.seconds += time.monotonic() - started
            stop = all_reduce_max(signals.received[0] if signals.received else 0)
            if stop or progress.iteration % save_every == 0 or progress.iteration == end:
                _refuse_broken_weights(setup, progress)
                if rank() == 0:
                    save_state(state, _state(setup, progress, fingerprint))
            if stop:
                all_reduce_max(0)  # a barrier: no process ends before rank 0 has saved
                print_once(f"{setup.name}: stopped by signal {stop} after iteration {progress.iteration}; state saved")
                raise SystemExit(128 + stop)
    return progress


def compute_gradients(setup: TrainingSetup, next_batch: Callable[[], Batch], iteration: int) -> dict[str, float]:
    """Compute the gradients of one update; return the loss terms, means over its batches and all processes."""
    sums: dict[str, Tensor] = {}
    for _ in range(setup.settings.accumulate):
        for objective, terms in _objectives(setup, next_batch(), iteration):
            setup.scaler.scale(objective / setup.settings.accumulate).backward()
            for name, value in terms.items():
                sums[name] = value.detach() + sums.get(name, 0.0)
    means = all_reduce_sum(torch.stack(list(sums.values()))) / (size() * setup.settings.accumulate)
    return dict(zip(sums, means.tolist(), strict=True))


def _objectives(setup: TrainingSetup, batch: Batch, iteration: int) -> Iterator[Objective]:
    """The objectives of a step. UserError unless it yields at least one, each a pair of a loss and its terms by name."""
    must = f"{setup.name}: the step of a method must yield pairs of a loss and its terms by name, tensors of one number"
    objectives: Any = setup.step(batch, iteration)
    if not isinstance(objectives, Iterator):
        raise UserError(f"{must}, found {type(objectives).__name__}; correct the method")
    objective = None
    for objective in objectives:
        is_pair = isinstance(objective, tuple) and len(objective) == 2 and isinstance(objective[1], Mapping)
        tensors = [objective[0], *objective[1].values()] if is_pair else []
        if len(tensors) < 2 or not all(isinstance(value, Tensor) and value.numel() == 1 for value in tensors):
            raise UserError(f"{must}, found {objective!r:.60}; correct the method")
        yield objective
    if objective is None:
        raise UserError(f"{must}, found none; correct the method")


def update_weights(setup: TrainingSetup) -> None:
    """Update the weights of all optimisers by their gradients, and clear these."""
    for optimiser in setup.optimisers.values():
        setup.scaler.step(optimiser)
        optimiser.zero_grad(set_to_none=True)
    setup.scaler.update()


def _record(setup: TrainingSetup, progress: Progress, terms: Mapping[str, float]) -> None:
    broken = [name for name, value in terms.items() if not math.isfinite(value)]
    if broken:
        values = ", ".join(f"{name} = {value:g}" for name, value in terms.items())
        raise UserError(
            f"{setup.name}: every loss term must be finite, but at iteration {progress.iteration} {', '.join(broken)} "
            f"is not ({values}); the weights before it are kept: lower the learning rate and start again"
        )
    for name, value in terms.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value
    end, done = setup.settings.iterations, progress.iteration + 1
    if done % max(end // LOSS_WINDOWS, 1) and done != end:
        return
    window = done - int(progress.history[-1]["iteration"] if progress.history else 0)
    means = {name: value / window for name, value in progress.sums.items()}
    progress.history.append({"iteration": done, **means})
    progress.sums = {}
    if rank() == 0:
        tqdm.write(f"{setup.name} {done}/{end}  " + "  ".join(f"{n} {v:.4g}" for n, v in means.items()))
        sys.stdout.flush()  # a log would have the line at the end of the training otherwise


def _refuse_broken_weights(setup: TrainingSetup, progress: Progress) -> None:
    """UserError unless all weights are finite: a finite loss may have infinite gradients."""
    for module in setup.modules.values():
        if name := not_finite(module.state_dict()):
            raise UserError(
                f"{setup.name}: every weight must be finite, but after iteration {progress.iteration} {name} is not; "
                "the state saved before it is kept: lower the learning rate and start again"
            )


def _state(setup: TrainingSetup, progress: Progress, fingerprint: str) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "of": setup.identity,
        "modules": {name: module.state_dict() for name, module in setup.modules.items()},
        "optimisers": {name: optimiser.state_dict() for name, optimiser in setup.optimisers.items()},
        "scaler": setup.scaler.state_dict(),
        "progress": vars(progress),
    }


def _restore(setup: TrainingSetup, path: Path, fingerprint: str) -> Progress:
    """Load the state that rank 0 has read into all processes; UserError unless all have read the same inputs."""
    state, expected = broadcast((load_state(path), fingerprint) if rank() == 0 else (None, ""))
    if all_reduce_max(int(expected != fingerprint)):
        raise UserError(
            f"{setup.name}: all processes of a training must read the same inputs, found different ones: files were changed "
            "while they were read; give the same command again"
        )
    if state is not None and (found := state.get("of", setup.identity)) != setup.identity:
        raise UserError(
            f"{path}: the training state must be of {setup.identity}, found that of {found}; name a folder of its own for the state"
        )
    if state is None or state["fingerprint"] != fingerprint:
        if state is not None:
            print_once(f"{setup.name}: {path} was made with other settings or inputs; starting afresh")
        return Progress(0, 0.0, 0, {}, [])
    _refuse_unfit(setup, state, path)
    for name, module in setup.modules.items():
        module.load_state_dict(state["modules"][name])
    for name, optimiser in setup.optimisers.items():
        optimiser.load_state_dict(state["optimisers"][name])
    setup.scaler.load_state_dict(state["scaler"])
    progress = Progress(**state["progress"])
    print_once(f"{setup.name}: continues after iteration {progress.iteration} of {setup.settings.iterations}")
    return progress


def _refuse_unfit(setup: TrainingSetup, state: Mapping[str, Any], path: Path) -> None:
    """UserError unless a state has all parts that this training needs, and an iteration within it."""
    keys = {
        "modules": setup.modules.keys(),
        "optimisers": setup.optimisers.keys(),
        "scaler": (),
        "progress": ("iteration",),
    }
    missing = [key for key, names in keys.items() if not {*names} <= {*state.get(key, {})} or key not in state]
    if missing:
        raise UserError(f"{path}: a training state must have {', '.join(keys)}, found none or a part of {missing[0]}; "
                        "name another folder for the state")  # fmt: skip
    if not 0 <= (done := state["progress"]["iteration"]) <= setup.settings.iterations:
        raise UserError(f"{path}: a training state must be of iteration 0 to {setup.settings.iterations}, found {done}; "
                        "name another folder for the state")  # fmt: skip


class _Signals:
    """A context that records SIGTERM and SIGINT, so that the loop can stop between two iterations."""

    def __enter__(self) -> Self:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})  # a parent may have blocked them
        self.received: list[int] = []
        self._waits = False
        handlers = {signal.SIGTERM: self._receive, signal.SIGINT: self._receive, signal.SIGALRM: self._give_up}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; SystemExit(128 + n) if it does not come within PATIENCE seconds after signal n."""
        self._waits = True
        if self.received:
            signal.alarm(PATIENCE)
        try:
            return next(batches)
        finally:
            self._waits = False
            signal.alarm(0)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)
        if self._waits:
            signal.alarm(PATIENCE)

    def _give_up(self, _number: int, _frame: FrameType | None) -> None:
        if self._waits:
            stop = self.received[0]
            print(f"stopped by signal {stop}: no batch came for {PATIENCE} s; the last saved state is kept", flush=True)
            raise SystemExit(128 + stop)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
