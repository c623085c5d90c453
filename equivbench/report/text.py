"""Text that came from records or plug-ins, made safe for a terminal, a Markdown table and a
spreadsheet."""

from __future__ import annotations

import re

_MARKDOWN_ACTIVE = re.compile(r"([\\`*_\[\]<>|~&$#!])")
_FORMULA_STARTS = ("=", "+", "-", "@", "'")


def printable(text: str) -> str:
    """``text`` without control characters, which could drive a terminal or break a line."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def markdown_cell(text: str) -> str:
    """``text`` as literal text in a cell of a Markdown table; :func:`from_markdown_cell` is the
    inverse."""
    return _MARKDOWN_ACTIVE.sub(r"\\\1", printable(text)).strip()


def from_markdown_cell(cell: str) -> str:
    """The text that :func:`markdown_cell` wrote."""
    return re.sub(r"\\(.)", r"\1", cell.strip())


def csv_cell(text: str) -> str:
    """``text`` so that no spreadsheet reads it as a formula (a leading quote);
    :func:`from_csv_cell` is the inverse."""
    clean = printable(text)
    # Spreadsheets skip leading blanks before they look for a formula.
    return f"'{clean}" if clean.lstrip().startswith(_FORMULA_STARTS) else clean


def from_csv_cell(cell: str) -> str:
    """The text that :func:`csv_cell` wrote."""
    return cell.removeprefix("'")
