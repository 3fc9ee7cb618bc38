"""The equations as a package: what it imports, and that its annotations are checked here."""

import pkgutil
import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

import caguda.classes
import caguda.equations
from caguda.equations.losses import cross_entropy

NAMES = [f"caguda.equations.{module.name}" for module in pkgutil.iter_modules(caguda.equations.__path__)]


def test_the_equations_import_torch_numpy_and_jaxtyping_only() -> None:
    program = (
        "import sys, torch, numpy, jaxtyping; before = set(sys.modules);"
        f"import {', '.join(NAMES)};"
        "print(*sorted({m for m in set(sys.modules) - before if m.split('.')[0] not in sys.stdlib_module_names}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ours = [name for name in done.stdout.split() if not name.startswith(("torch.", "jaxtyping."))]
    assert ours == sorted(["caguda", "caguda.equations", *NAMES])


def test_ignore_is_the_same_everywhere() -> None:
    assert caguda.equations.IGNORE == caguda.classes.IGNORE


def test_shapes_are_checked_in_tests() -> None:
    with pytest.raises(TypeCheckError):
        cross_entropy(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 3, dtype=torch.uint8))
    with pytest.raises(TypeCheckError):
        cross_entropy(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2))
