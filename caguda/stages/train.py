"""The verb `train`: one model of a run, by the method of the run."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler

from caguda.artifacts.chain import FROM_ELSEWHERE, provenance_of
from caguda.artifacts.checks import refuse_other_network
from caguda.artifacts.identity import contents_of_inputs, refuse_other_model
from caguda.artifacts.maps import MapStore
from caguda.artifacts.provenance import content_digest, new_provenance
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.config_run import Method
from caguda.datasets.manifest import SetName
from caguda.errors import UserError
from caguda.networks.layers.network import SegmentationNetwork
from caguda.recorded_settings import settings_of_run
from caguda.runs import adaptation_number, method_of, model_before, model_of_first_weights, rules_of
from caguda.stages import parallel
from caguda.stages.given_labels import refuse_other_labeller, stores_by_rule
from caguda.stages.optimisers import build_optimiser
from caguda.stages.runtime import (
    build_network,
    configure_torch,
    estimate_domain_statistics,
    refuse_other_sizes,
    restore_network,
    save_network,
    to_device,
)
from caguda.stages.session import AnchorTensors, Session
from caguda.stages.training import Progress, TrainingSetup, train
from caguda.stages.training_frames import Batches, Frames, batches_of, open_frames
from caguda.version import METHOD_VERSION

_DECISIVE_SETS: tuple[SetName, ...] = ("source", "target", "translated")
"""The sets of frames that may decide weights; a training has the last one only if it reads it."""
MODEL_OF_START = "model that the training starts from"
"""The name of that input in messages."""


def train_model(
    configuration: Configuration,
    seed: int,
    model: str,
    manifests: Sequence[Path],
    output: Path,
    state: Path,
    start: Path | None = None,
    anchors: Path | None = None,
    labels: Sequence[Path] = (),
    packed: Sequence[Path] = (),
) -> None:
    """Train a model, RUN or RUN/stageK, by the method of its run, or resume its training; write its checkpoint.

    `manifests` are that of `check` and then, if the run reads translated source frames, that of `check-translated`. `start`
    is the checkpoint that the training starts from, `labels` are made of the evidence of its model. `anchors` are of its model
    too, or with `anchors.every_stage: false` of the model before the chain, or the converted ones of the run's key `anchors`.
    Each must be given if the run needs it, and only then.
    """
    started = time.time()
    method = method_of(configuration, model)
    _refuse_other_inputs(method, model, start, anchors, labels)
    manifest, translated = _manifests_of(method, model, manifests)
    frames = open_frames(configuration, manifest, packed, method, translated)
    device = configure_torch(configuration.compute.threads, tf32=configuration.compute.tf32)
    _refuse_other_processes(configuration)
    network = _initial_network(configuration, seed, model, manifest, start, device)
    refuse_other_sizes(network, configuration.network, frames.manifest.image_size("target"), device)
    files = {MODEL_OF_START: start, "anchors": anchors}
    made_with = {name: path for name, path in files.items() if path is not None}
    anchor_tensors = None if anchors is None else AnchorTensors.load(anchors, device)
    if anchors is not None:
        _refuse_other_anchors(method, model, anchors)
    stores = _label_stores(configuration, model, seed, manifest, labels, files)
    names = class_table(configuration).names
    session = Session(method, configuration.compute, network, device, anchor_tensors, seed, names)
    batches = batches_of(frames, method, method.frame_order(adaptation_number(configuration, model)), seed, stores)
    setup = setup_of(session, model, f"{model} of seed {seed} in {configuration.experiment}", batches)
    inputs = [*made_with.values(), *labels]
    settings = settings_of_run(configuration, model)
    fingerprint = training_fingerprint(frames, seed, settings, inputs)
    progress = train(setup, state, fingerprint, configuration.compute.save_every)
    method.after_training(session)
    if parallel.rank() == 0:
        provenance = new_provenance("train", settings, [*manifests, *inputs], seed, started, output)
        _publish(frames, session, progress, provenance, output)
        print(f"{model}: {method.iterations} iterations in {progress.seconds:.0f} s -> {output}", flush=True)


def _label_stores(
    configuration: Configuration,
    model: str,
    seed: int,
    manifest: Path,
    labels: Sequence[Path],
    files: Mapping[str, Path | None],
) -> dict[str, MapStore]:
    """The label stores of a training by rule. They are made with the given files; with `restart` by the model before."""
    before = model_before(configuration, model)
    made_with = {name: path for name, path in files.items() if path is not None}
    if before != model_of_first_weights(configuration, model):
        refuse_other_labeller(labels, before, seed)
        del made_with[MODEL_OF_START]
    return stores_by_rule(configuration, rules_of(configuration, model), manifest, labels, made_with) if labels else {}


def setup_of(session: Session, name: str, identity: str, batches: Batches) -> TrainingSetup:
    """The modules of a session with new optimisers, its batches and the steps of its method."""
    method, modules = session.method, session.modules
    optimisers = {
        part: build_optimiser(modules[part], method.optimiser, rate) for part, rate in session.learning_rates.items()
    }
    scaler = GradScaler(session.device.type, enabled=session.compute.precision == "float16")
    return TrainingSetup(
        name=name,
        modules=modules,
        optimisers=optimisers,
        batches=batches,
        step=session.step,  # which calls the step of the method
        settings=method,
        scaler=scaler,
        identity=identity,
        seed=session.seed,
        after_update=lambda: method.after_update(session),
    )


def training_fingerprint(frames: Frames, seed: int, settings: Mapping[str, Any], inputs: Sequence[Path]) -> str:
    """The SHA-256 of all that decides the weights: settings, threads, classes, seed, method version, frames and inputs.

    The number of processes is left out: it changes last digits only, and a cluster may offer another number.
    """
    configuration = frames.configuration
    tables = [class_table(configuration, domain) for domain in (configuration.source, configuration.target)]
    classes = [tables[0].names, *(sorted(table.train_id.items()) for table in tables)]
    read = [name for name in _DECISIVE_SETS if name in frames.manifest.sets]
    contents = [frames.manifest.digest(name) for name in read] + [content_digest(path) for path in inputs]
    parts = [seed, METHOD_VERSION, settings, configuration.compute.threads, classes, contents]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _manifests_of(method: Method, model: str, manifests: Sequence[Path]) -> tuple[Path, Path | None]:
    """The manifest of `check`, and that of `check-translated` if a run reads it; UserError unless exactly these are given."""
    is_translated = method.source_images == "translated"
    if len(manifests) != 1 + is_translated:
        must = "that of `check` and then that of `check-translated`" if is_translated else "that of `check` alone"
        raise UserError(f"--manifest: must be {must} for {model}, whose source_images are {method.source_images}, found "
                        f"{len(manifests)} files")  # fmt: skip
    return manifests[0], manifests[1] if is_translated else None


def _refuse_other_inputs(
    method: Method, model: str, start: Path | None, anchors: Path | None, labels: Sequence[Path]
) -> None:
    """UserError unless exactly the inputs that a run needs are given."""
    options = {
        "--start": (method.start is not None, start is not None),
        "--anchors": (method.uses_anchors, anchors is not None),
        "--labels": (method.reads_pseudo_labels, len(labels) > 0),
    }
    for option, (is_needed, is_given) in options.items():
        if is_needed != is_given:
            must, found = ("must be given", "none") if is_needed else ("must not be given", "some")
            raise UserError(f"{option}: {must} for {model}, which is trained by {method.method}, found {found}")


def _refuse_other_anchors(method: Method, model: str, anchors: Path) -> None:
    """UserError unless anchors are converted from the file that the run names, or made here if it names none."""
    provenance = provenance_of(anchors)
    is_from_elsewhere = provenance.get("made_by") in FROM_ELSEWHERE
    if method.anchors is None and is_from_elsewhere:
        raise UserError(f"{anchors}: anchors of a model must be given for {model}, found some from elsewhere; give the run the key "
                        "anchors, or name others")  # fmt: skip
    if method.anchors is not None:
        file = Path(method.anchors)
        if not is_from_elsewhere or (file.is_file() and content_digest(file) not in contents_of_inputs(provenance)):
            raise UserError(f"{anchors}: the anchors must be converted from {file}, the key anchors of {model}, found others; convert "
                            "that file")  # fmt: skip


def _refuse_other_processes(configuration: Configuration) -> None:
    processes = configuration.compute.processes
    if parallel.size() != processes:
        raise UserError(
            f"compute.processes: {processes} processes must share this training, found {parallel.size()}; call the verb by "
            "`python -m caguda`, which starts them"
        )


def _initial_network(
    configuration: Configuration, seed: int, model: str, manifest: Path, start: Path | None, device: torch.device
) -> SegmentationNetwork:
    """The configured network with the weights of the checkpoint to start from, or with fresh weights by the seed."""
    table = class_table(configuration)
    if start is None:
        torch.manual_seed(seed)
        network = build_network(configuration.network, table.count)
        configuration.network.load_pretrained(network)
        return to_device(network, device)
    network, description = restore_network(start, device, table, configuration, manifest)
    if (found := description["provenance"]["seed"]) not in (None, seed):
        raise UserError(f"{start}: the model to start from must be of seed {seed}, found one of seed {found}; name that of "
                        "this seed")  # fmt: skip
    before = model_of_first_weights(configuration, model)
    assert before is not None
    refuse_other_model(start, description["provenance"], before)
    remedy = "check the key network, or name another checkpoint"
    refuse_other_network(start, description["architecture"], configuration, remedy)
    return network


def _publish(frames: Frames, session: Session, progress: Progress, provenance: Mapping[str, Any], output: Path) -> None:
    """Write the checkpoint of a trained network, with statistics of the target if the run has `target_statistics`."""
    configuration, device = frames.configuration, session.device
    # A new network has no SyncBatchNorm, which would wait for the other processes:
    network = build_network(configuration.network, class_table(configuration).count)
    network.load_state_dict(session.network.state_dict())
    network = to_device(network, device)
    target_statistics = session.method.target_statistics
    if target_statistics:
        size = configuration.compute.inference_batch_size
        estimate_domain_statistics(network, frames.manifest, "target", size, device)
    metrics = {"history": progress.history, "seconds": progress.seconds, "attempts": progress.attempts}
    save_network(output, network, configuration, provenance, target_statistics=target_statistics, metrics=metrics)
