"""The board in LaTeX: literal text whatever the names, and a file that LaTeX sets where there is
one."""

import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from factories import make_record
from hypothesis import given
from hypothesis import strategies as st
from read_back import from_latex, number_from_latex

from equivbench.report.board import build_boards
from equivbench.report.formats import COLUMNS, TABULARS, to_latex
from equivbench.report.render import latex_cell, latex_text
from equivbench.report.table import Column
from equivbench.report.text import printable

HOSTILE = [
    "\\input{/etc/passwd}",
    "\\write18{id}",
    "100% & more #1 $x_2^3$ {~}",
    "--- ,, '' `` \"",
    "[4cm]",
    "\\\\",
    "Å Ð ø ß 中 😀",
    "a\nb",
]


@given(text=st.text() | st.sampled_from(HOSTILE))
def test_text_is_literal_and_comes_back(text: str) -> None:
    latex = latex_text(text)
    assert from_latex(latex) == printable(text).strip()
    # Nothing is left that LaTeX acts on: taking away what the escapes are made of leaves plain
    # characters.
    bare = re.sub(r"\\[&%$#_{}]|\\[a-z]+(34)?\{\}|[-,]\{\}|\{[\[\]]\}|\{U\+[0-9A-F]+\}", "", latex)
    assert not re.search(r"[\\{}$&#^_~%<>\"'`|\[\]]|--|,,", bare)
    assert latex.isprintable()


@given(value=st.none() | st.integers(-(10**9), 10**9) | st.floats(-1e300, 1e300))
def test_number_keeps_its_digits(value: float | None) -> None:
    back = number_from_latex(latex_cell(value, Column("value", "number", digits=3)))
    if isinstance(value, float):
        # Rounded to three significant digits; the smallest floats have fewer.
        assert back is not None
        assert math.isclose(back, value, rel_tol=0.5 * 10.0**-2 * 1.001, abs_tol=5e-324)
    else:
        assert back == value


def test_the_two_tables_of_a_board_hold_every_column() -> None:
    first, second = map(set, TABULARS)
    assert first | second == {column.name for column in COLUMNS}
    assert first & second == {"rank", "pair", "arm", "kernels", "setup", "day", "commit"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex on this machine")
def test_latex_sets_it(tmp_path: Path) -> None:
    records = [
        make_record(
            arm=name,
            pair=name,
            command=name,
            model={"name": name},
            variant={"forces": name},
            seed=seed,
        )
        for seed, name in enumerate(HOSTILE)
    ]
    (tmp_path / "board.tex").write_text(to_latex(build_boards(records, {"toy": "(eV/A)^2"})))
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{board}\\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 0
