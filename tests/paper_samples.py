"""A made-up experiment on disk, for the tests of tables, figures and the report. None of its numbers was measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caguda.artifacts.atomic import read_json, write_json
from caguda.artifacts.chain import recorded_sha256
from caguda.artifacts.provenance import content_digest
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.config_run import Method
from caguda.configfile import parse_configuration
from caguda.files import sha256
from caguda.runs import deciding_settings, labelling_name, model_before, models, rules_of, run_of, stage_number
from caguda.version import METHOD_VERSION

TRAINING = {
    "iterations": 100,
    "batch_size": 4,
    "optimiser": {"name": "adamw", "learning_rate": 1e-3},
    "batch_norm": "train",
}
RULES = {"anchor": {"margin": 0.15, "unit": "mean_anchor_distance"}, "probability": {"p0": 0.95}}
WEIGHTS = {"distance": 0.3, "anchor_cross_entropy": 0.7, "probability_cross_entropy": 0.7}
QUALITY = {"source_only": (0.45, 0.7), "warm-up": (0.68, 0.72), "control": (0.63, 0.71), "oracle": (0.82, 0.82)}
"""The mIoU of a model, about, as trained and with target statistics."""
TERMS = {
    "supervised": ("source_cross_entropy",),
    "adversarial": ("source_cross_entropy", "adversarial", "discriminator"),
    "cag": (
        "source_cross_entropy",
        "source_distance",
        "target_distance",
        "anchor_cross_entropy",
        "probability_cross_entropy",
    ),
}


def runs(stages: int = 3, **others: dict[str, Any] | None) -> dict[str, Any]:
    """The key `runs` of a sample, with further ones or without those that are None."""
    known = {
        "source_only": {"method": "supervised"},
        "warm-up": {
            "method": "adversarial",
            "start": "source_only",
            "weight": 0.01,
            "discriminator": {"learning_rate": 1e-3},
            "target_statistics": True,
        },
        "control": {"method": "supervised", "start": "warm-up"},
        "cag": {"method": "cag", "start": "warm-up", "stages": stages, "pseudo_labels": RULES, "weights": WEIGHTS},
        "oracle": {"like": "source_only", "frames": "target"},
    }
    return known | {name.replace("__", "-"): run for name, run in others.items()}


def configuration(seeds: tuple[int, ...] = (0,), stages: int = 3, **changes: Any) -> Configuration:
    """A whole configuration with 19 classes unless changed."""
    values: dict[str, Any] = {
        "experiment": "sample",
        "seeds": seeds,
        "data_root": "data",
        "classes": "cityscapes19",
        "source": {"layout": "gta5"},
        "target": {"layout": "cityscapes", "split": "train"},
        "evaluation": {"layout": "cityscapes", "split": "val"},
        "network": {"name": "small", "width": 8, "blocks": [1, 1, 1, 1], "feature_channels": 16},
        "training": TRAINING,
        "runs": runs(stages),
        "reports": {"cag": ["source_only", "warm-up", "control", "cag", "oracle"]},
    }
    return parse_configuration(values | changes, Path("sample.yaml"))


def confusion(categories: int, quality: float, seed: int) -> list[list[int]]:
    """A confusion matrix whose last category but two occurs nowhere."""
    random = np.random.default_rng([int(1000 * quality), seed])
    sizes = np.geomspace(200_000, 1_500, categories)
    habit = np.random.default_rng(7).uniform(-0.3, 0.15, categories) + np.linspace(0.2, -0.1, categories)
    recall = np.clip(quality + habit + random.uniform(-0.04, 0.04, categories), 0.04, 0.99)
    matrix = np.outer(sizes * (1 - recall), sizes / sizes.sum())
    matrix[np.arange(categories), np.arange(categories)] = sizes * recall
    matrix[categories - 3, :] = matrix[:, categories - 3] = 0
    rows: list[list[int]] = matrix.round().astype(int).tolist()
    return rows


def score(matrix: list[list[int]]) -> dict[str, Any]:
    """The entry of evaluation.json for a confusion matrix."""
    counts = np.array(matrix)
    hits, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    iou = [float(h / u) if u else None for h, u in zip(hits, union, strict=True)]
    return {"confusion": matrix, "iou": iou, "miou": float(np.mean([v for v in iou if v is not None]))}


def provenance(
    verb: str, seed: int, seconds: float, of: Path, inputs: Sequence[Path] = (), run: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the artifact `of` says of its making; a checkpoint of which model it is, as `described` tells it."""
    return {
        "made_by": verb,
        "caguda": "0.1.0",
        "method_version": METHOD_VERSION,
        "settings": {} if run is None else {"run": run},
        "inputs": {
            path.as_posix(): {
                "sha256": recorded_sha256(path),
                "content": content_digest(path),
                "from_here": os.path.relpath(path, of.parent),
            }
            for path in inputs
        },
        "seed": seed,
        "libraries": {"python": "3.11", "torch": "2.11.0"},
        "machine": {"host": "sample", "cores": 2},
        "seconds": seconds,
        "created": "2030-01-02T03:04:05+00:00",
    }


def _history(terms: tuple[str, ...], seed: int) -> list[dict[str, float]]:
    random = np.random.default_rng(seed)
    return [
        {"iteration": 4 * i}
        | {t: (0.2 + k * 0.1 + 2.0 * 0.85**i / (k + 1)) * random.uniform(0.9, 1.1) for k, t in enumerate(terms)}
        for i in range(1, 26)
    ]


