"""The moving average of a student's weights, against loops over numbers and the public outputs of DACS."""

import copy

import pytest
import torch
from golden_methods import golden, network_of_dacs
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from caguda.equations.teacher import ema_decay, update_teacher


@pytest.mark.parametrize("iteration", [0, 5, 500])
def test_the_teacher_after_an_iteration_is_that_of_dacs(iteration: int) -> None:
    arrays = golden("dacs")
    teacher = network_of_dacs(arrays, "teacher_before")
    expected = network_of_dacs(arrays, f"teacher_after_iteration{iteration}").state_dict()
    update_teacher(teacher, network_of_dacs(arrays, "student"), ema_decay(iteration, 0.99))
    parameters = {name for name, _ in teacher.named_parameters()}
    for name, found in teacher.state_dict().items():
        tolerance = {"rtol": 2e-5, "atol": 1e-7} if name in parameters else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(found, expected[name], **tolerance, msg=name)
    assert len(expected) == 9 and len(parameters) == 6


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_decay_grows_from_zero_to_its_end(iteration: int, decay: float) -> None:
    found = ema_decay(iteration, decay)
    assert 0 <= found <= decay and found <= ema_decay(iteration + 1, decay)
    assert found == pytest.approx(min(iteration / (iteration + 1), decay), abs=1e-12)
    assert ema_decay(0, decay) == 0


@given(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=9))
def test_the_teacher_is_the_mean_of_all_students_until_the_decay_is_reached(weights: list[float]) -> None:
    teacher, student = (nn.Linear(1, 1, bias=False).double() for _ in range(2))
    for iteration, weight in enumerate(weights):
        nn.init.constant_(student.weight, weight)
        update_teacher(teacher, student, ema_decay(iteration, 1.0))
        seen = weights[: iteration + 1]
        assert teacher.weight.item() == pytest.approx(sum(seen) / len(seen), abs=1e-9)


@given(st.floats(0, 1), st.integers(0, 2**31), st.booleans())
def test_every_parameter_moves_and_no_buffer(decay: float, seed: int, double: bool) -> None:
    torch.manual_seed(seed)
    teacher, student = (nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.PReLU()) for _ in range(2))
    for module in (teacher, student):
        for weight in module.parameters():
            nn.init.normal_(weight)
        module(torch.rand(2, 1, 3, 3))
        module.to(torch.float64 if double else torch.float32)
    before, kept = copy.deepcopy(teacher), copy.deepcopy(student)
    update_teacher(teacher, student, decay)
    weights = zip(teacher.parameters(), before.parameters(), student.parameters(), strict=True)
    for found, old, new in weights:
        moved = [
            decay * a + (1 - decay) * b for a, b in zip(old.flatten().tolist(), new.flatten().tolist(), strict=True)
        ]
        assert found.flatten().tolist() == pytest.approx(moved, rel=1e-5, abs=1e-6)
    assert all(map(torch.equal, teacher.buffers(), before.buffers()))
    assert all(map(torch.equal, student.state_dict().values(), kept.state_dict().values()))


def test_the_ends_are_exact_and_no_gradient_is_kept() -> None:
    torch.manual_seed(0)
    teacher, student = (nn.Linear(3, 3) for _ in range(2))
    before = copy.deepcopy(teacher)
    update_teacher(teacher, student, 1.0)
    assert all(map(torch.equal, teacher.parameters(), before.parameters()))
    update_teacher(teacher, student, 0.0)
    assert all(map(torch.equal, teacher.parameters(), student.parameters()))
    assert all(weight.grad_fn is None and weight.is_leaf for weight in teacher.parameters())


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        update_teacher(nn.Linear(1, 1), nn.Linear(1, 1, bias=False), 0.5)
