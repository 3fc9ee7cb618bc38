"""Trainings of one method that end after an update as Ctrl-C ends them, to be resumed by a test."""

from collections.abc import Callable
from dataclasses import replace

from caguda.stages.session import Batch, Session
from caguda.stages.train import setup_of
from caguda.stages.training import TrainingSetup


def interruptible(
    training: Session, batch: Callable[[int], Batch], batches: int, stop_after: int | None
) -> TrainingSetup:
    """A training on so many batches by number; KeyboardInterrupt after the update of iteration `stop_after`.

    Each update has as many batches as `accumulate` says.
    """
    method = training.method
    made = setup_of(
        training, "toy", "toy", lambda start: (batch(number) for number in range(method.accumulate * start, batches))
    )

    def after_update() -> None:
        method.after_update(training)
        if training.iteration == stop_after:
            raise KeyboardInterrupt

    return replace(made, after_update=after_update)
