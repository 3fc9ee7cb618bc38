# The validated configuration, the paths of all artifacts, wildcards and fingerprints. Nothing here imports torch.

import json
import os
import re
import sys
from pathlib import Path

import caguda
from caguda.ablations import ablations, chains, sweep
from caguda.artifacts.atomic import write_json
from caguda.version import METHOD_VERSION
from caguda.workflow import held, validated
from snakemake.settings.types import DeploymentMethod


def configuration_name() -> Path:
    """The files that the configuration came from, as a person would name them."""
    names = [os.path.relpath(path) for path in workflow.configfiles] or ["config"]
    return Path(" + ".join([*names, "--config"] if workflow.config_settings.config else names))


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


# Verbs read the resolved configuration from one file. It is no input: a file that is made again in the same call would,
# even as ancient(), keep Snakemake from seeing that a rule's params have changed.
LOCKS = []


onstart:
    try:
        LOCKS.append(held(Path(CONFIG).parent))
        write_json(Path(CONFIG), SETTINGS)
    except OSError as error:
        sys.exit(
            f"caguda: {EXPERIMENT}: must be writable, found: {os.strerror(error.errno)}; put that right, call again"
        )


def placed(path: str) -> str:
    """Where a path lies that Snakemake does not know as a file: below the prefix of a workflow that imports this one."""
    return str(workflow.modifier.modify_path(path))


# Paths: EXPERIMENT, SEED, STAGE and GIVEN are folders; a run is a folder that holds one checkpoint. A stage trains in STAGE
# on the anchors and pseudo-labels in GIVEN. These are the same for the first stage of all recipes that start from the warm-up:
# they lie in `stage1`, and those of any other stage in `RECIPE/stageK` beside its checkpoint.

EXPERIMENT = f"results/{configuration.experiment}"
SEED = f"{EXPERIMENT}/seed{{seed}}"
STAGE = f"{SEED}/{{recipe}}/stage{{stage}}"
GIVEN = f"{SEED}/{{given}}"
CONFIG = placed(f"{EXPERIMENT}/config.json")
MANIFEST = f"{EXPERIMENT}/manifest.json"
GENERATED = [local(f"{configuration.data_root}/data.json")] if configuration.street else []
MANIFEST_OF = {"evaluation": MANIFEST, "test": f"{EXPERIMENT}/manifest.test.json"}
PREDICTED = "test" if configuration.test else "evaluation"
PACKED = f"{EXPERIMENT}/packed/{{domain}}.h5"
STAGES = range(1, configuration.stages.count + 1)
BOUNDS = ("control", "oracle")
RUNS = list(configuration.runs)
TRAINED = [run for run in RUNS if run not in configuration.start_from]
CHAINS = chains(configuration)
SWEEP = sweep(configuration.labels)
CHAIN = "|".join(re.escape(name) for name in CHAINS)
FIRST_RECIPE = next(iter(configuration.recipes))
FIRST_SEED = configuration.seeds[0]


wildcard_constraints:
    seed="|".join(str(seed) for seed in configuration.seeds),
    recipe=CHAIN,
    domain="source|target",
    stage=r"[1-9]\d*",
    imported="|".join(configuration.start_from) or "none",
    number="[1-4]",
    given=rf"stage1|({CHAIN})/stage[1-9]\d*",
    part=r"[1-9]\d*",
    parts=r"[1-9]\d*",
    frames="|".join(MANIFEST_OF),
    run=rf"pretrain|warmup|{'|'.join(BOUNDS)}|({CHAIN})/stage[1-9]\d*",


# `python` in a rule is the interpreter that runs Snakemake, whether or not its environment was activated; with
# `--sdm conda`, that of workflow/envs/caguda.yaml, which runs this package. The shell's parent is Snakemake: a verb ends
# when it does.
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    python = f'export PYTHONPATH="{Path(caguda.__file__).parents[1]}"'
else:
    python = f'PATH="{Path(sys.executable).parent}":$PATH'
shell.prefix(f"{python}; export CAGUDA_WORKFLOW=$PPID; ")


