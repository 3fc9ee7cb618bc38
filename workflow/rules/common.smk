# The validated configuration, the paths of all artifacts, wildcards and fingerprints. Nothing here imports torch.

import json
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import caguda
from caguda.ablations import chains, known_rules, labelling_of, rules_of, sweep, thresholds_of
from caguda.artifacts.atomic import write_json
from caguda.errors import UserError, first, printable
from caguda.recorded import network_plugin, plugins_of
from caguda.staleness import silent_products, stale_artifacts
from caguda.version import METHOD_VERSION
from caguda.workflow import (
    held,
    merged_by_parent,
    merged_files,
    one_line,
    refuse_stages,
    set_aside,
    tell_of_earlier_layout,
    validated,
)
from snakemake.io import IOFile
from snakemake.settings.types import DeploymentMethod

# Snakemake takes what braces hold in the path of a rule's `conda:` for a wildcard.
if set("{}") & set(str(workflow.current_basedir)):
    sys.exit(
        f"caguda: {printable(str(workflow.current_basedir))}: the project must lie in a folder without {{ and }} in its path; "
        "move it or rename the folder"
    )


def configuration_name() -> Path:
    """The files that the configuration came from, as a person would name them."""
    names = [os.path.relpath(path) for path in workflow.configfiles] or ["config"]
    return Path(" + ".join([*names, "--config"] if workflow.config_settings.config else names))


def merged_configuration():
    """What the configuration files and their bases say, and `--config`; in a module, what its parent says."""
    files = [Path(file) for file in workflow.configfiles]
    if workflow.modifier.namespace is None:
        return merged_files(files, workflow.config_settings.config)
    return merged_by_parent(config, files)


with one_line():
    merged = merged_configuration()
    configuration = validated(merged, configuration_name())
    config = dict(merged.values)

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


def without_root(*sets: str) -> dict:
    """The sections of some sets of frames less their folders: frames may be moved."""
    return {name: SETTINGS[name] and without(name, "root") for name in sets}


# Verbs read the resolved configuration from one file. It is no input: a file that is made again in the same call would,
# even as ancient(), keep Snakemake from seeing that a rule's params have changed.
LOCKS = []


onstart:
    try:
        if configuration.left_out:
            print(f"caguda: left out: {', '.join(configuration.left_out)}", file=sys.stderr)
        LOCKS.append(held(Path(CONFIG).parent))
        tell_of_earlier_layout(Path(CONFIG).parent)
        set_aside(Path(path) for job in workflow.dag.needrun_jobs() for path in job.output)
        write_json(Path(CONFIG), SETTINGS)
    except UserError as error:
        sys.exit(f"caguda: {printable(str(error))}")
    except OSError as error:
        sys.exit(
            f"caguda: {EXPERIMENT}: must be writable, found: {os.strerror(error.errno)}; put that right, call again"
        )


def placed(path: str) -> str:
    """Where a path lies that Snakemake does not know as a file: below the prefix of a workflow that imports this one."""
    return str(workflow.modifier.modify_path(path))


@cache
def renewed(wildcards) -> list[str]:
    """Forces what is out of date to be made again. An input function of `check`, as those run while jobs are planned; it
    adds no input.

    What was made with other settings, or of files that are gone or changed, is made again where a target needs it, as by
    `--forcerun`, whether or not Snakemake remembers in `.snakemake` how it was made. Tables, pictures and archives do not
    say all that they were made of: they are made again where it does not remember. So is what is missing between a target
    and what it was made of.
    """
    if workflow.is_main_process:
        refuse_stages(
            workflow.dag_settings.targets, placed(EXPERIMENT), configuration.stages.count, configuration_name()
        )
        folder, known = Path(placed(EXPERIMENT)), set(map(placed, every_artifact()))
        found = stale_artifacts(configuration, folder)
        forgotten = [
            path for path in silent_products(folder) if workflow.persistence.metadata(IOFile(str(path), None)) is None
        ]
        if told := [f"{path}: {reason}" for path, reason in found.items() if str(path) in known]:
            reasons = first(told)
            print(f"out of date, made again where it is needed: {printable(reasons)}", file=sys.stderr)
        missing = [path for path in known if not os.path.exists(path)]
        workflow.dag.forcefiles.update(str(path) for path in (*found, *forgotten, *missing))
    return []


