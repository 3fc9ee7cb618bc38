"""A mean teacher (Tarvainen and Valpola, NeurIPS 2017): a network whose weights are a moving average of another's."""

import torch
from torch import nn


def ema_decay(iteration: int, decay: float) -> float:
    """The decay of the teacher's weights after an iteration, counted from 0: min(1 - 1 / (iteration + 1), decay).

    As in DACS (vikolss/DACS trainUDA.py:111-122). The teacher is the student after iteration 0, then the mean of all
    students so far, until the decay is reached. decay in 0..1.
    """
    return min(1 - 1 / (iteration + 1), decay)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the teacher's parameters towards the student's, in place: decay times its own plus 1 - decay times the student's.

    Both have the same parameters in the same order. A decay of 0 copies them exactly. Buffers, such as the statistics of
    batch normalisation, stay as they are, as in DACS; ProDA copies the student's (microsoft/ProDA
    models/adaptation_modelv2.py:261-265).
    """
    for average, weight in zip(teacher.parameters(), student.parameters(), strict=True):
        average.lerp_(weight, 1 - decay)
