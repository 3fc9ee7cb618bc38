# The validated configuration, the paths of all artifacts, and the wildcards. Nothing here imports torch.

import json
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import caguda
from caguda.artifacts.atomic import write_json
from caguda.artifacts.given_anchors import CONVERTED, folder_of
from caguda.config_run import MODEL_PATTERN, Method, run_name
from caguda.datasets.manifest import SET_NAMES
from caguda.errors import UserError, first, printable
from caguda.recorded_settings import plugins_of, plugins_of_rule, recorded_network, settings_of_pass, settings_of_run
from caguda.runs import (
    anchors_files,
    imported_files,
    labelling_name,
    last_models,
    model_before,
    model_of_anchors,
    model_of_first_weights,
    models as all_models,
    models_before,
    reports,
    rules_by_folder,
    rules_of,
    run_of,
)
from caguda.staleness import products_without_provenance, stale_artifacts
from caguda.version import METHOD_VERSION
from caguda.workflow import (
    explain_unknown_model,
    lock_of,
    merged_by_parent,
    merged_files,
    one_line,
    set_aside,
    tell_of_earlier_layout,
    validated,
)
from snakemake.io import IOFile
from snakemake.settings.types import DeploymentMethod

# Snakemake takes a name in braces in the path of a rule's `conda:` for a wildcard.
if set("{}") & set(str(workflow.current_basedir)):
    sys.exit(
        f"caguda: {printable(str(workflow.current_basedir))}: the project must lie in a folder without {{ and }} in its path; "
        "move it or rename the folder"
    )


def configuration_name() -> Path:
    """The files of the configuration as a user names them: relative paths, joined by ` + `."""
    names = [os.path.relpath(path) for path in workflow.configfiles] or ["config"]
    return Path(" + ".join([*names, "--config"] if workflow.config_settings.config else names))


def merged_configuration():
    """The merged configuration files, their bases and `--config`; in a module, the configuration that its parent gives it."""
    files = [Path(file) for file in workflow.configfiles]
    if workflow.modifier.namespace is None:
        return merged_files(files, workflow.config_settings.config)
    return merged_by_parent(config, files)


with one_line():
    merged = merged_configuration()
    configuration = validated(merged, configuration_name())
    config = dict(merged.values)

SETTINGS = configuration.model_dump(mode="json")


def settings_json(*names: str, **sections) -> str:
    """Sorted JSON of some sections of the configuration, named or given by value: a param of a rule.

    It holds the settings that the rule's verb reads itself. When they change, Snakemake runs the rule again. It leaves out
    the settings that the verb finds in its input files, such as the thresholds of a label store.
    """
    return json.dumps({name: SETTINGS[name] for name in names} | sections, sort_keys=True)


def without(section: str, *keys: str) -> dict:
    """A section of the configuration without the keys that do not change what the rule makes."""
    return {key: value for key, value in SETTINGS[section].items() if key not in keys}


def without_root(*sets: str) -> dict:
    """The sections of some sets of frames without their folders, since frames may be moved."""
    return {name: SETTINGS[name] and without(name, "root") for name in sets}


LOCKS = []  # keeps the lock's file open for as long as Snakemake runs


# Verbs read the resolved configuration from one file, which is written before the first job. It is no input of a rule: an
# input that is written in the same call, even as ancient(), keeps Snakemake from seeing that a rule's params have changed.


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
    """A path below the prefix of the workflow that imports this one, for files that Snakemake does not know."""
    return str(workflow.modifier.modify_path(path))


def force_stale(wildcards) -> list[str]:
    """Calls `force_all_stale`, once however many jobs ask. Adds no input.

    An input function of `check`, `check_test` and the rules of import.smk, since Snakemake calls those while it plans jobs.
    """
    force_all_stale()
    return []


@cache
def force_all_stale() -> None:
    """Forces what is out of date to be made again where a target needs it, as `--forcerun` does.

    An artifact is out of date if it records other settings than the configuration has, or an input that is missing or has
    changed. Tables, pictures and archives do not record all their inputs; they are forced if `.snakemake` does not remember
    how they were made. An artifact that is missing between a target and its inputs is forced too.
    """
    if workflow.is_main_process:
        folder, artifacts = Path(below_prefix(EXPERIMENT)), set(map(below_prefix, training_artifacts()))
        with one_line():
            stale, products = stale_artifacts(configuration, folder), list(products_without_provenance(folder))
        forgotten = [path for path in products if workflow.persistence.metadata(IOFile(str(path), None)) is None]
        if lines := [f"{path}: {reason}" for path, reason in stale.items() if str(path) in artifacts]:
            print(f"out of date, made again where it is needed: {printable(first(lines))}", file=sys.stderr)
        if not {*workflow.dag_settings.targets} - {"all", "demo"} and (names := unreported_runs()):
            print(
                f"in no report, so not made by this target: {first(names)}; ask for the target runs, or list them in reports",
                file=sys.stderr,
            )
        missing = [path for path in artifacts if not os.path.exists(path)]
        workflow.dag.forcefiles.update(str(path) for path in (*stale, *forgotten, *missing))


