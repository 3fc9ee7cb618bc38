# The validated configuration, the paths of all artifacts, wildcards and fingerprints. Nothing here imports torch.

import json
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import caguda
from caguda.artifacts.atomic import write_json
from caguda.errors import UserError, first, printable
from caguda.config_run import Method
from caguda.recorded import plugins_of, plugins_of_rule, settings_of_run
from caguda.runs import (
    anchors_of_evidence,
    imported_files,
    known_rules,
    labelling_of,
    model_before,
    models,
    models_before,
    reports,
    rules_of,
    run_of,
)
from caguda.staleness import silent_products, stale_artifacts
from caguda.version import METHOD_VERSION
from caguda.workflow import (
    lock_of,
    merged_by_parent,
    merged_files,
    one_line,
    refuse_other_models,
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
        LOCKS.append(lock_of(Path(CONFIG).parent))
        tell_of_earlier_layout(Path(CONFIG).parent, configuration.runs)
        set_aside(Path(path) for job in workflow.dag.needrun_jobs() for path in job.output)
        write_json(Path(CONFIG), SETTINGS)
    except UserError as error:
        sys.exit(f"caguda: {printable(str(error))}")
    except OSError as error:
        sys.exit(
            f"caguda: {EXPERIMENT}: must be writable, found: {os.strerror(error.errno)}; put that right, call again"
        )


def below_prefix(path: str) -> str:
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
        folder, known = Path(below_prefix(EXPERIMENT)), set(map(below_prefix, every_artifact()))
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


# Paths: EXPERIMENT, SEED and MODEL are folders; a model is the folder of a run, or of one of its stages, RUN/stageK, and holds
# one checkpoint. What a frozen model says lies beside its checkpoint, whoever trains on it: anchors and evidence in
# MODEL/evidence, pseudo-labels in MODEL/labels/RULE.

EXPERIMENT = f"results/{configuration.experiment}"
SEED = f"{EXPERIMENT}/seed{{seed}}"
MODEL = f"{SEED}/{{model}}"
EVIDENCE = f"{MODEL}/evidence"
LABELS = f"{MODEL}/labels"
CONFIG = below_prefix(f"{EXPERIMENT}/config.json")
MANIFEST = f"{EXPERIMENT}/manifest.json"
GENERATED = [f"{EXPERIMENT}/generated.json"] if configuration.street else []
MANIFEST_OF = {"evaluation": MANIFEST, "test": f"{EXPERIMENT}/manifest.test.json"}
PREDICTED = "test" if configuration.test else "evaluation"
PACKED = f"{EXPERIMENT}/packed/{{domain}}.h5"
REPORT = f"{EXPERIMENT}/reports/{{report}}"
MODELS = models(configuration)
REPORTS = reports(configuration)
RULES = known_rules(configuration)
LABELLINGS = {labelling_of(configuration, model) for model in MODELS} - {""}
"""The names of all pseudo-labels that a model is trained on: the folders of their rules."""
FIRST_REPORT = next(iter(REPORTS))
FIRST_SEED = configuration.seeds[0]


ANY_MODEL = r"[A-Za-z0-9][A-Za-z0-9_-]*(?:/stage[1-9]\d*)?"
"""The pattern of a model's name, also of one that the configuration has not, so that a rule can say so."""


def one_of(names) -> str:
    """The pattern of a wildcard that is one of some names."""
    return "|".join(map(re.escape, names)) or "none"


wildcard_constraints:
    seed=one_of(map(str, configuration.seeds)),
    model=ANY_MODEL,
    report=one_of(REPORTS),
    rule=one_of(RULES),
    labelling=one_of(LABELLINGS),
    domain="source|target",
    number="[1-4]",
    part=r"[1-9]\d*",
    parts=r"[1-9]\d*",
    frames="|".join(MANIFEST_OF),


# `python` in a rule is the interpreter that runs Snakemake, whether or not its environment was activated; with
# `--sdm conda`, that of workflow/envs/caguda.yaml, which runs this package. The shell's parent is Snakemake: a verb ends
# when it does.
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    python = f"export PYTHONPATH={shlex.quote(str(Path(caguda.__file__).parents[1]))}"
else:
    python = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
python = python.replace("{", "{{").replace("}", "}}")  # Snakemake formats the prefix
shell.prefix(f"{python}; export CAGUDA_WORKFLOW=$PPID; ")


TRAINER_CORES = configuration.compute.processes * (configuration.compute.threads + configuration.compute.workers)


def caches(*domains: str) -> list[str]:
    """The packed caches of these domains, none if the configuration has none."""
    return expand(PACKED, domain=domains) if configuration.cache else []


# No target lists the caches: all that makes one out of date does so to the manifest or to every training as well, and
# when all is trained, they may be deleted.
DATA_ARTIFACTS = [*GENERATED, MANIFEST]


def of_model(seed: int | str, model: str, name: str) -> str:
    """An artifact in the folder of a model."""
    return f"{EXPERIMENT}/seed{seed}/{model}/{name}"


def brought(run: str) -> list[str]:
    """The files of an imported model: its weights and, where it is there, their description."""
    weights = Path(imported_files(configuration)[run])
    return [local(str(path)) for path in (weights, weights.with_suffix(".json")) if path == weights or path.exists()]


def known_model(wildcards) -> str:
    """The model of a job; or one line and the end, where the configuration has none of its name."""
    if wildcards.model not in MODELS:
        refuse_other_models(workflow.dag_settings.targets, below_prefix(EXPERIMENT), MODELS, configuration_name())
    return wildcards.model


def checkpoint_of(wildcards) -> str:
    """The checkpoint that lies in the folder of a model."""
    return of_model(wildcards.seed, known_model(wildcards), "checkpoint.safetensors")


def anchors_beside(seed: int | str, model: str) -> str:
    """The anchors that the evidence of a model is made with: those of its own features, or of what its chain started from."""
    return of_model(seed, anchors_of_evidence(configuration, model), "evidence/anchors.h5")


def initial_of(seed: int | str, model: str) -> list[str]:
    """The checkpoint that a training starts from; none where it starts from fresh weights."""
    before = model_before(configuration, model)
    return [] if before is None else [of_model(seed, before, "checkpoint.safetensors")]


def anchors_for(seed: int | str, model: str) -> list[str]:
    """The anchors that a training needs; none where its method needs none."""
    before = model_before(configuration, model)
    return [anchors_beside(seed, before)] if run_of(configuration, model).uses_anchors else []


def reads_labels(model: str) -> bool:
    """Whether a model is trained on cached pseudo-labels."""
    run = run_of(configuration, model)
    return isinstance(run, Method) and run.reads_pseudo_labels


def labels_for(seed: int | str, model: str) -> list[str]:
    """The pseudo-labels that a training reads, those of each rule; none where its method reads none."""
    before, rules = model_before(configuration, model), rules_of(configuration, model).values()
    return [of_model(seed, before, f"labels/{rule.folder}/labels.json") for rule in rules if reads_labels(model)]


def evidence_for(seed: int | str, model: str) -> str:
    """The evidence that the pseudo-labels of a training are made of."""
    return of_model(seed, model_before(configuration, model), "evidence/evidence.json")


def labelling_for(seed: int | str, model: str) -> str:
    """What is told of the pseudo-labels that a training reads."""
    return of_model(seed, model_before(configuration, model), f"labels/{labelling_of(configuration, model)}.json")


def parts_of(folder: str, artifact: str) -> list[str]:
    """The files of all parts of an artifact in a folder: for `labels.json`, `parts/labels.1-of-2.json` and so on.

    As many as configured, unless all of another number are there: what is finished stays so when the number is changed.
    """
    name, suffix = artifact.split(".")

    def files(parts: int) -> list[str]:
        return [f"{folder}/parts/{name}.{part}-of-{parts}.{suffix}" for part in range(1, parts + 1)]

    first = sorted(path.stem for path in Path(below_prefix(folder), "parts").glob(f"{name}.1-of-*.{suffix}"))
    found = [stem.rpartition("-")[2] for stem in first]
    numbers = [configuration.compute.parts, *(int(number) for number in found if number.isdecimal())]
    whole = (files(parts) for parts in numbers if all(os.path.exists(below_prefix(path)) for path in files(parts)))
    return next(whole, files(configuration.compute.parts))


def of_all_seeds(names: list[str], artifact: str) -> list[str]:
    """One artifact of each of some models, seed by seed."""
    return [of_model(seed, model, artifact) for seed in configuration.seeds for model in names]
