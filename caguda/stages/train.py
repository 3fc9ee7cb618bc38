"""The verb `train`: one model of a run, by the method that the configuration names."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from caguda.artifacts.checkpoint import save_checkpoint
from caguda.artifacts.identity import refuse_other_model
from caguda.artifacts.provenance import content_of, provenance
from caguda.classes import class_table
from caguda.config import Configuration
from caguda.config_run import Method
from caguda.datasets.loader import inference_batches
from caguda.datasets.transforms import scaled
from caguda.errors import UserError
from caguda.networks.layers.batch_norm import estimate_statistics
from caguda.networks.layers.network import SegmentationNetwork
from caguda.recorded import settings_of_run
from caguda.runs import adaptation_stage, method_of, model_before, rules_of
from caguda.stages import parallel
from caguda.stages.given_labels import stores_by_rule
from caguda.stages.runtime import prepare, restore_network, to_device
from caguda.stages.session import AnchorTensors, Session
from caguda.stages.training import Job, Progress, build_optimiser, train
from caguda.stages.training_frames import Batches, Frames, batches_of, open_frames
from caguda.version import METHOD_VERSION


def train_run(
    configuration: Configuration,
    seed: int,
    run: str,
    manifest: Path,
    output: Path,
    state: Path,
    initial: Path | None = None,
    anchors: Path | None = None,
    labels: Sequence[Path] = (),
    packed: Sequence[Path] = (),
) -> None:
    """Train the model `run` (RUN, or RUN/stageK) by its method, and write its checkpoint; or do the rest of it.

    `initial` is the checkpoint that it starts from, `anchors` and `labels` are what that model gives: each must be given
    where the run needs it, and only there.
    """
    started = time.time()
    method = method_of(configuration, run)
    _refuse_needless(method, run, initial, anchors, labels)
    frames = open_frames(configuration, manifest, packed, method)
    device = prepare(configuration.compute.threads, tf32=configuration.compute.tf32)
    _refuse_other_processes(configuration)
    network = _network(configuration, seed, run, manifest, initial, device)
    made_with = {"model that the training starts from": initial, "anchors": anchors}
    given = {what: file for what, file in made_with.items() if file is not None}
    known_anchors = None if anchors is None else AnchorTensors.load(anchors, device)
    stores = stores_by_rule(configuration, rules_of(configuration, run), manifest, labels, given) if labels else {}
    session = Session(method, configuration.compute, network, device, known_anchors, seed)
    batches = batches_of(frames, method, method.frame_order(adaptation_stage(configuration, run)), seed, stores)
    job = _job(session, run, f"{run} of seed {seed} in {configuration.experiment}", batches)
    inputs = [*(configuration.network.pretrained_files() if initial is None else ()), *given.values(), *labels]
    settings = settings_of_run(configuration, run)
    progress = train(job, state, fingerprint(frames, seed, settings, inputs), configuration.compute.save_every)
    if parallel.rank() == 0:
        made_by = provenance("train", settings, [manifest, *inputs], seed, started, output)
        _publish(frames, method, network, progress, made_by, output)
        print(f"{run}: {method.iterations} iterations in {progress.seconds:.0f} s -> {output}", flush=True)


def _job(session: Session, run: str, of: str, batches: Batches) -> Job:
    """The training of a session's modules, with an optimiser for each that has a learning rate."""
    method, modules = session.method, session.modules
    optimisers = {
        name: build_optimiser(modules[name], method.optimiser, rate) for name, rate in session.learning_rates.items()
    }
    scaler = GradScaler(session.device.type, enabled=session.compute.precision == "float16")
    return Job(
        run, modules, optimisers, batches, session.step, method, scaler, of, lambda: method.after_update(session)
    )


