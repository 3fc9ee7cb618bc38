"""The requirements of an experiment's trainings on each set as a whole: image sizes and labels. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from caguda.artifacts.maps_metadata import shard_size
from caguda.config import Configuration
from caguda.config_frames import BLUR_KERNEL, Augmentation
from caguda.config_run import Method, Training
from caguda.datasets.frame import Frame
from caguda.datasets.layout import layout_of
from caguda.datasets.manifest import Entry, sizes_of
from caguda.errors import UserError, first


def _trainings(configuration: Configuration, name: str) -> dict[str, tuple[Training, Augmentation]]:
    """The runs that train on a set's frames, and their augmentation of these, by the augmentation's key in the YAML."""
    trainings: dict[str, tuple[Training, Augmentation]] = {}
    for run, settings in configuration.active_runs.items():
        if isinstance(settings, Method) and name in settings.reads:
            separate = name == "target" and settings.target_augmentation is not None
            key = f"runs.{run}.{'target_augmentation' if separate else 'augmentation'}"
            trainings[key] = (settings, settings.augmentation_of(name))
    return trainings


def size_problems(configuration: Configuration, name: str, entries: Sequence[Entry]) -> list[str]:
    """One line for each reason why the trainings cannot use frames of these sizes; `name` is that of their set."""
    sizes = Counter((entry["width"], entry["height"]) for entry in entries)
    trainings = _trainings(configuration, name)
    problems = []
    if len(sizes) > 1:
        rarest = sizes.most_common()[-1][0]
        odd = next(entry["image"] for entry in entries if (entry["width"], entry["height"]) == rarest)
        without_crop = [
            f"{key}.crop"
            for key, (training, augmentation) in trainings.items()
            if augmentation.crop is None and training.batch_size > configuration.compute.processes
        ]
        if name == "target":
            problems.append(
                f"{odd}: the frames must have one size, as an evidence store has one, found {sizes_of(entries)} (width x "
                "height, frames); resize the frames, or leave others out with the key skip or list"
            )
        elif without_crop:
            problems.append(
                f"{odd}: frames of one batch must have one size, found {sizes_of(entries)} (width x height, frames); give a "
                f"window of one size for each of {first(without_crop, 5)}, as crop: [height, width]"
            )
    stride = configuration.network.coarsest_stride
    for key, (_, augmentation) in trainings.items():
        if augmentation.crop is not None and max(augmentation.crop) <= stride:
            problems.append(
                f"{key}.crop: must be larger than the network's stride of {stride}, found {augmentation.crop}"
            )
        least, windows = BLUR_KERNEL // 2 + 1, [augmentation.crop] if augmentation.crop else sizes
        shortest = min((min(window) for window in windows if max(window) > stride), default=least)
        if augmentation.blur > 0 and shortest < least:
            problems.append(
                f"{key}.blur: needs windows of at least {least} pixels in height and width, found {shortest}; leave it out"
            )
    tiny = [entry for entry in entries if max(entry["width"], entry["height"]) <= stride]
    is_seen_whole = name == "target" or any(training.target_statistics for training, _ in trainings.values())
    if tiny and (is_seen_whole or any(augmentation.crop is None for _, augmentation in trainings.values())):
        problems.append(
            f"{first([entry['image'] for entry in tiny])}: the width or height must be larger than the network's stride of "
            f"{stride}, found {sizes_of(tiny)}; enlarge the frames"
        )
    return problems


def parts_problems(configuration: Configuration, name: str, frames: int) -> list[str]:
    """At most one line: each of `compute.parts` jobs needs a batch of the source for anchors, a shard of the target for evidence."""
    compute = configuration.compute
    size = compute.inference_batch_size
    units = -(-frames // (shard_size(frames, size) if name == "target" else size))
    runs = [run for run in configuration.active_runs.values() if isinstance(run, Method) and run.uses_frozen_model]
    divided = {"source": any(run.anchors is None for run in runs), "target": len(runs) > 0}
    if compute.parts <= units or not divided.get(name, False):
        return []
    unit = "shards of the evidence store" if name == "target" else f"batches of {size} source frames"
    line = (
        f"compute.parts: must be at most the {units} {unit}, found "
        f"{compute.parts}; lower it, or compute.inference_batch_size"
    )
    return [line]


def refuse_sizes(configuration: Configuration, manifest: Path, sets: Mapping[str, Sequence[Entry]]) -> None:
    """UserError unless the trainings can use frames of these sizes; the configuration may be newer than the manifest."""
    problems = [line for name, entries in sets.items() for line in size_problems(configuration, name, entries)]
    if problems:
        raise UserError(
            f"{manifest}: the frames must fit the trainings, found: {first(problems, 1)}; check them again afterwards"
        )


def missing_target_labels(
    configuration: Configuration, root: Path, frames: Sequence[Frame]
) -> tuple[list[str], list[str]]:
    """The problems and the warnings, at most one line in all, about target frames without labels.

    It is a problem if a run trains on target labels, and a warning if none does and no frame has a label.
    """
    domain = configuration.target
    unlabelled = [frame for frame in frames if frame.label is None]
    if domain.labels is None or not unlabelled:
        return [], []
    path = layout_of(domain).label_path(domain, root, unlabelled[0].image)
    runs = [
        name for name, run in configuration.active_runs.items() if isinstance(run, Method) and run.reads_target_labels
    ]
    if len(unlabelled) == len(frames):
        line = (
            f"{path}: none of the {len(frames)} frames has a label, this is where the first one belongs; where there are "
            "none, set target.labels: null, which leaves out runs on target labels and the accuracy of pseudo-labels"
        )
        return ([line], []) if runs else ([], [line])
    if not runs:
        return [], []
    need = f"the run {runs[0]} needs" if len(runs) == 1 else f"the runs {', '.join(runs)} need"
    line = (
        f"{path}: {need} the label of every frame, and {len(unlabelled)} of the {len(frames)} have none, this is where the "
        f"first one belongs; add them, or leave out what needs them with {', '.join(f'runs.{name}: null' for name in runs)}"
    )
    return [line], []
