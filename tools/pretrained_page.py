"""Writes the table of docs/pretrained.md from the records: ``python tools/pretrained_page.py``."""

from pathlib import Path

from blocks import replaced

from equivbench.report.pretrained import pretrained_table
from equivbench.report.publication import load_pretrained
from equivbench.report.render import to_markdown

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "pretrained.md"


def with_table(page: str, results: Path) -> str:
    """``page`` with the table of the measurements below ``results``."""
    lines = load_pretrained(results)
    table = to_markdown(pretrained_table(lines)) if lines else "Not measured on this machine yet.\n"
    return replaced(page, "table", table)


if __name__ == "__main__":
    text = with_table(PAGE.read_text(encoding="utf-8"), ROOT / "results")
    PAGE.write_text(text, encoding="utf-8")
