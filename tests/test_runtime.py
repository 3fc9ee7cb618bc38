"""How a verb uses the machine."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from miniature import Miniature

PAGES, TIMES = 2**14, 40  # pages of a tensor of 64 MiB

CODE = f"""
import resource
import torch
from caguda.stages.runtime import configure_torch

configure_torch(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be told to keep freed memory")
def test_a_tensor_takes_the_memory_of_one_before() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    assert int(done.stdout) < PAGES * TIMES / 4


SLOW = """
import sys
from caguda.cli import main

assert main(sys.argv[1:]) == 0
print({"torchvision", "torch._dynamo", "torch._inductor"} & {*sys.modules})
"""


def test_a_pass_of_a_network_imports_neither_torchvision_nor_the_compiler(mini: Miniature, tmp_path: Path) -> None:
    """They take longer than torch itself."""
    inputs = ("--config", mini.yaml(), "--manifest", mini.manifest, "--checkpoint", mini.weights("warmup"))
    for verb, output in (["evaluate"], "scores.json"), (["anchor-part", "--part", "1", "--parts", "1"], "sums.h5"):
        words = [sys.executable, "-c", SLOW, *verb, *inputs, "--output", tmp_path / output]
        done = subprocess.run([*map(str, words)], check=False, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1:] == ["set()"], done.stderr
