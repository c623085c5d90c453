"""The page of the Python interface: its examples give what they say, and no function is missing."""

import doctest
import re
from pathlib import Path

import equivbench

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def test_the_examples_give_what_they_say() -> None:
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert tried > 5
    assert failed == 0


def test_every_public_function_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    functions = [name for name in equivbench.__all__ if name[0].islower()]  # type: ignore[attr-defined]
    assert [name for name in functions if f"equivbench.{name}" not in text] == []


def test_links_of_the_readme_work_on_a_package_page_too() -> None:
    root = PAGE.parents[1]
    links = re.findall(r"\]\(([^)\s]+)\)", (root / "README.md").read_text(encoding="utf-8"))
    assert [link for link in links if not link.startswith("https://")] == []
    here = re.compile(r"https://[\w.]+/equivbench/equivbench/(?:(?:blob|tree)/)?main/(.+)")
    paths = [match[1] for match in map(here.fullmatch, links) if match]
    assert len(paths) > 10
    assert [path for path in paths if not (root / path).exists()] == []
