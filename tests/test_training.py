"""The training loop: whatever interrupts it, it ends with the weights of an undisturbed run."""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from caguda.artifacts.state import load_state, lock
from caguda.cli import main
from caguda.config_run import Training
from caguda.config_training import Optimiser
from caguda.errors import LockHeld, UserError
from caguda.networks.layers.network import ParameterGroup, SegmentationNetwork
from caguda.networks.small import SmallNetwork
from caguda.stages import training
from caguda.stages.optimisers import build_optimiser
from caguda.stages.session import Batch, Objective
from caguda.stages.training import TrainingSetup, train

ITERATIONS, SAVE_EVERY = 50, 10
SGD = Optimiser(name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-3)
NO_SCALING = GradScaler("cpu", enabled=False)
ADAMW = Optimiser(name="adamw", learning_rate=0.01, weight_decay=1e-2)
Fault = Callable[[int, dict[str, Tensor]], None]

# A fork of this process, in which other tests have computed with several threads, would hang at its first OpenMP loop.
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["caguda.stages.training"])


def toy_setup(
    fault: Fault = lambda iteration, terms: None, *, iterations: int = ITERATIONS, power: float = 0.9
) -> TrainingSetup:
    """Two modules, two optimisers, batches by position, dropout by the iteration's random numbers."""
    torch.set_num_threads(1)  # results depend on it, and another test may have left more
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
    judge = nn.Linear(2, 1)
    optimisers = {"network": build_optimiser(network, ADAMW, 0.01), "judge": build_optimiser(judge, SGD, 0.02)}

    def batches(start: int) -> Iterator[Batch]:
        for position in range(start, iterations):
            generator = torch.Generator().manual_seed(position)
            yield {"source": {"image": torch.randn(6, 3, generator=generator), "position": torch.tensor(position)}}

    def step(batch: Batch, iteration: int) -> Iterator[Objective]:
        sample = batch["source"]
        output = network(sample["image"])
        terms = {"fit": (output - 1).square().mean(), "judged": judge(output.detach()).square().mean() + 1}
        objectives = list(terms.values())
        fault(int(sample["position"]), terms)
        for objective, (name, value) in zip(objectives, terms.items(), strict=True):
            yield objective, {name: value}

    modules = {"network": network, "judge": judge}
    return TrainingSetup("toy", modules, optimisers, batches, step, settings(iterations, power), NO_SCALING)


