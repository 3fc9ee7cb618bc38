"""Escapes names of categories, runs and files, so that every kind of output shows them letter by letter."""

import re

LONGEST_NAME = 40
"""Letters of a name in a picture; a longer one is cut off. Tables have all letters."""

_MARKDOWN = re.compile(r"[\\|`<$&]|\](?=\()|~(?=~)|(?<!\w)_|_(?!\w)")
_LATEX = {
    "->": r"$\rightarrow$",
    "±": r"$\pm$",
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{letter: f"\\{letter}" for letter in "_%&#${}"},
}
_IN_LATEX = re.compile("|".join(map(re.escape, _LATEX)))


def in_csv(name: str) -> str:
    """A name as a cell of CSV, with `'` before it where a spreadsheet would take it for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def in_markdown(text: str) -> str:
    """Plain text for Markdown, also in a cell of a table."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", text)
    return escaped.replace("*", r"\*") if escaped.count("*") > 1 else escaped


def in_latex(text: str) -> str:
    """Plain text for LaTeX."""
    return _IN_LATEX.sub(lambda match: _LATEX[match[0]], text)


def in_picture(name: str, longest: int = LONGEST_NAME) -> str:
    """A name for a picture, cut to `longest` letters; draw it with `parse_math=False`."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
