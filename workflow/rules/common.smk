# The validated configuration, the paths of all artifacts, wildcards and fingerprints. Nothing here imports torch.

import fcntl
import json
import os
import sys
from pathlib import Path

from caguda.artifacts.atomic import write_json
from caguda.config import Configuration
from caguda.configfile import parse_configuration
from caguda.errors import UserError
from caguda.version import METHOD_VERSION


def configuration_name() -> Path:
    """The files that the configuration came from, as a person would name them."""
    names = [os.path.relpath(path) for path in workflow.configfiles]
    return Path(" + ".join([*names, "--config"] if workflow.config_settings.config else names))


def require_folders(configuration: Configuration, name: Path) -> None:
    """Refuse a data set that is not there; generated scenes are made by the workflow itself."""
    if configuration.street is not None:
        return
    for key in ("source", "target", "evaluation", "test"):
        domain = getattr(configuration, key)
        if domain is not None and not (folder := configuration.domain_root(domain)).is_dir():
            raise UserError(
                f"{name}: data_root, {key}.root: the folder {folder} does not exist; "
                "put the data set there, or give its folder with --config data_root=FOLDER"
            )


def validated(values: dict, name: Path) -> Configuration:
    """The configuration, or one line for the person at the keyboard and the end."""
    try:
        configuration = parse_configuration(values, name)
        require_folders(configuration, name)
    except UserError as error:
        sys.exit(f"caguda: {error}")
    return configuration


configuration = validated(config, configuration_name())
SETTINGS = configuration.model_dump(mode="json")


def fingerprint(*names: str, **sections) -> str:
    """Sorted JSON of the named sections of the configuration, and of further ones given by value.

    The param of a rule holds what its verb reads directly, so that it runs again when that changes, and only then.
    What reaches it through a file that it opens, such as the thresholds of a label store, is not repeated.
    """
    return json.dumps({name: SETTINGS[name] for name in names} | sections, sort_keys=True)


def without(section: str, *keys: str) -> dict:
    """A section of the configuration less some keys, which do not change what the rule makes."""
    return {key: value for key, value in SETTINGS[section].items() if key not in keys}


def held(folder: Path):
    """A file in `folder` that keeps a second call out of it for as long as this process lives.

    Snakemake's own lock, which the default profile turns off, would outlive a SIGKILL and ask for `--unlock`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"caguda: {folder}: one call at a time may work here, found another; wait for it or end it")
    except OSError as error:
        sys.exit(f"caguda: {folder}: results must be writable, found: {error.strerror}; put that right and call again")
    return file


# Verbs read the resolved configuration from one file. It is no input: a file that is made again in the same call would,
# even as ancient(), keep Snakemake from seeing that a rule's params have changed.
LOCKS = []


onstart:
    LOCKS.append(held(Path(EXPERIMENT)))
    write_json(Path(CONFIG), SETTINGS)


# Paths: EXPERIMENT, SEED and STAGE are folders; a run is a folder that holds one checkpoint.

EXPERIMENT = f"results/{configuration.experiment}"
SEED = f"{EXPERIMENT}/seed{{seed}}"
STAGE = f"{SEED}/{{recipe}}/stage{{stage}}"
CONFIG = f"{EXPERIMENT}/config.json"
MANIFEST = f"{EXPERIMENT}/manifest.json"
GENERATED = [f"{configuration.data_root}/data.json"] if configuration.street else []
MANIFEST_OF = {"evaluation": MANIFEST, "test": f"{EXPERIMENT}/manifest.test.json"}
PREDICTED = "test" if configuration.test else "evaluation"
PACKED = f"{EXPERIMENT}/packed/{{domain}}.h5"
PARTS = [f"{part}-of-{configuration.labels.parts}" for part in range(1, configuration.labels.parts + 1)]
STAGES = range(1, configuration.stages.count + 1)
BOUNDS = ("control", "oracle")
FIRST_SEED = configuration.seeds[0]


wildcard_constraints:
    seed="|".join(str(seed) for seed in configuration.seeds),
    recipe="|".join(configuration.recipes),
    domain="source|target",
    stage=r"[1-9]\d*",
    part=r"[1-9]\d*",
    parts=r"[1-9]\d*",
    frames="|".join(MANIFEST_OF),
    run=rf"pretrain|warmup|{'|'.join(BOUNDS)}|({'|'.join(configuration.recipes)})/stage[1-9]\d*",


# `python` in a rule is the interpreter that runs Snakemake, whether or not its environment was activated. The shell's parent
# is Snakemake: a verb ends when it does.
shell.prefix(f'PATH="{Path(sys.executable).parent}":$PATH; export CAGUDA_WORKFLOW=$PPID; ')


# What decides the weights of any training beside its own section.
TRAINING = {
    "precision": configuration.compute.precision,
    "compile": configuration.compute.compile,
    "reduction": configuration.losses.reduction,
}
PROCESSES = configuration.compute.processes
TRAINER = "python -m caguda"
if PROCESSES > 1:
    TRAINER = f"python -m torch.distributed.run --standalone --nproc-per-node {PROCESSES} -m caguda"


def caches(*domains: str) -> list[str]:
    """The packed caches of these domains, none if the configuration has none."""
    return expand(PACKED, domain=domains) if configuration.cache else []


DATA_ARTIFACTS = [*GENERATED, MANIFEST, *caches("source", "target")]


def before(wildcards) -> str:
    """The checkpoint that a stage starts from: the previous stage's, the warm-up's for the first."""
    stage = int(wildcards.stage)
    run = f"{wildcards.recipe}/stage{stage - 1}" if stage > 1 else "warmup"
    return f"{EXPERIMENT}/seed{wildcards.seed}/{run}/checkpoint.safetensors"


def anchors_of(wildcards) -> str:
    """The anchors of a stage: its own, or the first stage's for all of them."""
    stage = wildcards.stage if configuration.anchors.every_stage else 1
    return f"{EXPERIMENT}/seed{wildcards.seed}/{wildcards.recipe}/stage{stage}/anchors.h5"