def test_progress_is_in_the_log_while_the_training_goes_on(tmp_path: Path) -> None:
    log, sizes = tmp_path / "train.txt", list[int]()
    with log.open("w") as file, contextlib.redirect_stdout(file):
        train(toy_setup(lambda _iteration, _terms: sizes.append(log.stat().st_size)), tmp_path, "f", SAVE_EVERY)
    assert sizes[0] == 0 < sizes[ITERATIONS // 2] < log.stat().st_size


def settings(iterations: int, power: float = 0.9, **changes: Any) -> Training:
    optimiser = {"name": "sgd", "learning_rate": 0.1, "poly_power": power} | changes.pop("optimiser", {})
    content = {"iterations": iterations, "batch_size": 6, "batch_norm": "train", "optimiser": optimiser}
    return Training.model_validate(content | changes)


def apart(target: Callable[..., Any], *arguments: Any) -> int | None:
    """The exit code of a call in a process of its own, minus the signal that killed it."""
    process = CLEAN.Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def flat(value: Any) -> Any:
    """Nested values that == compares: tensors become their bytes."""
    if isinstance(value, Tensor):
        return (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, Mapping):
        return {key: flat(item) for key, item in value.items()}
    return [flat(item) for item in value] if isinstance(value, list | tuple) else value


def content(directory: Path) -> dict[str, Any]:
    """Everything of a state but how long it took and in how many attempts."""
    state = load_state(directory / "state.pt")
    assert state is not None
    state["progress"] = {k: v for k, v in state["progress"].items() if k not in ("seconds", "attempts")}
    return dict(flat(state))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("undisturbed")
    setup = toy_setup()
    progress = train(setup, directory, "f", SAVE_EVERY)
    assert progress.iteration == ITERATIONS and progress.attempts == 1
    assert flat(setup.modules["network"].state_dict()) == content(directory)["modules"]["network"]
    return content(directory)


def interruption(kind: str, at: int) -> Fault:
    def fault(iteration: int, terms: dict[str, Tensor]) -> None:
        if iteration == at and kind == "exception":
            raise RuntimeError("the step failed")
        if iteration == at:
            os.kill(os.getpid(), getattr(signal, kind))

    return fault


def interrupted(directory: Path, kind: str, at: int) -> None:
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  (open until the process ends)
    train(toy_setup(interruption(kind, at)), directory, "f", SAVE_EVERY)


def waiting_for_ever(directory: Path) -> None:
    """A training that gets SIGTERM while its second batch does not come."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  (open until the process ends)
    training.PATIENCE = 1
    setup = toy_setup()

    def batches(start: int) -> Iterator[Batch]:
        yield next(setup.batches(start))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    train(replace(setup, batches=batches), directory, "f", 1)


def test_a_signal_ends_a_training_whose_batch_never_comes(tmp_path: Path) -> None:
    assert apart(waiting_for_ever, tmp_path) == 143
    state = load_state(tmp_path / "state.pt")
    assert state is not None and state["progress"]["iteration"] == 1


CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGKILL": -9, "exception": 1}
INTERRUPTIONS = [(kind, at) for kind in ("SIGTERM", "SIGKILL") for at in (0, 9, 10, 13, ITERATIONS - 1)]


@pytest.mark.parametrize(("kind", "at"), [*INTERRUPTIONS, ("SIGINT", 13), ("exception", 9), ("exception", 13)])
def test_an_interrupted_training_ends_as_an_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, Any], kind: str, at: int
) -> None:
    assert apart(interrupted, tmp_path, kind, at) == CODES[kind]
    saved = at // SAVE_EVERY * SAVE_EVERY if kind in ("SIGKILL", "exception") else at + 1
    state = load_state(tmp_path / "state.pt")
    assert (0 if state is None else state["progress"]["iteration"]) == saved
    torch.rand(at + 1)
    setup = toy_setup()
    progress = train(setup, tmp_path, "f", SAVE_EVERY)
    assert content(tmp_path) == undisturbed
    assert flat(setup.modules["network"].state_dict()) == undisturbed["modules"]["network"]
    assert progress.attempts == 2 and progress.seconds > 0


def test_many_interruptions_are_as_one(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    for kind, at in (("SIGTERM", 2), ("SIGKILL", 12), ("SIGTERM", 16), ("exception", 23), ("SIGTERM", 30)):
        assert apart(interrupted, tmp_path, kind, at) == CODES[kind]
    progress = train(toy_setup(), tmp_path, "f", 7)
    assert content(tmp_path) == undisturbed and progress.attempts == 6


def test_a_signal_saves_says_so_and_exits_with_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        train(toy_setup(interruption("SIGTERM", 5)), tmp_path, "f", SAVE_EVERY)
    assert stopped.value.code == 128 + 15
    assert "toy: stopped by signal 15 after iteration 6; state saved" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
    with lock(tmp_path):
        pass


def test_a_finished_training_is_published_again_without_a_step(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    train(toy_setup(), tmp_path, "f", SAVE_EVERY)

    def never(_batch: Batch, _iteration: int) -> Iterator[Objective]:
        raise AssertionError("a finished training made a step")

    setup = toy_setup()
    setup = replace(setup, step=never)
    progress = train(setup, tmp_path, "f", SAVE_EVERY)
    assert progress.iteration == ITERATIONS
    assert flat(progress.history) == undisturbed["progress"]["history"]
    assert flat(setup.modules["network"].state_dict()) == undisturbed["modules"]["network"]


@pytest.mark.parametrize(("name", "value"), [("fit", float("nan")), ("judged", float("inf"))])
def test_a_loss_that_is_not_finite_is_refused_and_the_state_stays_sound(
    tmp_path: Path, undisturbed: dict[str, Any], name: str, value: float
) -> None:
    def fault(iteration: int, terms: dict[str, Tensor]) -> None:
        if iteration == 10:
            for weight in setup.modules["network"].parameters():
                weight.grad = torch.full_like(weight, torch.nan)
            terms[name] = torch.tensor(value)

    setup = toy_setup(fault)
    with pytest.raises(UserError) as caught:
        train(setup, tmp_path, "f", SAVE_EVERY)
    message = str(caught.value)
    assert "toy" in message and "iteration 10" in message and f"{name} is not" in message and "\n" not in message
    assert f"{name} = {value:g}" in message and message.count(" = ") == 2
    weights = [value for module in setup.modules.values() for value in module.state_dict().values()]
    assert all(bool(weight.isfinite().all()) for weight in weights)
    train(toy_setup(), tmp_path, "f", SAVE_EVERY)
    assert content(tmp_path) == undisturbed


@pytest.mark.parametrize("at", [9, 11, ITERATIONS - 1])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, undisturbed: dict[str, Any], at: int) -> None:
    """A finite loss may have a gradient that is not; such weights must neither be resumed from nor published."""

    def fault(iteration: int, terms: dict[str, Tensor]) -> None:
        if iteration == at:
            for weight in setup.modules["network"].parameters():
                weight.grad = torch.full_like(weight, torch.inf)

    setup = toy_setup(fault)
    with pytest.raises(UserError, match="finite"):
        train(setup, tmp_path, "f", SAVE_EVERY)
    train(toy_setup(), tmp_path, "f", SAVE_EVERY)
    assert content(tmp_path) == undisturbed


def test_other_settings_start_afresh_and_say_so(
    tmp_path: Path, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train(toy_setup(interruption("SIGTERM", 20)), tmp_path, "other", SAVE_EVERY)
    capsys.readouterr()
    progress = train(toy_setup(), tmp_path, "f", SAVE_EVERY)
    assert f"{tmp_path / 'state.pt'} was made with other settings or inputs; starting afresh" in capsys.readouterr().out
    assert content(tmp_path) == undisturbed and progress.attempts == 1


def test_resuming_says_where_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train(toy_setup(interruption("SIGTERM", 20)), tmp_path, "f", SAVE_EVERY)
    train(toy_setup(), tmp_path, "f", SAVE_EVERY)
    assert f"toy: continues after iteration 21 of {ITERATIONS}" in capsys.readouterr().out


def test_a_damaged_state_starts_afresh(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    (tmp_path / "state.pt").write_bytes(b"no state")
    train(toy_setup(), tmp_path, "f", SAVE_EVERY)
    assert content(tmp_path) == undisturbed


def hold(directory: Path, ready: Any, release: Any) -> None:
    def fault(iteration: int, terms: dict[str, Tensor]) -> None:
        if iteration == 2:
            ready.set()
            release.wait(60)

    train(toy_setup(fault, iterations=4), directory, "f", SAVE_EVERY)


def test_a_second_trainer_is_refused_while_the_first_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ready, release = CLEAN.Event(), CLEAN.Event()
    first = CLEAN.Process(target=hold, args=(tmp_path, ready, release))
    first.start()
    try:
        assert ready.wait(60)
        with pytest.raises(LockHeld, match=f"pid {first.pid}"):
            train(toy_setup(), tmp_path, "f", SAVE_EVERY)
        monkeypatch.setattr(
            "caguda.stages.generate.generate", lambda **_: train(toy_setup(), tmp_path, "f", SAVE_EVERY)
        )
        demo = Path(__file__).parents[1] / "config" / "demo.yaml"
        assert main(["generate", "--config", str(demo), "--output", "unused.json"]) == 75
        printed = capsys.readouterr().err
        assert printed.startswith(f"caguda: error: {tmp_path}: ") and printed.count("\n") == 1
    finally:
        release.set()
        first.join(60)
    assert first.exitcode == 0


@pytest.mark.parametrize("power", [0.9, 0.0])
def test_every_optimiser_follows_the_poly_schedule_from_its_own_rate(tmp_path: Path, power: float) -> None:
    rates: dict[str, list[float]] = {"network": [], "judge": []}

    def fault(iteration: int, terms: dict[str, Tensor]) -> None:
        for name, optimiser in setup.optimisers.items():
            rates[name] += [group["lr"] for group in optimiser.param_groups]
        if iteration == 3 and len(rates["judge"]) == 4:
            raise KeyboardInterrupt

    setup = toy_setup(fault, iterations=8, power=power)
    with pytest.raises(KeyboardInterrupt):
        train(setup, tmp_path, "f", 2)
    setup = toy_setup(fault, iterations=8, power=power)
    train(setup, tmp_path, "f", 2)
    for name, start in (("network", 0.01), ("judge", 0.02)):
        expected = [start * (1 - iteration / 8) ** power for iteration in [0, 1, 2, 3, 2, 3, 4, 5, 6, 7]]
        assert rates[name] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("iterations", [1, 24, 25, 60, 61])
def test_the_history_holds_the_means_of_consecutive_windows(tmp_path: Path, iterations: int) -> None:
    seen: dict[int, dict[str, float]] = {}

    def fault(iteration: int, terms: dict[str, Tensor]) -> None:
        seen[iteration] = {name: float(value.detach()) for name, value in terms.items()}

    history = train(toy_setup(fault, iterations=iterations), tmp_path, "f", 1000).history
    ends = [0, *(int(entry["iteration"]) for entry in history)]
    assert ends[-1] == iterations and min(25, iterations) <= len(history) <= 31
    for start, entry in zip(ends, history, strict=False):
        window = range(start, int(entry["iteration"]))
        assert entry.keys() == {"iteration", "fit", "judged"} and len(window) > 0
        for name in ("fit", "judged"):
            assert entry[name] == pytest.approx(sum(seen[i][name] for i in window) / len(window), rel=1e-9)
    json.dumps(history, allow_nan=False)


def test_gradients_do_not_pile_up(tmp_path: Path) -> None:
    """One step of SGD by hand: two iterations move the weight by the sum of their own gradients."""
    weight = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(weight.weight)
    plain = Optimiser(name="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.0)

    def step(batch: Batch, iteration: int) -> Iterator[Objective]:
        loss = weight(batch["source"]["x"]).sum()
        yield loss, {"loss": loss}

    def batches(start: int) -> Iterator[Batch]:
        return ({"source": {"x": torch.full((1, 1), float(i + 1))}} for i in range(start, 3))

    optimisers = {"w": build_optimiser(weight, plain, 0.1)}
    train(
        TrainingSetup("sum", {"w": weight}, optimisers, batches, step, settings(3, 0.0), NO_SCALING), tmp_path, "f", 9
    )
    assert weight.weight.item() == pytest.approx(-0.1 * (1 + 2 + 3))


@pytest.mark.parametrize(("name", "power"), [("sgd", 0.9), ("sgd", 2.0), ("adamw", 0.9)])
def test_a_factor_multiplies_the_learning_rate_along_the_whole_schedule(
    tmp_path: Path, name: Literal["sgd", "adamw"], power: float
) -> None:
    """Of weights whose gradient is always 1, each update is the learning rate itself, of plain SGD as of AdamW."""
    factors, iterations, rate = {"encoder": 1.0, "transformer": 3.0, "classifier": 10.0}, 20, 0.01
    parts = [nn.Conv2d(1, 1, 1).double() for _ in factors]
    network = SegmentationNetwork("unit", *parts, factors={k: v for k, v in factors.items() if v != 1})
    plain = Optimiser(name=name, learning_rate=rate, momentum=0.0, weight_decay=0.0, poly_power=power)
    seen: list[list[float]] = []

    def step(batch: Batch, iteration: int) -> Iterator[Objective]:
        seen.append([part.weight.item() for part in parts])
        total = torch.stack([weight.sum() for weight in network.parameters()]).sum()
        yield total, {"total": total}

    batches = ({"source": {"x": torch.zeros(1)}} for _ in range(iterations))
    optimisers = {"network": build_optimiser(network, plain, rate)}
    told = settings(iterations, power, optimiser={"name": name})
    train(TrainingSetup("factors", {"network": network}, optimisers, lambda _: batches, step, told, NO_SCALING),
          tmp_path, "f", 9)  # fmt: skip
    seen.append([part.weight.item() for part in parts])
    for k, (before, after) in enumerate(pairwise(seen)):
        moved = [old - new for old, new in zip(before, after, strict=True)]
        assert moved == pytest.approx([rate * f * (1 - k / iterations) ** power for f in factors.values()], rel=1e-5)


def test_a_warm_up_multiplies_the_rates_of_all_optimisers(tmp_path: Path) -> None:
    rates: dict[str, list[float]] = {"network": [], "judge": []}

    def fault(iteration: int, terms: dict[str, Tensor]) -> None:
        for name, optimiser in setup.optimisers.items():
            rates[name] += [group["lr"] for group in optimiser.param_groups]

    warm = settings(8, 0.9, optimiser={"warmup_iterations": 4})
    setup = replace(toy_setup(fault, iterations=8), settings=warm)
    train(setup, tmp_path, "f", 8)
    for name, start in (("network", 0.01), ("judge", 0.02)):
        rising = [0, 1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1]
        assert rates[name] == pytest.approx([start * f * (1 - i / 8) ** 0.9 for i, f in enumerate(rising)], rel=1e-12)


class TwoHeads(SegmentationNetwork):
    """A network with groups and a head of its own: that of the encoder has half of the rate of the rest."""

    def __init__(self) -> None:
        super().__init__("unit", *(nn.Conv2d(1, 1, 1) for _ in range(3)))
        self.further = nn.Linear(1, 1)

    def parameter_groups(self) -> list[ParameterGroup]:
        mixed = [self.encoder.bias, *self.transformer.parameters(), *self.further.parameters()]
        return [ParameterGroup(0.5, [self.encoder.weight]), ParameterGroup(1.0, mixed),
                ParameterGroup(3.0, list(self.classifier.parameters()))]  # fmt: skip


def rates_of(network: SegmentationNetwork, factor: float) -> dict[str, float]:
    """The initial rate of every weight by its name."""
    optimiser = build_optimiser(network, SGD.model_copy(update={"head_factor": factor}), 0.1)
    found = [(id(weight), group["initial_lr"]) for group in optimiser.param_groups for weight in group["params"]]
    assert len(found) == len(dict(found)) == len(list(network.parameters())), "every weight is in one group"
    return {name: dict(found)[id(weight)] for name, weight in network.named_parameters()}


@pytest.mark.parametrize("factor", [10.0, 0.5])
def test_the_head_is_every_weight_outside_the_encoder(factor: float) -> None:
    small = SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=8).build(3)
    for network in (small, TwoHeads()):
        plain, found = rates_of(network, 1.0), rates_of(network, factor)
        for name, rate in found.items():
            assert rate == pytest.approx(plain[name] * (1 if name.startswith("encoder.") else factor)), name
        assert {name.partition(".")[0] for name in found} >= {"encoder", "transformer", "classifier"}


def test_a_network_without_factors_has_one_group_of_its_weights_in_their_order() -> None:
    network = SmallNetwork(name="small", width=4, blocks=(1, 1, 1, 1), feature_channels=8).build(3)
    (group,) = build_optimiser(network, SGD, 0.3).param_groups
    assert len(group["params"]) == len(list(network.parameters())) and group["initial_lr"] == 0.3
    assert all(one is other for one, other in zip(group["params"], network.parameters(), strict=True))


def test_optimisers_are_as_configured_and_leave_frozen_weights_out() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    for settings, kind in ((SGD, torch.optim.SGD), (ADAMW, torch.optim.AdamW)):
        optimiser = build_optimiser(module, settings, 0.3)
        (group,) = optimiser.param_groups
        assert type(optimiser) is kind and group["params"] == list(module[1].parameters())
        assert (group["lr"], group["weight_decay"]) == (0.3, settings.weight_decay)
        assert settings.name == "adamw" or (group["momentum"], group["nesterov"]) == (0.9, False)