def fingerprint(frames: Frames, seed: int, settings: Mapping[str, Any], inputs: Sequence[Path]) -> str:
    """A digest of all that decides the weights: settings, classes, seed, method version and inputs' contents.

    The number of processes is left out: it moves no more than last digits, and a cluster may offer another one.
    """
    configuration = frames.configuration
    tables = [class_table(configuration, domain) for domain in (configuration.source, configuration.target)]
    classes = [tables[0].names, *(sorted(table.train_id.items()) for table in tables)]
    contents = [frames.manifest.digest(name) for name in ("source", "target")] + [content_of(path) for path in inputs]
    parts = [seed, METHOD_VERSION, settings, configuration.compute.threads, classes, contents]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _refuse_needless(
    method: Method, run: str, initial: Path | None, anchors: Path | None, labels: Sequence[Path]
) -> None:
    """UserError unless what a run needs is given, and nothing else."""
    needed = {
        "--initial": (method.start is not None, initial is not None),
        "--anchors": (method.uses_anchors, anchors is not None),
        "--labels": (method.reads_pseudo_labels, len(labels) > 0),
    }
    for option, (is_needed, is_given) in needed.items():
        if is_needed != is_given:
            must, found = ("must be given", "none") if is_needed else ("must not be given", "some")
            raise UserError(f"{option}: {must} for {run}, which is trained by {method.method}, found {found}")


def _refuse_other_processes(configuration: Configuration) -> None:
    wanted = configuration.compute.processes
    if parallel.size() != wanted:
        raise UserError(
            f"compute.processes: {wanted} processes must share this training, found {parallel.size()}; call the verb by "
            "`python -m caguda`, which starts them"
        )


def _network(
    configuration: Configuration, seed: int, run: str, manifest: Path, initial: Path | None, device: torch.device
) -> SegmentationNetwork:
    """The configured network: that of the checkpoint to start from, or fresh weights that the seed gives."""
    table = class_table(configuration)
    if initial is None:
        torch.manual_seed(seed)
        network = configuration.network.build(table.count)
        configuration.network.load_pretrained(network)
        return to_device(network, device)
    network, description = restore_network(initial, device, table, configuration, manifest)
    if (found := description["provenance"]["seed"]) not in (None, seed):
        raise UserError(f"{initial}: the model to start from must be of seed {seed}, found one of seed {found}; name that of "
                        "this seed")  # fmt: skip
    before = model_before(configuration, run)
    assert before is not None
    refuse_other_model(initial, description["provenance"], before)
    _refuse_another_network(initial, description["architecture"], configuration)
    return network


def _refuse_another_network(path: Path, found: Mapping[str, Any], configuration: Configuration) -> None:
    """UserError unless a checkpoint is of the configured network, wherever its backbone's weights were."""
    expected = configuration.network.model_dump(mode="json")
    for key in sorted({*expected, *found} - {"weights"}):
        if found.get(key) != expected.get(key):
            raise UserError(
                f"{path}: the checkpoint must be of the configured network, found {key} {found.get(key)} instead of "
                f"{expected.get(key)}; check the key network, or name another checkpoint"
            )


def _publish(
    frames: Frames, method: Method, network: nn.Module, progress: Progress, made_by: Mapping[str, Any], output: Path
) -> None:
    """Write a trained network's checkpoint; where its run asks for it, with the target's statistics of batch normalisation."""
    configuration = frames.configuration
    table = class_table(configuration)
    alone = configuration.network.build(table.count)  # waits for no other process, as layers with shared statistics do
    alone.load_state_dict(network.state_dict())
    device = next(network.parameters()).device
    alone = to_device(alone, device)
    if method.target_statistics:
        images = inference_batches(frames.manifest.frames("target"), configuration.compute.inference_batch_size)
        estimate_statistics(alone, (scaled(batch, device) for _, batch in images))
    description = {
        "architecture": configuration.network.model_dump(mode="json"),
        "classes": list(table.names),
        "target_statistics": method.target_statistics,
        "metrics": {"history": progress.history, "seconds": progress.seconds, "attempts": progress.attempts},
        "provenance": made_by,
    }
    save_checkpoint(output, alone.state_dict(), description)
