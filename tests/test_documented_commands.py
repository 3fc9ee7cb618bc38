"""Every command of the documentation works as it is typed, where its page says that it does."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any

import pytest
import yaml
from documentation import FENCED, OTHER_BLOCKS, PAGES, block, commands, read
from miniature import Miniature, values
from workflow_runs import ROOT, environment

from caguda.artifacts.atomic import write_json
from caguda.cli import main
from caguda.config import Configuration
from caguda.runs import labelling_name, rules_of
from caguda.stages.diagnose import diagnose
from caguda.stages.evaluate import evaluate
from caguda.stages.labels import make_labels
from caguda.verbs import VERBS

NOT_RUN = {
    ".venv/bin/pre-commit install": "changes the checkout's git hooks",
    ". .venv/bin/activate": "the tests have an environment of their own",
    "pip install -c constraints.txt -e '.[slurm]'": "installs; test_packaging has the extra",
    "pip install xarray cf_xarray": "installs; test_label_store_docs runs what needs them",
    'pip install "napari[all]"': "installs",
    "pip install -e /path/to/caguda": "installs",
    "DATA_ROOT=/data python -m caguda convert-checkpoint --config config/gta5_cityscapes_official.yaml "
    "--input warm_up.pkl --output warm_up.safetensors": "needs the authors' file: test_given_anchors converts one like it",
    "scancel JOB": "needs Slurm: test_slurm",
    "scontrol requeue": "needs Slurm: test_slurm",
    'squeue --me --format="%i %T %M %k"': "needs Slurm: test_slurm",
    "snakemake --report report.zip": "needs finished results: test_conventions",
}
STANDS_FOR = {
    r"(?<=[= ])/data\b": "data",
    r"\bFILE\b": "results/street/seed0/cag/stage3/evaluation.json",
    r"\bVERB\b": "schema",
    r"\bgpu=N\b": "gpu=2",
}
"""What a reader puts in the place of some words."""
QUESTIONS = {"--dry-run", "--summary", "--rulegraph", "--lint", "--list-target-rules"}
"""Options with which Snakemake runs nothing."""
MAKES = {"table1": "paper_table", "table4": "paper_table", "sweep": "sweep_table", "submission": "submission_zip",
         "predictions": "predict_part"}  # fmt: skip
"""A rule that a target cannot do without."""
EVERY = commands()
PLANS = [command for command in EVERY if re.search(r"(^|=\S+ )snakemake ", command) and command not in NOT_RUN]


def typed(command: str) -> str:
    """A command with what a reader puts in the place of some words."""
    for word, meant in STANDS_FOR.items():
        command = re.sub(word, meant, command)
    return command


def verb(command: str) -> list[str] | None:
    """The words behind `caguda` or `python -m caguda`, with wildcards as they are; None for another command."""
    found = re.match(r"(?:python -m )?caguda\b(.*)", command)
    return shlex.split(found[1]) if found else None


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's root, with what the pages tell a reader to put there."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("workflow", "config", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "slurm").symlink_to("workflow/profiles/slurm")
    for place in ("gta5", "cityscapes", "synthia", "camvid"):
        (folder / "data" / place).mkdir(parents=True)
    (folder / "home").mkdir()
    (folder / "own.yaml").write_text(block("own_data.md", "yaml"), encoding="utf-8")
    (folder / "make_data.py").write_text(block("own_data.md", "python"), encoding="utf-8")
    shell("python make_data.py", folder)
    (test_set,) = re.findall(r"^    (test: \{.*\})$", read(ROOT / "docs" / "submission.md"), re.MULTILINE)
    paper = folder / "config" / "gta5_cityscapes_paper.yaml"
    text, changed = re.subn(r"^test: null.*$", test_set, read(paper), flags=re.MULTILINE)
    assert changed == 1
    paper.write_text(text, encoding="utf-8")
    return folder


def shell(command: str, folder: Path) -> str:
    """What a command prints that a shell runs in a folder, in an activated environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment() | {"PATH": path, "HOME": str(folder / "home")}, check=False,
        stdin=subprocess.DEVNULL, text=True, capture_output=True,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{command}\n{said}"
    return said


