"""How commands print and end: tables that survive a pipe, JSON, one-line messages on stderr, and
the exit codes with the rule for which one wins."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from equivbench.report.render import to_json, to_plain
from equivbench.report.table import Table
from equivbench.report.terminal import fitted, to_terminal
from equivbench.report.text import printable


class Exit(IntEnum):
    """The exit codes of the command line."""

    DONE = 0
    REGRESSION = 1
    USAGE = 2
    FAILED = 3
    INCOMPARABLE = 4
    INCONCLUSIVE = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    """128 + SIGPIPE, as a shell reports it: the reader went away, so nothing can be said about the
    result."""


PRECEDENCE = (2, 4, 3, 1, 5, 0)


def overall(codes: Iterable[int]) -> int:
    """The code to end with when several apply: the first of 2, 4, 3, 1, 5, 0; none at all is 0."""
    return min(map(Exit, codes), key=PRECEDENCE.index, default=Exit.DONE)


def write_utf8() -> None:
    """Write UTF-8 on stdout and stderr, whatever the locale or PYTHONIOENCODING says: a command
    prints the same text everywhere, and no character of it can end the command.

    What has no UTF-8 form (a byte of a file name that is no text) is written as ``\\udcff``. A
    stream that was closed before the command began takes what is written, and nobody reads it.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def print_json(value: Any) -> None:
    """``value`` (plain objects or msgspec structs) as indented JSON on stdout."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(table: Table, *, json: bool = False) -> None:
    """Print a table on stdout: title, caption, rows and notes.

    A terminal that is too narrow for its columns leaves spare ones out, or makes each row a block;
    in a pipe or a file every row stays one whole line. With ``json`` a list of objects, one a row,
    is printed instead.
    """
    if json:
        print_json(to_json(table))
        return
    for line in (table.title, table.caption):
        if line:
            print_text(line)
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        table = fitted(table, console.width)
        console.print(to_terminal(table, console.width), soft_wrap=True)
    else:
        sys.stdout.write(to_plain(table))
    for note in table.notes:
        print_text(note)


def print_text(text: str) -> None:
    """Print a paragraph on stdout: on a terminal in lines of its width, broken between words and
    indented as it begins; in a pipe or a file as one line."""
    line = printable(text)
    if sys.stdout.isatty():
        indent = " " * (len(line) - len(line.lstrip()))
        line = textwrap.fill(
            line.lstrip(),
            shutil.get_terminal_size().columns,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    sys.stdout.write(f"{line}\n")


def message(kind: str, text: str) -> None:
    """``kind: text`` on stderr, as one line; said to nobody where the terminal is gone."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{kind}: {printable(' '.join(text.split()))}\n")