# Paths: EXPERIMENT, SEED, STAGE and MODEL are folders; a run is a folder that holds one checkpoint. What a frozen model says
# lies beside its checkpoint, whoever trains on it: anchors and evidence in MODEL/evidence, pseudo-labels in MODEL/labels/RULE.

EXPERIMENT = f"results/{configuration.experiment}"
SEED = f"{EXPERIMENT}/seed{{seed}}"
STAGE = f"{SEED}/{{recipe}}/stage{{stage}}"
MODEL = f"{SEED}/{{model}}"
EVIDENCE = f"{MODEL}/evidence"
LABELS = f"{MODEL}/labels"
CONFIG = placed(f"{EXPERIMENT}/config.json")
MANIFEST = f"{EXPERIMENT}/manifest.json"
GENERATED = [f"{EXPERIMENT}/generated.json"] if configuration.street else []
MANIFEST_OF = {"evaluation": MANIFEST, "test": f"{EXPERIMENT}/manifest.test.json"}
PREDICTED = "test" if configuration.test else "evaluation"
PACKED = f"{EXPERIMENT}/packed/{{domain}}.h5"
STAGES = range(1, configuration.stages.count + 1)
BOUNDS = configuration.trained_bounds
DIAGNOSED = configuration.target.labels is not None
RUNS = list(configuration.runs)
TRAINED = [run for run in RUNS if run not in configuration.start_from]
CHAINS = chains(configuration)
SWEEP = sweep(configuration.labels)
CHAIN = "|".join(re.escape(name) for name in CHAINS)
RULES = known_rules(configuration)
LABELLINGS = {labelling_of(configuration, recipe): recipe for recipe in CHAINS}
"""The name of the pseudo-labels of every chain of stages, and one of the chains that have them."""
FIRST_RECIPE = next(iter(configuration.recipes))
FIRST_SEED = configuration.seeds[0]


wildcard_constraints:
    seed="|".join(str(seed) for seed in configuration.seeds),
    recipe=CHAIN,
    domain="source|target",
    stage=r"[1-9]\d*",
    imported="|".join(configuration.start_from) or "none",
    number="[1-4]",
    model=rf"pretrain|warmup|({CHAIN})/stage[1-9]\d*",
    rule="|".join(map(re.escape, RULES)),
    labelling="|".join(re.escape(labelling) for labelling in LABELLINGS),
    part=r"[1-9]\d*",
    parts=r"[1-9]\d*",
    frames="|".join(MANIFEST_OF),
    run=rf"pretrain|warmup|control|oracle|({CHAIN})/stage[1-9]\d*",


# `python` in a rule is the interpreter that runs Snakemake, whether or not its environment was activated; with
# `--sdm conda`, that of workflow/envs/caguda.yaml, which runs this package. The shell's parent is Snakemake: a verb ends
# when it does.
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    python = f"export PYTHONPATH={shlex.quote(str(Path(caguda.__file__).parents[1]))}"
else:
    python = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
python = python.replace("{", "{{").replace("}", "}}")  # Snakemake formats the prefix
shell.prefix(f"{python}; export CAGUDA_WORKFLOW=$PPID; ")


# What decides the weights of any training beside its own section.
TRAINING = {
    "precision": configuration.compute.precision,
    "tf32": configuration.compute.tf32,
    "compile": configuration.compute.compile,
    "reduction": configuration.losses.reduction,
    **network_plugin(configuration),
}
TRAINER_CORES = configuration.compute.processes * (configuration.compute.threads + configuration.compute.workers)


def caches(*domains: str) -> list[str]:
    """The packed caches of these domains, none if the configuration has none."""
    return expand(PACKED, domain=domains) if configuration.cache else []