# What decides the weights of any training beside its own section.
TRAINING = {
    "precision": configuration.compute.precision,
    "compile": configuration.compute.compile,
    "reduction": configuration.losses.reduction,
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
    """The checkpoint that makes the anchors and pseudo-labels in GIVEN: the one that their stage starts from."""
    if wildcards.given == "stage1":
        return f"{EXPERIMENT}/seed{wildcards.seed}/warmup/checkpoint.safetensors"
    recipe, stage = wildcards.given.split("/")
    return model_before(wildcards.seed, recipe, int(stage.removeprefix("stage")))


def anchors_of(wildcards) -> str:
    """The anchors that the pseudo-labels in GIVEN are made with."""
    if wildcards.given == "stage1":
        return f"{EXPERIMENT}/seed{wildcards.seed}/stage1/anchors.h5"
    recipe, stage = wildcards.given.split("/")
    return given(wildcards.seed, recipe, int(stage.removeprefix("stage")), "anchors.h5")


def given(seed: int | str, recipe: str, stage: int, artifact: str) -> str:
    """An artifact that a stage trains on: its own pseudo-labels and anchors, or what the first stages share."""
    if artifact == "anchors.h5" and not configuration.anchors.every_stage:
        stage = 1
    shared = stage == 1 and CHAINS[recipe].start == "warmup" and (artifact == "anchors.h5" or recipe not in SWEEP)
    return f"{EXPERIMENT}/seed{seed}/{'stage1' if shared else f'{recipe}/stage{stage}'}/{artifact}"


def thresholds(wildcards) -> dict:
    """The thresholds of the pseudo-labels in GIVEN."""
    recipe, _, _ = wildcards.given.partition("/")
    key, value = SWEEP.get(recipe, ("p0", configuration.labels.p0))
    return SETTINGS["labels"] | {key: value}


def given_to(wildcards, artifact: str) -> str:
    """The same for the stage of a training rule."""
    return given(wildcards.seed, wildcards.recipe, int(wildcards.stage), artifact)


def parts_of(folder: str, artifact: str) -> list[str]:
    """The files of all parts of an artifact in a folder: for `labels.json`, `parts/labels.1-of-2.json` and so on.

    As many as configured, unless all of another number are there: what is finished stays so when the number is changed.
    """
    name, suffix = artifact.split(".")

    def files(parts: int) -> list[str]:
        return [f"{folder}/parts/{name}.{part}-of-{parts}.{suffix}" for part in range(1, parts + 1)]

    first = sorted(path.stem for path in Path(placed(folder), "parts").glob(f"{name}.1-of-*.{suffix}"))
    numbers = [configuration.compute.parts, *(int(stem.rpartition("-")[2]) for stem in first)]
    whole = (files(parts) for parts in numbers if all(os.path.exists(placed(path)) for path in files(parts)))
    return next(whole, files(configuration.compute.parts))


def chain_of(recipe: str) -> list[str]:
    """The runs that make a recipe's last model, in order."""
    return [*RUNS, *(f"{recipe}/stage{stage}" for stage in STAGES)]


def of_all_seeds(folders: list[str], artifact: str) -> list[str]:
    """One artifact from each of some folders, seed by seed."""
    return [f"{EXPERIMENT}/seed{seed}/{folder}/{artifact}" for seed in configuration.seeds for folder in folders]


def run_artifacts(run: str) -> list[str]:
    """What every run leaves."""
    return [f"{run}/{name}" for name in ("checkpoint.safetensors", "checkpoint.json", "evaluation.json")]


def given_artifacts(seed: int, recipe: str, stage: int) -> list[str]:
    """What a stage trains on."""
    names = ("anchors.h5", "labels.zarr/zarr.json", "labels.created.json", "labels.json", "label_accuracy.json")
    made = [given(seed, recipe, stage, name) for name in names]
    for name in ("anchors.h5", "labels.json"):
        made += parts_of(os.path.dirname(given(seed, recipe, stage, name)), name)
    return made


def given_to_all(recipe: str, artifact: str) -> list[str]:
    """An artifact of every stage, seed by seed."""
    return [given(seed, recipe, stage, artifact) for seed in configuration.seeds for stage in STAGES]


def seed_artifacts(seed: int) -> list[str]:
    """Everything below a seed's folder."""
    stages = [(recipe, stage) for recipe in configuration.recipes for stage in STAGES]
    runs = [*RUNS, *BOUNDS, *(f"{recipe}/stage{stage}" for recipe, stage in stages)]
    artifacts = [path for run in runs for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/{run}")]
    return artifacts + [path for recipe, stage in stages for path in given_artifacts(seed, recipe, stage)]


# Table 4: the ablations, one stage each, then the stages of the first recipe and one more, which the paper found saturated.
ABLATED = [(name, 1) for name in ablations(configuration.recipes[FIRST_RECIPE])]
ABLATED += [(FIRST_RECIPE, stage) for stage in (*STAGES, len(STAGES) + 1)]


def ablation_artifacts(seed: int) -> list[str]:
    """What the rows of Table 4 are made from."""
    runs = ["pretrain", "warmup", *(f"{recipe}/stage{stage}" for recipe, stage in ABLATED)]
    artifacts = [path for run in runs for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/{run}")]
    made = [path for recipe, stage in ABLATED for path in given_artifacts(seed, recipe, stage)]
    return artifacts + list(dict.fromkeys(made))


def compared_artifacts(seed: int) -> list[str]:
    """What our rows of Tables 1 and 3 are made from: the chain of the first recipe."""
    artifacts = [path for run in chain_of(FIRST_RECIPE) for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/{run}")]
    return artifacts + [path for stage in STAGES for path in given_artifacts(seed, FIRST_RECIPE, stage)]


# The sweep: one stage of the first recipe under every other threshold, beside its own stage 1.
SWEPT = [(name, 1) for name in (*SWEEP, FIRST_RECIPE)]


def sweep_artifacts(seed: int) -> list[str]:
    """What the sweep is made from."""
    runs = ["warmup", *(f"{recipe}/stage{stage}" for recipe, stage in SWEPT)]
    artifacts = [path for run in runs for path in run_artifacts(f"{EXPERIMENT}/seed{seed}/{run}")]
    return artifacts + list(dict.fromkeys(path for swept in SWEPT for path in given_artifacts(seed, *swept)))


TABLE_CLASSES = {1: ("cityscapes19",), 2: ("cityscapes19",), 3: ("cityscapes16", "cityscapes19")}


def table_inputs(number: int) -> list[str]:
    """The evaluations of a table of the paper, seed by seed; for Table 2 what describes the submissions."""
    if configuration.classes not in TABLE_CLASSES.get(number, (configuration.classes,)):
        needed = " or ".join(TABLE_CLASSES[number])
        sys.exit(f"caguda: {configuration_name()}: classes must be {needed} for table{number}, found other ones")
    if number == 2:
        return of_all_seeds([chain_of(FIRST_RECIPE)[-1]], "submission.json")
    ablated = [source_only(f"table{number}"), "warmup", *(f"{recipe}/stage{stage}" for recipe, stage in ABLATED)]
    return of_all_seeds(ablated if number == 4 else chain_of(FIRST_RECIPE), "evaluation.json")


def source_only(what: str) -> str:
    """The run that a table or picture measures gains against; or one line and the end, where there is none."""
    if "pretrain" not in RUNS:
        sys.exit(
            f"caguda: {configuration_name()}: {what} needs a source-only model; bring it too, by start_from.pretrain"
        )
    return "pretrain"


def table_artifacts(number: int) -> list[str]:
    """A table of the paper in all its formats."""
    return [f"{EXPERIMENT}/tables/table{number}.{suffix}" for suffix in ("csv", "md", "tex", "html")]


def submission_artifacts(seed: int, recipe: str) -> list[str]:
    """The submission of a recipe's last model, and what makes it."""
    runs = [f"{EXPERIMENT}/seed{seed}/{run}" for run in chain_of(recipe)]
    made = [f"{run}/checkpoint.{suffix}" for run in runs for suffix in ("safetensors", "json")]
    made += [path for stage in STAGES for path in given_artifacts(seed, recipe, stage)]
    made += parts_of(f"{runs[-1]}/predictions", f"{PREDICTED}.json")
    return made + [
        f"{runs[-1]}/{name}" for name in (f"predictions/{PREDICTED}.json", "submission.zip", "submission.json")
    ]


def label_pictures(recipe: str) -> list[str]:
    """The first stage's pseudo-labels: some frames, and charts of all; their precision where a truth is known."""
    return [f"{EXPERIMENT}/{recipe}/labels/{name}" for name in ("frames", "charts")]


def recipe_artifacts(recipe: str) -> list[str]:
    """What is told about a recipe over all seeds."""
    names = ("table.csv", "table.md", "figure.png", "curves.png", "report.html")
    return [f"{EXPERIMENT}/{recipe}/{name}" for name in names]