def dry(command: str) -> str:
    """A call of Snakemake that only plans; a pipe's second program is somebody else's, and so is the Slurm plugin."""
    command, _, _ = typed(command).partition(" | ")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        command = command.replace("--profile slurm", "--cores 1")
    return command if QUESTIONS & set(command.split()) else f"{command} --dry-run"


@pytest.fixture(scope="module")
def demo(mini: Miniature, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results by the names that `make demo` gives them; they are those of the miniature experiment."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(ROOT / "config", folder / "config")
    street = replace(mini, folder=folder / "results" / "street")
    configuration = mini.configuration(experiment="street", runs=runs_of_the_demo(), reports={})
    street.folder.mkdir(parents=True)
    write_json(street.folder / "config.json", configuration.model_dump(mode="json"))
    shutil.copy(mini.manifest, street.manifest)
    street.train("seed0/source_only", "source_only", configuration)
    street.train("seed0/warm-up", "warm-up", configuration, start=street.weights("seed0/source_only"))
    model = "seed0/warm-up"
    for k in (1, 2, 3):
        labels, anchors = labelled(street, model, configuration), street.folder / model / "evidence" / "anchors.h5"
        given = {"start": street.weights(model), "anchors": anchors, "labels": labels}
        model = f"seed0/cag/stage{k}"
        street.train(model, f"cag/stage{k}", configuration, **given)
        shutil.rmtree(street.folder / model / "state")
    evaluate(configuration, street.manifest, street.weights(model), street.folder / model / "evaluation.json")
    return folder


def runs_of_the_demo() -> dict[str, Any]:
    """The miniature's runs by the names of the demo's, with its rules of pseudo-labels."""
    small, demo = values(Path())["runs"], yaml.safe_load(read(ROOT / "config" / "demo.yaml"))["runs"]
    changed = {key: demo["cag"][key] for key in ("start", "stages", "pseudo_labels")}
    return {
        "source_only": small["pretrain"],
        "warm-up": small["warmup"] | {"start": "source_only"},
        # At the miniature's rate the distance loss draws all features to 0 in two stages.
        "cag": small["cag"] | changed | {"optimiser": {"learning_rate": 1e-4}},
    }


def labelled(street: Miniature, model: str, configuration: Configuration) -> list[Path]:
    """The JSONs of both rules' labels by a model, made beside it with all that belongs to them, as the workflow does."""
    evidence = street.evidence(f"{model}/evidence", configuration, street.weights(model))
    folder, made = street.folder / model / "labels", []
    for rule in rules_of(configuration, "cag/stage1").values():
        made.append(folder / rule.folder / "labels.json")
        make_labels(configuration, evidence, rule.folder, made[-1].with_suffix(".zarr"), made[-1])
    labelling = labelling_name(configuration, "cag/stage1")
    diagnose(configuration, street.manifest, evidence, made, folder / f"{labelling}.json")
    return made


@pytest.mark.parametrize("command", PLANS)
def test_snakemake_plans_it(project: Path, command: str) -> None:
    said, words = shell(dry(command), project), shlex.split(typed(command))
    if QUESTIONS & set(words):
        assert "wildcards" in said or len(said.splitlines()) > 1
        return
    assert "--cores" in words or "--profile" in words, "a run needs --cores"
    jobs = Counter({rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)})
    asked = words[words.index("snakemake") + 1 :]
    targets = asked[: next(place for place, word in enumerate(asked) if word.startswith("--"))]
    for target in targets:
        assert jobs[MAKES[target]] if target in MAKES else target in said
    assert targets or jobs["report_page"]
    seeds = next((word.count(",") + 1 for word in words if word.startswith("seeds=")), 1)
    source_only = re.findall(r"^    output: \S+/seed\d+/source_only/checkpoint\.safetensors,", said, re.MULTILINE)
    assert len(source_only) == (0 if "results/own/manifest.json" in targets else seeds)
    assert ("check_test" in jobs) == ("gta5_cityscapes_paper.yaml" in command and "submission" in targets)


