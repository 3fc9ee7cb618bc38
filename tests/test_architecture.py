"""The rooms of the package: imports point down only, and files and functions stay small."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from caguda.verbs import VERBS

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "caguda"
# From top to bottom; rooms of one line may import each other, everything may import what is below it.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("launch", "resolved", "schema", "staleness", "verbs", "workflow"),
    ("costs",),
    ("stages",),
    ("methods", "viewer"),
    ("paper", "street"),
    ("datasets",),
    ("artifacts",),
    ("networks",),
    ("recorded_settings",),
    ("configfile", "runs"),
    ("classes",),
    ("config",),
    ("run_inheritance",),
    ("config_run",),
    ("config_rules", "config_training"),
    ("complaints", "pseudo_labels"),
    ("equations",),
    ("config_network",),
    ("config_frames",),
    ("config_types", "registry", "merging"),
    ("files",),
    ("errors", "version"),
)
LEVEL = {room: len(LAYERS) - depth for depth, rooms in enumerate(LAYERS) for room in rooms}
NO_TORCH = (
    "classes",
    "complaints",
    "config",
    "config_frames",
    "config_network",
    "config_rules",
    "config_run",
    "config_training",
    "config_types",
    "configfile",
    "errors",
    "files",
    "registry",
    "merging",
    "recorded_settings",
    "resolved",
    "runs",
    "schema",
    "staleness",
    "verbs",
    "version",
    "run_inheritance",
    "workflow",
    "cli",
)
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_LOOP = 300, 50, 80
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree at any depth, without what only a type checker reads."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from executed(child)


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """The full name of everything that a module imports, at any depth but for annotations; relative names are resolved."""
    for node in executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(name: str) -> str | None:
    """The room of the package that a full name belongs to; None outside, and for the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "caguda" and len(parts) > 1 else None


def upward(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What a module imports although it may not."""
    own = room(module)
    if own is None:
        return list(imports(source, module, is_package=is_package))
    targets = [(target, room(target)) for target in imports(source, module, is_package=is_package)]
    ours = [(target, place) for target, place in targets if target.split(".")[0] == "caguda"]
    allowed = {"equations"} if own == "equations" else {place for place in LEVEL if LEVEL[place] <= LEVEL[own]}
    return [target for target, place in ours if place not in allowed]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    assert upward(path.read_text(encoding="utf-8"), name_of(path), is_package=path.stem == "__init__") == []


def test_every_room_has_its_layer() -> None:
    assert {room(name_of(path)) for path in FILES} - {None} == set(LEVEL)


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("caguda.equations.losses", "from caguda.classes import IGNORE", ["caguda.classes.IGNORE"]),
        ("caguda.equations.losses", "from .anchors import distances\nimport torch", []),
        ("caguda.equations.losses", "from ..config import Labels", ["caguda.config.Labels"]),
        ("caguda.networks.small", "def f():\n    import caguda.datasets.io", ["caguda.datasets.io"]),
        ("caguda.artifacts.labels", "from caguda.datasets.io import x", ["caguda.datasets.io.x"]),
        ("caguda.networks.small", "from caguda import stages", ["caguda.stages"]),
        ("caguda.artifacts.labels", "from caguda.paper.table import x", ["caguda.paper.table.x"]),
        ("caguda.stages.train", "from caguda.paper.table import x\nfrom . import parallel", []),
        ("caguda.methods.cag", "def f():\n    from caguda.stages.session import x", ["caguda.stages.session.x"]),
        ("caguda.methods.cag", "if TYPE_CHECKING:\n    from caguda.stages.session import x", []),
        ("caguda.configfile", "import caguda.runs", []),
        ("caguda.config", "import caguda.classes", ["caguda.classes"]),
        ("caguda.config_run", "from caguda.run_inheritance import x", ["caguda.run_inheritance.x"]),
        ("caguda.config", "import caguda", ["caguda"]),
        ("caguda.config", "if TYPE_CHECKING:\n    from caguda.networks.small import x", []),
        ("caguda.config", "if True:\n    from caguda.networks.small import x", ["caguda.networks.small.x"]),
    ],
)
def test_the_rule_would_notice(module: str, source: str, found: list[str]) -> None:
    assert upward(source, module) == found


@pytest.mark.parametrize("name", NO_TORCH)
def test_these_rooms_import_no_torch(name: str) -> None:
    found = imports((PACKAGE / f"{name}.py").read_text(encoding="utf-8"), f"caguda.{name}")
    assert not [target for target in found if target.split(".")[0] in ("torch", "torchvision", "safetensors")]


def test_help_and_the_configuration_come_without_torch() -> None:
    program = (
        "import sys; from pathlib import Path; from caguda.cli import main; from caguda.configfile import load_configuration\n"
        "assert load_configuration(Path('config/demo.yaml')).network.name == 'small'\n"
        "assert main(['evaluate', '--config', 'none.yaml', *'--manifest m --checkpoint c --output o'.split()]) == 2\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.startswith("usage: caguda train") and done.stdout.splitlines()[-1] == "False"


NEED_TORCH = {"anchor-part", "anchors", "convert-anchors", "convert-checkpoint", "diagnose", "evaluate", "evidence-part",
              "figure", "import", "inspect", "methods-figure", "pack", "predict-part", "train", "view"}  # fmt: skip


def imported_by(verbs: set[str]) -> set[str]:
    """Which of the slow modules are imported when verbs start."""
    modules = sorted({"caguda." + VERBS[verb].function.partition(":")[0] for verb in verbs})
    program = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PROJECT)
    return {"torch", "torchvision", "torch._dynamo"} & set(done.stdout.split())


def test_verbs_that_run_no_network_and_read_no_frame_start_without_torch() -> None:
    assert NEED_TORCH < {*VERBS} and imported_by({*VERBS} - NEED_TORCH) == set()


def test_verbs_that_train_no_network_start_without_torchvision() -> None:
    """It imports torch._dynamo, which takes longer than torch itself."""
    assert imported_by(NEED_TORCH - {"train"}) == {"torch"}


def test_a_configuration_is_read_without_torch_or_numpy() -> None:
    program = (
        "import sys; from pathlib import Path; from caguda.configfile import load_configuration\n"
        "load_configuration(Path('config/demo.yaml'))\n"
        "looked = {'caguda.datasets.layouts.gta5', 'caguda.methods.cag', 'torch', 'numpy', 'PIL'}\n"
        "print(sorted(looked & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout == "['caguda.datasets.layouts.gta5', 'caguda.methods.cag']\n"


@pytest.mark.parametrize("path", sorted((PROJECT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_takes_from_the_package_is_there(path: Path) -> None:
    """To run one takes minutes, so that a name that has moved would not be noticed."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    taken = {
        (node.module, name.name) for node in nodes for name in node.names if (node.module or "").startswith("caguda")
    }
    missing = [f"{module}.{name}" for module, name in taken if not hasattr(importlib.import_module(module), name)]
    assert missing == []


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The name and the number of lines of every function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name_of(path)}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_files_and_functions_are_short() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}
    limit = {"caguda.stages.training.train": LONGEST_LOOP}
    measured = {name: lines for path in FILES for name, lines in functions(path)}
    found = {name: lines for name, lines in measured.items() if lines > limit.get(name, LONGEST_FUNCTION)}
    assert found == {}
    assert dict(functions(PACKAGE / "stages" / "training.py"))["caguda.stages.training.train"] > 10