def chain_of(recipe: str) -> list[str]:
    """The runs that make a recipe's last model, in order."""
    return ["pretrain", "warmup", *(f"{recipe}/stage{stage}" for stage in STAGES)]


def of_all_seeds(runs: list[str], artifact: str) -> list[str]:
    """One artifact of each of some runs, seed by seed."""
    return [f"{EXPERIMENT}/seed{seed}/{run}/{artifact}" for seed in configuration.seeds for run in runs]


def run_artifacts(run: str) -> list[str]:
    """What every run leaves."""
    return [f"{run}/{name}" for name in ("checkpoint.safetensors", "checkpoint.json", "evaluation.json")]


def stage_artifacts(stage: str) -> list[str]:
    """What a stage leaves before its training."""
    names = ["labels.zarr/zarr.json", "labels.created.json", "labels.json", "label_accuracy.json"]
    if configuration.anchors.every_stage or stage.endswith("/stage1"):
        names.insert(0, "anchors.h5")
    return [f"{stage}/{name}" for name in names] + [f"{stage}/parts/{part}.json" for part in PARTS]


def seed_artifacts(seed: int) -> list[str]:
    """Everything below a seed's folder."""
    stages = [f"{recipe}/stage{stage}" for recipe in configuration.recipes for stage in STAGES]
    runs = ["pretrain", "warmup", *BOUNDS, *stages]
    artifacts = [path for run in runs for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/{run}")]
    return artifacts + [path for stage in stages for path in stage_artifacts(f"{EXPERIMENT}/seed{seed}/{stage}")]


def submission_artifacts(seed: int, recipe: str) -> list[str]:
    """The submission of a recipe's last model, and what makes it."""
    runs = [f"{EXPERIMENT}/seed{seed}/{run}" for run in chain_of(recipe)]
    made = [f"{run}/checkpoint.{suffix}" for run in runs for suffix in ("safetensors", "json")]
    made += [path for stage in runs[2:] for path in stage_artifacts(stage)]
    return made + [f"{runs[-1]}/{name}" for name in (f"predictions/{PREDICTED}.json", "submission.zip", "submission.json")]


def recipe_artifacts(recipe: str) -> list[str]:
    """What is told about a recipe over all seeds."""
    names = ("table.csv", "table.md", "figure.png", "curves.png", "report.html")
    return [f"{EXPERIMENT}/{recipe}/{name}" for name in names]
