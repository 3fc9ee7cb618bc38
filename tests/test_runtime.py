"""How a verb uses the machine."""

import platform
import subprocess
import sys

import pytest

PAGES, TIMES = 2**14, 40  # pages of a tensor of 64 MiB

CODE = f"""
import resource
import torch
from caguda.stages.runtime import prepare

prepare(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be told to keep freed memory")
def test_a_tensor_takes_the_memory_of_one_before() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    assert int(done.stdout) < PAGES * TIMES / 4