# Paths. EXPERIMENT, SEED and MODEL are folders. A model is named by its folder, RUN or RUN/stageK, which holds one checkpoint.
# Its anchors and its evidence lie in MODEL/evidence, and the pseudo-labels made of them in MODEL/labels/RULE, whichever run
# is trained on them. If a run names anchors from elsewhere, they lie in MODEL/anchors-DIGEST/evidence and .../labels/RULE
# instead. GIVEN is MODEL, or that folder below it.

EXPERIMENT = f"results/{configuration.experiment}"
SEED = f"{EXPERIMENT}/seed{{seed}}"
MODEL = f"{SEED}/{{model}}"
GIVEN = f"{MODEL}{{given}}"
EVIDENCE = f"{GIVEN}/evidence"
LABELS = f"{GIVEN}/labels"
OWN_ANCHORS = f"{MODEL}/evidence"
CONFIG = below_prefix(f"{EXPERIMENT}/config.json")
MANIFEST = f"{EXPERIMENT}/manifest.json"
GENERATED = [f"{EXPERIMENT}/generated.json"] if configuration.street else []
MANIFEST_OF = {**dict.fromkeys(SET_NAMES, MANIFEST), "test": f"{EXPERIMENT}/manifest.test.json"}
TRANSLATED = f"{EXPERIMENT}/manifest.translated.json"
PREDICTED = "test" if configuration.test else "evaluation"
PACKED = f"{EXPERIMENT}/packed/{{domain}}.h5"
REPORT = f"{EXPERIMENT}/reports/{{report}}"
MODELS = all_models(configuration)
with one_line():
    FOLDER_BY_RUN = {run: folder_of(Path(file)) for run, file in anchors_files(configuration).items()}
ANCHORS_BY_FOLDER = {FOLDER_BY_RUN[run]: file for run, file in anchors_files(configuration).items()}
"""The files of anchors from elsewhere, by the folder of what is made with each."""
REPORTS = reports(configuration)
RULE_BY_FOLDER = rules_by_folder(configuration)
LABELLINGS = {labelling_name(configuration, model) for model in MODELS} - {""}
"""The names of all labellings: the folders of the rules that label for one model, joined by `+`."""
FIRST_REPORT = next(iter(REPORTS))
FIRST_SEED = configuration.seeds[0]


def alternatives(names) -> str:
    """The pattern of a wildcard that stands for one of these names."""
    return "|".join(map(re.escape, names)) or "none"


wildcard_constraints:
    seed=alternatives(map(str, configuration.seeds)),
    model=MODEL_PATTERN,  # also that of a model that the configuration does not have, so that `model_of_job` can say so
    given=rf"(?:/(?:{alternatives(ANCHORS_BY_FOLDER)}))?",
    report=alternatives(REPORTS),
    rule=r"[A-Za-z0-9_.-]+",
    labelling=alternatives(LABELLINGS),
    domain="source|target|translated",
    number="[1-4]",
    part=r"[1-9]\d*",
    parts=r"[1-9]\d*",
    frames="|".join(MANIFEST_OF),


# `python` in a rule is the interpreter that runs Snakemake, whether or not its environment is activated. With `--sdm conda`
# it is that of workflow/envs/caguda.yaml, which runs this package. The shell's parent is Snakemake: a verb ends when
# Snakemake ends.
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    python = f"export PYTHONPATH={shlex.quote(str(Path(caguda.__file__).parents[1]))}"
else:
    python = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
python = python.replace("{", "{{").replace("}", "}}")  # Snakemake formats the prefix
shell.prefix(f"{python}; export CAGUDA_WORKFLOW=$PPID; ")


TRAINER_CORES = configuration.compute.processes * (configuration.compute.threads + configuration.compute.workers)


def caches(*sets: str) -> list[str]:
    """The packed caches of these sets of frames; none without `cache: true`."""
    return expand(PACKED, domain=sets) if configuration.cache else []


# No target lists the caches, so that they may be deleted when all is trained. Whatever makes a cache stale makes the
# manifest or every training stale too.
DATA_ARTIFACTS = [*GENERATED, MANIFEST]
