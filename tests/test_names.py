"""What people call their categories, frames and files reaches tables, pictures and terminals as it is, and does nothing."""

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from paper_samples import configuration

from caguda.classes import CITYSCAPES_19, ClassTable
from caguda.cli import main
from caguda.errors import UserError, printable
from caguda.paper.charts import save
from caguda.paper.class_charts import class_chart
from caguda.paper.escapes import in_csv, in_latex, in_markdown
from caguda.paper.figures import Block, side_by_side
from caguda.paper.formats import Line, PrintedTable, Statistic, to_csv, to_html, to_latex, to_markdown
from caguda.pseudo_labels import Rule
from caguda.pseudo_labels.anchor import AnchorRule

NAMES = (r"$\frac{$", "$x$", "a|b", "=1+1", "<script>alert(1)</script>", "^^5c", "_", "50% & #1 {~}", "@cmd", "*a*b*",
         "[x](javascript:y)", "n" * 240, "ä" * 120, "-1", r"\$x\$", "a`b`", "&lt;")  # fmt: skip


def table() -> PrintedTable:
    values = tuple(Statistic(float(place), None) for place in range(len(NAMES)))
    return PrintedTable("T", "N", NAMES, len(NAMES) - 1, (Line("+ row", "measured", values),))


def test_ordinary_names_stay_as_they_are() -> None:
    for name in (*CITYSCAPES_19.names, "traffic_light", "construction--barrier", "Straße 1", "a, b (c)", "mIoU*"):
        assert in_csv(name) == in_markdown(name) == name
    assert all(in_latex(name) == name for name in CITYSCAPES_19.names)


def test_a_cell_of_csv_is_no_formula() -> None:
    head, row = csv.reader(io.StringIO(to_csv(table())))
    assert len(head) == len(row) == 2 + len(NAMES)
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in (*head, *row)) and row[0] == "'+ row"
    assert [cell.removeprefix("'") for cell in head[2:]] == list(NAMES)


def test_markdown_has_as_many_cells_as_names() -> None:
    lines = to_markdown(table()).splitlines()[2:5]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "\\<script>" in lines[0] and "x](" not in lines[0] and r"\*a\*b\*" in lines[0] and "\\$x\\$" in lines[0]


def test_html_shows_tags_as_text() -> None:
    assert "<script>alert" not in to_html(table()) and "&lt;script&gt;alert" in to_html(table())


def test_latex_has_nothing_unescaped() -> None:
    names = [line for line in to_latex(table()).splitlines() if line.startswith(" & origin")]
    assert in_latex(r"$\frac{$") == r"\$\textbackslash{}frac\{\$" and in_latex("^^5c").count("textasciicircum") == 2
    assert names[0].count(" & ") == 1 + len(NAMES) and "^" not in names[0]
    depth = 0
    plain = names[0].replace(r"\{", "").replace(r"\}", "").replace(r"\$", "")
    assert "$" not in plain
    for letter in plain:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("picture", ["classes", "figure"])
def test_pictures_show_names_letter_by_letter(tmp_path: Path, picture: str) -> None:
    count = len(NAMES)
    if picture == "classes":
        from caguda.paper.escapes import in_picture

        names = [in_picture(name) for name in NAMES]
        figure = class_chart(names, np.ones((1, count)), np.eye(count, dtype=np.int64), NAMES[0], NAMES[1])
    else:
        labels = np.arange(count, dtype=np.uint8)[None].repeat(4, 0)
        block = Block("title", ("input",), [{"input": labels}])
        figure = side_by_side([block], ClassTable(NAMES, ((1, 2, 3),) * count, {}))
    save(figure, tmp_path / "a.png", {})
    shown = texts(figure)
    for name in NAMES:
        assert name[:39] in shown, name
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\x00", "a\u2028b", "\x9b", "\r"])
def test_a_category_has_a_plain_name(name: str) -> None:
    classes = [{"id": 0, "name": name, "color": [0, 0, 0]}, {"id": 1, "name": "b", "color": [0, 0, 0]}]
    with pytest.raises(UserError) as error:
        configuration(classes=classes)
    message = str(error.value)
    assert "classes.0" in message and "without control characters" in message and printable(message) == message


class Odd(Rule):
    """A rule whose setting is any text."""

    name = "odd"
    reads = ()
    text: str


@given(text=st.text().filter(lambda text: "\0" not in text))
@example(text="../../thesis")
@example(text="n" * 240)
@example(text="a+b")
def test_the_folder_of_a_rule_is_a_plain_name_whatever_its_values_are(text: str) -> None:
    """And none that has a +, which joins the names of two rules."""
    folder = Odd(text=text).folder
    assert folder.startswith("odd-") and printable(folder) == folder and not set("/+\0") & set(folder)
    assert len(os.fsencode(folder)) <= 250


@given(margin=st.floats(0, 1e6))
@example(margin=1e6)
@example(margin=5e-324)
def test_the_folder_of_a_threshold_is_a_plain_name(margin: float) -> None:
    folder = AnchorRule(margin=margin, unit="absolute").folder
    assert folder.startswith("anchor-") and not set("/+ ") & set(folder) and folder.isascii()


def test_an_error_is_one_line_that_a_terminal_does_not_obey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a\x1b[2Jb\nc\udcff.yaml"
    assert main(["check", "--config", str(path), "--output", str(tmp_path / "manifest.json")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "\x1b" not in error and r"a\x1b[2Jb\nc\udcff.yaml" in error
    error.encode()


def test_the_check_tells_odd_files_in_single_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from miniature import make_miniature

    mini = make_miniature(tmp_path)
    odd = mini.root / "source" / "images" / "a\x1b[2J\nb.png"
    odd.write_bytes(b"no image")
    capsys.readouterr()
    assert main(["check", "--config", str(mini.yaml()), "--output", str(tmp_path / "new" / "manifest.json")]) == 2
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err and told.err.count("\n") == 1 + told.err.count("street:")
    findings = (tmp_path / "new" / "check" / "findings.txt").read_text()
    assert "\x1b" not in findings and all(line.startswith(("problem: ", "warning: ")) for line in findings.splitlines())
    assert os.path.exists(odd)
