"""The page on pretrained networks agrees with the records and with what is declared."""

from __future__ import annotations

from pathlib import Path

from pretrained_page import PAGE, ROOT, with_table

from equivbench.pretrained.networks import NETWORKS


def test_the_table_is_that_of_the_records() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page, ROOT / "results") == page


def test_a_page_without_measurements_says_so(tmp_path: Path) -> None:
    page = with_table(PAGE.read_text(encoding="utf-8"), tmp_path)
    assert "Not measured on this machine yet." in page


def test_every_family_is_named() -> None:
    said = PAGE.read_text(encoding="utf-8").lower()
    for network in NETWORKS.values():
        name = "sevennet" if network.name.startswith("7net") else network.name.partition("-")[0]
        assert name in said, network.name