def examples() -> list[tuple[str, str]]:
    """The YAMLs with runs that pages show beside demo.yaml, each with the name of its page."""
    pages = (ROOT / name for name in ("CONTRIBUTING.md", "docs/runs.md", "docs/methods.md", "docs/rules.md"))
    found = [(page.name, text) for page in pages for language, text in FENCED.findall(read(page)) if language == "yaml"]
    return [(name, text) for name, text in found if re.search("^runs:", text, re.MULTILINE)]


@pytest.mark.parametrize(("page", "text"), examples(), ids=[name for name, _ in examples()])
def test_an_example_of_runs_is_an_experiment(project: Path, page: str, text: str) -> None:
    """Beside the demo, where it has that as its base, or above it."""
    for file in ("mean_teacher_method.py", "agreement_rule.py", "advent_method.py"):
        shutil.copy(ROOT / "tests" / file, project / "config")
    example = project / "config" / "example.yaml"
    example.write_text(text, encoding="utf-8")
    said = yaml.safe_load(text)
    files = ("config/demo.yaml",) if "base" not in said else ()
    found = yaml.safe_load(shell(f"python -m caguda config {' '.join((*files, 'config/example.yaml'))}", project))
    assert said["runs"].keys() <= found["runs"].keys() and (page != "runs.md" or "base" in said)


def test_the_methods_of_the_pages_are_those_of_the_tests() -> None:
    assert block("methods.md", "python") == read(ROOT / "tests" / "mean_teacher_method.py")
    assert f"```python\n{read(ROOT / 'tests' / 'advent_method.py')}```\n" in read(ROOT / "CONTRIBUTING.md")


@pytest.mark.parametrize("command", [command for command in EVERY if verb(command) is not None])
def test_a_verb_runs(demo: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is but named has to be there."""
    monkeypatch.chdir(demo)
    words = [path for word in verb(typed(command)) or [] for path in (sorted(glob(word)) if "*" in word else [word])]
    if len(words) < 2 and words != ["schema"]:
        assert words in ([], ["--help"]) or words[0] in VERBS
        words = [*words, "--help"]
    if "--help" not in words:
        assert main(words) == 0
        return
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0


@pytest.mark.parametrize("command", [command for command in EVERY if command.startswith("python benchmarks/")])
def test_a_benchmark_takes_these_words(command: str) -> None:
    """It is there, and has options of these names: to run one takes minutes."""
    _, script, *words = command.split()
    source = (ROOT / script).read_text(encoding="utf-8")
    missing = [word for word in words if word.startswith("--") and f'add_argument("{word}"' not in source]
    assert missing == []


CHEAP = ("make ", "mkdir ", "find ", "head ", "python make_data.py")


@pytest.mark.parametrize("command", [command for command in EVERY if command.startswith(CHEAP)])
def test_a_shell_runs_it(project: Path, demo: Path, command: str) -> None:
    """What make would do is only printed."""
    if command.startswith("make "):
        assert shell(f"make -n {command.removeprefix('make ')}", project)
    else:
        shell(typed(command), demo if command.startswith(("find ", "head ")) else project)


def test_every_command_is_tried_or_has_a_reason() -> None:
    tried = {*PLANS, *(command for command in EVERY if verb(command) is not None)}
    tried |= {command for command in EVERY if command.startswith(("python benchmarks/", *CHEAP))}
    assert [command for command in EVERY if command not in tried | set(NOT_RUN)] == [], "tell these tests how to run it"
    assert [command for command in NOT_RUN if command not in EVERY] == []
    firsts = {
        (page.name, line.split()[0]) for page in PAGES for line in read(page).splitlines() if line.startswith("    ")
    }
    assert [place for place in OTHER_BLOCKS if place not in firsts] == []
