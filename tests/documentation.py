"""The commands of the documentation: those of its blocks, and those in its sentences."""

import re
from collections.abc import Iterator
from pathlib import Path

from workflow_runs import ROOT

FOLDERS = (".", "docs", "config", "benchmarks", "caguda/paper/published")
PAGES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
PROGRAMS = {
    ".", "bash", "caguda", "cd", "conda", "cp", "curl", "export", "find", "git", "head", "ln", "make", "mkdir", "mv",
    "napari", "pip", "pytest", "python", "rm", "sbatch", "scancel", "scontrol", "snakemake", "squeue", "wget",
}  # fmt: skip
"""What a command in a sentence begins with; every line of a block is a command, whatever it begins with."""
OTHER_BLOCKS = {
    ("README.md", "generate"): "the steps of the method",
    ("README.md", "config.json"): "the tree of results",
    ("README.md", "Makefile"): "the tree of the repository",
    ("label_stores.md", "---"): "what inspect prints",
    ("own_data.md", "data/day/images/*.png"): "a tree of frames",
    ("own_data.md", "data/day/images/00007.png"): "a tree of frames",
    ("submission.md", "test:"): "a line of YAML",
    ("submission.md", "results/EXPERIMENT/seedS/cag/stage3/"): "the tree of a submission",
}
"""Blocks that are indented and hold no command, by their page and first word."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n)(?:    .*\n)+")


def block(page: str, language: str) -> str:
    """The first block of a page of docs/ in a language."""
    found, *_ = (text for name, text in FENCED.findall(read(ROOT / "docs" / page)) if name == language)
    return str(found)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every command once, as it is typed, without the comment behind it."""
    found = [command for page in PAGES for command in (*_of_blocks(page), *_of_sentences(page))]
    for file in sorted((ROOT / "config").glob("*.yaml")):
        found += [_bare(line) for line in re.findall(r"^#   (\S.*)$", read(file), re.MULTILINE)]
    return list(dict.fromkeys(found))


def _of_blocks(page: Path) -> Iterator[str]:
    text = read(page)
    shell = [body for language, body in FENCED.findall(text) if language not in ("python", "yaml")]
    indented = INDENTED.findall(FENCED.sub("", text))
    for body in (*shell, *(body for body in indented if (page.name, body.split()[0]) not in OTHER_BLOCKS)):
        yield from (_bare(line) for line in body.splitlines() if line.strip())


def _of_sentences(page: Path) -> Iterator[str]:
    text = INDENTED.sub("", FENCED.sub("", read(page)))
    for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        words = [word for word in code.split() if not re.match(r"[A-Z_]+=", word)]
        if len(words) > 1 and words[0].rpartition("bin/")[2] in PROGRAMS:
            yield code


def _bare(line: str) -> str:
    return re.sub(r"\s+# .*$", "", line).strip()