# No target lists the caches: all that makes one out of date does so to the manifest or to every training as well, and
# when all is trained, they may be deleted.
DATA_ARTIFACTS = [*GENERATED, MANIFEST]


def brought(run: str) -> list[str]:
    """The files of a model that stands for a run: its weights and, where it is there, their description."""
    weights = Path(configuration.start_from[run])
    return [local(str(path)) for path in (weights, weights.with_suffix(".json")) if path == weights or path.exists()]


def model_before(seed: int | str, recipe: str, stage: int) -> str:
    """The checkpoint that a stage starts from: the previous stage's, or the one that the recipe starts from."""
    run = f"{recipe}/stage{stage - 1}" if stage > 1 else CHAINS[recipe].start
    return f"{EXPERIMENT}/seed{seed}/{run}/checkpoint.safetensors"


def labeller(wildcards) -> str:
    """The checkpoint beside which evidence lies."""
    return f"{EXPERIMENT}/seed{wildcards.seed}/{wildcards.model}/checkpoint.safetensors"


def anchors_of(wildcards) -> str:
    """The anchors that the evidence in MODEL is made with: those of its own features, or of the first stage's."""
    recipe, _, stage = wildcards.model.partition("/")
    return (
        anchors_for(wildcards.seed, recipe, int(stage.removeprefix("stage")) + 1)
        if stage
        else f"{evidence_folder(labeller(wildcards))}/anchors.h5"
    )


def evidence_folder(checkpoint: str) -> str:
    """Where the evidence of a checkpoint lies."""
    return f"{os.path.dirname(checkpoint)}/evidence"


def anchors_for(seed: int | str, recipe: str, stage: int) -> str:
    """The anchors that a stage trains on."""
    model = model_before(seed, recipe, stage if configuration.anchors.every_stage else 1)
    return f"{evidence_folder(model)}/anchors.h5"


def evidence_for(seed: int | str, recipe: str, stage: int) -> str:
    """The evidence that a stage's pseudo-labels are made of."""
    return f"{evidence_folder(model_before(seed, recipe, stage))}/evidence.json"


def labels_for(seed: int | str, recipe: str, stage: int) -> list[str]:
    """The pseudo-labels that a stage trains on, those of each rule."""
    folder = os.path.dirname(model_before(seed, recipe, stage))
    rules = rules_of(thresholds_of(configuration, recipe)).values()
    return [f"{folder}/labels/{rule.folder}/labels.json" for rule in rules]


def labelling_for(seed: int | str, recipe: str, stage: int) -> str:
    """What is told of the pseudo-labels that a stage trains on."""
    folder = os.path.dirname(model_before(seed, recipe, stage))
    return f"{folder}/labels/{labelling_of(configuration, recipe)}.json"


def parts_of(folder: str, artifact: str) -> list[str]:
    """The files of all parts of an artifact in a folder: for `labels.json`, `parts/labels.1-of-2.json` and so on.

    As many as configured, unless all of another number are there: what is finished stays so when the number is changed.
    """
    name, suffix = artifact.split(".")

    def files(parts: int) -> list[str]:
        return [f"{folder}/parts/{name}.{part}-of-{parts}.{suffix}" for part in range(1, parts + 1)]

    first = sorted(path.stem for path in Path(placed(folder), "parts").glob(f"{name}.1-of-*.{suffix}"))
    found = [stem.rpartition("-")[2] for stem in first]
    numbers = [configuration.compute.parts, *(int(number) for number in found if number.isdecimal())]
    whole = (files(parts) for parts in numbers if all(os.path.exists(placed(path)) for path in files(parts)))
    return next(whole, files(configuration.compute.parts))


def chain_of(recipe: str) -> list[str]:
    """The runs that make a recipe's last model, in order."""
    return [*RUNS, *(f"{recipe}/stage{stage}" for stage in STAGES)]


def of_all_seeds(folders: list[str], artifact: str) -> list[str]:
    """One artifact from each of some folders, seed by seed."""
    return [f"{EXPERIMENT}/seed{seed}/{folder}/{artifact}" for seed in configuration.seeds for folder in folders]
