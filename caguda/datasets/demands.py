"""What the trainings of an experiment ask of its frames together: their sizes, and that there are labels. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caguda.config import Configuration
from caguda.config_frames import Augmentation, Domain
from caguda.config_run import Method, Training
from caguda.datasets.frames import Frame, label_path
from caguda.errors import UserError, first

Entry = Mapping[str, Any]


def _trainings(configuration: Configuration, name: str) -> dict[str, tuple[Training, Augmentation]]:
    """The trainings that read a set's frames, and how they change them, by the key of the latter."""
    found: dict[str, tuple[Training, Augmentation]] = {}
    for run, settings in configuration.made.items():
        if isinstance(settings, Method) and name in settings.reads:
            own = name == "target" and settings.target_augmentation is not None
            key = f"runs.{run}.{'target_augmentation' if own else 'augmentation'}"
            found[key] = (settings, settings.augmentation_of(name))
    return found


def size_problems(configuration: Configuration, name: str, entries: Sequence[Entry]) -> list[str]:
    """What is wrong with the sizes of a set's frames together, a line each."""
    sizes = Counter((entry["width"], entry["height"]) for entry in entries)
    trainings = _trainings(configuration, name)
    problems = []
    if len(sizes) > 1:
        told, rare = _told(sizes), sizes.most_common()[-1][0]
        odd = next(entry["image"] for entry in entries if (entry["width"], entry["height"]) == rare)
        whole = [
            f"{key}.crop"
            for key, (training, augmentation) in trainings.items()
            if augmentation.crop is None and training.batch_size > configuration.compute.processes
        ]
        if name == "target":
            problems.append(
                f"{odd}: the frames must have one size, as an evidence store has one, found {told} (width x height, frames); "
                "resize the frames, or leave others out with the key skip or list"
            )
        elif whole:
            problems.append(
                f"{odd}: frames of one batch must have one size, found {told} (width x height, frames); give a window of "
                f"one size for each of {first(whole, 5)}, as crop: [height, width]"
            )
    stride = configuration.network.coarsest_stride
    for key, (_, augmentation) in trainings.items():
        if augmentation.crop is not None and max(augmentation.crop) <= stride:
            problems.append(
                f"{key}.crop: must be larger than the network's stride of {stride}, found {augmentation.crop}"
            )
    tiny = [entry for entry in entries if max(entry["width"], entry["height"]) <= stride]
    if tiny and any(augmentation.crop is None for _, augmentation in trainings.values()):
        problems.append(
            f"{first([entry['image'] for entry in tiny])}: the width or height must be larger than the network's stride of "
            f"{stride}, found {_told(Counter((entry['width'], entry['height']) for entry in tiny))}; enlarge the frames"
        )
    return problems


def refuse_sizes(configuration: Configuration, manifest: Path, sets: Mapping[str, Sequence[Entry]]) -> None:
    """UserError where the checked frames of some sets have sizes that the trainings of a configuration, which may be a later one,
    cannot use."""
    found = [line for name, entries in sets.items() for line in size_problems(configuration, name, entries)]
    if found:
        raise UserError(
            f"{manifest}: the frames must fit the trainings, found: {first(found, 1)}; check them again afterwards"
        )


def _told(sizes: Counter[tuple[int, int]]) -> str:
    return first([f"{width}x{height} ({count})" for (width, height), count in sizes.most_common()], 5)


def target_labels(configuration: Configuration, root: Path, frames: Sequence[Frame]) -> tuple[list[str], list[str]]:
    """The problems and the warnings of a target whose frames are not all labelled as the configuration says."""
    domain: Domain = configuration.target
    missing = [frame for frame in frames if frame.label is None]
    if domain.labels is None or not missing:
        return [], []
    place = label_path(domain, root, missing[0].image)
    needing = [name for name, run in configuration.made.items() if isinstance(run, Method) and run.reads_target_labels]
    if len(missing) == len(frames):
        line = (
            f"{place}: none of the {len(frames)} frames has a label, this is where the first one belongs; where there are "
            "none, set target.labels: null, which leaves out runs on target labels and the accuracy of pseudo-labels"
        )
        return ([line], []) if needing else ([], [line])
    if not needing:
        return [], []
    runs, out = ", ".join(needing), ", ".join(f"runs.{name}: null" for name in needing)
    needs = f"the run {runs} needs" if len(needing) == 1 else f"the runs {runs} need"
    line = (
        f"{place}: {needs} the label of every frame, and {len(missing)} of the {len(frames)} have none, this is where the first one "
        f"belongs; add them, or leave out what needs them with {out}"
    )
    return [line], []