def _statistics(names: tuple[str, ...], rules: Sequence[str], k: int, truth: bool) -> dict[str, Any]:
    """What `diagnose` tells of the pseudo-labels of these rules that a stage k is trained on."""
    share = {
        "anchor": 0.80 + 0.02 * k,
        "probability": 0.70 + 0.03 * k,
        "both": 0.66 + 0.03 * k,
        "either": 0.84 + 0.02 * k,
    }
    kept = [*rules, "both", "either"] if len(rules) == 2 else rules
    weights = np.geomspace(1, 0.01, len(names))
    weights /= weights.sum()
    each = [
        {"name": n} | {rule: share[rule] * w for rule in rules} for n, w in zip(names, weights.tolist(), strict=True)
    ]
    told = {"images": 500, "share": {key: share[key] for key in kept}, "per_category": each}
    if len(rules) == 2:
        told |= {"margin": 1.2345, "p0": 0.95}
    accuracy = _accuracy(names) if len(rules) == 2 else {rule: _accuracy(names)[rule] for rule in rules}
    return told | {"images_with_truth": 500 if truth else 0, "accuracy": accuracy if truth else None}


def _accuracy(names: tuple[str, ...]) -> dict[str, Any]:
    def kind(accuracy: float) -> dict[str, Any]:
        each = [{"name": n, "precision": accuracy - 0.02 * i, "recall": 0.9 - 0.03 * i} for i, n in enumerate(names)]
        each[-3] |= {"precision": None, "recall": None}
        return {"accuracy": accuracy, "coverage": 0.8, "per_category": each}

    kinds = {
        "anchor": 0.971,
        "probability": 0.988,
        "anchor_only": 0.74,
        "nearest_anchor_all": 0.9,
        "predicted_all": 0.92,
    }
    return {name: kind(value) for name, value in kinds.items()}


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    write_json(path, content)
    return path


def write_model(path: Path, made: dict[str, Any], history: list[dict[str, float]] | None) -> Path:
    """Writes the JSON of a checkpoint beside weights that stand for any; the path of the weights. None: it was brought."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.as_posix())
    metrics = {} if history is None else {"history": history, "seconds": 75.0 + len(history)}
    content = {"metrics": metrics, "weights_sha256": sha256(path), "provenance": made}
    _write(path.with_suffix(".json"), content)
    return path


def write_evaluation(path: Path, run: str, seed: int, scores: Sequence[Any], model: Path) -> Path:
    """Writes an evaluation of a model: what `score` gives of two confusion matrices, the second one or None."""
    made = provenance("evaluate", seed, 3.25, path, [model])
    content = {"model": run, "seed": seed, "frames": 150, "classes": scores[2]}
    return _write(path, content | {"as_trained": scores[0], "target_statistics": scores[1], "provenance": made})


def write_labels(before: Path, config: Configuration, seed: int, model: str, truth: bool) -> tuple[list[Path], Path]:
    """Writes the labels that a model is trained on beside the weights `before`: the JSON of each rule's, what is told of them."""
    folder, evidence = before.with_name("labels"), before.with_name("evidence") / "evidence.json"
    _write(evidence, {"store": "evidence.zarr", "provenance": provenance("evidence", seed, 20.0, evidence, [before])})
    files = {}
    for name, rule in rules_of(config, model).items():
        files[name] = folder / rule.folder / "labels.json"
        made = provenance("labels", seed, 4.0, files[name], [evidence])
        _write(files[name], {"store": "labels.zarr", "rule": rule.described(), "provenance": made})
    told = folder / f"{labelling_name(config, model)}.json"
    named = {name: os.path.relpath(file, folder) for name, file in files.items()}
    made = provenance("diagnose", seed, 8.5, told, [evidence, *files.values()])
    content = {"evidence": os.path.relpath(evidence, folder), "labels": named, "seed": seed}
    statistics = _statistics(class_table(config).names, list(files), stage_number(model), truth)
    _write(told, content | statistics | {"provenance": made})
    return list(files.values()), told


def write_experiment(
    root: Path, config: Configuration, *, truth: bool = True, of: Sequence[str] | None = None
) -> dict[str, list[Path]]:
    """Writes evaluations, checkpoints' JSON, and what is told of the labels, of every model; the paths by kind, `of` some models."""
    names = class_table(config).names
    paths: dict[str, list[Path]] = {"evaluations": [], "checkpoints": [], "label_reports": []}
    for seed in config.seeds:
        within = root / config.experiment / f"seed{seed}"
        for number, model in enumerate(models(config)):
            run, k = run_of(config, model), stage_number(model)
            weights, made_of, told = within / model / "checkpoint.safetensors", list[Path](), list[Path]()
            if isinstance(run, Method) and run.reads_pseudo_labels:
                before = within / str(model_before(config, model)) / "checkpoint.safetensors"
                made_of, summary = write_labels(before, config, seed, model, truth)
                told = [summary] if summary not in paths["label_reports"] else []
            verb, terms = ("train" if isinstance(run, Method) else "import"), TERMS.get(run.method, TERMS["cag"])
            made = provenance(verb, seed, 75.0, weights, made_of, deciding_settings(config, model))
            write_model(weights, made, _history(terms, number) if verb == "train" else None)
            trained, target = QUALITY.get(model, (0.69 + 0.015 * k, 0.73 + 0.01 * k))
            scores = (score(confusion(len(names), trained, seed)), score(confusion(len(names), target, seed + 50)))
            write_evaluation(weights.with_name("evaluation.json"), model, seed, (*scores, list(names)), weights)
            if of is None or model in of:
                paths["checkpoints"].append(weights.with_suffix(".json"))
                paths["evaluations"].append(weights.with_name("evaluation.json"))
                paths["label_reports"] += told
    return paths


def rewrite(path: Path, **changes: Any) -> None:
    """Changes keys of a JSON file."""
    _write(path, read_json(path) | changes)
