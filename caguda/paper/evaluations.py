"""The evaluations of an experiment as they are read from disk, and what must hold before they share a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caguda.artifacts.chain import inputs_of, provenance_of, recorded_sha256, refuse_broken_chain
from caguda.artifacts.identity import KINDS, contents_of_inputs, read_artifact
from caguda.artifacts.provenance import content_of
from caguda.classes import smaller_sets
from caguda.config import Configuration
from caguda.configfile import configuration_beside
from caguda.errors import UserError
from caguda.recorded import refuse_misplaced, refuse_other_settings


@dataclass(frozen=True)
class Score:
    """What one network reaches on the evaluation frames: (c,) IoU, nan for an absent category, and its mean; 0..1.

    `smaller` has the means over fewer of these categories, by their number; see smaller_sets.
    """

    iou: NDArray[np.float64]
    miou: float
    smaller: Mapping[int, float]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.json: the scores of one model, RUN or RUN/stageK, of one seed.

    `target_statistics` is the score with batch normalisation statistics re-estimated on target training frames; it is
    None for a network without batch normalisation.
    """

    path: Path
    run: str
    seed: int
    frames: int
    classes: tuple[str, ...]
    as_trained: Score
    target_statistics: Score | None


def _score(values: Mapping[str, Any], classes: tuple[str, ...]) -> Score:
    iou = np.array([np.nan if value is None else value for value in values["iou"]], dtype=np.float64)
    if len(iou) != len(classes):
        raise ValueError(f"{len(classes)} classes but {len(iou)} IoU values")
    smaller = {n: _mean(iou[among]) for n, among in smaller_sets(classes).items()}
    return Score(iou, float(np.nan if values["miou"] is None else values["miou"]), smaller)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of the values that are not nan; nan where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file; a missing key or a wrong number of values raises UserError."""
    values = read_artifact(path, KINDS["evaluate"])
    try:
        classes = tuple(str(name) for name in values["classes"])
        target = values["target_statistics"]
        return Evaluation(
            path=path,
            run=str(values["run"]),
            seed=int(values["seed"]),
            frames=int(values["frames"]),
            classes=classes,
            as_trained=_score(values["as_trained"], classes),
            target_statistics=None if target is None else _score(target, classes),
        )
    except KeyError as error:
        raise UserError(f"{path}: an evaluation must hold the key {error}; move it away and evaluate again") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: this is not an evaluation ({error}); move it away and evaluate again") from None


def refuse_others(paths: Sequence[Path], configuration: Configuration | None = None) -> None:
    """UserError unless all that some artifacts were made of is there unchanged, in its place, and of the configuration.

    All are of the frames of one manifest. Without a configuration, it is that of the `config.json` of the experiment where they
    lie. What is older than the files beside it, or came from another seed or experiment, would pass for current otherwise.
    """
    digest, seen = cache(recorded_sha256), set[Path]()
    for path in paths:
        refuse_broken_chain(path, digest, seen)
    if len({content_of(path) for path in seen if provenance_of(path).get("made_by") in ("check", "check-test")}) > 1:
        raise UserError(f"{paths[0]}: all files must be of one experiment's frames, found {paths[-1]} or another one made of "
                        "other frames; name those of one experiment")  # fmt: skip
    wanted = configuration or (configuration_beside(paths[0]) if paths else None)
    for path in sorted(seen):
        if made := provenance_of(path):
            if wanted is not None:
                refuse_other_settings(path, wanted, made)
            refuse_misplaced(path, made)


def contents_of_labels(path: Path) -> set[str]:
    """The digests of the label stores that `diagnose` wrote of into a file; UserError where it is another file."""
    told = read_artifact(path, KINDS["diagnose"])
    inputs = told["provenance"]["inputs"].values()
    return {recorded["content"] for recorded in inputs if recorded["from_here"] in told["labels"].values()}


def accuracy_of(evaluations: Sequence[Path], accuracy: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """How right the pseudo-labels were that each evaluated model was trained on, by the path of its evaluation.

    Empty where no truth is known. UserError unless `accuracy`, what `diagnose` wrote, is of the labels of every evaluation's
    model, and of no others.
    """
    of_labels = {path: contents_of_labels(path) for path in accuracy}
    read = {path: read_artifact(path, KINDS["diagnose"])["accuracy"] or {} for path in accuracy}
    found = {}
    used: set[Path] = set()
    for path in evaluations:
        (model,) = [item.path for item in inputs_of(path, recorded_sha256) if item.path.suffix == ".safetensors"]
        made = provenance_of(model)
        trained_on, rules = contents_of_inputs(made), made["settings"].get("run", {}).get("pseudo_labels", {})
        fitting = [
            name for name, contents in of_labels.items() if contents <= trained_on and len(contents) == len(rules)
        ]
        if len(fitting) != 1:
            raise UserError(f"{path}: the statistics of just the labels that its model was trained on must be given, found "
                            f"{len(fitting)}; name one for every evaluation")  # fmt: skip
        found[path] = read[fitting[0]]
        used.add(fitting[0])
    if unused := [path for path in accuracy if path not in used]:
        raise UserError(
            f"{unused[0]}: labels must be those that a model of the table was trained on, found others; leave them out"
        )
    return found


def by_run(evaluations: Sequence[Evaluation], runs: Sequence[str]) -> dict[str, list[Evaluation]]:
    """The evaluations of some runs, in the order of `runs`, seeds ascending."""
    ordered = sorted(evaluations, key=lambda item: item.seed)
    return {run: [item for item in ordered if item.run == run] for run in runs}


def check_evaluations(
    evaluations: Sequence[Evaluation], classes: Sequence[str], seeds: Sequence[int], runs: Sequence[str]
) -> None:
    """Returns when the evaluations make one complete table: these classes, same frames, every run with every seed.

    Raises UserError naming the file otherwise.
    """
    if not evaluations:
        raise UserError("a table needs evaluations, found none; name the evaluation.json files")
    first = evaluations[0]
    seen: dict[tuple[str, int], Path] = {}
    for item in evaluations:
        if item.classes != tuple(classes):
            odd = sorted(set(item.classes) ^ set(classes)) or ["their order"]
            raise UserError(
                f"{item.path}: the classes must be those of the configuration, but these differ: {', '.join(odd)}; "
                "evaluate again with this configuration"
            )
        if item.frames != first.frames:
            raise UserError(
                f"{item.path}: the frames must be those of {first.path} ({first.frames}), found {item.frames}; "
                "evaluate both with one manifest"
            )
        if item.run not in runs:
            raise UserError(
                f"{item.path}: the model must be one of {', '.join(runs)}, found {item.run!r}; leave it out"
            )
        if item.seed not in seeds:
            raise UserError(f"{item.path}: the seed must be one of {_listed(seeds)}, found {item.seed}")
        if (item.run, item.seed) in seen:
            raise UserError(
                f"{item.path}: {item.run}, seed {item.seed} is already in {seen[item.run, item.seed]}; name one of them"
            )
        seen[item.run, item.seed] = item.path
    for run in runs:
        _check_seeds(run, {seed: path for (name, seed), path in seen.items() if name == run}, seeds)


def _check_seeds(run: str, paths: Mapping[int, Path], seeds: Sequence[int]) -> None:
    missing = [seed for seed in seeds if seed not in paths]
    if not missing:
        return
    found = ", ".join(str(path) for path in paths.values()) or "no file"
    raise UserError(
        f"{run}: an evaluation of every seed ({_listed(seeds)}) must be given, missing seed {_listed(missing)}, found {found}; "
        "evaluate the missing seeds first"
    )


def _listed(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)
